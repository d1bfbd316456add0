"""Reading runs and their histories."""

from __future__ import annotations

from datetime import date

from testyard.lab.database import Pool, Statement, fetch, fetch_together
from testyard.lab.pipelines.records import CustomerCounts, Run, SchedulerCounts, Transition
from testyard.lab.pipelines.states import RunState
from testyard.lab.pipelines.store import quotas

_COLUMNS = """run_id, config_id, customer_id, provider, domain, template_name, parameters, priority,
    queue_position, scheduled_time, trigger_type, state, pipeline_logging_id, retry_attempt, not_before,
    error_class, error_message, reservation_date,
    claim_number, worker_id, heartbeat_at, started_at, ended_at, created_at, updated_at"""

READ = f"SELECT {_COLUMNS} FROM scheduled_pipeline_runs WHERE run_id = %(run_id)s"

_FIND = f"""
    SELECT {_COLUMNS} FROM scheduled_pipeline_runs
    WHERE (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
        AND (%(state)s::text IS NULL OR state = %(state)s)
        AND (%(date)s::date IS NULL OR (scheduled_time >= %(date)s::date::timestamp AT TIME ZONE 'UTC'
            AND scheduled_time < (%(date)s::date + 1)::timestamp AT TIME ZONE 'UTC'))
    ORDER BY scheduled_time DESC, queue_position DESC LIMIT %(limit)s OFFSET %(offset)s"""

_YET_TO_RUN = f"""
    SELECT {_COLUMNS} FROM scheduled_pipeline_runs
    WHERE customer_id = %(customer_id)s AND state IN ('SCHEDULED', 'PENDING')
    ORDER BY priority DESC, queue_position"""

_RUNNING = f"""
    SELECT {_COLUMNS} FROM scheduled_pipeline_runs
    WHERE customer_id = %(customer_id)s AND state = 'RUNNING' ORDER BY started_at, queue_position"""

_TRANSITIONS = """
    SELECT sequence, run_id, customer_id, from_state, to_state, retry_attempt, claim_number, worker_id, reason,
        not_before, at, recorded_at
    FROM run_transitions WHERE run_id = %(run_id)s ORDER BY sequence"""

_COUNTS_BY_STATE = "SELECT state, count(*) AS runs FROM scheduled_pipeline_runs GROUP BY state"

_CUSTOMER_COUNTS = """
    SELECT (SELECT count(*) FROM pipeline_configurations WHERE customer_id = %(customer_id)s AND is_active)
            AS total_configured,
        count(*) FILTER (WHERE (scheduled_time AT TIME ZONE 'UTC')::date = today) AS scheduled_today,
        count(*) FILTER (WHERE state = 'COMPLETED' AND (ended_at AT TIME ZONE 'UTC')::date = today)
            AS completed_today,
        count(*) FILTER (WHERE state = 'COMPLETED') AS completed,
        count(*) FILTER (WHERE state = 'RUNNING') AS running,
        count(*) FILTER (WHERE state IN ('SCHEDULED', 'PENDING')) AS yet_to_run,
        count(*) FILTER (WHERE state = 'FAILED') AS failed,
        count(*) FILTER (WHERE state = 'SKIPPED') AS skipped
    FROM (SELECT service_today() AS today OFFSET 0) AS days
    LEFT JOIN scheduled_pipeline_runs ON customer_id = %(customer_id)s
    HAVING EXISTS (SELECT FROM customers WHERE customer_id = %(customer_id)s)"""

_SCHEDULER_COUNTS = """
    SELECT count(*) FILTER (WHERE state = 'PENDING') AS queued,
        count(*) FILTER (WHERE state = 'RUNNING') AS running,
        count(*) FILTER (WHERE state = 'COMPLETED' AND (ended_at AT TIME ZONE 'UTC')::date = today)
            AS completed_today,
        count(*) FILTER (WHERE state = 'FAILED' AND (ended_at AT TIME ZONE 'UTC')::date = today) AS failed_today,
        avg(ended_at - started_at)
            FILTER (WHERE state = 'COMPLETED' AND (ended_at AT TIME ZONE 'UTC')::date = today)
            AS average_execution_time,
        (SELECT count(*) FROM pipeline_configurations WHERE is_active) AS active_configurations,
        (SELECT count(*) FROM pipeline_configurations JOIN customers USING (customer_id)
            WHERE is_active AND next_run_time <= (SELECT service_now()) AND customers.status = 'ACTIVE') AS due_now
    FROM (SELECT service_today() AS today OFFSET 0) AS days LEFT JOIN scheduled_pipeline_runs ON true"""


async def read(pool: Pool, run_id: str) -> Run | None:
    """One run.

    Args:
        pool: The service's connections.
        run_id: The run.

    Returns:
        The run; None when there is none.
    """
    rows = await fetch(pool, READ, {"run_id": run_id})
    return Run.of(rows[0]) if rows else None


async def find(
    pool: Pool,
    *,
    customer_id: str | None = None,
    state: RunState | None = None,
    scheduled_on: date | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[Run]:
    """Runs, the latest first.

    Args:
        pool: The service's connections.
        customer_id: Only this customer's.
        state: Only in this state.
        scheduled_on: Only those scheduled on this day (UTC).
        limit: How many at most.
        offset: How many of the first to leave out.

    Returns:
        The runs.
    """
    parameters = {
        "customer_id": customer_id,
        "state": state,
        "date": scheduled_on,
        "limit": limit,
        "offset": offset,
    }
    return [Run.of(row) for row in await fetch(pool, _FIND, parameters)]


async def yet_to_run(pool: Pool, customer_id: str) -> list[Run]:
    """A customer's runs that are SCHEDULED or PENDING, in the order of the queue.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The runs, those that wait for a retry too.
    """
    return [Run.of(row) for row in await fetch(pool, _YET_TO_RUN, {"customer_id": customer_id})]


async def running(pool: Pool, customer_id: str) -> list[Run]:
    """A customer's runs that are RUNNING.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The runs, in the order of their start.
    """
    return [Run.of(row) for row in await fetch(pool, _RUNNING, {"customer_id": customer_id})]


async def read_with_transitions(pool: Pool, run_id: str) -> tuple[Run | None, list[Transition]]:
    """One run and every change of its state.

    Args:
        pool: The service's connections.
        run_id: The run.

    Returns:
        The run; None when there is none. The changes, in order.
    """
    wanted = {"run_id": run_id}
    found, transitions = await fetch_together(pool, Statement(READ, wanted), Statement(_TRANSITIONS, wanted))
    return Run.of(found[0]) if found else None, [Transition.of(row) for row in transitions]


async def counts_by_state(pool: Pool) -> dict[RunState, int]:
    """How many runs there are in each state.

    Args:
        pool: The service's connections.

    Returns:
        The numbers; every state is there.
    """
    counted = {row["state"]: int(row["runs"]) for row in await fetch(pool, _COUNTS_BY_STATE)}
    return {state: counted.get(state, 0) for state in RunState}


async def customer_counts(pool: Pool, customer_id: str) -> CustomerCounts | None:
    """A customer's pipelines and runs in numbers.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The numbers; None when there is no such customer.
    """
    (rows,) = await quotas.fetch_of_today(pool, Statement(_CUSTOMER_COUNTS, {"customer_id": customer_id}))
    return CustomerCounts(**rows[0]) if rows else None


async def scheduler_counts(pool: Pool) -> SchedulerCounts:
    """The scheduler's work in numbers.

    Args:
        pool: The service's connections.

    Returns:
        The numbers.
    """
    return SchedulerCounts(**(await fetch(pool, _SCHEDULER_COUNTS))[0])
