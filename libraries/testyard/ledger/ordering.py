"""Whether events with one key arrived in the order in which they were attempted."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import chain, compress
from typing import Final

from testyard.core.history import Kind
from testyard.ledger.columns import NO_POSITION, Columns, Numbers
from testyard.ledger.deliveries import require_arrival
from testyard.ledger.ledger import SENDER_SIDE, Ledger

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
    in which they were told. Only an event's first arrival in a place counts: later ones are duplicates. Events
    that were never attempted, and those without a key, have no order.

    Args:
        ledger: What happened.
        arrival: What arriving means: stored or received.
        place: Only in places that match this pattern, in which ``*`` stands for any text.

    Raises:
        UserError: That kind is no arrival, or nothing happened in such a place.
    """
    require_arrival(arrival)
    arrivals = ledger.rows(arrival, place)
    by_rank = _in_the_order_of_attempts(ledger)
    ranks = array("q", [NOBODY]) * ledger.events
    for rank, event in enumerate(by_rank):
        ranks[event] = rank
    repeated = bytes(times > 1 for times in ledger.times(arrival, place))
    seen: set[tuple[int, int]] = set()
    keys = _keys(ledger, arrivals)
    when = _order_of_arrival(arrivals)
    no_key = ledger.no_key
    order = sorted(range(len(arrivals)), key=when.__getitem__)
    groups = Numbers()
    # Of each key in each place: the highest rank until now, the highest before the present moment, that moment.
    highest, settled, present = array("q"), array("q"), array("q")
    compared = 0
    overtaken: dict[int, int] = {}
    rows = (map(column.__getitem__, order) for column in (arrivals.events, arrivals.places, keys, when))
    for event, at_place, key, moment in zip(*rows, strict=True):
        rank = ranks[event]
        if rank == NOBODY or key == no_key:
            continue
        if repeated[event]:
            if (event, at_place) in seen:
                continue
            seen.add((event, at_place))
        group = groups[key << 32 | at_place]
        if group == len(highest):
            highest.append(rank)
            settled.append(NOBODY)
            present.append(moment)
            continue
        compared += 1
        if moment != present[group]:
            settled[group], present[group] = highest[group], moment
        if rank > highest[group]:
            highest[group] = rank
        elif rank < settled[group]:
            overtaken.setdefault(event, by_rank[settled[group]])
    return Ordering(compared, overtaken)


def _in_the_order_of_attempts(ledger: Ledger) -> list[int]:
    """Every event that was attempted."""
    as_told = dict.fromkeys(chain.from_iterable(ledger.rows(kind).events for kind in SENDER_SIDE))
    return sorted(as_told, key=ledger.first_moments(SENDER_SIDE).__getitem__)


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


def _order_of_arrival(arrivals: Columns) -> array[int]:
    """What tells the order within each place: positions, or moments in a place where one has no position."""
    if NO_POSITION not in arrivals.positions:
        return arrivals.positions
    if arrivals.positions.count(NO_POSITION) == len(arrivals):
        return arrivals.moments
    without = set(compress(arrivals.places, (position == NO_POSITION for position in arrivals.positions)))
    rows = zip(arrivals.places, arrivals.positions, arrivals.moments, strict=True)
    return array("q", (at_ns if place in without else position for place, position, at_ns in rows))
