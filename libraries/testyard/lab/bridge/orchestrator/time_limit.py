"""A time limit in three steps: a warning, the time itself, and a grace after which it is over.

Source: contract page "event-bus", 3.7: progressive timeout, warning at 80 %, grace 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

WARN_AT: Final = 0.8


@dataclass
class TimeLimit:
    """How far a time limit has been used up.

    Attributes:
        ends_at: On the loop's clock.
    """

    ends_at: float

    @property
    def is_over(self) -> bool:
        """Whether the time is over and only the grace is left: what can be left out is."""
        return asyncio.get_running_loop().time() >= self.ends_at


@asynccontextmanager
async def time_limit(within: timedelta, grace: timedelta, warn: Callable[[], object]) -> AsyncIterator[TimeLimit]:
    """Let something take its time, but not for ever.

    Args:
        within: How long it may take.
        grace: How much longer, to come to an end.
        warn: Called when most of the time is used up.

    Raises:
        TimeoutError: The grace is over, too.
    """
    loop = asyncio.get_running_loop()
    warning = loop.call_later(within.total_seconds() * WARN_AT, warn)
    try:
        async with asyncio.timeout((within + grace).total_seconds()):
            yield TimeLimit(loop.time() + within.total_seconds())
    finally:
        warning.cancel()
