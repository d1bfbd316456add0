"""UUIDs as Waldur writes them: 32 hexadecimal digits in answers, dashed or not in what clients send."""

from __future__ import annotations

from uuid import UUID

from testyard.core.errors import UserError


def hexadecimal(text: str) -> str:
    """The 32-digit form of a UUID given in either form.

    Raises:
        UserError: The text is not a UUID.
    """
    try:
        return UUID(text).hex
    except (ValueError, AttributeError, TypeError):
        message = f"Expected a UUID (32 hexadecimal digits, with or without dashes), got {text!r}."
        raise UserError(message) from None


def same_identifier(one: str, other: str) -> bool:
    """Whether two texts are the same UUID, whatever their form; other texts are compared as they are."""
    try:
        return UUID(one) == UUID(other)
    except (ValueError, AttributeError, TypeError):
        return one == other
