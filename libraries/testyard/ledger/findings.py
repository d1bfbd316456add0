"""What is wrong with events, in classes, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from testyard.ledger.ledger import Ledger

MOST_NAMED: Final = 5
"""So many events of each class are named in a message."""


class EventClass(Enum):
    """What can have become of an event at one end (Jepsen's ``total-queue`` and ``set-full`` checkers).

    Lost, indeterminate, recovered and unexpected exclude each other; an event may be duplicated, reordered and
    late as well.

    - lost: acknowledged, and not there after everything was drained.
    - indeterminate: attempted, not known to be acknowledged or refused, and not there. That is no loss.
    - recovered: there, although it was not known to be acknowledged or refused.
    - unexpected: there, although it was never attempted, or every attempt was refused.
    - duplicated: there more than once, however often it was attempted.
    - reordered: there after an event with the same key that was attempted after it, in one place.
    - late: there, but later after its attempt than a bound.
    """

    LOST = "lost"
    DUPLICATED = "duplicated"
    UNEXPECTED = "unexpected"
    RECOVERED = "recovered"
    REORDERED = "reordered"
    LATE = "late"
    INDETERMINATE = "indeterminate"


def explain(ledger: Ledger, found: Mapping[EventClass, Sequence[int]]) -> str:
    """Name the first few events of each class: id, key, how it began, where it was last seen.

    Args:
        ledger: What knows the events.
        found: The numbers of the events in each class, in the order in which they came into the ledger.
    """
    named = [(found_class, event) for found_class, events in found.items() for event in events[:MOST_NAMED]]
    traces = iter(ledger.traces([event for _, event in named]))
    lines = []
    for found_class, events in found.items():
        lines += [f"- {found_class.value}: {next(traces)}" for _ in events[:MOST_NAMED]]
        if len(events) > MOST_NAMED:
            lines.append(f"- {found_class.value}: and {len(events) - MOST_NAMED} more")
    return "\n".join(lines)


def tally(found: Mapping[EventClass, Sequence[int]]) -> str:
    """How many there are of each class: ``2 lost, 1 duplicated``."""
    return ", ".join(f"{len(events)} {found_class.value}" for found_class, events in found.items())
