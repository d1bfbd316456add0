"""What a session has still to send, bounded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from testyard.lab.broker.subscriptions import Delivery, Subscription

HIGH_WATER = 256 * 1024
"""Octets of waiting frames from which on no more messages are taken from queues ..."""

LOW_WATER = HIGH_WATER // 2
"""... until no more than these wait."""

OVERFLOW = 16 * 1024 * 1024
"""Octets of waiting frames that a session may not exceed: one that asks for receipts but reads none is cut."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Octets to send.

    Args:
        octets: A frame, or the end of line that is a heart-beat.
        delivery: What is delivered by it.
        is_frame: False for a heart-beat.
    """

    octets: bytes
    delivery: Delivery | None = None
    is_frame: bool = True


class Outbox:
    """Frames that wait for the transport, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Outgoing] = deque()
        self._size = 0
        self._congested = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def congested(self) -> bool:
        """Whether so much waits that no more messages should be added."""
        return self._congested

    @property
    def overflowing(self) -> bool:
        """Whether the client lets more wait than can be allowed."""
        return self._size > OVERFLOW

    def put(self, outgoing: Outgoing) -> None:
        """Add at the end."""
        self._waiting.append(outgoing)
        self._resize(len(outgoing.octets))

    def take(self) -> Outgoing:
        """Remove the first."""
        outgoing = self._waiting.popleft()
        self._resize(-len(outgoing.octets))
        return outgoing

    def drop_deliveries(self, subscription: Subscription | None = None) -> list[Delivery]:
        """Remove the MESSAGE frames, all or those of one subscription.

        Returns:
            What they would have delivered.
        """
        kept: deque[Outgoing] = deque()
        dropped = []
        for outgoing in self._waiting:
            delivery = outgoing.delivery
            if delivery and subscription in {None, delivery.subscription}:
                dropped.append(delivery)
                self._resize(-len(outgoing.octets))
            else:
                kept.append(outgoing)
        self._waiting = kept
        return dropped

    def clear(self) -> None:
        """Remove everything."""
        self._waiting.clear()
        self._resize(-self._size)

    def _resize(self, octets: int) -> None:
        self._size += octets
        if self._size >= HIGH_WATER:
            self._congested = True
        elif self._size <= LOW_WATER:
            self._congested = False
