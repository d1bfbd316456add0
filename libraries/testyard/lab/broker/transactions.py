"""Actions of a client, alone or collected in a transaction, and their application as a whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from testyard.lab.broker.destinations import Destination
from testyard.lab.broker.errors import ProtocolError
from testyard.lab.broker.queues import MessageQueue
from testyard.lab.broker.subscriptions import Deliveries, Delivery, Verdict

MAX_TRANSACTIONS = 16
"""Open transactions of one session (RabbitMQ's limit)."""

MAX_ACTIONS = 1024
"""Actions of one transaction (RabbitMQ's limit)."""

MAX_OCTETS = 16 * 1024 * 1024
"""Octets of bodies that one transaction collects."""


@dataclass(frozen=True, slots=True)
class Send:
    """A message to publish.

    Args:
        destination: Where to.
        body: The octets.
        headers: What to pass on.
    """

    destination: Destination
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """An ACK or NACK.

    Args:
        command: Which of both.
        identifier: The ``id`` header.
        verdict: What it means for the message.
    """

    command: str
    identifier: str
    verdict: Verdict


Action = Send | Acknowledgement


@dataclass(slots=True)
class _Demand:
    sends: int = 0
    messages: int = 0
    octets: int = 0


class Transactions:
    """The open transactions of one session (STOMP 1.2, "BEGIN", "COMMIT", "ABORT")."""

    def __init__(self) -> None:
        self._open: dict[str, list[Action]] = {}

    def begin(self, name: str) -> None:
        """Open a transaction.

        Raises:
            ProtocolError: The name is in use, or too many are open.
        """
        if name in self._open:
            raise ProtocolError("Bad transaction", f"Transaction {name!r} has begun already.\n")
        if len(self._open) >= MAX_TRANSACTIONS:
            detail = f"Too many concurrent transactions (limit {MAX_TRANSACTIONS}).\n"
            raise ProtocolError("Transaction limit exceeded", detail)
        self._open[name] = []

    def add(self, name: str, action: Action) -> None:
        """Collect an action.

        Raises:
            ProtocolError: There is no such transaction, or it is too large.
        """
        actions = self._find(name)
        actions.append(action)
        if len(actions) > MAX_ACTIONS:
            detail = f"Too many actions in transaction (limit {MAX_ACTIONS}).\n"
            raise ProtocolError("Transaction too large", detail)
        if isinstance(action, Send) and sum(len(a.body) for a in actions if isinstance(a, Send)) > MAX_OCTETS:
            raise ProtocolError("Transaction too large", f"Too many octets in transaction (limit {MAX_OCTETS}).\n")

    def end(self, name: str) -> list[Action]:
        """Close a transaction.

        Returns:
            What it collected, in order.

        Raises:
            ProtocolError: There is no such transaction.
        """
        actions = self._find(name)
        del self._open[name]
        return actions

    def _find(self, name: str) -> list[Action]:
        try:
            return self._open[name]
        except KeyError:
            raise ProtocolError("Bad transaction", f"Invalid transaction identifier: {name!r}\n") from None


def perform(
    actions: Iterable[Action], deliveries: Deliveries, find_queue: Callable[[Destination], MessageQueue]
) -> None:
    """Apply actions, all or none.

    Args:
        actions: What to do. Acknowledgements are applied before messages are published, so that they make room.
        deliveries: What can be acknowledged.
        find_queue: Finds the queue of a destination.

    Raises:
        ProtocolError: One of them cannot be applied: an unknown acknowledgement, a missing or a full queue.
            Nothing has been applied.
    """
    settled: set[Delivery] = set()
    verdicts: list[tuple[list[Delivery], Verdict]] = []
    sends: list[tuple[MessageQueue, Send]] = []
    demands: dict[MessageQueue, _Demand] = defaultdict(_Demand)
    for action in actions:
        if isinstance(action, Send):
            queue = find_queue(action.destination)
            sends.append((queue, action))
            demands[queue].sends += 1
            demands[queue].messages += 1
            demands[queue].octets += len(action.body)
            continue
        affected = deliveries.affected_by(action.identifier, action.command, settled)
        settled.update(affected)
        verdicts.append((affected, action.verdict))
        if action.verdict is not Verdict.REQUEUED:
            for delivery in affected:
                demands[delivery.subscription.queue].messages -= 1
                demands[delivery.subscription.queue].octets -= len(delivery.message.body)
    for queue, demand in demands.items():
        if demand.sends and not queue.has_room(demand.messages, demand.octets):
            queue.rejected += demand.sends
            raise ProtocolError("resource_limit_exceeded", f"Queue '{queue.name}' is full.\n")
    for affected, verdict in verdicts:
        deliveries.settle(affected, verdict)
    for queue, send in sends:
        queue.publish(send.body, send.headers)
