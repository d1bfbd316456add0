"""How long events take from one thing that happens to them to another."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import compress, count, repeat
from typing import Final

from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Kind
from testyard.core.percentiles import Percentile
from testyard.ledger.faults import Phase, Phases
from testyard.ledger.ledger import Ledger
from testyard.ledger.moments import NEVER, milliseconds, nanoseconds

CLOCK_STEP_NS: Final = 1_000_000
"""Moments that are written down to the millisecond may seem to be so much earlier than they were."""
_PHASES: Final = {
    Phase.BEFORE: "begun before the fault",
    Phase.FAULT: "begun during the fault",
    Phase.AFTER: "begun after the fault",
}


@dataclass(frozen=True)
class Delays:
    """How long events took, and which never arrived.

    Attributes:
        what: From what to what, and when, for messages.
        ordered_ns: How long each took, ascending, in nanoseconds.
        missing: How many acknowledged events began and have not ended: each counts as longer than all others.
        unknown: How many other events began and have not ended; they do not count.
    """

    what: str
    ordered_ns: Sequence[int]
    missing: int
    unknown: int

    @property
    def samples(self) -> int:
        """How many count, those that are missing included."""
        return len(self.ordered_ns) + self.missing

    def at(self, percentile: Percentile) -> timedelta:
        """A percentile of the delays, by nearest rank.

        Raises:
            UserError: There are too few samples for it.
            NotMetError: It is among the missing ones, so it has no end.
        """
        percentile.require(self.samples, f"the delay {self.what}")
        rank = percentile.rank(self.samples)
        if rank > len(self.ordered_ns):
            message = (
                f"{percentile} of the delay {self.what} has no end: {self.missing} of {self.samples} acknowledged "
                "events have not arrived."
            )
            raise NotMetError(message)
        return timedelta(microseconds=self.ordered_ns[rank - 1] / 1000)


def delays(
    ledger: Ledger,
    start: Kind = Kind.ATTEMPTED,
    end: Kind = Kind.STORED,
    *,
    place: str | None = None,
    during: Phase = Phase.ALL,
    fault: str | None = None,
) -> Delays:
    """Measure each event from its first start to its first end; it belongs to the phase in which it started.

    Args:
        ledger: What happened.
        start: What the measured time begins with.
        end: What it ends with.
        place: Only ends in places that match this pattern, in which ``*`` stands for any text.
        during: Only events that started before, in or after a fault.
        fault: Only faults of this name make phases; all, when not given.

    Raises:
        UserError: Both are the same, nothing of it happened, there is no such fault or place, or the clocks
            differ: an event arrived before it was attempted.
    """
    if start is end:
        message = f"A delay has two ends; both are {start.value}."
        raise UserError(message)
    when = "" if during is Phase.ALL else f" ({_PHASES[during]})"
    what = f"from {start.value} to {end.value}{when}"
    for kind in (start, end):
        if not ledger.count(kind):
            message = f"There is no delay {what}, as the ledger holds nothing that was {kind.value}."
            raise UserError(message)
    starts = ledger.first_moments(start)
    ends = ledger.first_moments(end, place)
    answers = ledger.first_moments(Kind.ACKNOWLEDGED)
    phases = (
        repeat(Phase.ALL, len(starts)) if during is Phase.ALL else Phases(ledger.faults.called(fault)).of(starts)
    )
    ended: list[int] = []
    missing = unknown = 0
    for begun_ns, ended_ns, answered_ns, phase in zip(starts, ends, answers, phases, strict=True):
        if begun_ns == NEVER or phase is not during:
            continue
        if ended_ns != NEVER:
            ended.append(ended_ns - begun_ns)
        elif answered_ns != NEVER:
            missing += 1
        else:
            unknown += 1
    ended.sort()
    if start is Kind.ATTEMPTED and ended and ended[0] < -CLOCK_STEP_NS:
        early = sum(delay < -CLOCK_STEP_NS for delay in ended)
        message = (
            f"{early} events were {end.value} before they were attempted, one {milliseconds(-ended[0])} before: "
            "these moments are of different clocks."
        )
        raise UserError(message)
    return Delays(what, array("q", ended), missing, unknown)


def late(ledger: Ledger, within: timedelta, end: Kind = Kind.STORED, *, place: str | None = None) -> Sequence[int]:
    """The numbers of the events that arrived, but took longer from their first attempt than they may.

    Args:
        ledger: What happened.
        within: How long they may take.
        end: What arriving means.
        place: Only arrivals in places that match this pattern.

    Raises:
        UserError: No attempt is known, or nothing happened in such a place.
    """
    if not ledger.count(Kind.ATTEMPTED):
        message = "No event can be late, as the ledger does not know when any was attempted."
        raise UserError(message)
    starts, ends = ledger.first_moments(Kind.ATTEMPTED), ledger.first_moments(end, place)
    bound = nanoseconds(within)
    pairs = zip(starts, ends, strict=True)
    return array("I", compress(count(), (start != NEVER != end and end - start > bound for start, end in pairs)))
