"""Making runs: of configurations that are due, or asked for directly; and letting them in within the quota.

Source: issue 4 (quota and idempotency decisions), contract page "pipelines", 1.4, 1.5 and 1.7 (1, 2, 5, 8).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from testyard.lab.pipelines.cron import CronError, next_time
from testyard.lab.pipelines.database import (
    LOCK_DAY_SHARED,
    Connection,
    DatabaseUnavailableError,
    Pool,
    fetch,
    fetch_within_day,
    in_transaction,
)
from testyard.lab.pipelines.keys import idempotency_key
from testyard.lab.pipelines.records import Run, Triggered, TriggerType
from testyard.lab.pipelines.states import RunState
from testyard.lab.pipelines.store import clock, quotas, runs
from testyard.lab.pipelines.store.queue_signal import NOTIFY_RUNS_PENDING

BATCH: Final = 2500
LANES: Final = 2
"""How many batches are worked on at the same time, when there are many."""

# The queue's places are given out here, where batches come one after the other: those with later places may be
# written down first.
_DUE = """
    SELECT *, nextval(pg_get_serial_sequence('scheduled_pipeline_runs', 'queue_position')) AS queue_position
    FROM (
        SELECT config_id, schedule, timezone, next_run_time
        FROM pipeline_configurations JOIN customers USING (customer_id)
        WHERE is_active AND next_run_time <= %(now)s AND customers.status = 'ACTIVE'
        ORDER BY next_run_time, config_id LIMIT %(count)s
        FOR UPDATE OF pipeline_configurations SKIP LOCKED
    ) AS due"""

# The planner would read all configurations to find a batch of them.
_FIND_EACH_BY_ITS_KEY = """
    SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"""

_SCHEDULE = """
    WITH due AS MATERIALIZED (
        SELECT * FROM unnest(%(config_ids)s::text[], %(due_times)s::timestamptz[], %(next_times)s::timestamptz[],
            %(keys)s::text[], %(queue_positions)s::bigint[])
            AS due (config_id, due_time, next_time, key, queue_position)
    ), moved AS (
        UPDATE pipeline_configurations AS configuration SET next_run_time = due.next_time
        FROM due WHERE configuration.config_id = due.config_id
        RETURNING configuration.*, due.due_time, due.key, due.queue_position
    ), made AS (
        INSERT INTO scheduled_pipeline_runs (run_id, config_id, customer_id, provider, domain, template_name,
            parameters, priority, queue_position, scheduled_time, idempotency_key, trigger_type, state, created_at,
            updated_at)
        OVERRIDING SYSTEM VALUE
        SELECT gen_random_uuid()::text, config_id, customer_id, provider, domain, template_name,
            default_parameters, priority, queue_position, due_time, key, %(trigger_type)s, 'SCHEDULED', %(now)s,
            %(now)s
        FROM moved
        ON CONFLICT (idempotency_key) DO NOTHING
        RETURNING run_id
    )
    SELECT coalesce(array_agg(run_id), '{}') AS run_ids FROM made"""

_RUN_NOW = """
    INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name, parameters,
        priority, scheduled_time, trigger_type, state, created_at, updated_at)
    SELECT %(run_id)s, %(customer_id)s, %(provider)s, %(domain)s, %(template)s, %(parameters)s, %(priority)s,
        now.moment, %(trigger_type)s, 'SCHEDULED', now.moment, now.moment
    FROM service_now() AS now (moment)"""

# It waits for another admission instead of passing over its runs, so that after it none of its own is left.
_ADMIT = """
    WITH candidates AS MATERIALIZED (
        SELECT run_id, customer_id, config_id, priority, queue_position FROM scheduled_pipeline_runs
        WHERE state = 'SCHEDULED' {only}
        ORDER BY priority DESC, queue_position LIMIT %(count)s FOR UPDATE
    ), locked AS MATERIALIZED (
        SELECT customer_id, usage_date, daily_limit, monthly_limit,
            daily_limit - pipelines_run_today - reserved_today AS free_today,
            monthly_limit - pipelines_run_month - reserved_month AS free_month
        FROM subscription_quotas
        WHERE is_current AND customer_id IN (SELECT customer_id FROM candidates)
        ORDER BY customer_id FOR UPDATE
    ), ranked AS MATERIALIZED (
        SELECT *, place <= least(free_today, free_month) AS is_granted
        FROM (
            SELECT *, row_number() OVER (PARTITION BY customer_id ORDER BY priority DESC, queue_position) AS place
            FROM candidates
        ) AS placed JOIN locked USING (customer_id)
    ), reserved AS (
        UPDATE subscription_quotas AS quota
        SET reserved_today = quota.reserved_today + grants.runs,
            reserved_month = quota.reserved_month + grants.runs
        FROM (SELECT customer_id, count(*) AS runs FROM ranked WHERE is_granted GROUP BY customer_id) AS grants
        WHERE quota.customer_id = grants.customer_id AND quota.is_current
    ), noted AS (
        UPDATE pipeline_configurations SET last_run_status = 'SKIPPED'
        WHERE config_id IN (SELECT config_id FROM ranked WHERE NOT is_granted)
    )
    UPDATE scheduled_pipeline_runs AS run
    SET state = CASE WHEN is_granted THEN 'PENDING' ELSE 'SKIPPED' END,
        reservation_date = CASE WHEN is_granted THEN usage_date END,
        error_message = CASE WHEN is_granted THEN NULL WHEN place > free_today
            THEN format('{daily_exceeded}', daily_limit)
            ELSE format('{monthly_exceeded}', monthly_limit)
            END,
        ended_at = CASE WHEN is_granted THEN NULL ELSE (SELECT service_now()) END,
        updated_at = (SELECT service_now())
    FROM ranked WHERE run.run_id = ranked.run_id
    RETURNING run.run_id"""

_SENTENCES = {
    "daily_exceeded": quotas.DAILY_EXCEEDED.replace("%", "%%"),
    "monthly_exceeded": quotas.MONTHLY_EXCEEDED.replace("%", "%%"),
}
_ADMIT_ALL = _ADMIT.format(only="", **_SENTENCES)
_ADMIT_RUN = _ADMIT.format(only="AND run_id = %(run_id)s", **_SENTENCES)
# Quotas are a customer's own: admissions of different customers are independent.
_ADMIT_LANE = _ADMIT.format(only="AND abs(hashtext(customer_id) %% %(lanes)s) = %(lane)s", **_SENTENCES)

# Only then the entries of runs that were decided before are taken out of the way.
_READ_IN_ORDER_OF_THE_INDEX = "SET LOCAL enable_bitmapscan = off"

_NEXT_TRIGGER = """
    SELECT min(next_run_time) AS next_trigger_time FROM pipeline_configurations JOIN customers USING (customer_id)
    WHERE is_active AND customers.status = 'ACTIVE'"""


@dataclass
class _NextTimes:
    """When configurations are due next; each schedule is computed once for all configurations that share it."""

    now: datetime
    _known: dict[tuple[str, str], datetime | None] = field(default_factory=dict)

    def of(self, schedule: str, timezone: str) -> datetime | None:
        """The next time after now; missed times are not made up for."""
        key = (schedule, timezone)
        if key not in self._known:
            try:
                self._known[key] = next_time(schedule, timezone, self.now)
            except CronError:
                # Nobody's schedule may stop the trigger: this one is not due any more.
                self._known[key] = None
        return self._known[key]


async def schedule_due(pool: Pool, limit: int | None = None) -> Triggered:
    """Make one run for each configuration that is due, and let the runs in within the quota.

    However often a schedule was missed, it makes one run. Two evaluations at once make no run twice.

    Args:
        pool: The service's connections.
        limit: Configurations at most; None is all.

    Returns:
        What it did.

    Raises:
        DatabaseUnavailableError: The database went away; what was made is let in by the next call of ``admit``.
    """
    await quotas.open_day(pool)
    evaluation = _Evaluation(pool, _NextTimes(await clock.read(pool)))
    if limit is None:
        if await evaluation.schedule(BATCH) == BATCH:
            await _side_by_side(evaluation.schedule_all() for _ in range(LANES))
    else:
        while (count := min(BATCH, limit - evaluation.due_found)) and await evaluation.schedule(count) == count:
            pass
    made = evaluation.made
    await admit(pool)
    skipped = await runs.count_in_state(pool, made, RunState.SKIPPED)
    next_trigger = await fetch(pool, _NEXT_TRIGGER)
    return Triggered(
        triggered=len(made),
        queued=len(made) - skipped,
        skipped=skipped,
        due_found=evaluation.due_found,
        next_trigger_time=next_trigger[0]["next_trigger_time"],
    )


class _Evaluation:
    """One pass over the configurations that are due: makes their runs and moves them on."""

    def __init__(self, pool: Pool, next_times: _NextTimes) -> None:
        self._pool = pool
        self._next_times = next_times
        self._one_after_the_other = asyncio.Lock()
        self.due_found = 0
        self.made: list[str] = []

    async def schedule(self, count: int) -> int:
        """Make the runs of the longest due configurations: how many were due, at most ``count``."""
        due, made = await in_transaction(self._pool, partial(self._schedule, count))
        self.due_found += due
        self.made += made
        return due

    async def schedule_all(self) -> None:
        """Go on until no configuration is due."""
        while await self.schedule(BATCH) == BATCH:
            pass

    async def _schedule(self, count: int, connection: Connection) -> tuple[int, list[str]]:
        # Planned for its size each time: a plan for few rows takes twice as long with thousands.
        parameters = {"now": self._next_times.now, "count": count}
        async with self._one_after_the_other:
            due = await (await connection.execute(_DUE, parameters, prepare=False)).fetchall()
        if not due:
            return 0, []
        await connection.execute(_FIND_EACH_BY_ITS_KEY)
        made = await (
            await connection.execute(
                _SCHEDULE,
                {
                    "config_ids": [row["config_id"] for row in due],
                    "due_times": [row["next_run_time"] for row in due],
                    "next_times": [self._next_times.of(row["schedule"], row["timezone"]) for row in due],
                    "keys": [idempotency_key(row["config_id"], row["next_run_time"]) for row in due],
                    "queue_positions": [row["queue_position"] for row in due],
                    "trigger_type": TriggerType.SCHEDULER,
                    "now": self._next_times.now,
                },
                prepare=False,
            )
        ).fetchall()
        return len(due), made[0]["run_ids"]


async def _side_by_side(lanes: Iterable[Coroutine[None, None, None]]) -> None:
    problem: DatabaseUnavailableError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane)
    except* DatabaseUnavailableError as problems:
        problem = DatabaseUnavailableError(str(problems.exceptions[0]))
    if problem is not None:
        raise problem


async def admit(pool: Pool) -> int:
    """Decide about all runs that are SCHEDULED: PENDING within the day's and the month's quota, else SKIPPED.

    Highest priority first, first in first out inside one; all of a batch in one statement, so that neither
    concurrent triggers nor one large trigger overshoot.

    Args:
        pool: The service's connections.

    Returns:
        How many were decided.
    """
    parameters = {"count": BATCH}
    decided = len(await fetch_within_day(pool, _ADMIT_ALL, parameters, NOTIFY_RUNS_PENDING, prepare=False))
    if decided < BATCH:
        return decided

    async def work(lane: int, connection: Connection) -> int:
        await connection.execute(LOCK_DAY_SHARED)
        await connection.execute(_READ_IN_ORDER_OF_THE_INDEX)
        cursor = await connection.execute(
            _ADMIT_LANE, {"count": BATCH, "lanes": LANES, "lane": lane}, prepare=False
        )
        await connection.execute(NOTIFY_RUNS_PENDING)
        return cursor.rowcount

    async def admit_lane(lane: int) -> None:
        nonlocal decided
        while batch := await in_transaction(pool, partial(work, lane)):
            decided += batch
            if batch < BATCH:
                break

    await _side_by_side(admit_lane(lane) for lane in range(LANES))
    return decided


async def run_now(
    pool: Pool,
    customer_id: str,
    provider: str,
    domain: str,
    template: str,
    *,
    parameters: Mapping[str, Any],
    priority: int,
) -> Run:
    """Make a run that was asked for directly, and let it in within the quota.

    Args:
        pool: The service's connections.
        customer_id: Whose run it is.
        provider: The cloud or model provider.
        domain: The pipeline's domain.
        template: The template's name.
        parameters: What the template is called with.
        priority: 1 to 10, higher first.

    Returns:
        The run: PENDING, or SKIPPED with the exceeded quota in its error message.
    """
    await quotas.open_day(pool)
    run_id = str(uuid.uuid4())

    async def work(connection: Connection) -> Sequence[DictRow]:
        await connection.execute(LOCK_DAY_SHARED)
        await connection.execute(
            _RUN_NOW,
            {
                "run_id": run_id,
                "customer_id": customer_id,
                "provider": provider,
                "domain": domain,
                "template": template,
                "parameters": Jsonb(dict(parameters)),
                "priority": priority,
                "trigger_type": TriggerType.API,
            },
        )
        await connection.execute(_ADMIT_RUN, {"run_id": run_id, "count": 1})
        await connection.execute(NOTIFY_RUNS_PENDING)
        return await (await connection.execute(runs.READ, {"run_id": run_id})).fetchall()

    return Run.of((await in_transaction(pool, work))[0])
