"""The ends of runs: reports of workers, and runs whose worker is gone.

Source: issue 4 (reservation, retry and notification decisions), contract page "pipelines", 1.4 and 1.5.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from testyard.lab.database import Connection, Parameters, Pool, Statement, fetch, in_transaction
from testyard.lab.pipelines.database import LOCK_DAY_SHARED, fetch_within_day
from testyard.lab.pipelines.records import Failure, Outcome
from testyard.lab.pipelines.retry import ErrorClass, may_retry, retry_delay

LONGEST_MESSAGE = 4000
"""Characters of an error message that are kept."""

HEALED_AT_ONCE = 1000

# A reservation is released on the day it was made for, and in that month's later days; a slot on the newest day.
_FINISH = """
    WITH reports AS MATERIALIZED (
        SELECT run.run_id, report.error_class, report.error_message, report.retried
        FROM unnest(%(run_ids)s::text[], %(claim_numbers)s::integer[], %(error_classes)s::text[],
            %(error_messages)s::text[], %(retried)s::boolean[])
            AS report (run_id, claim_number, error_class, error_message, retried)
        JOIN scheduled_pipeline_runs AS run USING (run_id, claim_number)
        WHERE run.state = 'RUNNING' ORDER BY run.run_id FOR UPDATE OF run
    ), ended AS MATERIALIZED (
        UPDATE scheduled_pipeline_runs AS run
        SET state = CASE WHEN report.error_class IS NULL THEN 'COMPLETED' ELSE 'FAILED' END,
            error_class = report.error_class, error_message = report.error_message,
            ended_at = (SELECT service_now()), updated_at = (SELECT service_now())
        FROM reports AS report WHERE run.run_id = report.run_id
        RETURNING run.*, run.state = 'COMPLETED' AS succeeded, NOT report.retried AS is_final
    ), locked AS MATERIALIZED (
        SELECT customer_id, usage_date, is_current FROM subscription_quotas
        WHERE customer_id IN (SELECT customer_id FROM ended)
            AND (is_current OR usage_date >= (SELECT min(reservation_date) FROM ended))
        ORDER BY customer_id, usage_date FOR UPDATE
    ), changes AS MATERIALIZED (
        SELECT locked.customer_id, locked.usage_date,
            count(*) FILTER (WHERE locked.is_current) AS slots,
            count(*) FILTER (WHERE usage_date = reservation_date AND succeeded) AS used_today,
            count(*) FILTER (WHERE usage_date = reservation_date AND is_final) AS released_today,
            count(*) FILTER (WHERE is_of_month AND succeeded) AS used_month,
            count(*) FILTER (WHERE is_of_month AND is_final) AS released_month
        FROM locked JOIN ended USING (customer_id), LATERAL (
            SELECT usage_date >= reservation_date
                AND date_trunc('month', usage_date) = date_trunc('month', reservation_date) AS is_of_month
        ) AS months
        GROUP BY locked.customer_id, locked.usage_date
    ), counted AS (
        UPDATE subscription_quotas AS quota
        SET concurrent_running = quota.concurrent_running - change.slots,
            pipelines_run_today = quota.pipelines_run_today + change.used_today,
            pipelines_run_month = quota.pipelines_run_month + change.used_month,
            reserved_today = quota.reserved_today - change.released_today,
            reserved_month = quota.reserved_month - change.released_month
        FROM changes AS change
        WHERE quota.customer_id = change.customer_id AND quota.usage_date = change.usage_date
        RETURNING quota.customer_id
    ), noted AS (
        UPDATE pipeline_configurations AS configuration
        SET last_run_time = last.ended_at, last_run_status = last.state
        FROM (
            SELECT DISTINCT ON (config_id) config_id, ended_at, state FROM ended
            -- After the quotas: their locks keep two reports for one configuration apart.
            WHERE is_final AND customer_id IN (SELECT customer_id FROM counted)
            ORDER BY config_id, queue_position DESC
        ) AS last
        WHERE configuration.config_id = last.config_id
    ), announced AS (
        INSERT INTO notifications (customer_id, run_id, channel, target, subject, body, created_at)
        SELECT ended.customer_id, run_id, channel, target,
            format('Pipeline run failed: %%s-%%s-%%s-%%s',
                ended.customer_id, provider, domain, template_name),
            jsonb_build_object('run_id', run_id, 'config_id', config_id, 'customer_id', ended.customer_id,
                'provider', provider, 'domain', domain, 'template_name', template_name, 'state', state,
                'scheduled_time', scheduled_time, 'ended_at', ended_at, 'retry_attempt', retry_attempt,
                'error_class', error_class, 'error_message', error_message,
                'pipeline_logging_id', pipeline_logging_id),
            ended_at
        FROM ended JOIN notification_channels USING (customer_id)
        WHERE is_final AND NOT succeeded
        ON CONFLICT DO NOTHING
    )
    SELECT run_id FROM ended"""

_RETRY = """
    UPDATE scheduled_pipeline_runs AS run
    SET state = 'PENDING', retry_attempt = run.retry_attempt + 1,
        not_before = (SELECT service_now()) + retry.delay,
        ended_at = NULL, updated_at = (SELECT service_now())
    FROM unnest(%(run_ids)s::text[], %(delays)s::interval[]) AS retry (run_id, delay)
    WHERE run.run_id = retry.run_id AND run.state = 'FAILED'"""

# While the database was away nobody could send a heartbeat: its own start counts as one of everybody, and all have
# as long again to notice that it is back.
_IS_STALE = """state = 'RUNNING' AND heartbeat_at < clock_timestamp() - %(stale_after)s
        AND pg_postmaster_start_time() < clock_timestamp() - 2 * %(stale_after)s"""

_STALE = f"""
    SELECT run_id, claim_number, retry_attempt, clock_timestamp() - heartbeat_at AS silent_for
    FROM scheduled_pipeline_runs WHERE {_IS_STALE}
    ORDER BY run_id LIMIT %(count)s FOR UPDATE SKIP LOCKED"""

_LEFT = f"""
    SELECT EXISTS (SELECT FROM scheduled_pipeline_runs WHERE state = 'SCHEDULED') AS undecided,
        EXISTS (SELECT FROM scheduled_pipeline_runs WHERE {_IS_STALE}) AS stale"""


async def finish(pool: Pool, outcomes: Sequence[Outcome]) -> set[str]:
    """Write down how runs ended, many at once: state, slot, quota, configuration, notifications and retries.

    A failure that may pass makes the run pending again, with one more retry and a time before which it is not
    claimed; it keeps its reservation. Sending the same again changes nothing.

    Args:
        pool: The service's connections.
        outcomes: The reports.

    Returns:
        The runs that were the reporters' own; another claim, a healed or a deleted run is not in it.
    """
    if not outcomes:
        return set()
    if not any(_is_retried(outcome) for outcome in outcomes):
        (rows,) = await fetch_within_day(pool, Statement(_FINISH, _reports(outcomes)))
        return {row["run_id"] for row in rows}

    async def work(connection: Connection) -> set[str]:
        await connection.execute(LOCK_DAY_SHARED)
        return await _finish_and_retry(connection, outcomes)

    return await in_transaction(pool, work)


@dataclass(frozen=True, slots=True)
class Left:
    """What somebody who died may have left.

    Attributes:
        undecided: Whether runs are SCHEDULED: made, and not yet decided about.
        stale: Whether runs have no heartbeat any more.
    """

    undecided: bool
    stale: bool


async def left(pool: Pool, stale_after: timedelta) -> Left:
    """Ask whether there is anything to decide about, or to heal; it costs one short statement and no lock.

    Args:
        pool: The service's connections.
        stale_after: As ``heal`` takes it.

    Returns:
        The answer.
    """
    return Left(**(await fetch(pool, _LEFT, {"stale_after": stale_after}))[0])


async def heal(pool: Pool, stale_after: timedelta) -> int:
    """End the runs whose worker sends no heartbeat any more, as failures of the class WORKER_LOST.

    Args:
        pool: The service's connections.
        stale_after: How old the last heartbeat must be, in the database's real time. A database that has started
            since is waited for as well: nobody could reach it before.

    Returns:
        How many runs were healed.
    """

    async def work(connection: Connection) -> int:
        await connection.execute(LOCK_DAY_SHARED)
        stale = await (
            await connection.execute(_STALE, {"stale_after": stale_after, "count": HEALED_AT_ONCE})
        ).fetchall()
        outcomes = [
            Outcome(
                row["run_id"],
                row["claim_number"],
                row["retry_attempt"],
                Failure(ErrorClass.WORKER_LOST, f"no heartbeat for {row['silent_for'].total_seconds():.1f} s"),
            )
            for row in stale
        ]
        return len(await _finish_and_retry(connection, outcomes)) if outcomes else 0

    return await in_transaction(pool, work)


async def _finish_and_retry(connection: Connection, outcomes: Iterable[Outcome]) -> set[str]:
    by_run = {outcome.run_id: outcome for outcome in outcomes}
    rows = await (await connection.execute(_FINISH, _reports(list(by_run.values())))).fetchall()
    ours = {row["run_id"] for row in rows}
    retried = [outcome for run_id, outcome in by_run.items() if run_id in ours and _is_retried(outcome)]
    if retried:
        # Jitter, nothing to guess.
        delays = [retry_delay(outcome.retry_attempt + 1, random.random()) for outcome in retried]
        await connection.execute(_RETRY, {"run_ids": [outcome.run_id for outcome in retried], "delays": delays})
    return ours


def _is_retried(outcome: Outcome) -> bool:
    return outcome.failure is not None and may_retry(outcome.failure.error_class, outcome.retry_attempt)


def _reports(outcomes: Sequence[Outcome]) -> Parameters:
    failures = [outcome.failure for outcome in outcomes]
    return {
        "run_ids": [outcome.run_id for outcome in outcomes],
        "claim_numbers": [outcome.claim_number for outcome in outcomes],
        "error_classes": [None if failure is None else failure.error_class for failure in failures],
        "error_messages": [None if failure is None else _storable(failure.message) for failure in failures],
        "retried": [_is_retried(outcome) for outcome in outcomes],
    }


def _storable(message: str) -> str:
    # PostgreSQL's text has no NUL, and UTF-8 no lone surrogates.
    return message[:LONGEST_MESSAGE].replace("\0", "?").encode(errors="replace").decode()
