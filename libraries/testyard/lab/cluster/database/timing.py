"""How long things take in a replicated database, and how its processes let time pass."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from pydantic import BaseModel, ConfigDict


class Timings(BaseModel):
    """The time limits of a cluster's manager and agents; the defaults are the embedded lab's.

    Args:
        heartbeat: Between two polls of a member. Each poll of the primary renews its lease.
        call: The answer to a poll has to come within this time.
        detection: A member that has not answered for this time is not reached; a primary that is not reached, or
            accepts no connections, for this time is lost. A silent one is so after both. A machine that is busy is
            slow too, so this is not as short as it could be.
        refusals: A member that has refused so many polls one after the other is lost at once: its process has
            ended.
        lease: How long a primary goes on without a poll that renews its lease.
        isolation: A primary that has not had enough standbys for this time is replaced when they could be had.
        command: The answer to a command such as a promotion has to come within this time.
        settling: A member that receives nothing more may take this long to replay what it has.
        stop: PostgreSQL may take this long to shut down in an orderly way, then it is aborted.
        start: PostgreSQL may take this long to start, crash recovery included.
        rejoin: ``pg_rewind`` or ``pg_basebackup`` may take this long.
        silence: A replication connection that has been silent for this time is given up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heartbeat: timedelta = timedelta(milliseconds=100)
    call: timedelta = timedelta(milliseconds=400)
    detection: timedelta = timedelta(milliseconds=900)
    refusals: int = 3
    lease: timedelta = timedelta(milliseconds=1500)
    isolation: timedelta = timedelta(seconds=3)
    command: timedelta = timedelta(seconds=3)
    settling: timedelta = timedelta(seconds=1.5)
    stop: timedelta = timedelta(seconds=1)
    start: timedelta = timedelta(seconds=20)
    rejoin: timedelta = timedelta(seconds=30)
    silence: timedelta = timedelta(seconds=2)


async def happens(event: asyncio.Event, within: float) -> bool:
    """Wait for an event, or until time has passed.

    Args:
        event: What is waited for.
        within: Seconds.

    Returns:
        Whether it has happened.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
    return event.is_set()


async def elapse(duration: float) -> None:
    """Let seconds pass: a protocol's own interval, or the pause between two looks at what tells nobody."""
    await happens(asyncio.Event(), duration)
