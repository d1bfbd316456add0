"""Moments and durations in nanoseconds, and how people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from testyard.core.errors import UserError

NEVER: Final = 2**63 - 1
"""Later than everything that happened."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
# A smaller number counts seconds, milliseconds or microseconds since 1970: as nanoseconds it is a day of 1970.
EARLIEST_NS: Final = 10**17


def moment_ns(value: Any) -> int:
    """A moment in nanoseconds since 1970.

    Args:
        value: A datetime or an ISO 8601 text, UTC when it has no zone, or nanoseconds since 1970.

    Raises:
        UserError: It is none of them.

    Example:
        >>> moment_ns("1973-03-03T09:46:40Z")
        100000000000000000
    """
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().isdigit() else datetime.fromisoformat(value.strip())
        except ValueError:
            message = (
                f"{value!r} is no moment: expected a date and time in ISO 8601, such as 2026-01-31T12:00:00Z."
            )
            raise UserError(message) from None
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (moment - EPOCH) // MICROSECOND * 1000
    if isinstance(value, int) and not isinstance(value, bool):
        if EARLIEST_NS <= value < NEVER:
            return value
        message = f"{value} is no moment: a whole number counts nanoseconds since 1970."
        raise UserError(message)
    message = (
        f"{value!r} ({type(value).__name__}) is no moment: expected a datetime, a text in ISO 8601, or "
        "nanoseconds since 1970 as a whole number."
    )
    raise UserError(message)


def nanoseconds(duration: timedelta) -> int:
    """A duration in nanoseconds."""
    return duration // MICROSECOND * 1000


def milliseconds(duration_ns: int) -> str:
    """A duration for people: ``0.25 ms``, ``12.5 ms``, ``1200 ms``."""
    value = duration_ns / 1e6
    return f"{value:.0f} ms" if abs(value) >= 100 else f"{value:.3g} ms"


def clock_time(at_ns: int) -> str:
    """A moment for people, in UTC: ``12:00:00.000250``."""
    return f"{EPOCH + timedelta(microseconds=at_ns // 1000):%H:%M:%S.%f}"
