"""Values as a database returns them and as a test writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

NULL = "NULL"
WORDS = {"true": True, "false": False}


def _moment(text: str, like: datetime) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if like.tzinfo and not moment.tzinfo else moment


def _number(text: str, _: Any) -> int | Decimal:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else number


# How a text is read when the value beside it has this type; bool before int and datetime before date, their bases.
READERS: tuple[tuple[type | tuple[type, ...], Callable[[str, Any], Any]], ...] = (
    (bool, lambda text, _: WORDS[text.lower()]),
    (int, _number),
    (float, lambda text, _: float(text)),
    (Decimal, lambda text, _: Decimal(text)),
    (datetime, _moment),
    (date, lambda text, _: date.fromisoformat(text)),
    (time, lambda text, _: time.fromisoformat(text)),
    (UUID, lambda text, _: UUID(text)),
    ((list, dict), lambda text, _: json.loads(text)),
)


def comparable(value: Any, expected: Any) -> Any:
    """What a test expects, in the type of the value that the database returned.

    A text becomes a number, truth value, date, UUID or JSON value when the database's value is one; ``NULL`` and
    ``None`` become NULL beside a NULL. A moment without a zone is UTC.

    Args:
        value: What the database returned.
        expected: What the test wrote.

    Returns:
        The expected value; as it is when it cannot be read as the value's type.

    Example:
        >>> comparable(3, "3")
        3
    """
    if isinstance(value, Decimal) and isinstance(expected, float):
        return Decimal(str(expected))
    if not isinstance(expected, str):
        return expected
    text = expected.strip()
    if value is None:
        return None if text in {NULL, "None"} else expected
    for kind, read in READERS:
        if isinstance(value, kind):
            try:
                return read(text, value)
            except (ArithmeticError, KeyError, ValueError):
                return expected
    return expected


def same(value: Any, expected: Any) -> bool:
    """Whether a database's value is what a test expects; ``True`` is no number here."""
    wanted = comparable(value, expected)
    return isinstance(value, bool) is isinstance(wanted, bool) and bool(value == wanted)


def shown(value: Any) -> str:
    """A value for a table in a log."""
    return NULL if value is None else str(value)
