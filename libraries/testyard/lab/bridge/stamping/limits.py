"""How many requests a client may make in a minute.

The package ``limits`` keeps its counters by a thread, or a task, that runs every ten milliseconds; ``aiolimiter``
lets requests wait rather than refusing them. The exact window below is all that is needed here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from cachetools import LRUCache

WINDOW: Final = timedelta(minutes=1)
MOST_CLIENTS: Final = 10_000
"""Clients that are remembered; the one that was not heard of for the longest time is forgotten first."""


class RateLimits:
    """The last minute of every client.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._admitted: LRUCache[tuple[str, str], deque[float]] = LRUCache(MOST_CLIENTS)

    def refused_for(self, client: str, kind: str, most: int) -> timedelta:
        """Count a request, unless there were too many.

        Args:
            client: Who asks.
            kind: What for; every kind is counted on its own.
            most: How many there may be in any minute.

        Returns:
            Zero when it may be made, else how long it takes until it may.
        """
        now = self._clock()
        admitted = self._admitted.setdefault((client, kind), deque())
        while admitted and admitted[0] <= now - WINDOW.total_seconds():
            admitted.popleft()
        if len(admitted) >= most:
            return timedelta(seconds=admitted[0] - now) + WINDOW
        admitted.append(now)
        return timedelta(0)
