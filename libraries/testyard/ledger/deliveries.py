"""What became of each event at one end: stored in tables, or received by consumers."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import compress, count
from typing import Final

from testyard.core.errors import UserError
from testyard.core.history import Kind
from testyard.ledger.ledger import ARRIVALS, BITS, SENDER_SIDE, Ledger
from testyard.ledger.shares import Share

ACKNOWLEDGED: Final = BITS[Kind.ACKNOWLEDGED]
REFUSED: Final = BITS[Kind.REFUSED]
INDETERMINATE: Final = BITS[Kind.INDETERMINATE]
SENT: Final = sum(BITS[kind] for kind in SENDER_SIDE)
THERE: Final = sum(BITS[kind] for kind in ARRIVALS)


@dataclass(frozen=True)
class Deliveries:
    """What became of each event at one end; events by their numbers.

    Attributes:
        arrival: What being there means: stored or received.
        attempted: How many events were attempted.
        acknowledged: How many of them were acknowledged.
        refused: How many of them were refused each time they were attempted.
        arrived: How many are there, each counted once.
        missing: Those that are acknowledged and not there: lost, if nothing more comes.
        indeterminate: Those that are not there, with no answer known.
        recovered: Those that are there, with no answer known.
        unexpected: Those that are there although they were never attempted, or refused each time.
        duplicated: Those that are there more than once.
    """

    arrival: Kind
    attempted: int
    acknowledged: int
    refused: int
    arrived: int
    missing: Sequence[int]
    indeterminate: Sequence[int]
    recovered: Sequence[int]
    unexpected: Sequence[int]
    duplicated: Sequence[int]

    @property
    def share_duplicated(self) -> Share:
        """How many of the events that are there, are there more than once."""
        return Share(Fraction(len(self.duplicated), self.arrived or 1))


def deliveries(ledger: Ledger, arrival: Kind, place: str | None = None) -> Deliveries:
    """Find out what became of each event, in time linear in what happened.

    Args:
        ledger: What happened.
        arrival: What being there means: stored or received.
        place: Only in places that match this pattern, in which ``*`` stands for any text.

    Raises:
        UserError: That kind is no arrival, or nothing happened in such a place.
    """
    require_arrival(arrival)
    return ledger.once(("deliveries", arrival, place), lambda: _deliveries(ledger, arrival, place))


def _deliveries(ledger: Ledger, arrival: Kind, place: str | None) -> Deliveries:
    flags = _flags(ledger, arrival, place)
    return Deliveries(
        arrival,
        attempted=_mask(flags, _is_attempted).count(1),
        acknowledged=_mask(flags, _is_acknowledged).count(1),
        refused=_mask(flags, _is_refused).count(1),
        arrived=_mask(flags, _is_there).count(1),
        missing=_numbers(_mask(flags, lambda bits: _is_acknowledged(bits) and not _is_there(bits))),
        indeterminate=_numbers(_mask(flags, lambda bits: _is_unknown(bits) and not _is_there(bits))),
        recovered=_numbers(_mask(flags, lambda bits: _is_unknown(bits) and _is_there(bits))),
        unexpected=_numbers(_mask(flags, _is_unexpected)),
        duplicated=_numbers(bytes(times > 1 for times in ledger.times(arrival, place))),
    )


def require_arrival(kind: Kind) -> None:
    """Refuse a kind that is no arrival.

    Raises:
        UserError: It is none.
    """
    if kind not in ARRIVALS:
        message = f"An event is there when it is stored or received, not when it is {kind.value}."
        raise UserError(message)


def _flags(ledger: Ledger, arrival: Kind, place: str | None) -> bytearray:
    """What happened to each event; one with an attempt that was not refused is of unknown outcome."""
    flags = ledger.flags(arrival, place)
    refused = _numbers(_mask(flags, _is_refused))
    if refused:
        attempts, refusals = ledger.times(Kind.ATTEMPTED), ledger.times(Kind.REFUSED)
        for event in refused:
            if attempts[event] > refusals[event]:
                flags[event] |= INDETERMINATE
    return flags


def _is_attempted(bits: int) -> bool:
    return bool(bits & SENT)


def _is_acknowledged(bits: int) -> bool:
    return bool(bits & ACKNOWLEDGED)


def _is_refused(bits: int) -> bool:
    return bool(bits & REFUSED) and not bits & (ACKNOWLEDGED | INDETERMINATE)


def _is_unknown(bits: int) -> bool:
    return _is_attempted(bits) and not _is_acknowledged(bits) and not _is_refused(bits)


def _is_there(bits: int) -> bool:
    return bool(bits & THERE)


def _is_unexpected(bits: int) -> bool:
    return _is_there(bits) and (not _is_attempted(bits) or _is_refused(bits))


def _mask(flags: bytearray, holds: Callable[[int], bool]) -> bytes:
    """For each event, whether something holds of its bits."""
    return bytes(flags.translate(bytes(holds(bits) for bits in range(256))))


def _numbers(mask: bytes) -> Sequence[int]:
    return array("I", compress(count(), mask)) if 1 in mask else array("I")
