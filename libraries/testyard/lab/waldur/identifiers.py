"""Identifiers, slugs and timestamps as Waldur writes them."""

import re
import uuid
from datetime import UTC, datetime

_HEXADECIMAL = re.compile(r"[0-9a-f]{32}")
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")
_SLUG_LENGTH = 8


def new_identifier() -> str:
    """Return a fresh UUID as 32 hexadecimal digits, the form Waldur emits."""
    return uuid.uuid4().hex


def parse_identifier(text: object) -> str | None:
    """Normalise a UUID given in hexadecimal or dashed form.

    Args:
        text: What a client sent: a path segment, a filter value or a body value.

    Returns:
        32 lower-case hexadecimal digits, or None if ``text`` is not a UUID.

    Example:
        >>> parse_identifier("C0CB4541-D5BF-41EA-A4C7-A945DD28ADF4")
        'c0cb4541d5bf41eaa4c7a945dd28adf4'
    """
    if not isinstance(text, str):
        return None
    if len(text) == 32 and _HEXADECIMAL.fullmatch(text):
        return text
    compact = text.replace("-", "").lower()
    return compact if _HEXADECIMAL.fullmatch(compact) else None


def timestamp(moment: datetime | None = None) -> str:
    """Return an instant (now by default) in UTC with microseconds, e.g. ``2026-11-21T04:43:13.609839Z``."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def slug_stem(name: str) -> str:
    """Return the part of a slug that comes from the name: ``Peer Project`` becomes ``peer-pro``."""
    return _NOT_A_WORD.sub("-", name.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
