"""The service's time: the test clock where a session honours it, else the database's."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Final

from testyard.lab.database import DatabaseUnavailableError, Pool, Statement, fetch, fetch_together
from testyard.lab.pipelines.store.queue_signal import NOTIFY_RUNS_PENDING

FRESH_FOR: Final = timedelta(milliseconds=20)

_MOVE = """
    INSERT INTO test_clock (moment)
    SELECT %(moment)s WHERE %(moment)s >= service_now() OR NOT EXISTS (SELECT FROM customers)
    ON CONFLICT (single) DO UPDATE SET moment = excluded.moment WHERE test_clock.moment <= excluded.moment
    RETURNING moment"""

_ADVANCE = """
    INSERT INTO test_clock (moment) SELECT service_now() + %(by)s WHERE service_now() + %(by)s <= %(latest)s
    ON CONFLICT (single) DO UPDATE SET moment = test_clock.moment + %(by)s
    WHERE test_clock.moment + %(by)s <= %(latest)s
    RETURNING moment"""


class ClockError(Exception):
    """The test clock was to go back, or too far."""


async def read(pool: Pool) -> datetime:
    """The service's present time.

    Args:
        pool: The service's connections.

    Returns:
        The time, in UTC.
    """
    rows = await fetch(pool, "SELECT service_now() AS moment")
    moment: datetime = rows[0]["moment"]
    return moment


class PatientClock:
    """Reads the service's clock for those who have begun something: while the database is away, time stands still.

    Many who look at it again and again cost the database no more than one.

    Args:
        pool: The service's connections.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._last: datetime | None = None
        self._looks_again_at = 0.0
        self._looking = asyncio.Lock()

    async def __call__(self) -> datetime:
        """The service's time, read ``FRESH_FOR`` ago at most.

        Raises:
            DatabaseUnavailableError: The database is away and the clock was never read before.
        """
        async with self._looking:
            if self._last is None or time.monotonic() >= self._looks_again_at:
                try:
                    self._last = await read(self._pool)
                except DatabaseUnavailableError:
                    if self._last is None:
                        raise
                self._looks_again_at = time.monotonic() + FRESH_FOR.total_seconds()
            return self._last


async def advance(pool: Pool, by: timedelta, latest: datetime) -> datetime:
    """Move the test clock forward from what it shows.

    Args:
        pool: The service's connections.
        by: How far.
        latest: What it shows at most.

    Returns:
        The service's new time.

    Raises:
        ClockError: It would show a later time.
    """
    moved = await _move(pool, Statement(_ADVANCE, {"by": by, "latest": latest}))
    if moved is None:
        raise ClockError(f"the clock goes to {latest.date()}")
    return moved


async def move(pool: Pool, moment: datetime) -> datetime:
    """Set the test clock, forward only; as long as there is no customer its first setting may be any time.

    Args:
        pool: The service's connections.
        moment: The service's new time.

    Returns:
        The service's new time.

    Raises:
        ClockError: The service's time is later already.
    """
    moved = await _move(pool, Statement(_MOVE, {"moment": moment}))
    if moved is None:
        present = await read(pool)
        shown, wanted = present.isoformat(), moment.isoformat()
        raise ClockError(f"the clock only goes forward: it shows {shown}, which is after {wanted}")
    return moved


async def _move(pool: Pool, statement: Statement) -> datetime | None:
    # A retry may have become due.
    rows, _ = await fetch_together(pool, statement, Statement(NOTIFY_RUNS_PENDING))
    return rows[0]["moment"] if rows else None
