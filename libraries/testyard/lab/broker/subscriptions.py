"""Subscriptions of one session, and what they have taken from their queues but not settled yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from testyard.lab.broker.destinations import destination_of
from testyard.lab.broker.errors import ProtocolError
from testyard.lab.broker.frames import Command, Frame
from testyard.lab.broker.queues import Message, MessageQueue


class AckMode(StrEnum):
    """The ``ack`` header of SUBSCRIBE."""

    AUTO = "auto"
    CLIENT = "client"
    CLIENT_INDIVIDUAL = "client-individual"


class Verdict(Enum):
    """What a client says about a message."""

    ACCEPTED = auto()
    REQUEUED = auto()
    DISCARDED = auto()


class Progress(Enum):
    """How far a delivery has come."""

    WAITING = auto()
    """In the session, not yet given to the transport."""
    STARTED = auto()
    """Given to the transport: the client may have it."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A message on its way to one subscription.

    Args:
        number: Counts the session's deliveries.
        identifier: The ``message-id`` and, unless ``ack:auto``, the ``ack`` header.
        message: What is delivered.
        subscription: To whom.
        progress: How far it has come.
    """

    number: int
    identifier: str
    message: Message
    subscription: Subscription
    progress: Progress = Progress.WAITING

    @property
    def in_acceptance(self) -> bool:
        """Whether the transport's acceptance alone will settle it, and is under way."""
        return self.progress is Progress.STARTED and self.subscription.ack_mode is AckMode.AUTO


class Subscription:
    """One subscription; a consumer of its queue.

    Args:
        identifier: The ``id`` header.
        queue: What it consumes.
        ack_mode: Who settles.
        prefetch: Deliveries it may have unsettled; zero: no limit (RabbitMQ's ``prefetch-count``).
        open_for_delivery: Whether the session can take a message now.
        deliver: Passes a message on to the session.
        cancelled_by_server: Tells the session that the queue is gone.
    """

    def __init__(
        self,
        identifier: str,
        queue: MessageQueue,
        ack_mode: AckMode,
        *,
        prefetch: int,
        open_for_delivery: Callable[[], bool],
        deliver: Callable[[Subscription, Message], None],
        cancelled_by_server: Callable[[Subscription], None],
    ) -> None:
        self.identifier = identifier
        self.queue = queue
        self.ack_mode = ack_mode
        self.unsettled = 0
        self._prefetch = prefetch
        self._open_for_delivery = open_for_delivery
        self._deliver = deliver
        self._cancelled_by_server = cancelled_by_server

    @property
    def ready(self) -> bool:
        """Whether it can take one more message now."""
        return (not self._prefetch or self.unsettled < self._prefetch) and self._open_for_delivery()

    def take(self, message: Message) -> None:
        """Deliver a message."""
        self._deliver(self, message)

    def cancelled(self) -> None:
        """The queue has been deleted."""
        self._cancelled_by_server(self)


class Deliveries:
    """The unsettled deliveries of a session, oldest first.

    Args:
        session: The session's id, part of every ``message-id``.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._count = 0
        self._unsettled: dict[str, Delivery] = {}

    def __iter__(self) -> Iterator[Delivery]:
        return iter(tuple(self._unsettled.values()))

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery.identifier in self._unsettled

    def add(self, subscription: Subscription, message: Message) -> tuple[Delivery, Frame]:
        """Start a delivery.

        Returns:
            The delivery and its MESSAGE frame, with the headers that RabbitMQ sends.
        """
        self._count += 1
        identifier = f"T_{subscription.identifier}@@{self._session}@@{self._count}"
        delivery = Delivery(self._count, identifier, message, subscription)
        self._unsettled[identifier] = delivery
        subscription.unsettled += 1
        own = {
            "subscription": subscription.identifier,
            "destination": destination_of(subscription.queue.name),
            "message-id": identifier,
            "redelivered": "true" if message.redelivered else "false",
        }
        if subscription.ack_mode is not AckMode.AUTO:
            own["ack"] = identifier
        length = {"content-length": str(len(message.body))}
        headers = own | {name: value for name, value in message.headers.items() if name not in _BROKER_HEADERS}
        return delivery, Frame(Command.MESSAGE, headers | length, message.body)

    def affected_by(self, identifier: str, command: str, settled: AbstractSet[Delivery]) -> list[Delivery]:
        """The deliveries that an ACK or NACK speaks about.

        Args:
            identifier: Its ``id`` header.
            command: ACK or NACK, for the message.
            settled: Deliveries to regard as settled already (earlier in the same transaction).

        Returns:
            One delivery, or with ``ack:client`` it and all earlier ones of its subscription.

        Raises:
            ProtocolError: No delivery of this session waits for this acknowledgement.
        """
        target = self._unsettled.get(identifier)
        if target is None or target in settled or target.progress is Progress.WAITING:
            detail = f"{command} must include a valid 'id' header: {identifier!r} waits for no acknowledgement.\n"
            raise ProtocolError("Invalid header", detail)
        if target.subscription.ack_mode is AckMode.CLIENT_INDIVIDUAL:
            return [target]
        affected = []
        for delivery in self._unsettled.values():
            if delivery.subscription is target.subscription and delivery not in settled:
                affected.append(delivery)
            if delivery is target:
                break
        return affected

    def settle(self, deliveries: list[Delivery], verdict: Verdict) -> None:
        """Apply a verdict; queues hand out again what returns to them."""
        returned: dict[MessageQueue, list[Message]] = {}
        freed: dict[MessageQueue, None] = {}
        for delivery in deliveries:
            del self._unsettled[delivery.identifier]
            subscription = delivery.subscription
            subscription.unsettled -= 1
            freed[subscription.queue] = None
            if verdict is Verdict.REQUEUED:
                delivery.message.redelivered |= delivery.progress is Progress.STARTED
                returned.setdefault(subscription.queue, []).append(delivery.message)
            else:
                subscription.queue.settle(delivery.message)
        for queue, messages in returned.items():
            queue.give_back(messages)
        for queue in freed:
            queue.dispatch()


_BROKER_HEADERS = frozenset(
    {"subscription", "destination", "message-id", "redelivered", "ack", "content-length", "receipt", "transaction"}
)
"""Headers that a publisher cannot set on a MESSAGE."""
