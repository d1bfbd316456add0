"""The operator's side of scheduling: trigger, queue, numbers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from testyard.lab.pipelines.answers import Processed, QueueStatus, SchedulerStatus, TriggerAnswer
from testyard.lab.pipelines.authentication import AdminOnly
from testyard.lab.pipelines.errors import refusals
from testyard.lab.pipelines.payloads import AllRunsFilter, TriggerLimit
from testyard.lab.pipelines.records import Run
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import ServiceOf
from testyard.lab.pipelines.store import admission, runs

router = APIRouter(
    prefix=f"{PREFIX}/scheduler", tags=["scheduler"], dependencies=[AdminOnly], responses=refusals(401, 403)
)


@router.post("/trigger")
async def trigger(service: ServiceOf, wanted: Annotated[TriggerLimit, Query()]) -> TriggerAnswer:
    """Make a run for each configuration that is due, and queue it within its customer's quota."""
    return TriggerAnswer.of(await admission.schedule_due(service.pool, wanted.limit), wanted.limit)


@router.get("/scheduled")
async def scheduled(service: ServiceOf, wanted: Annotated[AllRunsFilter, Query()]) -> list[Run]:
    """Runs of all customers, the latest first."""
    return await runs.find(
        service.pool,
        customer_id=wanted.customer_id,
        state=wanted.state,
        scheduled_on=wanted.date,
        limit=wanted.limit,
        offset=wanted.offset,
    )


@router.post("/process")
async def process(service: ServiceOf) -> Processed:
    """Take the next run from the queue and let this process execute it."""
    return Processed.of(await service.runner.process_next())


@router.get("/queue/status")
async def queue_status(service: ServiceOf) -> QueueStatus:
    """All runs by state."""
    return QueueStatus.of(await runs.counts_by_state(service.pool))


@router.get("/status")
async def status(service: ServiceOf) -> SchedulerStatus:
    """The scheduler's work in numbers."""
    return SchedulerStatus.of(await runs.scheduler_counts(service.pool))
