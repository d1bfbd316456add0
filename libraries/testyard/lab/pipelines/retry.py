"""Whether a failed run is tried again, and when.

Source: issue 4 (retry policy), contract page "pipelines", 1.5.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final

MAXIMUM_RETRIES: Final = 3
BASE_DELAY: Final = timedelta(minutes=1)
MAXIMUM_DELAY: Final = timedelta(minutes=60)
# From here on every delay is the maximum; a larger exponent would only overflow.
_LARGEST_EXPONENT: Final = 10


class ErrorClass(StrEnum):
    """Why a run failed."""

    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    TRANSIENT_NETWORK = "TRANSIENT_NETWORK"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    TIMEOUT = "TIMEOUT"
    WORKER_LOST = "WORKER_LOST"
    UNKNOWN = "UNKNOWN"
    AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
    AUTHORIZATION_FAILED = "AUTHORIZATION_FAILED"
    INVALID_CONFIGURATION = "INVALID_CONFIGURATION"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"


NEVER_RETRIED: Final = frozenset(
    {
        ErrorClass.AUTHENTICATION_FAILED,
        ErrorClass.AUTHORIZATION_FAILED,
        ErrorClass.INVALID_CONFIGURATION,
        ErrorClass.RESOURCE_NOT_FOUND,
    }
)
"""Errors that time does not cure."""


def may_retry(error_class: ErrorClass, retries_made: int) -> bool:
    """Whether a run that has just failed is tried again.

    Args:
        error_class: Why it failed.
        retries_made: How often it has been retried already (0 after the first attempt).

    Returns:
        True if the error is one that can pass and fewer than ``MAXIMUM_RETRIES`` retries were made.

    Raises:
        ValueError: A negative number of retries.
    """
    if retries_made < 0:
        raise ValueError(f"the number of retries made is {retries_made}, expected 0 or more")
    return error_class not in NEVER_RETRIED and retries_made < MAXIMUM_RETRIES


def retry_delay(attempt: int, fraction: float) -> timedelta:
    """How long a retry waits: 1 minute, doubled for each retry before it, at most 60 minutes, with jitter.

    Args:
        attempt: Which retry this is: 1 for the first.
        fraction: Where between half and the whole of the delay to be, from the caller's random source: at least 0,
            less than 1.

    Returns:
        At least half of the delay, never more than the delay.

    Raises:
        ValueError: An attempt below 1, or a fraction outside [0, 1).

    Example:
        >>> retry_delay(3, 0.5)
        datetime.timedelta(seconds=180)
    """
    if attempt < 1:
        raise ValueError(f"the attempt is {attempt}, expected 1 for the first retry")
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction is {fraction}, expected at least 0 and less than 1")
    delay = min(BASE_DELAY * (1 << min(attempt - 1, _LARGEST_EXPONENT)), MAXIMUM_DELAY)
    return delay / 2 + delay / 2 * fraction
