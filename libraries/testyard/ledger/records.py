"""Reading what happened from rows: of a table, of captured events, of answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from testyard.core.errors import UserError
from testyard.core.history import Happening, Kind
from testyard.ledger.moments import moment_ns

ABSENT: Final = object()
LONGEST_ROW: Final = 300


@dataclass(frozen=True, slots=True)
class Fields:
    """Which field of a row tells what. ``payload.event_id`` is the field ``event_id`` of what ``payload`` holds.

    Attributes:
        kind: What the rows tell of.
        event: The field with the event's id.
        at: The field with the moment: a datetime, a text in ISO 8601 or nanoseconds since 1970.
        key: The field with what its order is kept by; its value may be None.
        position: The field with the place in that order, a whole number; its value may be None.
        place: Where all this happened; no field.
    """

    kind: Kind
    event: str
    at: str
    key: str | None = None
    position: str | None = None
    place: str = ""

    def read(self, rows: Iterable[Any]) -> Iterator[Happening]:
        """What happened, row by row.

        Raises:
            UserError: A row has no such field, or its value makes no sense; says which row and field.
        """
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                message = (
                    f"Row {number} is {_shown(row)} ({type(row).__name__}), expected a happening or named fields."
                )
                raise UserError(message)
            yield self._happening(number, row)

    def _happening(self, number: int, row: Mapping[Any, Any]) -> Happening:
        event = _value(number, row, self.event)
        if event is None or event == "":
            message = f"Row {number} names no event: its field {self.event!r} is {event!r}: {_shown(row)}."
            raise UserError(message)
        at = _value(number, row, self.at)
        try:
            at_ns = moment_ns(at)
        except UserError as problem:
            message = f"Row {number}, field {self.at!r}: {problem}"
            raise UserError(message) from None
        key = None if self.key is None else _value(number, row, self.key)
        return Happening(
            self.kind,
            str(event),
            at_ns,
            None if key is None else str(key),
            self.place,
            None if self.position is None else _position(number, row, self.position),
        )


def _value(number: int, row: Mapping[Any, Any], field: str) -> Any:
    value: Any = row.get(field, ABSENT)
    if value is ABSENT:
        value = row
        for part in field.split("."):
            value = value.get(part, ABSENT) if isinstance(value, Mapping) else ABSENT
    if value is ABSENT:
        message = f"Row {number} has no field {field!r}; its fields: {', '.join(map(str, row))}: {_shown(row)}."
        raise UserError(message)
    return value


def _shown(row: object) -> str:
    text = repr(row)
    return text if len(text) <= LONGEST_ROW else f"{text[:LONGEST_ROW]}…"


def _position(number: int, row: Mapping[Any, Any], field: str) -> int | None:
    value = _value(number, row, field)
    if value is None:
        return None
    try:
        return int(str(value))
    except ValueError:
        message = f"Row {number}, field {field!r}: {value!r} is no position, expected a whole number."
        raise UserError(message) from None


def read_records(records: Iterable[Any], fields: Fields | None) -> Iterator[Happening]:
    """Happenings as they are, or what rows tell of them.

    Args:
        records: Only happenings, or only rows with named fields.
        fields: Which field of a row tells what; None for happenings.

    Raises:
        UserError: Fields are named for happenings, or none for rows.
    """
    rows = list(records)
    ready = bool(rows) and all(isinstance(row, Happening) for row in rows)
    if fields is None:
        if not ready and rows:
            message = "Name the fields of the rows: kind=stored, event=..., at=...; only happenings need no names."
            raise UserError(message)
        return iter(rows)
    if ready:
        message = "These are happenings, which tell by themselves what happened: they need no kind and no fields."
        raise UserError(message)
    return fields.read(rows)
