"""Waiting inside the service: for an event or for time to pass, without blocking the loop."""

from __future__ import annotations

import asyncio
from datetime import timedelta


async def happens(event: asyncio.Event, within: timedelta) -> bool:
    """Wait for an event.

    Args:
        event: The event.
        within: How long at most.

    Returns:
        Whether it happened.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


async def elapse(duration: timedelta) -> None:
    """Let time pass: a protocol's interval, a back-off, a pipeline's own duration.

    Args:
        duration: How long.
    """
    await happens(asyncio.Event(), duration)
