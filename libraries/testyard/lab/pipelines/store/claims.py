"""Taking pending runs, and keeping them: claims and heartbeats.

Source: issue 4 (queue decisions), contract page "pipelines", 1.5 and 1.7 (3).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from psycopg.rows import DictRow

from testyard.lab.database import Pool, Statement, fetch
from testyard.lab.pipelines.database import fetch_within_day
from testyard.lab.pipelines.records import Work

_WORK = """run.run_id, run.claim_number, run.customer_id, run.config_id, run.provider, run.domain,
    run.template_name, run.parameters, run.priority, run.queue_position, run.scheduled_time, run.retry_attempt,
    run.worker_id, run.pipeline_logging_id, run.updated_at AS claimed_at"""

# Tells of each run by which claim it was taken.
_LOGGING_ID = "md5({claim_id} || run.run_id)::uuid::text"

# Locks are taken in one order everywhere: runs, then quotas by customer and day, then configurations.
_CLAIM = f"""
    WITH candidates AS MATERIALIZED (
        SELECT run.run_id, run.customer_id, run.priority, run.queue_position
        FROM scheduled_pipeline_runs AS run
        JOIN subscription_quotas AS quota ON quota.customer_id = run.customer_id AND quota.is_current
        WHERE run.state = 'PENDING' {{only}}
            AND (run.not_before IS NULL OR run.not_before <= (SELECT service_now()))
            AND quota.concurrent_running < quota.concurrent_limit
        ORDER BY run.priority DESC, run.queue_position
        LIMIT %(count)s
        FOR UPDATE OF run SKIP LOCKED
    ), locked AS MATERIALIZED (
        SELECT customer_id, concurrent_limit - concurrent_running AS free
        FROM subscription_quotas
        WHERE is_current AND customer_id IN (SELECT customer_id FROM candidates)
        ORDER BY customer_id FOR UPDATE
    ), granted AS MATERIALIZED (
        SELECT run_id, customer_id
        FROM (
            SELECT *, row_number() OVER (PARTITION BY customer_id ORDER BY priority DESC, queue_position) AS place
            FROM candidates
        ) AS ranked JOIN locked USING (customer_id)
        WHERE place <= free
    ), counted AS (
        UPDATE subscription_quotas AS quota SET concurrent_running = quota.concurrent_running + grants.runs
        FROM (SELECT customer_id, count(*) AS runs FROM granted GROUP BY customer_id) AS grants
        WHERE quota.customer_id = grants.customer_id AND quota.is_current
    )
    UPDATE scheduled_pipeline_runs AS run SET state = 'RUNNING', claim_number = run.claim_number + 1,
        worker_id = %(worker)s, heartbeat_at = clock_timestamp(),
        started_at = coalesce(run.started_at, (SELECT service_now())), updated_at = (SELECT service_now()),
        pipeline_logging_id = {_LOGGING_ID.format(claim_id="%(claim_id)s")}
    FROM granted WHERE run.run_id = granted.run_id
    RETURNING {_WORK}"""

CLAIM = _CLAIM.format(only="")
_CLAIM_RUN = _CLAIM.format(only="AND run.run_id = %(run_id)s")

_TAKEN_BY = f"""
    SELECT {_WORK} FROM scheduled_pipeline_runs AS run
    WHERE run.state = 'RUNNING' AND run.worker_id = %(worker)s AND run.pipeline_logging_id IN (
        SELECT {_LOGGING_ID.format(claim_id="claim_id")} FROM unnest(%(claim_ids)s::text[]) AS claim_id
    )"""

# In the order of finish(), for which it may have to wait.
_HEARTBEAT = """
    WITH ours AS MATERIALIZED (
        SELECT run.run_id FROM scheduled_pipeline_runs AS run
        JOIN unnest(%(run_ids)s::text[], %(claim_numbers)s::integer[]) AS claim (run_id, claim_number)
            USING (run_id, claim_number)
        WHERE run.state = 'RUNNING' ORDER BY run.run_id FOR UPDATE OF run {locked}
    )
    UPDATE scheduled_pipeline_runs AS run SET heartbeat_at = clock_timestamp()
    FROM ours WHERE run.run_id = ours.run_id RETURNING run.run_id"""

_HEARTBEAT_OF_RUNNING = _HEARTBEAT.format(locked="")
# What is being reported needs no heartbeat: healing passes over it too, and waiting would hold up the others'.
_HEARTBEAT_OF_ENDED = _HEARTBEAT.format(locked="SKIP LOCKED")


def new_claim_id() -> str:
    """What a claim is known by, also when its answer gets lost."""
    return str(uuid.uuid4())


async def claim(pool: Pool, worker: str, count: int, claim_id: str) -> list[Work]:
    """Take pending runs, highest priority first, first in first out inside one, as far as slots are free.

    One statement does all of it: no two workers get one run, and no customer has more runs than its concurrent
    limit, with any number of workers. Runs of a customer whose slots are taken stay pending.

    Args:
        pool: The service's connections.
        worker: Who takes them.
        count: How many at most.
        claim_id: What this claim is known by.

    Returns:
        The runs, which are RUNNING now, in the order to start them.

    Raises:
        DatabaseUnavailableError: The database is away; ``taken_by`` tells later whether the claim took anything.
    """
    parameters = {"worker": worker, "count": count, "claim_id": claim_id}
    (rows,) = await fetch_within_day(pool, Statement(CLAIM, parameters))
    return _in_order(rows)


async def taken_by(pool: Pool, worker: str, claim_ids: Sequence[str]) -> list[Work]:
    """The runs that some claims have taken and that nobody has ended or healed since.

    Args:
        pool: The service's connections.
        worker: Who claimed.
        claim_ids: The claims whose answers got lost.

    Returns:
        The runs, which are RUNNING, in the order to start them.
    """
    return _in_order(await fetch(pool, _TAKEN_BY, {"worker": worker, "claim_ids": list(claim_ids)}))


async def claim_run(pool: Pool, worker: str, run_id: str) -> Work | None:
    """Take one particular run.

    Args:
        pool: The service's connections.
        worker: Who takes it.
        run_id: The run.

    Returns:
        The run; None when it is not pending, not due yet, or its customer's slots are taken.
    """
    parameters = {"worker": worker, "count": 1, "run_id": run_id, "claim_id": new_claim_id()}
    (rows,) = await fetch_within_day(pool, Statement(_CLAIM_RUN, parameters))
    works = _in_order(rows)
    return works[0] if works else None


async def heartbeat(pool: Pool, claims: Iterable[tuple[str, int]]) -> set[str]:
    """Say that runs are still being executed.

    Args:
        pool: The service's connections.
        claims: The runs, each with the number of the claim.

    Returns:
        Those that are still running under that claim; the others have been taken away.
    """
    return await _heartbeat(pool, _HEARTBEAT_OF_RUNNING, claims)


async def heartbeat_of_ended(pool: Pool, claims: Iterable[tuple[str, int]]) -> None:
    """Say that runs have ended and are going to be reported; those that are just being reported are left alone.

    Args:
        pool: The service's connections.
        claims: The runs, each with the number of the claim.
    """
    await _heartbeat(pool, _HEARTBEAT_OF_ENDED, claims)


async def _heartbeat(pool: Pool, statement: str, claims: Iterable[tuple[str, int]]) -> set[str]:
    pairs = list(claims)
    if not pairs:
        return set()
    rows = await fetch(
        pool,
        statement,
        {"run_ids": [run_id for run_id, _ in pairs], "claim_numbers": [number for _, number in pairs]},
    )
    return {row["run_id"] for row in rows}


def _in_order(rows: list[DictRow]) -> list[Work]:
    # What an UPDATE returns has no order.
    rows.sort(key=lambda row: (-row["priority"], row["queue_position"]))
    return [Work(**{name: value for name, value in row.items() if name != "queue_position"}) for row in rows]
