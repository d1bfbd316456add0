"""What the service's routes answer where it is more than a row of the store.

Source: contract page "pipelines", 1.1 (names of the fields).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel

from testyard.lab.pipelines.plans import UNLIMITED, Plan
from testyard.lab.pipelines.records import (
    CustomerCounts,
    CustomerStatus,
    Quota,
    Run,
    SchedulerCounts,
    Transition,
    Triggered,
    Work,
)
from testyard.lab.pipelines.states import RunState
from testyard.lab.pipelines.store.keys import ApiKey
from testyard.lab.pipelines.store.quotas import DAILY_EXCEEDED, MONTHLY_EXCEEDED


class Onboarded(BaseModel):
    """A new customer, with its key in clear: this once."""

    customer_id: str
    tenant_id: str
    api_key: str
    subscription_plan: Plan
    status: CustomerStatus
    message: str


class Deleted(BaseModel):
    """What was deleted of a customer: rows of each table."""

    customer_id: str
    deleted: dict[str, int]


class Status(BaseModel):
    """A customer's pipelines and runs in numbers; "today" is the UTC date."""

    tenant_id: str
    total_configured: int
    scheduled_today: int
    completed_today: int
    completed: int
    running: int
    yet_to_run: int
    failed: int
    skipped: int

    @classmethod
    def of(cls, customer_id: str, counts: CustomerCounts) -> Self:
        """The numbers of a customer."""
        return cls(tenant_id=customer_id, **_values(counts))


@dataclass(frozen=True)
class ShownKey(ApiKey):
    """A new key in clear: this once."""

    api_key: str

    @classmethod
    def of(cls, stored: ApiKey, api_key: str) -> ShownKey:
        """A stored key with its clear text."""
        return cls(**_values(stored), api_key=api_key)


@dataclass(frozen=True)
class RunWithHistory(Run):
    """A run with every change of its state."""

    transitions: list[Transition]

    @classmethod
    def with_transitions(cls, run: Run, transitions: list[Transition]) -> RunWithHistory:
        """A run with its history."""
        return cls(**_values(run), transitions=transitions)


class Remaining(BaseModel):
    """What may still be run; a reserved run counts as used."""

    daily: int
    monthly: int
    concurrent: int


class Validation(BaseModel):
    """Whether a pipeline could run now; the errors are in the order daily, monthly, concurrent."""

    can_run_pipeline: bool
    subscription_status: CustomerStatus
    quota_remaining: Remaining
    validation_errors: list[str]

    @classmethod
    def of(cls, quota: Quota, status: CustomerStatus) -> Self:
        """What a quota leaves."""
        daily = quota.daily_limit - quota.pipelines_run_today - quota.reserved_today
        monthly = quota.monthly_limit - quota.pipelines_run_month - quota.reserved_month
        concurrent = quota.concurrent_limit - quota.concurrent_running
        errors = []
        if daily <= 0:
            errors.append(DAILY_EXCEEDED % quota.daily_limit)
        if monthly <= 0:
            errors.append(MONTHLY_EXCEEDED % quota.monthly_limit)
        if concurrent <= 0:
            errors.append(concurrent_limit_reached(quota))
        # What was admitted stays so under a lower limit: then less than nothing would be left.
        left = {"daily": max(daily, 0), "monthly": max(monthly, 0), "concurrent": max(concurrent, 0)}
        return cls(
            can_run_pipeline=not errors and status is CustomerStatus.ACTIVE,
            subscription_status=status,
            quota_remaining=Remaining(**left),
            validation_errors=errors,
        )


def concurrent_limit_reached(quota: Quota) -> str:
    """The sentence for a customer whose slots are all taken."""
    return (
        f"Concurrent pipeline limit reached ({quota.concurrent_limit} pipelines). "
        "Wait for running pipelines to complete."
    )


class TriggerDetails(BaseModel):
    """What a trigger looked at."""

    limit: int
    due_pipelines_found: int


class TriggerAnswer(BaseModel):
    """What one evaluation of all schedules did."""

    triggered_count: int
    queued_count: int
    skipped_count: int
    status: str
    next_trigger_time: datetime | None
    details: TriggerDetails
    message: str

    @classmethod
    def of(cls, triggered: Triggered, limit: int | None) -> Self:
        """What was triggered."""
        return cls(
            triggered_count=triggered.triggered,
            queued_count=triggered.queued,
            skipped_count=triggered.skipped,
            status="queued",
            next_trigger_time=triggered.next_trigger_time,
            details=TriggerDetails(
                limit=UNLIMITED if limit is None else limit, due_pipelines_found=triggered.due_found
            ),
            message=f"Triggered {triggered.triggered} pipelines: {triggered.queued} queued, "
            f"{triggered.skipped} skipped (quota exceeded)",
        )


class ProcessStatus(StrEnum):
    """Whether there was something to process."""

    PROCESSING = "PROCESSING"
    IDLE = "IDLE"


class Processed(BaseModel):
    """The run that was taken from the queue, if there was one."""

    processed: bool
    status: ProcessStatus
    run_id: str | None = None
    pipeline_logging_id: str | None = None
    customer_id: str | None = None
    pipeline_id: str | None = None
    message: str

    @classmethod
    def of(cls, work: Work | None) -> Self:
        """What was taken."""
        if work is None:
            return cls(processed=False, status=ProcessStatus.IDLE, message="No pipelines in queue")
        return cls(
            processed=True,
            status=ProcessStatus.PROCESSING,
            run_id=work.run_id,
            pipeline_logging_id=work.pipeline_logging_id,
            customer_id=work.customer_id,
            pipeline_id=pipeline_id_of(work),
            message="Pipeline is being executed",
        )


class QueueStatus(BaseModel):
    """All runs by state; ``queued`` and ``queue_length`` are those that wait for a worker."""

    scheduled: int
    queued: int
    running: int
    completed: int
    failed: int
    skipped: int
    queue_length: int

    @classmethod
    def of(cls, counts: dict[RunState, int]) -> Self:
        """The numbers of the states."""
        return cls(
            scheduled=counts[RunState.SCHEDULED],
            queued=counts[RunState.PENDING],
            running=counts[RunState.RUNNING],
            completed=counts[RunState.COMPLETED],
            failed=counts[RunState.FAILED],
            skipped=counts[RunState.SKIPPED],
            queue_length=counts[RunState.PENDING],
        )


class SchedulerStatus(BaseModel):
    """The scheduler's work in numbers; "today" is the UTC date."""

    total_active_pipelines: int
    pipelines_due_now: int
    pipelines_queued: int
    pipelines_running: int
    pipelines_completed_today: int
    pipelines_failed_today: int
    queue_length: int
    avg_execution_time_seconds: float | None

    @classmethod
    def of(cls, counts: SchedulerCounts) -> Self:
        """The numbers of the scheduler."""
        average = counts.average_execution_time
        return cls(
            total_active_pipelines=counts.active_configurations,
            pipelines_due_now=counts.due_now,
            pipelines_queued=counts.queued,
            pipelines_running=counts.running,
            pipelines_completed_today=counts.completed_today,
            pipelines_failed_today=counts.failed_today,
            queue_length=counts.queued,
            avg_execution_time_seconds=None if average is None else average.total_seconds(),
        )


class Accepted(BaseModel):
    """A run that was asked for directly and let in."""

    run_id: str
    pipeline_logging_id: str | None
    pipeline_id: str
    tenant_id: str
    trigger_by: str
    status: RunState
    message: str


class Clock(BaseModel):
    """The service's time."""

    now: datetime


class ClockKind(StrEnum):
    """Which clock the service goes by."""

    DATABASE = "database"
    TEST = "test"


class Health(BaseModel):
    """That the service can work."""

    status: str
    database: str
    migration_version: int
    clock: ClockKind
    now: datetime


def pipeline_id_of(run: Run | Work) -> str:
    """``tenant-provider-domain-template`` of a run."""
    return f"{run.customer_id}-{run.provider}-{run.domain}-{run.template_name}"


def _values(record: CustomerCounts | ApiKey | Run) -> dict[str, Any]:
    """What a record is made of, as it is: ``asdict`` would copy what is nested too."""
    return {each.name: getattr(record, each.name) for each in fields(record)}
