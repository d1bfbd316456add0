"""All that a ledger tells, in tables and a drawing for Robot Framework's log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Kind
from testyard.core.percentiles import LONGEST, MEDIAN, P95, P99, Percentile
from testyard.core.tables import html_table
from testyard.ledger.delays import Delays, delays, late
from testyard.ledger.deliveries import deliveries
from testyard.ledger.drawing import delay_chart
from testyard.ledger.faults import Phase
from testyard.ledger.findings import EventClass
from testyard.ledger.ledger import Ledger
from testyard.ledger.moments import clock_time, milliseconds, nanoseconds
from testyard.ledger.ordering import ordering

SHOWN = (MEDIAN, P95, P99, LONGEST)


def counts(
    ledger: Ledger, arrival: Kind = Kind.STORED, *, place: str | None = None, within: timedelta | None = None
) -> dict[str, int]:
    """How many events there are, and how many of each class.

    Args:
        ledger: What happened.
        arrival: What being there means: stored or received.
        place: Only in places that match this pattern, in which ``*`` stands for any text.
        within: How long an event may take without being late; there is no number of late ones without it.

    Returns:
        ``attempted``, ``acknowledged``, ``refused`` and what the arrival is called count events, each once;
        ``missing`` those that are acknowledged and not there: ``lost``, if the ledger is drained; only then
        there is that number.

    Raises:
        UserError: That kind is no arrival, or nothing happened in such a place.
    """
    found = deliveries(ledger, arrival, place)
    numbers = {
        "attempted": found.attempted,
        "acknowledged": found.acknowledged,
        "refused": found.refused,
        arrival.value: found.arrived,
        "missing": len(found.missing),
        EventClass.DUPLICATED.value: len(found.duplicated),
        EventClass.UNEXPECTED.value: len(found.unexpected),
        EventClass.RECOVERED.value: len(found.recovered),
        EventClass.INDETERMINATE.value: len(found.indeterminate),
        EventClass.REORDERED.value: len(ordering(ledger, arrival, place).overtaken),
    }
    if within is not None:
        numbers[EventClass.LATE.value] = len(late(ledger, within, arrival, place=place))
    if ledger.is_drained:
        numbers[EventClass.LOST.value] = len(found.missing)
    return numbers


def counts_table(numbers: dict[str, int]) -> str:
    """The numbers of ``counts`` as a table."""
    note = "" if EventClass.LOST.value in numbers else " (not drained: nothing is called lost yet)"
    return html_table(f"Events{note}", ("class", "events"), numbers.items())


def summary(ledger: Ledger, arrival: Kind = Kind.STORED, *, place: str | None = None) -> str:
    """Counts, delays with their numbers of samples, faults, and the delay over the time; as HTML.

    Args:
        ledger: What happened.
        arrival: What being there means: stored or received.
        place: Only in places that match this pattern.

    Raises:
        UserError: That kind is no arrival, or nothing happened in such a place.
    """
    rows = [
        (fault.name, clock_time(fault.begins_ns), "lasts" if fault.ends_ns is None else clock_time(fault.ends_ns))
        for fault in ledger.faults.all
    ]
    header = ("delay", "samples", "missing", *map(str, SHOWN))
    return (
        counts_table(counts(ledger, arrival, place=place))
        + html_table(f"Delays until {arrival.value}", header, _delay_rows(ledger, arrival, place))
        + (html_table("Faults (UTC)", ("fault", "began", "ended"), rows) if rows else "")
        + delay_chart(ledger, Kind.ATTEMPTED, arrival, place=place)
    )


def _delay_rows(ledger: Ledger, arrival: Kind, place: str | None) -> Iterator[tuple[object, ...]]:
    phases = Phase if ledger.faults.all else (Phase.ALL,)
    for start in (Kind.ATTEMPTED, Kind.ACKNOWLEDGED):
        for phase in phases:
            try:
                measured = delays(ledger, start, arrival, place=place, during=phase)
            except UserError as problem:
                yield (problem, 0, 0, *("" for _ in SHOWN))
                continue
            shown = (_shown(measured, percentile) for percentile in SHOWN)
            yield (measured.what, measured.samples, measured.missing, *shown)


def _shown(measured: Delays, percentile: Percentile) -> str:
    try:
        return milliseconds(nanoseconds(measured.at(percentile)))
    except UserError:
        return f"needs {percentile.samples_needed} samples"
    except NotMetError:
        return "never"
