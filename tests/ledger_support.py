"""Fabricated histories: clean ones, what can go wrong with an event in them, and what a ledger finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from testyard.core.history import Happening, Kind
from testyard.ledger.delays import late
from testyard.ledger.deliveries import deliveries
from testyard.ledger.findings import EventClass
from testyard.ledger.ledger import Ledger
from testyard.ledger.ordering import ordering

START_NS = 1_800_000_000 * 10**9
MILLISECOND_NS = 10**6
SECOND_NS = 10**9
TABLE = "event_logs"
BOUND = timedelta(seconds=1)
TOO_LATE_NS = SECOND_NS + MILLISECOND_NS


def moment(milliseconds: float) -> int:
    """So many milliseconds after the start."""
    return START_NS + int(milliseconds * MILLISECOND_NS)


def happened(kind: Kind, event: str, milliseconds: float, /, **values: object) -> Happening:
    """Something that happened so many milliseconds after the start."""
    return replace(Happening(kind, event, moment(milliseconds)), **values)


def ledger_of(*happenings: Happening, drained: bool = True) -> Ledger:
    """A ledger that knows these, and nothing more will come."""
    ledger = Ledger()
    ledger.add(happenings)
    if drained:
        ledger.drained(moment(10**9))
    return ledger


@dataclass
class History:
    """A history that can be broken event by event.

    Attributes:
        happenings: What happened.
        keys: The key of each event that was attempted, in their order.
    """

    keys: Sequence[int]
    happenings: list[Happening] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Let every event be attempted, acknowledged and stored once, in order."""
        for number, key in enumerate(self.keys):
            values = {"key": f"key-{key}"}
            event = f"event-{number}"
            self.happenings += [
                happened(Kind.ATTEMPTED, event, 10 * number, **values),
                happened(Kind.ACKNOWLEDGED, event, 10 * number + 2, **values),
                happened(Kind.STORED, event, 10 * number + 5, place=TABLE, position=number, **values),
            ]

    def find(self, kind: Kind, number: int) -> int:
        """Where something that happened to an event is."""
        return next(
            place for place, it in enumerate(self.happenings) if it.kind is kind and it.event == f"event-{number}"
        )

    def drop(self, kind: Kind, number: int) -> None:
        """It did not happen."""
        del self.happenings[self.find(kind, number)]

    def change(self, kind: Kind, number: int, /, **values: object) -> None:
        """It happened otherwise."""
        place = self.find(kind, number)
        self.happenings[place] = replace(self.happenings[place], **values)

    def again(self, kind: Kind, number: int, /, **values: object) -> None:
        """It happened once more."""
        self.happenings.append(replace(self.happenings[self.find(kind, number)], **values))


Defect = Callable[[History, int], None]


def lose(history: History, number: int) -> None:
    """Acknowledged, and never stored."""
    history.drop(Kind.STORED, number)


def double(history: History, number: int) -> None:
    """Stored twice."""
    history.again(Kind.STORED, number, position=10**6 + number)


def forget_attempt(history: History, number: int) -> None:
    """Stored, and nobody attempted it."""
    history.drop(Kind.ACKNOWLEDGED, number)
    history.drop(Kind.ATTEMPTED, number)


def refuse_and_store(history: History, number: int) -> None:
    """Refused, and stored all the same."""
    history.change(Kind.ACKNOWLEDGED, number, kind=Kind.REFUSED)


def refuse(history: History, number: int) -> None:
    """Refused, and not stored: nothing is wrong."""
    refuse_and_store(history, number)
    lose(history, number)


def never_answer(history: History, number: int) -> None:
    """Stored, but the sender never heard of it."""
    history.drop(Kind.ACKNOWLEDGED, number)


def time_out(history: History, number: int) -> None:
    """Stored, but the sender's attempt timed out."""
    history.change(Kind.ACKNOWLEDGED, number, kind=Kind.INDETERMINATE)


def time_out_and_lose(history: History, number: int) -> None:
    """The attempt timed out, and it was not stored."""
    time_out(history, number)
    lose(history, number)


def refuse_and_try_again(history: History, number: int) -> None:
    """Refused once, attempted again and not answered; and stored."""
    refuse_and_store(history, number)
    history.again(Kind.ATTEMPTED, number, at_ns=moment(10 * number + 3))


def refuse_and_succeed(history: History, number: int) -> None:
    """Refused once and acknowledged the next time: nothing is wrong."""
    history.again(Kind.ACKNOWLEDGED, number, kind=Kind.REFUSED)
    history.again(Kind.ATTEMPTED, number, at_ns=moment(10 * number + 1))


def refuse_and_succeed_by_itself(history: History, number: int) -> None:
    """Refused once and acknowledged after an attempt that nobody told: nothing is wrong."""
    history.again(Kind.ACKNOWLEDGED, number, kind=Kind.REFUSED)


def delay(history: History, number: int) -> None:
    """Stored too late."""
    history.change(Kind.STORED, number, at_ns=moment(10 * number) + TOO_LATE_NS)


def come_just_in_time(history: History, number: int) -> None:
    """Stored as late as it may be: nothing is wrong."""
    history.change(Kind.STORED, number, at_ns=moment(10 * number) + SECOND_NS)


DEFECTS: dict[Defect, set[EventClass]] = {
    lose: {EventClass.LOST},
    double: {EventClass.DUPLICATED},
    forget_attempt: {EventClass.UNEXPECTED},
    refuse_and_store: {EventClass.UNEXPECTED},
    refuse: set(),
    never_answer: {EventClass.RECOVERED},
    time_out: {EventClass.RECOVERED},
    time_out_and_lose: {EventClass.INDETERMINATE},
    refuse_and_try_again: {EventClass.RECOVERED},
    refuse_and_succeed: set(),
    refuse_and_succeed_by_itself: set(),
    delay: {EventClass.LATE},
    come_just_in_time: set(),
}


def swap(history: History, first: int, second: int) -> None:
    """Store two events in the other order; the first one is then reordered."""
    positions = [history.happenings[history.find(Kind.STORED, number)].position for number in (second, first)]
    for number, position in zip((first, second), positions, strict=True):
        history.change(Kind.STORED, number, position=position)


def found(ledger: Ledger, arrival: Kind = Kind.STORED, place: str | None = None) -> dict[EventClass, set[str]]:
    """The ids of the events in each class."""
    seen = deliveries(ledger, arrival, place)
    numbers = {
        EventClass.LOST: seen.missing,
        EventClass.DUPLICATED: seen.duplicated,
        EventClass.UNEXPECTED: seen.unexpected,
        EventClass.RECOVERED: seen.recovered,
        EventClass.INDETERMINATE: seen.indeterminate,
        EventClass.LATE: late(ledger, BOUND, arrival, place=place) if ledger.count(Kind.ATTEMPTED) else [],
        EventClass.REORDERED: list(ordering(ledger, arrival, place).overtaken),
    }
    return {
        event_class: {trace.event for trace in ledger.traces(events)}
        for event_class, events in numbers.items()
        if events
    }
