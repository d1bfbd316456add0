"""Happenings in columns: 28 bytes each, and quickly looked through."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import compress, count, islice
from typing import Any, Final

from testyard.core.errors import UserError
from testyard.core.history import Happening, Kind

NO_POSITION: Final = -(2**63)
TEXT: Final = frozenset({str})
TEXT_OR_NONE: Final = frozenset({str, type(None)})
MOST_NAMES: Final = 10


class Numbers(defaultdict[Any, int]):
    """Gives each thing a number when it is first asked for: 0, 1, 2…"""

    def __init__(self) -> None:
        super().__init__(count().__next__)


@dataclass(frozen=True)
class Columns:
    """Happenings of one kind, in the order they were told, each at the same index of every column.

    Attributes:
        events: Each event's number.
        moments: When, in nanoseconds since 1970.
        keys: Each key's number.
        places: Each place's number.
        positions: Each position, or ``NO_POSITION``.
    """

    events: array[int] = field(default_factory=lambda: array("I"))
    moments: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("I"))
    places: array[int] = field(default_factory=lambda: array("I"))
    positions: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.events)

    def at(self, places: Collection[int]) -> Columns:
        """Those in some places."""
        mask = bytes(place in places for place in self.places)
        columns = self.events, self.moments, self.keys, self.places, self.positions
        return Columns(*(array(column.typecode, compress(column, mask)) for column in columns))


class _Part:
    """Happenings of one kind, read and checked before any of them is appended.

    Raises:
        TypeError: What should be a text or a number is none.
        OverflowError: A number does not fit.
    """

    def __init__(self, happenings: Sequence[Happening]) -> None:
        self.events = [it.event for it in happenings]
        self.keys = [it.key for it in happenings]
        self.places = [it.place for it in happenings]
        self.moments = array("q", [it.at_ns for it in happenings])
        self.positions = array("q", [NO_POSITION if it.position is None else it.position for it in happenings])
        if not (
            {*map(type, self.events), *map(type, self.places)} <= TEXT and {*map(type, self.keys)} <= TEXT_OR_NONE
        ):
            raise TypeError


class Table:
    """Columns for each kind, and what the numbers in them stand for."""

    def __init__(self) -> None:
        self.columns = {kind: Columns() for kind in Kind}
        self.events = Numbers()
        self.keys = Numbers()
        self.places = Numbers()

    def extend(self, batch: Sequence[Happening]) -> None:
        """Append some happenings.

        Raises:
            UserError: Something else is among them; none of them is kept.
        """
        try:
            # By identity: an Enum's members are slow to look up by their hash.
            present = {id(it.kind) for it in batch}
            kinds = [kind for kind in self.columns if id(kind) in present]
            parts = [_Part([it for it in batch if it.kind is kind]) for kind in kinds]
        except (AttributeError, TypeError, OverflowError):
            raise UserError(_first_wrong(batch)) from None
        if len(kinds) != len(present):
            raise UserError(_first_wrong(batch))
        for kind, part in zip(kinds, parts, strict=True):
            columns = self.columns[kind]
            columns.events.extend(map(self.events.__getitem__, part.events))
            columns.moments.extend(part.moments)
            columns.keys.extend(map(self.keys.__getitem__, part.keys))
            columns.places.extend(map(self.places.__getitem__, part.places))
            columns.positions.extend(part.positions)

    def places_like(self, pattern: str) -> frozenset[int]:
        """The numbers of the places that match a pattern; ``*`` stands for any text.

        Raises:
            UserError: There is none.
        """
        found = frozenset(number for name, number in self.places.items() if fnmatchcase(name, pattern))
        if not found:
            names = ", ".join(map(repr, islice(self.places, MOST_NAMES))) or "none"
            message = f"Nothing in the ledger happened on {pattern!r}; places: {names}."
            raise UserError(message)
        return found


def _first_wrong(batch: Sequence[object]) -> str:
    for number, it in enumerate(batch, 1):
        if not isinstance(it, Happening):
            return f"The ledger takes happenings; number {number} of these is {it!r} ({type(it).__name__})."
        expected = {
            "kind": isinstance(it.kind, Kind),
            "event": isinstance(it.event, str),
            "at_ns": _fits(it.at_ns),
            "key": isinstance(it.key, str | None),
            "place": isinstance(it.place, str),
            "position": it.position is None or _fits(it.position),
        }
        for name, is_right in expected.items():
            if not is_right:
                value = getattr(it, name)
                return f"The {name} of a happening cannot be {value!r} ({type(value).__name__}): {it}."
    return "The ledger takes happenings only."


def _fits(value: object) -> bool:
    return isinstance(value, int) and NO_POSITION < value < -NO_POSITION
