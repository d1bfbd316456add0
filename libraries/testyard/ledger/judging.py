"""What must hold of a whole history; each function raises if it does not, and names the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from testyard.core.errors import NotMetError
from testyard.core.history import Kind
from testyard.ledger.delays import late
from testyard.ledger.deliveries import Deliveries, deliveries
from testyard.ledger.findings import MOST_NAMED, EventClass, explain, tally
from testyard.ledger.ledger import Ledger
from testyard.ledger.moments import milliseconds, nanoseconds
from testyard.ledger.ordering import Ordering, ordering
from testyard.ledger.shares import Share


def exactly_once(ledger: Ledger, arrival: Kind, place: str | None = None) -> Deliveries:
    """Every acknowledged event is there once, every other one that was attempted at most once, and no others.

    Args:
        ledger: What happened; drained.
        arrival: What being there means: stored or received.
        place: Only in places that match this pattern, in which ``*`` stands for any text.

    Returns:
        What became of the events.

    Raises:
        NotMetError: Events are lost, duplicated or unexpected; or none was acknowledged, so that none can be lost.
        UserError: The ledger is not drained, or nothing happened in such a place.
    """
    found = _judged(ledger, arrival, place)
    _demand_none(
        ledger,
        {
            EventClass.LOST: found.missing,
            EventClass.DUPLICATED: found.duplicated,
            EventClass.UNEXPECTED: found.unexpected,
        },
        f"Not every one of {found.attempted} attempted events was {arrival.value} exactly once",
    )
    return found


def nothing_lost(ledger: Ledger, arrival: Kind, place: str | None = None) -> Deliveries:
    """Every acknowledged event is there; arguments, result and errors as of ``exactly_once``."""
    found = _judged(ledger, arrival, place)
    _demand_none(
        ledger,
        {EventClass.LOST: found.missing},
        f"Not every one of {found.acknowledged} acknowledged events was {arrival.value}",
    )
    return found


def few_duplicated(ledger: Ledger, most: Share, arrival: Kind, place: str | None = None) -> Deliveries:
    """No more of the events that are there are there more than once than a share.

    Args:
        ledger: What happened; drained.
        most: The share.
        arrival: What being there means: stored or received.
        place: Only in places that match this pattern.

    Raises:
        NotMetError: There are more, or nothing is there.
        UserError: The ledger is not drained, or nothing happened in such a place.
    """
    ledger.require_drain()
    found = deliveries(ledger, arrival, place)
    if not found.arrived:
        message = f"No event was {arrival.value}, so none can have been {arrival.value} twice."
        raise NotMetError(message)
    if found.share_duplicated > most:
        _demand_none(
            ledger,
            {EventClass.DUPLICATED: found.duplicated},
            f"{found.share_duplicated} of {found.arrived} events were {arrival.value} more than once, "
            f"expected at most {most}",
        )
    return found


def order_kept(ledger: Ledger, arrival: Kind, place: str | None = None) -> Ordering:
    """Events with one key arrived in each place in the order in which they were attempted.

    Args:
        ledger: What happened; it need not be drained, as what is out of order stays so.
        arrival: What arriving means: stored or received.
        place: Only in places that match this pattern.

    Raises:
        NotMetError: They did not, or no two events with one key arrived in one place, so that there is no order.
        UserError: Nothing happened in such a place.
    """
    found = ordering(ledger, arrival, place)
    if not found.compared:
        message = (
            f"No two attempted events with the same key were {arrival.value} in one place, so they have no order."
        )
        raise NotMetError(message)
    if found.overtaken:
        first = list(found.overtaken.items())[:MOST_NAMED]
        traces = ledger.traces([event for pair in first for event in pair])
        lines = [
            f"- reordered: {slow}\n  overtaken by {fast}"
            for slow, fast in zip(traces[::2], traces[1::2], strict=True)
        ]
        if len(found.overtaken) > MOST_NAMED:
            lines.append(f"- reordered: and {len(found.overtaken) - MOST_NAMED} more")
        problem = f"Not every event was {arrival.value} before those with its key that were attempted later"
        message = "\n".join([f"{problem}: {len(found.overtaken)} reordered.", *lines])
        raise NotMetError(message)
    return found


def nobody_late(ledger: Ledger, within: timedelta, arrival: Kind, place: str | None = None) -> Deliveries:
    """Every acknowledged event is there, and every event that is there came in time after its first attempt.

    Args:
        ledger: What happened; drained.
        within: How long an event may take.
        arrival: What arriving means: stored or received.
        place: Only in places that match this pattern.

    Raises:
        NotMetError: Events are late or lost; or none was acknowledged, so that none can be.
        UserError: The ledger is not drained, or nothing happened in such a place.
    """
    found = _judged(ledger, arrival, place)
    _demand_none(
        ledger,
        {EventClass.LATE: late(ledger, within, arrival, place=place), EventClass.LOST: found.missing},
        f"Not every event was {arrival.value} within {milliseconds(nanoseconds(within))} after its first attempt",
    )
    return found


def _judged(ledger: Ledger, arrival: Kind, place: str | None) -> Deliveries:
    """What became of the events, if it may be judged."""
    ledger.require_drain()
    found = deliveries(ledger, arrival, place)
    if not found.acknowledged:
        message = "No event in the ledger was acknowledged, so that none could be lost: add what was acknowledged."
        raise NotMetError(message)
    return found


def _demand_none(ledger: Ledger, found: Mapping[EventClass, Sequence[int]], problem: str) -> None:
    wrong = {event_class: events for event_class, events in found.items() if events}
    if wrong:
        message = f"{problem}: {tally(wrong)}.\n{explain(ledger, wrong)}"
        raise NotMetError(message)
