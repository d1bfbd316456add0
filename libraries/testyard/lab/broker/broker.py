"""The broker: virtual hosts, their users and queues, and the sessions of connected clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from testyard.lab.broker.frames import check_header
from testyard.lab.broker.queues import MessageQueue, PublishOutcome


class QueueNotFoundError(LookupError):
    """There is no such queue."""

    def __init__(self, vhost: str, queue: str) -> None:
        super().__init__(f"no queue {queue!r} in vhost {vhost!r}")


class Access(Enum):
    """The answer to a login."""

    GRANTED = auto()
    NO_VHOST = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class ConnectionSnapshot:
    """A connected client at one moment.

    Args:
        id: The session's id, as in its CONNECTED frame.
        vhost: The virtual host it is connected to.
        login: Who logged in.
        subscriptions: Name of the queue by subscription id.
        connected_at: When it was let in (UTC).
        frames_sent: Frames handed to the transport, heart-beats not counted.
        frames_received: Frames received, heart-beats not counted.
        last_heart_beat: When it was last heard of (UTC); any octet counts (STOMP 1.2, "Heart-beating").
    """

    id: str
    vhost: str
    login: str
    subscriptions: Mapping[str, str]
    connected_at: datetime
    frames_sent: int
    frames_received: int
    last_heart_beat: datetime


class Connection(Protocol):
    """What the broker needs of a session."""

    @property
    def vhost(self) -> str | None:
        """The virtual host; nothing before the client has logged in."""

    def snapshot(self) -> ConnectionSnapshot | None:
        """The session now; nothing unless it is logged in and not closing."""

    def cut(self) -> None:
        """End it without a word; what was not delivered returns to its queues at once."""

    def user_removed(self, login: str) -> None:
        """End it with an ERROR when it belongs to this user."""

    def resume(self) -> None:
        """Silence is over: send what waited."""


@dataclass(slots=True)
class _VirtualHost:
    users: dict[str, Callable[[str], bool]] = field(default_factory=dict)
    queues: dict[str, MessageQueue] = field(default_factory=dict)


class Broker:
    """A STOMP 1.2 broker without its network side (see ``websocket_routes``).

    Every method must be called on the thread of the event loop that serves the connections.

    Delivery: with ``ack:auto`` a message leaves its queue when the transport has accepted it for writing. What the
    transport has accepted but the client has not read when the connection breaks is lost, as the STOMP
    specification allows; everything before that (waiting in the session, or written to a connection already known
    to be closed) returns to the queue. With ``ack:client`` and ``ack:client-individual`` nothing is lost: a
    message returns to its place in the queue on NACK (RabbitMQ's default; ``requeue:false`` discards it) and at
    the end of its connection, and is delivered again with ``redelivered:true``.

    Args:
        server_heart_beat: How often the broker can send heart-beats, and wants to receive them; zero: never.
        max_queue_length: Messages that one queue holds at most; more are rejected and counted.

    Example:
        >>> broker = Broker()
        >>> broker.declare_queue("/", "orders")
        >>> broker.publish("/", "orders", "{}", {"content-type": "application/json"})
        <PublishOutcome.QUEUED: 'queued'>
    """

    def __init__(
        self, *, server_heart_beat: timedelta = timedelta(seconds=10), max_queue_length: int = 10_000
    ) -> None:
        self.server_heart_beat = server_heart_beat
        self._max_queue_length = max_queue_length
        self._vhosts: dict[str, _VirtualHost] = {}
        self._connections: dict[Connection, None] = {}
        self._silent = False

    def set_user(self, vhost: str, login: str, check_passcode: Callable[[str], bool]) -> None:
        """Let a user log in to a virtual host, which is created when new.

        Args:
            vhost: What clients send as ``host``.
            login: What clients send as ``login``.
            check_passcode: Says whether a passcode is right; asked at every CONNECT.
        """
        self._vhosts.setdefault(vhost, _VirtualHost()).users[login] = check_passcode

    def remove_user(self, vhost: str, login: str) -> None:
        """Let a user log in no longer; its sessions end with an ERROR (RabbitMQ closes them too)."""
        host = self._vhosts.get(vhost)
        if host is None or host.users.pop(login, None) is None:
            return
        for connection in self._connections_to(vhost):
            connection.user_removed(login)

    def authenticate(self, vhost: str, login: str, passcode: str) -> Access:
        """Answer a CONNECT."""
        host = self._vhosts.get(vhost)
        if host is None:
            return Access.NO_VHOST
        check_passcode = host.users.get(login)
        if check_passcode is None or not check_passcode(passcode):
            return Access.REFUSED
        return Access.GRANTED

    def declare_queue(self, vhost: str, name: str) -> None:
        """Create a queue unless it exists; it lives until ``delete_queue``."""
        self.queue(vhost, name, create=True)

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with its messages; subscribed sessions get an ERROR, as RabbitMQ cancels consumers."""
        host = self._vhosts.get(vhost)
        queue = host.queues.pop(name, None) if host else None
        if queue is not None:
            queue.delete()

    def queue(self, vhost: str, name: str, *, create: bool = False) -> MessageQueue:
        """A queue by name.

        Args:
            vhost: The virtual host.
            name: The queue's name, without ``/queue/``.
            create: Create what is missing.

        Raises:
            QueueNotFoundError: It does not exist and is not to be created.
        """
        if create:
            host = self._vhosts.setdefault(vhost, _VirtualHost())
            return host.queues.setdefault(name, MessageQueue(name, self._max_queue_length))
        try:
            return self._vhosts[vhost].queues[name]
        except KeyError:
            raise QueueNotFoundError(vhost, name) from None

    def publish(self, vhost: str, queue: str, body: str, headers: Mapping[str, str]) -> PublishOutcome:
        """Put a message into a queue.

        Args:
            vhost: The virtual host.
            queue: The queue's name, without ``/queue/``; it must exist.
            body: The text, sent as UTF-8.
            headers: Passed on to the consumer, such as ``content-type`` and ``persistent``.

        Returns:
            What became of the message.

        Raises:
            ValueError: A header that no STOMP frame can carry.
        """
        for name, value in headers.items():
            check_header(name, value)
        try:
            return self.queue(vhost, queue).publish(body.encode(), dict(headers))
        except QueueNotFoundError:
            return PublishOutcome.NO_QUEUE

    def queue_depth(self, vhost: str, queue: str) -> int:
        """Messages that a queue holds: waiting, and delivered but not yet acknowledged.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        return self.queue(vhost, queue).depth

    def rejected_count(self, vhost: str, queue: str) -> int:
        """Messages that a queue refused because it was full.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        return self.queue(vhost, queue).rejected

    def connections(self) -> list[ConnectionSnapshot]:
        """The clients that are logged in, oldest first."""
        return [snapshot for each in self._connections if (snapshot := each.snapshot())]

    def drop_connections(self, vhost: str | None = None) -> int:
        """Cut TCP connections: no ERROR frame, no WebSocket close.

        Args:
            vhost: Cut the sessions of this virtual host only; else all, also those not logged in yet.

        Returns:
            How many were cut.
        """
        dropped = tuple(self._connections) if vhost is None else self._connections_to(vhost)
        for connection in dropped:
            connection.cut()
        return len(dropped)

    @property
    def silent_heart_beats(self) -> bool:
        """Whether logged-in sessions get nothing at all, neither heart-beats nor frames.

        Connections stay open, messages stay in their queues, and a client that connects anew gets its CONNECTED
        frame and nothing after it. Switched off, everything that waited is sent.

        stomp.py leaves the TCP connection of its heart-beat timeout half open. The broker takes it for a consumer
        until its heart-beats have been missing for two intervals; wait for that (``connections``) before
        publishing, or the dead connection gets its share.
        """
        return self._silent

    @silent_heart_beats.setter
    def silent_heart_beats(self, silent: bool) -> None:
        self._silent = silent
        if not silent:
            for connection in tuple(self._connections):
                connection.resume()

    def attach(self, connection: Connection) -> None:
        """A client has connected."""
        self._connections[connection] = None

    def detach(self, connection: Connection) -> None:
        """A client's connection has ended."""
        self._connections.pop(connection, None)

    def _connections_to(self, vhost: str) -> tuple[Connection, ...]:
        return tuple(each for each in self._connections if each.vhost == vhost)
