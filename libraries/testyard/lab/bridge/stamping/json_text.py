"""JSON that the tables and every receiver can take."""

from __future__ import annotations

import math
from typing import Any, Final

from pydantic_core import to_json

DEEPEST: Final = 32
"""How many objects and lists may stand in each other."""


def json_bytes(value: object) -> bytes:
    """A value as JSON: UUIDs, times and models too."""
    return to_json(value)


def storable(value: Any, depth: int = 0) -> Any:
    """Let a value pass that PostgreSQL's ``jsonb`` can hold and that reads the same everywhere.

    Raises:
        ValueError: It holds a NUL character, half a surrogate pair, a number that is not finite, or is too deep.
    """
    if depth > DEEPEST:
        raise ValueError(f"is deeper than {DEEPEST} objects and lists")
    match value:
        case str():
            _check_text(value)
        case float() if not math.isfinite(value):
            raise ValueError("holds a number that is not finite")
        case list():
            for each in value:
                storable(each, depth + 1)
        case dict():
            for name, each in value.items():
                _check_text(name)
                storable(each, depth + 1)
    return value


def encodable(text: str) -> str:
    """Let a text pass that can be written as UTF-8.

    Raises:
        ValueError: It holds half a surrogate pair, which JSON can say.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half a surrogate pair, which is no text") from None
    return text


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    encodable(text)
