"""The ledger: everything that happened to events, from any library, and what may be asked of it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Hashable, Iterable
from itertools import islice
from operator import attrgetter
from typing import Any, Final, TypeVar

from testyard.core.errors import UserError
from testyard.core.history import Happening, Kind
from testyard.ledger.columns import NO_POSITION, Columns, Table
from testyard.ledger.faults import FaultLog
from testyard.ledger.moments import NEVER, clock_time
from testyard.ledger.traces import Trace, told

Value = TypeVar("Value")

ARRIVALS: Final = frozenset({Kind.RECEIVED, Kind.STORED})
SENDER_SIDE: Final = tuple(kind for kind in Kind if kind not in ARRIVALS)
"""What the one who sends tells: whichever of it is known, the event was attempted."""
BITS: Final = {kind: 1 << number for number, kind in enumerate(Kind)}
BATCH: Final = 4096


class Ledger:
    """One history of what was attempted, acknowledged, received and stored; for one thread at a time.

    An event is one event by its id, however often it was attempted. Within the ledger it has a number.

    Attributes:
        faults: When something was broken.

    Example:
        >>> ledger = Ledger()
        >>> ledger.add([Happening(Kind.ATTEMPTED, "e1", 10), Happening(Kind.ACKNOWLEDGED, "e1", 20)])
        2
        >>> ledger.count(Kind.STORED)
        0
    """

    def __init__(self) -> None:
        self.faults = FaultLog()
        self._table = Table()
        self._drained_ns: int | None = None
        self._worked_out: dict[Hashable, Any] = {}

    def add(self, happenings: Iterable[Happening]) -> int:
        """Add what happened, in any order. What is added twice has happened twice.

        Args:
            happenings: What happened.

        Returns:
            How many there were.

        Raises:
            UserError: Something else is among them.
        """
        self._worked_out.clear()
        added = 0
        rest = iter(happenings)
        while batch := list(islice(rest, BATCH)):
            self._table.extend(batch)
            added += len(batch)
        return added

    def drained(self, at_ns: int | None = None) -> None:
        """Say that nothing more comes: whatever could arrive has arrived. Only then may an event be called lost.

        What is added after that may have happened until this moment, but not later.

        Args:
            at_ns: Since when, in nanoseconds since 1970; now, when not given.
        """
        self._drained_ns = time.time_ns() if at_ns is None else at_ns

    def require_drain(self) -> None:
        """Refuse to judge a history that may not be complete.

        Raises:
            UserError: Nobody said that it was drained, or something happened after that.
        """
        if self._drained_ns is None:
            message = (
                "The ledger has not been drained, so that an event which is missing may still come: wait until "
                "nothing more comes, then say so ('Ledger Has Been Drained')."
            )
            raise UserError(message)
        after = self._after(self._drained_ns)
        if after is not None:
            trace = self.traces([after])[0]
            message = (
                f"The ledger was said to be drained at {clock_time(self._drained_ns)}, but {trace.event} was "
                f"{told(trace.last)}: say so again when nothing more comes ('Ledger Has Been Drained')."
            )
            raise UserError(message)

    @property
    def is_drained(self) -> bool:
        """Whether it was said to be drained, and nothing happened after that."""
        return self._drained_ns is not None and self._after(self._drained_ns) is None

    @property
    def events(self) -> int:
        """How many events there are; their numbers are below this."""
        return len(self._table.events)

    def count(self, kind: Kind) -> int:
        """How many times that happened, to any event."""
        return len(self._table.columns[kind])

    def rows(self, kind: Kind, place: str | None = None) -> Columns:
        """What happened of one kind, in the order it was told.

        Args:
            kind: The kind.
            place: Only in places that match this pattern, in which ``*`` stands for any text.

        Raises:
            UserError: Nothing happened in such a place.
        """
        columns = self._table.columns[kind]
        return columns if place is None else columns.at(self._table.places_like(place))

    def flags(self, arrival: Kind, place: str | None = None) -> bytearray:
        """For each event, the bits (``BITS``) of what happened to it; of the arrivals only one kind counts.

        Args:
            arrival: That kind.
            place: Where an arrival counts, as in ``rows``.

        Raises:
            UserError: Nothing happened in such a place.
        """
        flags = bytearray(self.events)
        for kind in (*SENDER_SIDE, arrival):
            bit = BITS[kind]
            for event in self.rows(kind, place if kind is arrival else None).events:
                flags[event] |= bit
        return flags

    def times(self, kind: Kind, place: str | None = None) -> array[int]:
        """For each event, how often that happened to it."""
        times = array("I", [0]) * self.events
        for event in self.rows(kind, place).events:
            times[event] += 1
        return times

    def first_moments(self, kind: Kind, place: str | None = None) -> array[int]:
        """For each event, when that first happened to it, in nanoseconds since 1970; or ``NEVER``."""
        return self.once(("first moments", kind, place), lambda: self._first_moments(kind, place))

    def _first_moments(self, kind: Kind, place: str | None) -> array[int]:
        first = array("q", [NEVER]) * self.events
        columns = self.rows(kind, place)
        for event, at_ns in zip(columns.events, columns.moments, strict=True):
            if first[event] <= at_ns:
                continue
            first[event] = at_ns
        return first

    def attempts(self) -> array[int]:
        """For each event, when it was first attempted; when that is not known, when it was first answered."""
        attempted = self.first_moments(Kind.ATTEMPTED)
        if NEVER not in attempted:
            return attempted
        answers = [self.first_moments(kind) for kind in SENDER_SIDE if kind is not Kind.ATTEMPTED]
        known = attempted[:]
        for event, at_ns in enumerate(attempted):
            if at_ns == NEVER:
                known[event] = min(answered[event] for answered in answers)
        return known

    def once(self, what: Hashable, work_out: Callable[[], Value]) -> Value:
        """What was worked out of the history before, or is now; until something is added.

        Args:
            what: Tells it from everything else that is worked out.
            work_out: Works it out.
        """
        if what not in self._worked_out:
            self._worked_out[what] = work_out()
        value: Value = self._worked_out[what]
        return value

    def traces(self, events: Collection[int]) -> list[Trace]:
        """What is known of some events, in their order.

        Args:
            events: Their numbers.
        """
        wanted = set(events)
        found: dict[int, list[Happening]] = {event: [] for event in events}
        names = {number: name for name, number in self._table.events.items() if number in wanted}
        keys, places = list(self._table.keys), list(self._table.places)
        for kind, columns in self._table.columns.items():
            for row in (row for row, event in enumerate(columns.events) if event in wanted):
                event, position = columns.events[row], columns.positions[row]
                found[event].append(
                    Happening(
                        kind,
                        names[event],
                        columns.moments[row],
                        keys[columns.keys[row]],
                        places[columns.places[row]],
                        None if position == NO_POSITION else position,
                    )
                )
        return [Trace(tuple(sorted(found[event], key=attrgetter("at_ns")))) for event in events]

    @property
    def no_key(self) -> int:
        """The number in the column of keys that stands for none."""
        return self._table.keys[None]

    def _after(self, moment_ns: int) -> int | None:
        """An event to which something happened after a moment."""
        for columns in self._table.columns.values():
            if max(columns.moments, default=moment_ns) > moment_ns:
                return columns.events[columns.moments.index(max(columns.moments))]
        return None
