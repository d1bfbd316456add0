"""Finds secrets that can be read where none should be: in rows of a database, in answers of a service."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testyard.core.errors import NotMetError, UserError


def check_none_is_in(rows: Iterable[Mapping[str, Any]], secrets: Sequence[str], what: str) -> None:
    """Check that no cell holds a secret, in clear or only encoded.

    Args:
        rows: Rows or JSON objects; what is nested in a cell is looked at too.
        secrets: What must not be there.
        what: How a secret is called in messages, such as ``credential``.

    Raises:
        NotMetError: Names the column, never the secret.
        UserError: There are no rows, or no secrets.
    """
    cells = [(column, value) for row in rows for column, value in row.items()]
    if not cells or not secrets:
        message = f"There is nothing to compare: {f'no {what}' if cells else 'no rows'}."
        raise UserError(message)
    forms = [form for secret in secrets for form in encodings(secret)]
    for column, value in cells:
        content = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
        if any(form in content for form in forms):
            message = f"The column {column} holds a {what} that can be read."
            raise NotMetError(message)


def encodings(secret: str) -> tuple[bytes, ...]:
    """The forms in which a secret can be read without a key: in clear, in hexadecimal digits, in base 64."""
    clear = secret.encode()
    return clear, clear.hex().encode(), base64.b64encode(clear).rstrip(b"=")
