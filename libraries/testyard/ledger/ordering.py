"""Whether events with one key arrived in the order in which they were attempted."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

from testyard.core.history import Kind
from testyard.ledger.columns import NO_POSITION, Columns, Numbers
from testyard.ledger.deliveries import require_arrival
from testyard.ledger.ledger import SENDER_SIDE, Ledger
from testyard.ledger.moments import NEVER

NOBODY: Final = -1


@dataclass(frozen=True)
class Ordering:
    """What was found about the order; events by their numbers.

    Attributes:
        compared: How many arrivals had one with the same key before them in their place.
        overtaken: Each event that arrived after one that was attempted after it, and the first one that did so.
    """

    compared: int
    overtaken: dict[int, int]


def ordering(ledger: Ledger, arrival: Kind, place: str | None = None) -> Ordering:
    """Compare the order of arrival of events with one key in one place with the order of their attempts.

    The order of arrival is that of the positions, where a place has them, else that of the moments; arrivals of
    one moment have no order then. The order of the attempts is that of their first moments, and of one moment that
    in which the ledger first heard of the events. Only an event's first arrival in a place counts: later ones are
    duplicates. Events that were never attempted, and those without a key, have no order.

    Args:
        ledger: What happened.
        arrival: What arriving means: stored or received.
        place: Only in places that match this pattern, in which ``*`` stands for any text.

    Raises:
        UserError: That kind is no arrival, or nothing happened in such a place.
    """
    require_arrival(arrival)
    arrivals = ledger.rows(arrival, place)
    attempts = ledger.attempts()
    repeated = bytes(times > 1 for times in ledger.times(arrival, place))
    seen: set[tuple[int, int]] = set()
    keys = _keys(ledger, arrivals)
    alone = _keys_without_order(keys, ledger.no_key)
    when = _order_of_arrival(arrivals)
    order = sorted(range(len(arrivals)), key=when.__getitem__)
    # Of each key in each place: the event attempted last of those that arrived until now; the one of those that
    # arrived before the present moment; that moment.
    groups = Numbers()
    latest: list[int] = []
    settled: list[int] = []
    present: list[int] = []
    compared = 0
    overtaken: dict[int, int] = {}
    rows = (map(column.__getitem__, order) for column in (arrivals.events, arrivals.places, keys, when))
    for event, at_place, key, moment in zip(*rows, strict=True):
        attempted = attempts[event]
        if attempted == NEVER or alone[key]:
            continue
        if repeated[event]:
            if (event, at_place) in seen:
                continue
            seen.add((event, at_place))
        group = groups[key << 32 | at_place]
        if group == len(latest):
            latest.append(event)
            settled.append(NOBODY)
            present.append(moment)
            continue
        compared += 1
        if moment != present[group]:
            settled[group], present[group] = latest[group], moment
        last = latest[group]
        last_attempted = attempts[last]
        if last_attempted < attempted or (last_attempted == attempted and last < event):
            latest[group] = event
            continue
        rival = settled[group]
        if rival != NOBODY and (attempts[rival], rival) > (attempted, event):
            overtaken.setdefault(event, rival)
    return Ordering(compared, overtaken)


def _keys(ledger: Ledger, arrivals: Columns) -> array[int]:
    """The key of each arrival: its own, or what the sender's side tells of its event."""
    if ledger.no_key not in arrivals.keys:
        return arrivals.keys
    of_events = array("q", [ledger.no_key]) * ledger.events
    for sent in map(ledger.rows, SENDER_SIDE):
        for event, key in zip(sent.events, sent.keys, strict=True):
            if key != ledger.no_key:
                of_events[event] = key
    return array(
        "q",
        (
            of_events[event] if key == ledger.no_key else key
            for event, key in zip(arrivals.events, arrivals.keys, strict=True)
        ),
    )


def _keys_without_order(keys: Sequence[int], no_key: int) -> Sequence[int]:
    """For each key, whether it arrived less than twice; and what stands for no key is none."""
    times = array("I", [0]) * (max(keys, default=0) + 1)
    for key in keys:
        times[key] += 1
    alone = bytearray(count < 2 for count in times)
    if no_key < len(alone):
        alone[no_key] = True
    return alone


def _order_of_arrival(arrivals: Columns) -> array[int]:
    """What tells the order within each place: positions, or moments in a place where one has no position."""
    if NO_POSITION not in arrivals.positions:
        return arrivals.positions
    if arrivals.positions.count(NO_POSITION) == len(arrivals):
        return arrivals.moments
    without = set(compress(arrivals.places, (position == NO_POSITION for position in arrivals.positions)))
    rows = zip(arrivals.places, arrivals.positions, arrivals.moments, strict=True)
    return array("q", (at_ns if place in without else position for place, position, at_ns in rows))
