"""How long everything took to be well again after a fault."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from testyard.core.deadline import seconds
from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Kind
from testyard.ledger.deliveries import require_arrival
from testyard.ledger.faults import Fault
from testyard.ledger.findings import EventClass, explain
from testyard.ledger.ledger import Ledger
from testyard.ledger.moments import NEVER, clock_time


@dataclass(frozen=True, slots=True)
class Recovery:
    """The time from a fault's end until all is well again, in three parts.

    Attributes:
        fault: The fault's name.
        ended_ns: When it was undone, in nanoseconds since 1970.
        detect: From then until the first sign that somebody tries again: the first event attempted after it, or
            what ends the next part if that comes first. Long where a client backs off or a breaker is open.
        reconnect: From there until the first event is acknowledged or arrives.
        drain: From there until the backlog is there: every event that was attempted before the fault's end, had
            not arrived by then, and was acknowledged or arrived later. Nothing when there is no backlog.
        backlog: How many events that is.
    """

    fault: str
    ended_ns: int
    detect: timedelta
    reconnect: timedelta
    drain: timedelta
    backlog: int

    @property
    def total(self) -> timedelta:
        """All three."""
        return self.detect + self.reconnect + self.drain

    def __str__(self) -> str:
        return (
            f"{seconds(self.total)} after {self.fault} ended at {clock_time(self.ended_ns)}: detect "
            f"{seconds(self.detect)}, reconnect {seconds(self.reconnect)}, drain {seconds(self.drain)} "
            f"(backlog: {self.backlog} events)"
        )


def recoveries(
    ledger: Ledger, arrival: Kind = Kind.STORED, *, place: str | None = None, fault: str | None = None
) -> list[Recovery]:
    """Measure how each fault was recovered from, in the order in which they began.

    Args:
        ledger: What happened; drained, as an event of a backlog may still come otherwise.
        arrival: What arriving means.
        place: Only arrivals in places that match this pattern.
        fault: Only faults of this name.

    Raises:
        UserError: There is no such fault, it lasts, or the ledger is not drained.
        NotMetError: Nothing was acknowledged or arrived after a fault, or an event of its backlog that was
            acknowledged never arrived.
    """
    require_arrival(arrival)
    faults = ledger.faults.called(fault)
    ledger.require_drain()
    return [_recovery(ledger, it, arrival, place) for it in faults]


def _recovery(ledger: Ledger, fault: Fault, arrival: Kind, place: str | None) -> Recovery:
    ended = fault.ends_ns
    if ended is None:
        message = f"The fault {fault.name!r} lasts since {clock_time(fault.begins_ns)}: nothing has recovered yet."
        raise UserError(message)
    answered_ns = _earliest(ledger.rows(Kind.ACKNOWLEDGED).moments, ended)
    back_ns = min(answered_ns, _earliest(ledger.rows(arrival, place).moments, ended))
    if back_ns == NEVER:
        message = (
            f"Nothing recovered from {fault.name}: after it ended at {clock_time(ended)}, no event was "
            f"acknowledged or {arrival.value}."
        )
        raise NotMetError(message)
    detected_ns = min(_earliest(ledger.rows(Kind.ATTEMPTED).moments, ended), back_ns)
    attempts = ledger.attempts()
    answers = ledger.first_moments(Kind.ACKNOWLEDGED)
    arrivals = ledger.first_moments(arrival, place)
    backlog = [
        event
        for event, (attempt, arrived) in enumerate(zip(attempts, arrivals, strict=True))
        if attempt < ended <= arrived and (arrived != NEVER or answers[event] != NEVER)
    ]
    never = [event for event in backlog if arrivals[event] == NEVER]
    if never:
        message = (
            f"The backlog of {fault.name} ({len(backlog)} events) was never all {arrival.value}: "
            f"{len(never)} lost.\n{explain(ledger, {EventClass.LOST: never})}"
        )
        raise NotMetError(message)
    drained_ns = max([back_ns, *(arrivals[event] for event in backlog)])
    return Recovery(
        fault.name,
        ended,
        _time(detected_ns - ended),
        _time(back_ns - detected_ns),
        _time(drained_ns - back_ns),
        len(backlog),
    )


def _earliest(moments: Collection[int], since_ns: int) -> int:
    return min((at_ns for at_ns in moments if at_ns >= since_ns), default=NEVER)


def _time(duration_ns: int) -> timedelta:
    return timedelta(microseconds=duration_ns / 1000)
