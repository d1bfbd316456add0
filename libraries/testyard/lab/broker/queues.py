"""Queues that outlive connections: bounded, in order, shared by competing consumers, without I/O."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

MAX_QUEUE_BYTES = 64 * 1024 * 1024
"""Octets of bodies that one queue holds at most, so that few large messages cannot fill the memory either."""


class PublishOutcome(Enum):
    """What became of a published message."""

    DELIVERED = "delivered"
    """Handed to a consumer."""
    QUEUED = "queued"
    """Waiting: no consumer can take it now."""
    REJECTED = "rejected"
    """Refused: the queue is full."""
    NO_QUEUE = "no queue"
    """Published to nobody: there is no such queue."""


@dataclass(slots=True, eq=False)
class Message:
    """A message in a queue.

    Args:
        position: Its place in the queue's order, kept when it is returned.
        body: The octets.
        headers: What the publisher said about it.
        redelivered: Whether a consumer may have seen it before.
    """

    position: int
    body: bytes
    headers: Mapping[str, str]
    redelivered: bool = False


class Consumer(Protocol):
    """What takes messages from a queue."""

    @property
    def ready(self) -> bool:
        """Whether it can take one more message now."""

    def take(self, message: Message) -> None:
        """Take a message; until it is settled or returned the queue still counts it."""

    def cancelled(self) -> None:
        """The queue has been deleted."""


class MessageQueue:
    """One durable queue.

    Its bounds count waiting and not yet acknowledged messages together (RabbitMQ counts the waiting ones only), so
    that neither a consumer that never acknowledges nor a redelivery can exceed them.

    Args:
        name: Its name within the virtual host.
        max_length: Messages it holds at most.
    """

    def __init__(self, name: str, max_length: int) -> None:
        self.name = name
        self.rejected = 0
        self._max_length = max_length
        self._published = 0
        self._waiting: deque[Message] = deque()
        self._taken = 0
        self._bytes = 0
        self._consumers: deque[Consumer] = deque()

    @property
    def depth(self) -> int:
        """Messages it holds: waiting and not yet acknowledged."""
        return len(self._waiting) + self._taken

    def has_room(self, messages: int, octets: int) -> bool:
        """Whether so many more messages and octets fit; negative numbers are what is about to leave."""
        return self.depth + messages <= self._max_length and self._bytes + octets <= MAX_QUEUE_BYTES

    def publish(self, body: bytes, headers: Mapping[str, str]) -> PublishOutcome:
        """Add a message and hand out what can be handed out."""
        if not self.has_room(1, len(body)):
            self.rejected += 1
            return PublishOutcome.REJECTED
        self._published += 1
        self._bytes += len(body)
        self._waiting.append(Message(self._published, body, headers))
        self.dispatch()
        return PublishOutcome.QUEUED if self._waiting else PublishOutcome.DELIVERED

    def dispatch(self) -> None:
        """Hand waiting messages to consumers that are ready, in order, the consumers taking turns."""
        while self._waiting:
            consumer = self._next_ready()
            if consumer is None:
                return
            self._taken += 1
            consumer.take(self._waiting.popleft())

    def _next_ready(self) -> Consumer | None:
        for _ in range(len(self._consumers)):
            consumer = self._consumers[0]
            self._consumers.rotate(-1)
            if consumer.ready:
                return consumer
        return None

    def settle(self, message: Message) -> None:
        """A taken message is done with: delivered, acknowledged or discarded."""
        self._taken -= 1
        self._bytes -= len(message.body)

    def give_back(self, messages: Iterable[Message]) -> None:
        """Return taken messages to their places in the order, as RabbitMQ does; ``dispatch`` hands them out."""
        returned = sorted(messages, key=_position)
        self._taken -= len(returned)
        if self._waiting and returned and returned[-1].position > self._waiting[0].position:
            self._waiting = deque(heapq.merge(returned, self._waiting, key=_position))
        else:
            self._waiting.extendleft(reversed(returned))

    def subscribe(self, consumer: Consumer) -> None:
        """Add a consumer and hand it what waits."""
        self._consumers.append(consumer)
        self.dispatch()

    def unsubscribe(self, consumer: Consumer) -> None:
        """Remove a consumer; what it has taken stays taken until it is settled or returned."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    def delete(self) -> None:
        """Drop all messages and tell the consumers."""
        consumers = tuple(self._consumers)
        self._consumers.clear()
        self._waiting.clear()
        for consumer in consumers:
            consumer.cancelled()


def _position(message: Message) -> int:
    return message.position
