"""Waiting inside the service without blocking the loop: for an event, for time to pass, for the parent's end."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

FIRST_RETRY: Final = timedelta(milliseconds=100)
LONGEST_RETRY: Final = timedelta(seconds=2)


class Backoff:
    """How long to wait before the next attempt: each time twice as long, up to ``LONGEST_RETRY``."""

    def __init__(self) -> None:
        self._next = FIRST_RETRY

    def next(self) -> timedelta:
        """The wait after one more failure."""
        wait, self._next = self._next, min(self._next * 2, LONGEST_RETRY)
        return wait

    def reset(self) -> None:
        """Begin again, after a success."""
        self._next = FIRST_RETRY


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


async def both(first: Awaitable[None], second: Awaitable[None]) -> None:
    """Wait for two things at the same time, for both of them also when one fails.

    Args:
        first: The one.
        second: The other.

    Raises:
        Exception: What the first of them failed with.
    """
    for outcome in await asyncio.gather(first, second, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def call_when_input_ends(act: Callable[[], object]) -> None:
    """Do something on the running loop when standard input ends: the process that holds its other end has gone.

    Args:
        act: What to do; nothing when the loop is closed by then.
    """
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        if not loop.is_closed():
            loop.call_soon_threadsafe(act)

    threading.Thread(target=wait, name="standard input", daemon=True).start()
