"""Customers' limits and use per day (UTC): one row per customer and day, the newest of which decides.

Source: issue 4 (quota decisions), contract page "pipelines", 1.4.
"""

from __future__ import annotations

from typing import Final

from psycopg.rows import DictRow

from testyard.lab.database import Connection, Pool, Statement, fetch, fetch_together, in_transaction
from testyard.lab.pipelines.database import LOCK_DAY, fetch_within_day
from testyard.lab.pipelines.plans import Limits
from testyard.lab.pipelines.records import Drift, Quota

DAILY_EXCEEDED: Final = "Daily pipeline quota exceeded (%s pipelines/day). Try again tomorrow."
MONTHLY_EXCEEDED: Final = "Monthly pipeline quota exceeded (%s pipelines/month). Upgrade your plan."

_COLUMNS = """customer_id, usage_date, pipelines_run_today, pipelines_run_month, concurrent_running,
    daily_limit, monthly_limit, concurrent_limit, reserved_today, reserved_month"""

READ = f"SELECT {_COLUMNS} FROM subscription_quotas WHERE customer_id = %(customer_id)s AND is_current"

DAY_HAS_TURNED = """
    SELECT FROM subscription_quotas WHERE is_current AND usage_date < (SELECT service_today()) LIMIT 1"""

_OPEN_DAY = f"""
    WITH today AS MATERIALIZED (SELECT service_today() AS day), closed AS (
        UPDATE subscription_quotas SET is_current = false FROM today WHERE is_current AND usage_date < today.day
        RETURNING {_COLUMNS}
    )
    INSERT INTO subscription_quotas ({_COLUMNS})
    SELECT customer_id, today.day, 0, CASE WHEN same_month THEN pipelines_run_month ELSE 0 END, concurrent_running,
        daily_limit, monthly_limit, concurrent_limit, 0, CASE WHEN same_month THEN reserved_month ELSE 0 END
    FROM today, closed,
        LATERAL (
            SELECT date_trunc('month', usage_date) = date_trunc('month', today.day) AS same_month
        ) AS months"""

_OPEN_FIRST_DAY = """
    INSERT INTO subscription_quotas (customer_id, usage_date, daily_limit, monthly_limit, concurrent_limit)
    VALUES (%(customer_id)s, service_today(), %(daily)s, %(monthly)s, %(concurrent)s)"""

_SET_LIMITS = f"""
    UPDATE subscription_quotas SET daily_limit = coalesce(%(daily)s, daily_limit),
        monthly_limit = coalesce(%(monthly)s, monthly_limit),
        concurrent_limit = coalesce(%(concurrent)s, concurrent_limit)
    WHERE customer_id = %(customer_id)s AND is_current
    RETURNING {_COLUMNS}"""

EXPLAIN_DRIFT = """
    WITH days AS (
        SELECT customer_id, reservation_date, count(*) FILTER (WHERE state = 'COMPLETED') AS used,
            count(*) FILTER (WHERE state IN ('PENDING', 'RUNNING')) AS reserved
        FROM scheduled_pipeline_runs WHERE reservation_date IS NOT NULL GROUP BY customer_id, reservation_date
    ), counted AS (
        SELECT quota.*,
            coalesce(sum(days.used) FILTER (WHERE reservation_date = usage_date), 0) AS used_today,
            coalesce(sum(days.reserved) FILTER (WHERE reservation_date = usage_date), 0) AS held_today,
            coalesce(sum(days.used), 0) AS used_month, coalesce(sum(days.reserved), 0) AS held_month,
            (SELECT count(*) FROM scheduled_pipeline_runs AS run
                WHERE run.customer_id = quota.customer_id AND run.state = 'RUNNING') AS running
        FROM subscription_quotas AS quota LEFT JOIN days ON days.customer_id = quota.customer_id
            AND days.reservation_date BETWEEN date_trunc('month', quota.usage_date)::date AND quota.usage_date
        GROUP BY quota.customer_id, quota.usage_date
    )
    SELECT customer_id, usage_date, counter, stored, counted
    FROM counted, LATERAL (VALUES
        ('pipelines_run_today', pipelines_run_today, used_today),
        ('pipelines_run_month', pipelines_run_month, used_month),
        ('reserved_today', reserved_today, held_today),
        ('reserved_month', reserved_month, held_month),
        -- Slots are counted on the newest day only: an older row keeps the number it was closed with.
        ('concurrent_running', concurrent_running, CASE WHEN is_current THEN running ELSE concurrent_running END)
    ) AS counters (counter, stored, counted)
    WHERE stored <> counted ORDER BY customer_id, usage_date, counter"""


async def open_day(pool: Pool) -> None:
    """Give every customer a row of the present day (UTC) if the newest one is of an earlier day.

    The day starts with nothing used; the month's use goes on inside one month; slots in use and limits go on.

    Args:
        pool: The service's connections.
    """

    async def work(connection: Connection) -> None:
        # Waits for every transaction that touches quotas, and keeps the next ones waiting.
        await connection.execute(LOCK_DAY)
        await connection.execute(_OPEN_DAY)

    if await fetch(pool, DAY_HAS_TURNED):
        await in_transaction(pool, work)


async def fetch_of_today(pool: Pool, *statements: Statement) -> list[list[DictRow]]:
    """Read what depends on the present day's row of a customer; the day is opened first if it was not.

    Args:
        pool: The service's connections.
        statements: What to read.

    Returns:
        The rows of each statement.
    """
    look = Statement(DAY_HAS_TURNED)
    has_turned, *rows = await fetch_together(pool, look, *statements)
    if has_turned:
        await open_day(pool)
        _, *rows = await fetch_together(pool, look, *statements)
    return rows


async def open_first_day(connection: Connection, customer_id: str, limits: Limits) -> None:
    """Give a new customer its first row.

    Args:
        connection: The connection whose transaction makes the customer.
        customer_id: The customer.
        limits: The plan's limits.
    """
    await connection.execute(
        _OPEN_FIRST_DAY,
        {
            "customer_id": customer_id,
            "daily": limits.daily,
            "monthly": limits.monthly,
            "concurrent": limits.concurrent,
        },
    )


async def read(pool: Pool, customer_id: str) -> Quota | None:
    """A customer's quota on the present day.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The quota; None when there is no such customer.
    """
    (rows,) = await fetch_of_today(pool, Statement(READ, {"customer_id": customer_id}))
    return Quota(**rows[0]) if rows else None


async def set_limits(
    pool: Pool,
    customer_id: str,
    *,
    daily: int | None = None,
    monthly: int | None = None,
    concurrent: int | None = None,
) -> Quota | None:
    """Change a customer's limits, from the present day on.

    What is admitted already stays so, also beyond a lower limit.

    Args:
        pool: The service's connections.
        customer_id: The customer.
        daily: Runs per day; None leaves it.
        monthly: Runs per calendar month; None leaves it.
        concurrent: Runs at the same time; None leaves it.

    Returns:
        The quota as it is now; None when there is no such customer.
    """
    await open_day(pool)
    wanted = {"customer_id": customer_id, "daily": daily, "monthly": monthly, "concurrent": concurrent}
    (rows,) = await fetch_within_day(pool, Statement(_SET_LIMITS, wanted))
    return Quota(**rows[0]) if rows else None


async def explain_drift(pool: Pool) -> list[Drift]:
    """Compare every counter with the runs it counts; ``EXPLAIN_DRIFT`` is the statement.

    Args:
        pool: The service's connections.

    Returns:
        The counters that are wrong: empty at any time, also while runs are in flight.
    """
    return [Drift(**row) for row in await fetch(pool, EXPLAIN_DRIFT)]
