"""Drives the real Waldur site agent in this process.

The agent is the PyPI package as it is. Only these things around it are adjusted: its logging (it replaces every
handler of the process), its liveness file (shared by all agents of a machine), when its client's models and the
trusted certificates are loaded (to start in one second instead of three), and, where a caller asks for it and the
log then says so, the pace of its own waits.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import NotMetError, UserError
from testyard.core.journal import Journal
from testyard.core.json_client import trusted_certificates
from testyard.waldur.agent_modules import agent_modules
from testyard.waldur.calls import Call, CallRecorder
from testyard.waldur.liveness import liveness_file
from testyard.waldur.states import Side

DISTRIBUTION = "waldur-site-agent"
USER_AGENT_SUFFIX = "testyard"
TARGET_PREFIX = "Target: "
AGENT_LOGGERS = ("waldur_site_agent", "waldur_site_agent_waldur")

# frame, offering, user agent and, since agent 1.0.5, whether to expose error details
FrameHandler = Callable[..., None]


@dataclass(frozen=True)
class Pace:
    """How long the agent's own waits last.

    Attributes:
        retry_delay: Between two attempts at one order; the agent's own is 5 s, ten attempts.
        heart_beat: Of its STOMP connections; the agent's own is 10 s.
    """

    retry_delay: timedelta | None = None
    heart_beat: timedelta | None = None

    def __str__(self) -> str:
        changes = []
        if self.retry_delay is not None:
            changes.append(f"retry delay {seconds(self.retry_delay)} instead of 5 s")
        if self.heart_beat is not None:
            changes.append(f"STOMP heart-beat {seconds(self.heart_beat)} instead of 10 s")
        return "the agent's own pace" if not changes else "shortened for the lab: " + ", ".join(changes)


@dataclass(frozen=True)
class Subscription:
    """One STOMP connection of the agent.

    Attributes:
        side: The Waldur whose events it carries.
        connection: The stomp.py connection.
        queue: The queue's name.
        vhost: The virtual host: the owning user's UUID.
        object_types: What the queue receives.
    """

    side: Side
    connection: Any
    queue: str
    vhost: str
    object_types: tuple[str, ...]


class SiteAgent:
    """The real agent for one offering of a configuration file.

    Args:
        configuration: The agent's YAML file; check it with ``load_configuration`` of this package first.
        journal: Receives the agent's REST calls and its warnings and errors.
        pace: Shortens the agent's own waits; only for a lab.

    Raises:
        UserError: The agent refused the configuration.
    """

    def __init__(self, configuration: Path, journal: Journal, pace: Pace = Pace()) -> None:
        self.modules = agent_modules()
        self._journal = journal
        self._calls = CallRecorder(journal)
        self._started = journal.mark()
        self._log = _AgentLog(journal)
        self._subscriptions: list[Subscription] = []
        self._clients: list[httpx.Client] = []
        self.pace = pace
        with _logging_kept():
            try:
                self.configuration = self.modules.utils.load_configuration(
                    str(configuration), user_agent_suffix=USER_AGENT_SUFFIX
                )
            except ValueError as problem:
                message = f"The agent refuses {configuration}: {problem}"
                raise UserError(message) from None
        self._log.install()
        self._forget_clients = self._watch_clients()
        self.offering = self.configuration.waldur_offerings[0]
        self.backend, _ = self.modules.utils.get_backend_for_offering(self.offering, "order_processing_backend")
        self.client = self.modules.utils.get_client_for_offering(
            self.offering, self.configuration.waldur_user_agent
        )
        self.processor: Any = None

    @property
    def version(self) -> str:
        """The agent's version, as installed."""
        return version(DISTRIBUTION)

    def start(self) -> None:
        """Initialise the order processor: the agent finds its user, offering and service provider (FED-1)."""
        with self._at_pace():
            self.processor = self.modules.processors.OfferingOrderProcessor(
                self.offering,
                self.client,
                timezone=self.configuration.timezone,
                resource_backend=self.backend,
            )

    def run_cycle(self) -> list[Call]:
        """Let the agent look for orders and process them, once.

        Returns:
            The REST calls it made, oldest first.
        """
        if self.processor is None:
            self.start()
        with self.working() as calls:
            self.processor.process_offering()
        return calls

    @contextmanager
    def working(self) -> Iterator[list[Call]]:
        """What the agent does inside the ``with`` block is at the chosen pace; gives the REST calls it makes."""
        with self._at_pace(), self._calls.collecting() as calls:
            yield calls

    def calls(self, since: int = 0) -> list[Call]:
        """The REST calls this agent made, after a mark of the journal."""
        return self._calls.calls(max(since, self._started))

    def subscribe(
        self,
        on_source_event: FrameHandler,
        on_target_event: Callable[[FrameHandler], FrameHandler],
        deadline: Deadline,
    ) -> list[Subscription]:
        """Open the agent's STOMP connections as its ``event_process`` mode does.

        The caller checks first that the endpoints exist: the agent would dial a missing one for ever.

        Args:
            on_source_event: Replaces the agent's handler of source events (document 000, MessageCapture).
            on_target_event: Wraps the agent's own handler of target events.
            deadline: Gives up after this.

        Returns:
            The source subscription, then the target's when the configuration enables it.

        Raises:
            NotMetError: Not connected in time, or the agent could not register its queue.
        """
        consumers: list[Any] = []

        def connect() -> None:
            consumers.extend(
                self.modules.event_utils.setup_stomp_offering_subscriptions(
                    self.offering, self.configuration.waldur_user_agent
                )
            )

        with self._at_pace():
            # In a thread of its own because the agent retries without end when nobody answers.
            thread = threading.Thread(target=connect, name="agent-subscribe", daemon=True)
            thread.start()
            thread.join(deadline.remaining.total_seconds())
        if thread.is_alive():
            message = f"The agent did not connect to STOMP within {seconds(deadline.within)}; it is still trying."
            raise NotMetError(message)
        for connection, queue, offering in consumers:
            side = Side.B if offering.name.startswith(TARGET_PREFIX) else Side.A
            listener = connection.get_listener(self.modules.subscriptions.WALDUR_LISTENER_NAME)
            original = listener.on_message_callback
            listener.on_message_callback = on_source_event if side is Side.A else on_target_event(original)
            self._subscriptions.append(
                Subscription(side, connection, queue.queue_name, queue.vhost, tuple(queue.observable_object_types))
            )
        if not any(subscription.side is Side.A for subscription in self._subscriptions):
            message = f"The agent has no STOMP connection to Waldur A. It said: {self.last_complaint()}"
            raise NotMetError(message)
        return list(self._subscriptions)

    def adopt(self, subscription: Subscription) -> None:
        """Close a connection that was made with the agent's classes together with the agent's own."""
        self._subscriptions.append(subscription)

    def complaints(self, since: int = 0) -> list[str]:
        """The agent's warnings and errors after a mark of the journal, from any of its threads."""
        return [entry.subject for entry in self._journal.entries(since=since, source="agent", kind="log")]

    def last_complaint(self) -> str:
        """The first line of the agent's newest warning or error."""
        return (self.complaints() or ["nothing"])[-1].partition("\n")[0]

    def close(self) -> None:
        """Disconnect from STOMP and REST; the agent's queues stay, as they do for a real agent."""
        while self._subscriptions:
            connection = self._subscriptions.pop().connection
            # Without its listener the agent does not reconnect.
            connection.remove_listener(self.modules.subscriptions.WALDUR_LISTENER_NAME)
            with suppress(*self.modules.stomp_problems):  # it may be just breaking, or closed by the server
                connection.disconnect()
        self._forget_clients()
        while self._clients:
            self._clients.pop().close()
        self._log.uninstall()

    def _watch_clients(self) -> Callable[[], None]:
        """Record the calls of every client the agent makes from now on; returns what ends that."""
        client_class = self.modules.client_class
        original = client_class.get_httpx_client

        def get_httpx_client(client: Any) -> Any:
            is_new = client._client is None
            if is_new and client._verify_ssl is True:
                client._verify_ssl = trusted_certificates()  # the same, loaded once instead of by each client
            http = original(client)
            if is_new:
                self._clients.append(http)
                on_a = same_address(str(http.base_url), self.offering.api_url)
                self._calls.watch(http, Side.A if on_a else Side.B)
            return http

        client_class.get_httpx_client = get_httpx_client

        def forget() -> None:
            client_class.get_httpx_client = original

        return forget

    @contextmanager
    def _at_pace(self) -> Iterator[None]:
        processors, subscriptions = self.modules.processors, self.modules.subscriptions
        kept = processors.sleep, subscriptions.stomp
        retry_delay, heart_beat = self.pace.retry_delay, self.pace.heart_beat
        if retry_delay is not None:
            processors.sleep = lambda _delay: kept[0](retry_delay.total_seconds())
        if heart_beat is not None:
            subscriptions.stomp = _stomp_with_heart_beat(kept[1], heart_beat)
        try:
            with liveness_file(os.devnull):
                yield
        finally:
            processors.sleep, subscriptions.stomp = kept


class _AgentLog(logging.Handler):
    """Receives what the agent logs: warnings go to the journal, from any thread, and everything to one logger
    below the run's own, one level lower: the agent's warnings are what tests provoke, not the run's warnings.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self._logger = logging.getLogger("testyard.agent")
        self._kept: list[tuple[logging.Logger, bool]] = []

    def install(self) -> None:
        """Take over the agent's loggers."""
        for name in AGENT_LOGGERS:
            logger = logging.getLogger(name)
            self._kept.append((logger, logger.propagate))
            logger.propagate = False
            logger.addHandler(self)

    def uninstall(self) -> None:
        """Give the agent's loggers back."""
        for logger, propagate in self._kept:
            logger.propagate = propagate
            logger.removeHandler(self)
        self._kept.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep and forward one record."""
        text = event_text(record)
        problem = record.exc_info[1] if record.exc_info else None
        if problem is not None and str(problem) not in text:
            text = f"{text} ({type(problem).__name__}: {problem})"
        if record.levelno >= logging.WARNING:
            self._journal.append("agent", "log", text, level=record.levelname)
        level = logging.INFO if record.levelno >= logging.WARNING else logging.DEBUG
        self._logger.log(level, "agent %s: %s", record.levelname, text)


def event_text(record: logging.LogRecord) -> str:
    """What a log record says: structlog hands over its event as a mapping."""
    if isinstance(record.msg, dict):
        return str(record.msg.get("event", record.msg))
    return record.getMessage()


def same_address(one: str, other: str) -> bool:
    """Whether two URLs name the same host and port."""
    left, right = httpx.URL(one), httpx.URL(other)
    return (left.host, left.port) == (right.host, right.port)


def _stomp_with_heart_beat(stomp: Any, heart_beat: timedelta) -> SimpleNamespace:
    milliseconds = int(heart_beat.total_seconds() * 1000)

    def connection(*arguments: Any, **options: Any) -> Any:
        return stomp.WSStompConnection(*arguments, **{**options, "heartbeats": (milliseconds, milliseconds)})

    return SimpleNamespace(WSStompConnection=connection)


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Give back what the agent's own logging set-up takes away: every handler of the process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in list(root.handlers):
            if handler not in handlers:
                root.removeHandler(handler)
        for handler in handlers:
            if handler not in root.handlers:
                root.addHandler(handler)
        root.setLevel(level)
