"""Ending what runs in the background, for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

CANCELLED_AGAIN_AFTER: Final = timedelta(milliseconds=200)


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended.

    What waits with ``asyncio.wait_for``, as psycopg does, loses in Python 3.11 a cancellation that comes together
    with the answer (solved in 3.12): the task would go on for ever.

    Args:
        tasks: The tasks; what they have raised is left to who awaits them.
    """
    tasks = list(tasks)
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCELLED_AGAIN_AFTER.total_seconds())
