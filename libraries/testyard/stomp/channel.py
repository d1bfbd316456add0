"""A named STOMP connection whose events are captured."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
import stomp
from stomp.exception import StompException
from websocket import WebSocketException

from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import UserError
from testyard.core.journal import Journal
from testyard.core.json_client import trusted_certificates
from testyard.core.redact import mask_log_records, secrets_in_use
from testyard.stomp.capture import EventCapture
from testyard.stomp.connection_watch import ConnectionWatch

LISTENER_NAME = "testyard-capture"


class Channel:
    """One STOMP connection and what arrived over it; when it is lost, the one that the client makes instead.

    Args:
        name: How suites call it: ``source``, ``target``.
        capture: What arrived.
        connection: The stomp.py connection.
        queue: The queue it drains.
        object_types: What its queue receives, as the server said; empty when unknown.
        lent: Whether somebody else, such as the site agent, opened the connection and closes it.
    """

    def __init__(
        self,
        name: str,
        capture: EventCapture,
        connection: Any = None,
        queue: str = "",
        object_types: tuple[str, ...] = (),
        *,
        lent: bool = False,
    ) -> None:
        self.name = name
        self.capture = capture
        self.queue = queue
        self.object_types = object_types
        self.lent = lent
        self._watch: ConnectionWatch | None = None
        self.connection = connection

    def __repr__(self) -> str:
        return f"Channel({self.name!r}, queue={self.queue!r}, lent={self.lent})"

    @property
    def connection(self) -> Any:
        """The stomp.py connection, which is watched from when it is set; nothing before."""
        return self._connection

    @connection.setter
    def connection(self, connection: Any) -> None:
        self._connection = connection
        self._watch = None if connection is None else ConnectionWatch(connection, lambda: self.is_connected)

    @property
    def is_connected(self) -> bool:
        """Whether the client believes to be connected."""
        return bool(self.connection is not None and self.connection.is_connected())

    @property
    def losses(self) -> int:
        """How often the client has lost its connection, also when it had another one at once."""
        return self._watch.losses if self._watch else 0

    def wait_until_connected(self, deadline: Deadline) -> int:
        """Wait until the connection is open and nothing of an earlier one is left, which would take it along.

        Returns:
            The number of the connection, for ``wait_until_disconnected``.

        Raises:
            NotMetError: Not so in time.
        """

        number = 0

        def connected() -> bool:
            nonlocal number
            number = self.losses
            # What is left may close the connection as it goes, so the connection is looked at afterwards.
            alone = self._watch is None or not self._watch.has_leftovers
            return alone and self.is_connected and self.losses == number

        wait_until(connected, bool, deadline, f"{self.name} to be connected")
        return number

    def wait_until_disconnected(self, deadline: Deadline, connection: int | None = None) -> None:
        """Wait until the client has noticed that its connection is gone, even if it has another one by now.

        Args:
            deadline: Gives up after this.
            connection: Its number, from ``wait_until_connected``; the present one when not given.

        Raises:
            NotMetError: Not so in time.
        """
        number = self.losses if connection is None else connection
        wait_until(
            lambda: self.is_connected and self.losses == number,
            operator.not_,
            deadline,
            f"{self.name} to be disconnected",
        )

    def lost(self, published: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What was published for this channel's queue and has not arrived.

        Args:
            published: Each with ``body`` and ``queues``, as the server tells it.

        Returns:
            The bodies that are missing; one that was published twice must have arrived twice.
        """
        missing = [event["body"] for event in published if self.queue in event["queues"]]
        for event in self.capture.events:
            if event.body in missing:
                missing.remove(event.body)
        return missing

    def handler(self) -> Callable[..., None]:
        """A message handler for the agent's listener that captures and does nothing else.

        It takes whatever the agent passes after the frame: three arguments up to agent 1.0.4, four since.
        """

        def handle(frame: Any, *_: object) -> None:
            self.capture.add(frame.body, frame.headers)

        return handle

    def wrapping(self, handler: Callable[..., None]) -> Callable[..., None]:
        """A message handler that captures, then calls the agent's own; what that raises is not hidden."""

        def handle(frame: Any, *others: object) -> None:
            self.capture.add(frame.body, frame.headers)
            handler(frame, *others)

        return handle

    def close(self) -> None:
        """Disconnect, when connected and not lent."""
        if self.is_connected and not self.lent:
            with suppress(StompException, WebSocketException, OSError):  # the server may be just closing it
                self.connection.disconnect()


def open_channel(
    name: str,
    journal: Journal,
    *,
    host: str,
    port: int,
    path: str,
    vhost: str,
    login: str,
    passcode: str,
    queue: str,
    use_tls: bool,
    within: timedelta,
    heart_beat: timedelta = timedelta(seconds=10),
) -> Channel:
    """Connect to a queue of one's own over STOMP-over-WebSocket and capture what arrives.

    Args:
        name: How the connection is called.
        journal: Also receives every event.
        host: The server.
        port: Its TCP port.
        path: The WebSocket's path, such as ``/rmqws-stomp``.
        vhost: The virtual host: on Waldur, the owning user's UUID.
        login: On Waldur, what registering the queue returned as ``rmq_username``.
        passcode: On Waldur, the user's API token.
        queue: The queue's name; it must exist.
        use_tls: Whether to dial ``wss``.
        within: Give up after this time.
        heart_beat: Interval asked for, both ways.

    Raises:
        UserError: Nothing answers, or the credentials are refused.
    """
    secrets_in_use.add(passcode)
    mask_log_records()
    milliseconds = int(heart_beat.total_seconds() * 1000)
    connection = stomp.WSStompConnection(
        [(host, port)],
        ws_path=path,
        vhost=vhost,
        reconnect_attempts_max=1,
        heartbeats=(milliseconds, milliseconds),
        timeout=within.total_seconds(),
    )
    if use_tls:
        connection.set_ssl(for_hosts=[(host, port)])
    channel = Channel(name, EventCapture(name, journal), connection, queue)
    listener = _Listener(channel)
    connection.set_listener(LISTENER_NAME, listener)
    try:
        connection.connect(login, passcode, wait=True, headers={"accept-version": "1.2"})
    except (StompException, OSError) as problem:
        scheme = "https" if use_tls else "http"
        reason = listener.error or str(problem) or _why_not(f"{scheme}://{host}:{port}{path}", within)
        message = (
            f"STOMP connection {name} to {host}:{port}{path} failed within {seconds(within)}: "
            f"{secrets_in_use.mask(reason)}"
        )
        raise UserError(message) from None
    return channel


def _why_not(url: str, within: timedelta) -> str:
    """What a plain GET says where the STOMP client only failed: it does not tell why."""
    try:
        answer = httpx.get(url, timeout=within.total_seconds(), verify=trusted_certificates())
    except httpx.RequestError as problem:
        return str(problem) or type(problem).__name__
    return f"the endpoint answers HTTP {answer.status_code} to a plain GET, expected 426"


class _Listener(stomp.ConnectionListener):  # type: ignore[misc] # stomp.py has no type hints
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.error = ""

    def on_connected(self, _frame: Any) -> None:
        # On every connect, not only the first: stomp.py does not subscribe again by itself.
        self._channel.connection.subscribe(
            destination=f"/amq/queue/{self._channel.queue}", id=self._channel.queue, ack="auto"
        )

    def on_message(self, frame: Any) -> None:
        self._channel.capture.add(frame.body, frame.headers)

    def on_error(self, frame: Any) -> None:
        self.error = f"{frame.headers.get('message', '')} {frame.body}".strip()
