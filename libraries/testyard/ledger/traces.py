"""What is known of one event, for people."""

from __future__ import annotations

from dataclasses import dataclass

from testyard.core.history import Happening
from testyard.ledger.moments import clock_time


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that happened to one event.

    Attributes:
        happenings: In the order of their moments; at least one.
    """

    happenings: tuple[Happening, ...]

    @property
    def event(self) -> str:
        """The event's id."""
        return self.first.event

    @property
    def first(self) -> Happening:
        """What happened to it first."""
        return self.happenings[0]

    @property
    def last(self) -> Happening:
        """What happened to it last: where it was last seen."""
        return self.happenings[-1]

    @property
    def key(self) -> str | None:
        """What its order is kept by; None if nothing that is known of it tells."""
        return next((it.key for it in self.happenings if it.key is not None), None)

    def __str__(self) -> str:
        key = "" if self.key is None else f" (key {self.key})"
        last = "" if len(self.happenings) == 1 else f", last seen: {told(self.last)}"
        return f"{self.event}{key}, first {told(self.first)}{last}"


def told(happening: Happening) -> str:
    """What happened, where and when: ``received on orders/2, position 17, at 12:00:00.000250``."""
    place = f" on {happening.place}" if happening.place else ""
    position = "" if happening.position is None else f", position {happening.position},"
    return f"{happening.kind.value}{place}{position} at {clock_time(happening.at_ns)}"
