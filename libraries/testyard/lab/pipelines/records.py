"""What the store returns: one frozen record per kind of row, with the columns' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from testyard.lab.pipelines.plans import Plan
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.states import RunState

Row = Mapping[str, Any]


class CustomerStatus(StrEnum):
    """Whether a customer's pipelines run. Source: contract page "pipelines", 1.2."""

    ACTIVE = "ACTIVE"
    TRIAL = "TRIAL"
    SUSPENDED = "SUSPENDED"
    CANCELLED = "CANCELLED"


class TriggerType(StrEnum):
    """What made a run."""

    SCHEDULER = "scheduler"
    API = "api"


class Channel(StrEnum):
    """How a customer hears of a failed run."""

    EMAIL = "email"
    SLACK = "slack"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Customer:
    """A row of ``customers``."""

    customer_id: str
    company_name: str
    admin_email: str
    subscription_plan: Plan
    status: CustomerStatus
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Row) -> Customer:
        """The record of a row."""
        return cls(
            **{
                **row,
                "subscription_plan": Plan(row["subscription_plan"]),
                "status": CustomerStatus(row["status"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Configuration:
    """A row of ``pipeline_configurations``: a customer's pipeline with its schedule."""

    config_id: str
    customer_id: str
    provider: str
    domain: str
    template_name: str
    schedule: str
    timezone: str
    priority: int
    default_parameters: Mapping[str, Any]
    is_active: bool
    last_run_time: datetime | None
    last_run_status: str | None
    next_run_time: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """A row of ``scheduled_pipeline_runs``."""

    run_id: str
    config_id: str | None
    customer_id: str
    provider: str
    domain: str
    template_name: str
    parameters: Mapping[str, Any]
    priority: int
    queue_position: int
    scheduled_time: datetime
    trigger_type: TriggerType
    state: RunState
    pipeline_logging_id: str | None
    retry_attempt: int
    not_before: datetime | None
    error_class: ErrorClass | None
    error_message: str | None
    reservation_date: date | None
    claim_number: int
    worker_id: str | None
    heartbeat_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Row) -> Run:
        """The record of a row."""
        error_class = row["error_class"]
        return cls(
            **{
                **row,
                "state": RunState(row["state"]),
                "trigger_type": TriggerType(row["trigger_type"]),
                "error_class": None if error_class is None else ErrorClass(error_class),
            }
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """A row of ``run_transitions``: one change of a run's state.

    ``at`` is the service's time, ``recorded_at`` the database's real time.
    """

    sequence: int
    run_id: str
    customer_id: str
    from_state: RunState | None
    to_state: RunState
    retry_attempt: int
    claim_number: int
    worker_id: str | None
    reason: str | None
    not_before: datetime | None
    at: datetime
    recorded_at: datetime

    @classmethod
    def of(cls, row: Row) -> Transition:
        """The record of a row."""
        from_state = row["from_state"]
        return cls(
            **{
                **row,
                "from_state": None if from_state is None else RunState(from_state),
                "to_state": RunState(row["to_state"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Work:
    """A run that a worker has claimed: the run is its own as long as nobody has claimed it again."""

    run_id: str
    claim_number: int
    customer_id: str
    config_id: str | None
    provider: str
    domain: str
    template_name: str
    parameters: Mapping[str, Any]
    priority: int
    scheduled_time: datetime
    retry_attempt: int
    worker_id: str
    pipeline_logging_id: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed."""

    error_class: ErrorClass
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker reports of a run it has claimed.

    Args:
        run_id: The run.
        claim_number: The claim it was executed under; a report under an older claim changes nothing.
        retry_attempt: How often the run had been retried before this claim.
        failure: Why it failed; None when it succeeded.
    """

    run_id: str
    claim_number: int
    retry_attempt: int
    failure: Failure | None = None

    @classmethod
    def of(cls, work: Work | Run, failure: Failure | None = None) -> Outcome:
        """The outcome of claimed work."""
        return cls(work.run_id, work.claim_number, work.retry_attempt, failure)


@dataclass(frozen=True, slots=True)
class Quota:
    """A row of ``subscription_quotas``: a customer's limits and use on one day (UTC)."""

    customer_id: str
    usage_date: date
    pipelines_run_today: int
    pipelines_run_month: int
    concurrent_running: int
    daily_limit: int
    monthly_limit: int
    concurrent_limit: int
    reserved_today: int
    reserved_month: int


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter of a quota that is not what the runs say."""

    customer_id: str
    usage_date: date
    counter: str
    stored: int
    counted: int


@dataclass(frozen=True, slots=True)
class Triggered:
    """What one evaluation of all schedules did.

    Args:
        triggered: Runs that were made.
        queued: How many of them wait for a worker (or are beyond waiting).
        skipped: How many of them exceeded the quota.
        due_found: Configurations that were due.
        next_trigger_time: When the next configuration is due; None when there is none.
    """

    triggered: int
    queued: int
    skipped: int
    due_found: int
    next_trigger_time: datetime | None


@dataclass(frozen=True, slots=True)
class CustomerCounts:
    """A customer's pipelines and runs in numbers; "today" is the service's UTC date."""

    total_configured: int
    scheduled_today: int
    completed_today: int
    completed: int
    running: int
    yet_to_run: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class SchedulerCounts:
    """The scheduler's work in numbers; "today" is the service's UTC date."""

    active_configurations: int
    due_now: int
    queued: int
    running: int
    completed_today: int
    failed_today: int
    average_execution_time: timedelta | None


@dataclass(frozen=True, slots=True)
class NotificationChannel:
    """Where a customer's failure notifications go."""

    channel: Channel
    target: str


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification that waits to be sent, leased to one sender."""

    notification_id: int
    customer_id: str
    run_id: str
    channel: Channel
    target: str
    subject: str
    body: Mapping[str, Any]
    attempts: int

    @classmethod
    def of(cls, row: Row) -> Notification:
        """The record of a row."""
        return cls(**{**row, "channel": Channel(row["channel"])})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A notification that could not be sent."""

    notification_id: int
    customer_id: str
    run_id: str
    channel: Channel
    target: str
    subject: str
    body: Mapping[str, Any]
    attempts: int
    last_error: str
    created_at: datetime

    @classmethod
    def of(cls, row: Row) -> DeadLetter:
        """The record of a row."""
        return cls(**{**row, "channel": Channel(row["channel"])})
