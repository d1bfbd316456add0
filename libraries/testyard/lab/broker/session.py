"""One client's session: the server side of the STOMP 1.2 protocol, without I/O."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from testyard.lab.broker.broker import Access, Broker, ConnectionSnapshot, QueueNotFoundError
from testyard.lab.broker.destinations import Destination, parse_destination
from testyard.lab.broker.errors import ProtocolError
from testyard.lab.broker.frames import END_OF_LINE, Command, Frame, FrameParser
from testyard.lab.broker.outbox import Outbox, Outgoing
from testyard.lab.broker.queues import Message, MessageQueue
from testyard.lab.broker.subscriptions import AckMode, Deliveries, Progress, Subscription, Verdict
from testyard.lab.broker.transactions import Acknowledgement, Action, Send, Transactions, perform

VERSION = "1.2"
SERVER = "testyard-broker"
LOGIN_TIMEOUT = timedelta(seconds=10)
"""A client that has not logged in by then is disconnected (RabbitMQ's ``login_timeout``)."""
CLOSE_TIMEOUT = timedelta(seconds=10)
"""A client that does not read its last frames in this time is cut."""
SILENCE_TOLERANCE = 2
"""Heart-beat intervals of silence after which a client counts as dead (the specification leaves it to us)."""

_HEART_BEAT = re.compile(r"([0-9]{1,9}),([0-9]{1,9})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NOT_PASSED_ON = frozenset({"destination", "receipt", "transaction", "content-length"})
_logger = logging.getLogger(__name__)


class Transport(Protocol):
    """The connection that carries a session."""

    def wake(self) -> None:
        """There is something to send, or the session has ended."""

    def reschedule(self) -> None:
        """The next timer may be due earlier than it was."""

    def abort(self) -> None:
        """Cut the connection."""


class SessionState(Enum):
    """How far a session has come."""

    OPENED = auto()
    """The client has not logged in yet."""
    CONNECTED = auto()
    CLOSING = auto()
    """Nothing is read any more; the last frames are being sent."""
    CLOSED = auto()


class Session:
    """One client's session.

    The transport feeds it with ``receive``, sends what ``take_outgoing`` gives and confirms with ``handed_over``,
    calls ``check_timers`` after ``next_timer`` seconds, closes when ``finished``, and reports the connection's end
    with ``lost``.

    Args:
        broker: Where the queues are.
        transport: The connection.
        clock: Monotonic seconds.
    """

    def __init__(
        self, broker: Broker, transport: Transport, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._broker = broker
        self._transport = transport
        self._clock = clock
        self._id = f"session-{secrets.token_urlsafe(16)}"
        self._state = SessionState.OPENED
        self._entered = clock()
        self._established = False
        self._vhost = ""
        self._login = ""
        self._connected_at = datetime.now(UTC)
        self._parser = FrameParser()
        self._outbox = Outbox()
        self._subscriptions: dict[str, Subscription] = {}
        self._deliveries = Deliveries(self._id)
        self._transactions = Transactions()
        self._rounds = 0
        self._frames_sent = 0
        self._frames_received = 0
        self._last_sent = self._last_received = self._entered
        self._send_every: float | None = None
        self._expect_every: float | None = None
        self._handlers: dict[str, Callable[[Frame], None]] = {
            Command.SEND: self._send,
            Command.SUBSCRIBE: self._subscribe,
            Command.UNSUBSCRIBE: self._unsubscribe,
            Command.ACK: self._acknowledge,
            Command.NACK: self._acknowledge,
            Command.BEGIN: self._begin,
            Command.COMMIT: self._commit,
            Command.ABORT: self._abort,
            Command.DISCONNECT: self._disconnect,
        }
        broker.attach(self)

    # ---- what the transport calls

    @property
    def finished(self) -> bool:
        """Whether the connection can be closed: the session has ended and everything is sent."""
        closing = self._state is SessionState.CLOSING and not self._outbox
        return closing or self._state is SessionState.CLOSED

    def receive(self, data: bytes) -> None:
        """Handle octets from the client: parts of frames, several frames, or heart-beats."""
        if self._state not in {SessionState.OPENED, SessionState.CONNECTED}:
            return
        self._last_received = self._clock()
        self._parser.feed(data)
        while self._state in {SessionState.OPENED, SessionState.CONNECTED}:
            try:
                frame = self._parser.next_frame()
            except ProtocolError as error:
                self._fail(error)
                return
            if frame is None:
                return
            self._frames_received += 1
            try:
                self._handle(frame)
            except ProtocolError as error:
                receipt = frame.headers.get("receipt")
                self._fail(error, **({} if receipt is None else {"receipt-id": receipt}))

    def take_outgoing(self) -> Outgoing | None:
        """What to send next; nothing while there is nothing or silence is imposed."""
        if not self._outbox or (self._established and self._broker.silent_heart_beats):
            return None
        outgoing = self._outbox.take()
        self._established = self._established or self._state is SessionState.CONNECTED
        if outgoing.delivery is not None:
            outgoing.delivery.progress = Progress.STARTED
        return outgoing

    def handed_over(self, outgoing: Outgoing) -> None:
        """The transport has accepted what ``take_outgoing`` gave."""
        self._last_sent = self._clock()
        self._frames_sent += outgoing.is_frame
        delivery = outgoing.delivery
        # Before settling, which makes the same queue hand out more and so leaves no room for the others.
        self._resume_deliveries()
        if delivery is not None and delivery in self._deliveries and delivery.in_acceptance:
            self._deliveries.settle([delivery], Verdict.ACCEPTED)

    def next_timer(self) -> float | None:
        """Seconds until ``check_timers`` has something to do; nothing when no timer runs."""
        due = [time for time, _ in self._timers()]
        return max(0.0, min(due) - self._clock()) if due else None

    def check_timers(self) -> None:
        """Do what is due: send a heart-beat, close a silent or slow client's connection."""
        now = self._clock()
        for due, action in self._timers():
            if due <= now:
                action()

    def lost(self) -> None:
        """The connection has ended; what was not delivered returns to the queues."""
        if self._state is SessionState.CLOSED:
            return
        self._enter(SessionState.CLOSED)
        self._broker.detach(self)
        self._release()
        self._deliveries.settle(list(self._deliveries), Verdict.REQUEUED)
        self._outbox.clear()

    # ---- what the broker calls

    @property
    def vhost(self) -> str | None:
        """The virtual host; nothing before the client has logged in."""
        return None if self._state is SessionState.OPENED else self._vhost

    def snapshot(self) -> ConnectionSnapshot | None:
        """The session now; nothing unless it is logged in and not closing."""
        if self._state is not SessionState.CONNECTED:
            return None
        silence = timedelta(seconds=self._clock() - self._last_received)
        return ConnectionSnapshot(
            id=self._id,
            vhost=self._vhost,
            login=self._login,
            subscriptions={name: each.queue.name for name, each in self._subscriptions.items()},
            connected_at=self._connected_at,
            frames_sent=self._frames_sent,
            frames_received=self._frames_received,
            last_heart_beat=datetime.now(UTC) - silence,
        )

    def cut(self) -> None:
        """End the session without a word."""
        self._transport.abort()
        self.lost()

    def user_removed(self, login: str) -> None:
        """End the session with an ERROR when it belongs to this user."""
        if self._state is SessionState.CONNECTED and self._login == login:
            self._fail(ProtocolError("Connection closed", f"User '{login}' has been deleted.\n"))

    def resume(self) -> None:
        """Silence is over: send what waited."""
        self._transport.wake()
        self._resume_deliveries()

    # ---- frames

    def _handle(self, frame: Frame) -> None:
        if frame.body and frame.command != Command.SEND:
            raise ProtocolError("Unexpected body", f"{frame.command} must not have a body.\n")
        if frame.command in {Command.CONNECT, Command.STOMP}:
            self._connect(frame)
            return
        handler = self._handlers.get(frame.command)
        if handler is None:
            raise ProtocolError("Bad command", f'Could not interpret command "{frame.command}"\n')
        if self._state is SessionState.OPENED:
            raise ProtocolError("Illegal command", "You must log in using CONNECT first\n")
        handler(frame)
        receipt = frame.headers.get("receipt")
        if receipt is not None:
            self._put(Frame(Command.RECEIPT, {"receipt-id": receipt}))
        if frame.command == Command.DISCONNECT:
            self._enter(SessionState.CLOSING)

    def _connect(self, frame: Frame) -> None:
        if self._state is SessionState.CONNECTED:
            raise ProtocolError("Illegal command", "The session is connected already.\n")
        versions = frame.headers.get("accept-version", "1.0")
        if VERSION not in {version.strip() for version in versions.split(",")}:
            raise ProtocolError("Version mismatch", f"Supported versions are {VERSION}\n")
        vhost = _required(frame, "host")
        login = frame.headers.get("login", "")
        heart_beat = _HEART_BEAT.fullmatch(frame.headers.get("heart-beat", "0,0"))
        if heart_beat is None:
            raise ProtocolError("Invalid header", "heart-beat must be two numbers of milliseconds.\n")
        access = self._broker.authenticate(vhost, login, frame.headers.get("passcode", ""))
        if access is Access.NO_VHOST:
            raise ProtocolError("Bad CONNECT", f"Virtual host '{vhost}' access denied\n")
        if access is Access.REFUSED:
            raise ProtocolError("Bad CONNECT", f"Access refused for user '{login}'\n")
        ours = self._broker.server_heart_beat // timedelta(milliseconds=1)
        self._expect_every = _negotiate(int(heart_beat[1]), ours)
        self._send_every = _negotiate(ours, int(heart_beat[2]))
        self._vhost, self._login = vhost, login
        self._connected_at = datetime.now(UTC)
        self._last_sent = self._clock()
        self._enter(SessionState.CONNECTED)
        headers = {
            "version": VERSION,
            "heart-beat": f"{ours},{ours}",
            "session": self._id,
            "server": SERVER,
        }
        self._put(Frame(Command.CONNECTED, headers))

    def _send(self, frame: Frame) -> None:
        destination = parse_destination(_required(frame, "destination"))
        self._find_queue(destination)
        headers = {name: value for name, value in frame.headers.items() if name not in _NOT_PASSED_ON}
        self._act(frame, Send(destination, frame.body, headers))

    def _acknowledge(self, frame: Frame) -> None:
        identifier = _required(frame, "id")
        self._deliveries.affected_by(identifier, frame.command, frozenset())
        if frame.command == Command.ACK:
            verdict = Verdict.ACCEPTED
        elif frame.headers.get("requeue") == "false":
            verdict = Verdict.DISCARDED
        else:
            verdict = Verdict.REQUEUED
        self._act(frame, Acknowledgement(frame.command, identifier, verdict))

    def _act(self, frame: Frame, action: Action) -> None:
        transaction = frame.headers.get("transaction")
        if transaction is None:
            perform([action], self._deliveries, self._find_queue)
        else:
            self._transactions.add(transaction, action)

    def _begin(self, frame: Frame) -> None:
        self._transactions.begin(_required(frame, "transaction"))

    def _commit(self, frame: Frame) -> None:
        actions = self._transactions.end(_required(frame, "transaction"))
        perform(actions, self._deliveries, self._find_queue)

    def _abort(self, frame: Frame) -> None:
        self._transactions.end(_required(frame, "transaction"))

    def _subscribe(self, frame: Frame) -> None:
        identifier = _required(frame, "id")
        destination = parse_destination(_required(frame, "destination"))
        if identifier in self._subscriptions:
            detail = f"A subscription identified by '{identifier}' already exists.\n"
            raise ProtocolError("Duplicated subscription identifier", detail)
        ack = frame.headers.get("ack", AckMode.AUTO)
        if ack not in set(AckMode):
            raise ProtocolError("Invalid header", f"ack must be one of {', '.join(AckMode)}, not '{ack}'.\n")
        prefetch = frame.headers.get("prefetch-count", "0")
        if not _NUMBER.fullmatch(prefetch):
            raise ProtocolError("Invalid header", "prefetch-count must be a number.\n")
        subscription = Subscription(
            identifier,
            self._find_queue(destination),
            AckMode(ack),
            prefetch=int(prefetch),
            open_for_delivery=self._open_for_delivery,
            deliver=self._deliver,
            cancelled_by_server=self._cancelled,
        )
        self._subscriptions[identifier] = subscription
        subscription.queue.subscribe(subscription)

    def _unsubscribe(self, frame: Frame) -> None:
        identifier = _required(frame, "id")
        subscription = self._subscriptions.pop(identifier, None)
        if subscription is None:
            detail = f"UNSUBSCRIBE must refer to an existing subscription.\nNot found: '{identifier}'\n"
            raise ProtocolError("No subscription found", detail)
        subscription.queue.unsubscribe(subscription)
        # As with RabbitMQ, what the client has can still be acknowledged, and returns at the session's end.
        self._deliveries.settle(self._outbox.drop_deliveries(subscription), Verdict.REQUEUED)

    def _disconnect(self, frame: Frame) -> None:
        self._release()

    # ---- messages

    def _find_queue(self, destination: Destination) -> MessageQueue:
        try:
            return self._broker.queue(self._vhost, destination.queue, create=destination.create)
        except QueueNotFoundError as error:
            raise ProtocolError("not_found", f"NOT_FOUND - {error}\n") from None

    def _open_for_delivery(self) -> bool:
        connected = self._state is SessionState.CONNECTED
        return connected and not self._outbox.congested and not self._broker.silent_heart_beats

    def _deliver(self, subscription: Subscription, message: Message) -> None:
        delivery, frame = self._deliveries.add(subscription, message)
        self._outbox.put(Outgoing(frame.encode(), delivery))
        self._transport.wake()

    def _cancelled(self, subscription: Subscription) -> None:
        if self._state is not SessionState.CONNECTED:
            return
        identifier = subscription.identifier
        detail = (
            f"The server has canceled a subscription.\nNo more messages will be delivered for '{identifier}'.\n"
        )
        self._fail(ProtocolError("Server cancelled subscription", detail), subscription=identifier)

    def _resume_deliveries(self) -> None:
        if not self._subscriptions or self._outbox.congested:
            return
        # Each round starts with another subscription, so that none starves beside a long queue.
        self._rounds += 1
        start = self._rounds % len(self._subscriptions)
        subscriptions = tuple(self._subscriptions.values())
        for subscription in subscriptions[start:] + subscriptions[:start]:
            subscription.queue.dispatch()

    # ---- endings

    def _fail(self, error: ProtocolError, **headers: str) -> None:
        _logger.info("ERROR to %s of vhost %r: %s", self._id, self._vhost, error.summary)
        self._release()
        about = {"message": error.summary, "content-type": "text/plain", "version": VERSION}
        self._put(Frame(Command.ERROR, about | headers, error.detail.encode()))
        self._enter(SessionState.CLOSING)

    def _release(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.queue.unsubscribe(subscription)
        self._subscriptions.clear()
        self._outbox.drop_deliveries()
        # What the transport is accepting right now with ack:auto is decided by handed_over() or lost().
        self._deliveries.settle([each for each in self._deliveries if not each.in_acceptance], Verdict.REQUEUED)

    def _enter(self, state: SessionState) -> None:
        if self._state is SessionState.CLOSED:
            return
        self._state = state
        self._entered = self._clock()
        self._transport.wake()
        self._transport.reschedule()

    def _put(self, frame: Frame) -> None:
        self._outbox.put(Outgoing(frame.encode()))
        self._transport.wake()
        if self._outbox.overflowing:
            self.cut()

    # ---- timers

    def _timers(self) -> list[tuple[float, Callable[[], None]]]:
        match self._state:
            case SessionState.OPENED:
                return [(self._entered + LOGIN_TIMEOUT.total_seconds(), self._give_up)]
            case SessionState.CLOSING:
                return [(self._entered + CLOSE_TIMEOUT.total_seconds(), self.cut)]
            case SessionState.CONNECTED:
                timers: list[tuple[float, Callable[[], None]]] = []
                if self._expect_every is not None:
                    timers.append((self._last_received + SILENCE_TOLERANCE * self._expect_every, self._give_up))
                if self._send_every is not None:
                    # Half an interval early, as RabbitMQ, so that a busy machine does not make it late.
                    timers.append((self._last_sent + self._send_every / 2, self._beat))
                return timers
            case SessionState.CLOSED:
                return []

    def _beat(self) -> None:
        self._last_sent = self._clock()
        if not self._outbox and not self._broker.silent_heart_beats:
            self._outbox.put(Outgoing(END_OF_LINE, is_frame=False))
            self._transport.wake()

    def _give_up(self) -> None:
        _logger.info("closing silent %s of vhost %r", self._id, self._vhost)
        self._release()
        self._outbox.clear()
        self._enter(SessionState.CLOSING)


def _required(frame: Frame, header: str) -> str:
    value = frame.headers.get(header, "")
    if not value:
        raise ProtocolError("Missing header", f"{frame.command} must include the '{header}' header\n")
    return value


def _negotiate(sender: int, receiver: int) -> float | None:
    """The interval in seconds, from what both sides offer in milliseconds (STOMP 1.2, "Heart-beating")."""
    return max(sender, receiver) / 1000 if sender and receiver else None
