"""The service itself: its health, and its test clock."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter

from testyard.lab.migrations import applied_version
from testyard.lab.pipelines.answers import Clock, ClockKind, Health
from testyard.lab.pipelines.authentication import AdminOnly
from testyard.lab.pipelines.errors import RefusedError, refusals, with_body
from testyard.lab.pipelines.payloads import ClockAdvance, ClockSetting
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import ServiceOf
from testyard.lab.pipelines.store import clock
from testyard.lab.pipelines.store.clock import ClockError

# Schedules can be computed there, and no zone pushes a time over the edge of what can be read.
EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)

health_router = APIRouter(prefix=PREFIX, tags=["operations"])
clock_router = APIRouter(prefix=f"{PREFIX}/test-clock", tags=["operations"], dependencies=[AdminOnly])


@health_router.get("/health", responses=refusals())
async def health(service: ServiceOf) -> Health:
    """Whether the service can work; needs no key."""
    return Health(
        status="ok",
        database="reachable",
        migration_version=await applied_version(service.pool),
        clock=ClockKind.TEST if service.settings.test_clock else ClockKind.DATABASE,
        now=await clock.read(service.pool),
    )


@clock_router.get("", responses=refusals(401, 403))
async def read_clock(service: ServiceOf) -> Clock:
    """The service's time."""
    return Clock(now=await clock.read(service.pool))


@clock_router.put("", responses=with_body(401, 403, 409))
async def move_clock(service: ServiceOf, setting: ClockSetting) -> Clock:
    """Move the service's time forward."""
    if not EARLIEST <= setting.now <= LATEST:
        raise RefusedError(409, f"the clock goes from {EARLIEST.date()} to {LATEST.date()}")
    return await _moved(clock.move(service.pool, setting.now.astimezone(UTC)))


@clock_router.post("/advance", responses=with_body(401, 403, 409))
async def advance_clock(service: ServiceOf, advance: ClockAdvance) -> Clock:
    """Move the service's time forward from what it is."""
    return await _moved(clock.advance(service.pool, timedelta(seconds=advance.seconds), LATEST))


async def _moved(moving: Awaitable[datetime]) -> Clock:
    try:
        return Clock(now=await moving)
    except ClockError as error:
        raise RefusedError(409, str(error)) from None
