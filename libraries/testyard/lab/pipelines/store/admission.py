"""Making runs: of configurations that are due, or asked for directly; and letting them in within the quota.

Source: issue 4 (quota and idempotency decisions), contract page "pipelines", 1.4, 1.5 and 1.7 (1, 2, 5, 8).
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from testyard.lab.database import DatabaseUnavailableError, Pool, Statement, fetch
from testyard.lab.pipelines.cron import CronError, next_time
from testyard.lab.pipelines.database import fetch_within_day
from testyard.lab.pipelines.keys import idempotency_key
from testyard.lab.pipelines.records import Quota, Run, Triggered, TriggerType
from testyard.lab.pipelines.store import quotas, runs
from testyard.lab.pipelines.store.queue_signal import NOTIFY_RUNS_PENDING

PAGE: Final = 20_000
"""How many due configurations are read at once."""

BATCH: Final = 2500
"""How many runs are made and decided in one transaction."""

LANES: Final = 2
"""How many batches are worked on at the same time, when there are many."""

_NEXT_TRIGGER = """
    SELECT next_run_time FROM pipeline_configurations JOIN customers USING (customer_id)
    WHERE is_active AND customers.status = 'ACTIVE' ORDER BY next_run_time LIMIT 1"""

_LOOK = f"""
    SELECT service_now() AS now, EXISTS ({quotas.DAY_HAS_TURNED}) AS day_has_turned,
        EXISTS (SELECT FROM scheduled_pipeline_runs WHERE state = 'SCHEDULED') AS is_anything_scheduled,
        ({_NEXT_TRIGGER}) AS next_trigger_time"""

# The queue's places are given out here, where pages come one after the other: the batches are written down in
# another order, side by side.
_DUE = """
    SELECT *, nextval('scheduled_pipeline_runs_queue_position_seq') AS queue_position
    FROM (
        SELECT config_id, customer_id, priority, schedule, timezone, next_run_time AS due_time
        FROM pipeline_configurations JOIN customers USING (customer_id)
        WHERE is_active AND next_run_time <= %(now)s AND customers.status = 'ACTIVE'
            AND (next_run_time, config_id) > (%(after_time)s::timestamptz, %(after_id)s)
        ORDER BY next_run_time, config_id LIMIT %(count)s
    ) AS due"""

# Locks are taken in one order everywhere: runs, then quotas by customer and day, then configurations. A new run is
# nobody else's, so whoever makes runs begins with the quotas.
_QUOTAS = """
    SELECT customer_id, usage_date, daily_limit, monthly_limit,
        daily_limit - pipelines_run_today - reserved_today AS free_today,
        monthly_limit - pipelines_run_month - reserved_month AS free_month
    FROM subscription_quotas
    WHERE is_current AND customer_id IN (SELECT customer_id FROM {of})
    ORDER BY customer_id FOR UPDATE"""

_DECIDE = """
    ranked AS MATERIALIZED (
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
    )"""

_STATE = "CASE WHEN is_granted THEN 'PENDING' ELSE 'SKIPPED' END"
_RESERVATION_DATE = "CASE WHEN is_granted THEN usage_date END"
_ENDED_AT = "CASE WHEN is_granted THEN NULL ELSE (SELECT service_now()) END"
_ERROR_MESSAGE = """CASE WHEN is_granted THEN NULL WHEN place > free_today
            THEN format('{daily_exceeded}', daily_limit)
            ELSE format('{monthly_exceeded}', monthly_limit)
            END""".format(
    daily_exceeded=quotas.DAILY_EXCEEDED.replace("%", "%%"),
    monthly_exceeded=quotas.MONTHLY_EXCEEDED.replace("%", "%%"),
)

# A configuration that another evaluation has, or that is not due any more, is passed over. One that is due again
# at a time it had a run for only moves on: it is no candidate. Lists are written and read several times as fast in
# binary, and run ids made of one random number as those of gen_random_uuid().
_SCHEDULE = f"""
    WITH due AS MATERIALIZED (
        SELECT * FROM unnest(%(config_ids)b::text[], %(customer_ids)b::text[], %(due_times)b::timestamptz[],
            %(next_times)b::timestamptz[], %(keys)b::text[], %(queue_positions)b::bigint[])
            AS due (config_id, customer_id, due_time, next_time, key, queue_position)
    ), locked AS MATERIALIZED ({_QUOTAS.format(of="due")}
    ), taken AS MATERIALIZED (
        SELECT pipeline_configurations.*, due.due_time, due.next_time, due.key, due.queue_position,
            (SELECT run_id FROM scheduled_pipeline_runs WHERE idempotency_key = due.key) IS NULL AS is_new
        FROM due JOIN pipeline_configurations USING (config_id)
        -- All quotas, before the first configuration. Of a plain comparison the planner expects next to no rows.
        WHERE (SELECT count(*) FROM locked) > 0 AND CASE WHEN next_run_time = due_time THEN true ELSE false END
        FOR UPDATE OF pipeline_configurations SKIP LOCKED
    ), candidates AS MATERIALIZED (
        SELECT * FROM taken WHERE is_new
    ), {_DECIDE}, moved AS (
        UPDATE pipeline_configurations AS configuration
        SET next_run_time = decided.next_time,
            last_run_status = CASE WHEN is_granted IS FALSE THEN 'SKIPPED' ELSE configuration.last_run_status END
        FROM (SELECT config_id, taken.next_time, is_granted FROM taken LEFT JOIN ranked USING (config_id))
            AS decided
        WHERE configuration.config_id = decided.config_id
    ), made AS (
        INSERT INTO scheduled_pipeline_runs (run_id, config_id, customer_id, provider, domain, template_name,
            parameters, priority, queue_position, scheduled_time, idempotency_key, trigger_type, state,
            reservation_date, error_message, ended_at, created_at, updated_at)
        OVERRIDING SYSTEM VALUE
        SELECT md5(%(batch_id)s || config_id)::uuid::text, config_id,
            customer_id, provider, domain, template_name,
            default_parameters, priority, queue_position, due_time, key, %(trigger_type)s, {_STATE},
            {_RESERVATION_DATE}, {_ERROR_MESSAGE}, {_ENDED_AT}, %(now)s, %(now)s
        FROM ranked
        RETURNING state
    )
    SELECT (SELECT count(*) FROM taken) AS taken, count(*) FILTER (WHERE state = 'PENDING') AS queued,
        count(*) FILTER (WHERE state = 'SKIPPED') AS skipped
    FROM made"""

# The planner would read all configurations to find a batch of them.
_FIND_EACH_BY_ITS_KEY = "SET LOCAL enable_seqscan = off"

_RUN_NOW = """
    INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name, parameters,
        priority, scheduled_time, trigger_type, state, created_at, updated_at)
    SELECT %(run_id)s, %(customer_id)s, %(provider)s, %(domain)s, %(template)s, %(parameters)s, %(priority)s,
        now.moment, %(trigger_type)s, 'SCHEDULED', now.moment, now.moment
    FROM service_now() AS now (moment)"""

# It waits for another admission instead of passing over its runs, so that after it none of its own is left.
_ADMIT = f"""
    WITH candidates AS MATERIALIZED (
        SELECT run_id, customer_id, config_id, priority, queue_position FROM scheduled_pipeline_runs
        WHERE state = 'SCHEDULED' {{only}}
        ORDER BY priority DESC, queue_position LIMIT %(count)s FOR UPDATE
    ), locked AS MATERIALIZED ({_QUOTAS.format(of="candidates")}
    ), {_DECIDE}, noted AS (
        UPDATE pipeline_configurations SET last_run_status = 'SKIPPED'
        WHERE config_id IN (SELECT config_id FROM ranked WHERE NOT is_granted)
    )
    UPDATE scheduled_pipeline_runs AS run
    SET state = {_STATE}, reservation_date = {_RESERVATION_DATE}, error_message = {_ERROR_MESSAGE},
        ended_at = {_ENDED_AT}, updated_at = (SELECT service_now())
    FROM ranked WHERE run.run_id = ranked.run_id
    RETURNING run.run_id"""

_ADMIT_ALL = _ADMIT.format(only="")
_ADMIT_RUN = _ADMIT.format(only="AND run_id = %(run_id)s")


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


@dataclass(frozen=True, slots=True)
class _Due:
    """A configuration that is due, as it was read."""

    config_id: str
    customer_id: str
    priority: int
    schedule: str
    timezone: str
    due_time: datetime
    queue_position: int

    @property
    def turn(self) -> tuple[int, int]:
        """Its place among those that are decided: priority first, then first in first out."""
        return -self.priority, self.queue_position


async def schedule_due(pool: Pool, limit: int | None = None) -> Triggered:
    """Make one run for each configuration that is due: PENDING within its customer's quota, else SKIPPED.

    However often a schedule was missed, it makes one run. Two evaluations at once make no run twice.

    Args:
        pool: The service's connections.
        limit: Configurations at most; None is all.

    Returns:
        What it did.

    Raises:
        DatabaseUnavailableError: The database went away; what is not made yet is still due.
    """
    (look,) = await fetch(pool, _LOOK)
    if look["day_has_turned"]:
        await quotas.open_day(pool)
    if look["is_anything_scheduled"]:
        # It was there first.
        await admit(pool)
    evaluation = _Evaluation(pool, _NextTimes(look["now"]))
    next_trigger_time: datetime | None = look["next_trigger_time"]
    if next_trigger_time is not None and next_trigger_time <= look["now"]:
        await evaluation.run(limit)
        left = await fetch(pool, _NEXT_TRIGGER)
        next_trigger_time = left[0]["next_run_time"] if left else None
    return Triggered(
        triggered=evaluation.queued + evaluation.skipped,
        queued=evaluation.queued,
        skipped=evaluation.skipped,
        due_found=evaluation.due_found,
        next_trigger_time=next_trigger_time,
    )


class _Evaluation:
    """One pass over the configurations that are due: makes their runs and moves them on."""

    def __init__(self, pool: Pool, next_times: _NextTimes) -> None:
        self._pool = pool
        self._next_times = next_times
        self._last_read: tuple[datetime | str, str] = ("-infinity", "")
        self.due_found = 0
        self.queued = 0
        self.skipped = 0

    async def run(self, limit: int | None) -> None:
        """Take all, or the longest due; others instead of those that another evaluation has taken."""
        while limit is None or self.due_found < limit:
            wanted = None if limit is None else limit - self.due_found
            due = await self._read(wanted)
            await _side_by_side(self._make_runs(lane) for lane in _lanes(due))
            if wanted is None or len(due) < wanted:
                break

    async def _read(self, wanted: int | None) -> list[_Due]:
        due: list[_Due] = []
        while count := PAGE if wanted is None else min(PAGE, wanted - len(due)):
            time, config_id = self._last_read
            parameters = {"now": self._next_times.now, "after_time": time, "after_id": config_id, "count": count}
            page = [_Due(**row) for row in await fetch(self._pool, _DUE, parameters)]
            due += page
            if page:
                self._last_read = page[-1].due_time, page[-1].config_id
            if len(page) < count:
                break
        return due

    async def _make_runs(self, due: Sequence[_Due]) -> None:
        for start in range(0, len(due), BATCH):
            batch = due[start : start + BATCH]
            _, (made,), _ = await fetch_within_day(
                self._pool,
                Statement(_FIND_EACH_BY_ITS_KEY),
                # Planned for its size each time: a plan for few rows takes twice as long with thousands.
                Statement(_SCHEDULE, self._parameters(batch), prepare=False),
                Statement(NOTIFY_RUNS_PENDING),
            )
            self.due_found += made["taken"]
            self.queued += made["queued"]
            self.skipped += made["skipped"]

    def _parameters(self, batch: Sequence[_Due]) -> dict[str, Any]:
        return {
            "config_ids": [due.config_id for due in batch],
            "customer_ids": [due.customer_id for due in batch],
            "due_times": [due.due_time for due in batch],
            "next_times": [self._next_times.of(due.schedule, due.timezone) for due in batch],
            "keys": [idempotency_key(due.config_id, due.due_time) for due in batch],
            "queue_positions": [due.queue_position for due in batch],
            "batch_id": str(uuid.uuid4()),
            "trigger_type": TriggerType.SCHEDULER,
            "now": self._next_times.now,
        }


def _lanes(due: Sequence[_Due]) -> list[list[_Due]]:
    """Share what is due out, a customer's all to one: so its quota is given to the highest priorities."""
    if len(due) <= BATCH:
        return [sorted(due, key=lambda one: one.turn)]
    of_customer: dict[str, int] = {}
    sizes = [0] * LANES
    for customer_id, count in Counter(one.customer_id for one in due).most_common():
        of_customer[customer_id] = lane = sizes.index(min(sizes))
        sizes[lane] += count
    return [
        sorted((one for one in due if of_customer[one.customer_id] == lane), key=lambda one: one.turn)
        for lane in range(LANES)
    ]


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
    decided = 0
    while True:
        batch, _ = await fetch_within_day(
            pool, Statement(_ADMIT_ALL, {"count": BATCH}, prepare=False), Statement(NOTIFY_RUNS_PENDING)
        )
        decided += len(batch)
        if len(batch) < BATCH:
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
) -> tuple[Run, Quota]:
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
        The run: PENDING, or SKIPPED with the exceeded quota in its error message; and the quota after it.
    """
    await quotas.open_day(pool)
    run_id = str(uuid.uuid4())
    made = {
        "run_id": run_id,
        "customer_id": customer_id,
        "provider": provider,
        "domain": domain,
        "template": template,
        "parameters": Jsonb(dict(parameters)),
        "priority": priority,
        "trigger_type": TriggerType.API,
    }
    *_, (run,), (quota,) = await fetch_within_day(
        pool,
        Statement(_RUN_NOW, made),
        Statement(_ADMIT_RUN, {"run_id": run_id, "count": 1}),
        Statement(NOTIFY_RUNS_PENDING),
        Statement(runs.READ, {"run_id": run_id}),
        Statement(quotas.READ, {"customer_id": customer_id}),
    )
    return Run.of(run), Quota(**quota)
