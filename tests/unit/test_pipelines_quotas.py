"""Quotas: exact with concurrency, over midnight and the end of the month; and the query that proves it."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from pipelines_support import NOON, PATIENCE, World
from testyard.lab.pipelines.database import LOCK_DAY_SHARED
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.store import admission, quotas

pytestmark = pytest.mark.anyio

DAILY = "Daily pipeline quota exceeded (7 pipelines/day). Try again tomorrow."
MONTHLY = "Monthly pipeline quota exceeded (4 pipelines/month). Upgrade your plan."


async def _messages(world: World) -> set[str]:
    rows = await world.rows("SELECT DISTINCT error_message FROM scheduled_pipeline_runs WHERE state = 'SKIPPED'")
    return {row["error_message"] for row in rows}


async def test_one_large_trigger_stops_at_the_daily_limit(world: World):
    await world.customer(daily=7)
    await world.customer("free", daily=1000)
    for number in range(30):
        await world.configuration(f"cfg{number}", priority=1 + number % 10)
        await world.configuration(f"free{number}", "free")
    triggered = await world.schedule()
    assert (triggered.triggered, triggered.queued, triggered.skipped) == (60, 37, 23)
    assert await _messages(world) == {DAILY}
    granted = await world.rows(
        "SELECT priority, count(*) AS runs FROM scheduled_pipeline_runs"
        " WHERE state = 'PENDING' AND customer_id = 'acme' GROUP BY 1 ORDER BY 1 DESC"
    )
    assert [(row["priority"], row["runs"]) for row in granted] == [(10, 3), (9, 3), (8, 1)], "highest first"
    skipped = await world.rows(
        "SELECT count(*) AS pipelines FROM pipeline_configurations WHERE last_run_status = 'SKIPPED'"
    )
    assert skipped[0]["pipelines"] == 23


async def test_concurrent_triggers_and_direct_runs_do_not_overshoot_the_day(world: World):
    await world.customer(daily=7)
    for number in range(20):
        await world.configuration(f"cfg{number}")
    results = await asyncio.gather(
        *(world.schedule() for _ in range(4)), *(world.run() for _ in range(8)), return_exceptions=True
    )
    assert [result for result in results if isinstance(result, BaseException)] == []
    assert await world.states() == {"PENDING": 7, "SKIPPED": 21}
    assert (await world.quota())["reserved_today"] == 7


async def test_what_ran_counts_with_what_is_reserved(world: World):
    await world.customer(daily=7)
    await world.pending("acme", 5)
    await world.succeed(*await world.claim(3))
    assert [(await world.run()).state for _ in range(3)] == ["PENDING", "PENDING", "SKIPPED"]


async def test_a_final_failure_gives_its_place_back(world: World):
    await world.customer(daily=1)
    await world.run()
    assert (await world.run()).state == "SKIPPED"
    await world.fail(await world.claim_one(), error_class=ErrorClass.AUTHENTICATION_FAILED)
    assert (await world.run()).state == "PENDING"


async def test_the_month_is_limited_too_and_the_day_comes_first(world: World):
    await world.customer(daily=7, monthly=4)
    await world.pending("acme", 6)
    assert await world.states() == {"PENDING": 4, "SKIPPED": 2}
    assert await _messages(world) == {MONTHLY}
    await world.customer("both", daily=2, monthly=2)
    await world.pending("both", 3)
    assert "Daily pipeline quota exceeded (2 pipelines/day). Try again tomorrow." in await _messages(world)


async def test_a_limit_of_zero_lets_nothing_in(world: World):
    await world.customer(daily=0)
    assert (await world.run()).error_message == (
        "Daily pipeline quota exceeded (0 pipelines/day). Try again tomorrow."
    )


async def test_midnight_with_runs_in_flight(world: World):
    await world.customer(daily=4, monthly=10, concurrent=3)
    await world.pending("acme", 4)
    works = await world.claim(10)
    assert len(works) == 3
    await world.succeed(works[0])
    await world.move_clock(NOON + timedelta(days=1))
    assert (await quotas.read(world.pool, "acme")) is not None
    today = await world.quota()
    assert today == {
        "usage_date": date(2030, 1, 16),
        "today": 0,
        "month": 1,
        "running": 2,
        "reserved_today": 0,
        "reserved_month": 3,
    }
    await world.succeed(works[1])
    await world.fail(works[2], error_class=ErrorClass.AUTHENTICATION_FAILED)
    rows = await world.rows(
        "SELECT pipelines_run_today AS today, reserved_today, pipelines_run_month AS month, reserved_month"
        " FROM subscription_quotas ORDER BY usage_date"
    )
    assert rows == [
        {"today": 2, "reserved_today": 1, "month": 2, "reserved_month": 1},
        {"today": 0, "reserved_today": 0, "month": 2, "reserved_month": 1},
    ]
    assert (await world.quota())["running"] == 0
    assert [(await world.run()).state for _ in range(5)] == ["PENDING"] * 4 + ["SKIPPED"], "a new day's limit"


async def test_the_end_of_the_month_with_runs_in_flight(world: World):
    await world.customer(daily=10, monthly=3, concurrent=10)
    await world.move_clock(datetime(2030, 1, 31, 23, 59, tzinfo=UTC))
    await quotas.open_day(world.pool)
    await world.pending("acme", 4)
    first, second, third = await world.claim(10)
    await world.succeed(first)
    await world.move_clock(datetime(2030, 2, 1, tzinfo=UTC))
    fresh = await quotas.read(world.pool, "acme")
    assert fresh is not None
    assert (fresh.usage_date, fresh.pipelines_run_month, fresh.reserved_month) == (date(2030, 2, 1), 0, 0)
    assert fresh.concurrent_running == 2, "slots know no month"
    await world.succeed(second)
    await world.fail(third, error_class=ErrorClass.AUTHENTICATION_FAILED)
    rows = await world.rows(
        "SELECT usage_date, pipelines_run_month AS month, reserved_month FROM subscription_quotas ORDER BY 1"
    )
    assert [(row["month"], row["reserved_month"]) for row in rows[1:]] == [(2, 0), (0, 0)]
    assert [(await world.run()).state for _ in range(4)] == ["PENDING"] * 3 + ["SKIPPED"]


async def test_a_day_turns_once_however_many_ask(world: World):
    for number in range(20):
        await world.customer(f"c{number}", concurrent=1)
    await asyncio.gather(*(world.pending(f"c{number}", 2) for number in range(20)))
    await world.move_clock(NOON + timedelta(days=3))

    async def work() -> None:
        for _ in range(3):
            await quotas.open_day(world.pool)
            await world.succeed(*await world.claim(5))

    await asyncio.gather(*(work() for _ in range(6)))
    rows = await world.rows("SELECT usage_date, count(*) AS rows, count(*) FILTER (WHERE is_current) AS current"
                            " FROM subscription_quotas GROUP BY 1 ORDER BY 1")  # fmt: skip
    assert [(row["usage_date"].day, row["rows"], row["current"]) for row in rows] == [(15, 20, 0), (18, 20, 20)]


async def test_the_day_does_not_turn_inside_a_transaction_that_touches_quotas(world: World):
    await world.customer()
    await world.move_clock(NOON + timedelta(days=1))
    waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with world.pool.connection() as connection, connection.transaction():
        await connection.execute(LOCK_DAY_SHARED)
        opening = asyncio.create_task(quotas.open_day(world.pool))
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while not await world.rows(waiting):
                assert not opening.done()
        assert (await world.quota())["usage_date"] == date(2030, 1, 15)
    await opening
    assert (await world.quota())["usage_date"] == date(2030, 1, 16)


async def test_limits_change_at_once_and_keep_what_is_admitted(world: World):
    await world.customer(daily=5, concurrent=5)
    await world.pending("acme", 5)
    await world.claim(2)
    quota = await quotas.set_limits(world.pool, "acme", daily=1, concurrent=2)
    assert quota is not None
    assert (quota.daily_limit, quota.monthly_limit, quota.concurrent_limit) == (1, 3000, 2)
    assert await world.states() == {"RUNNING": 2, "PENDING": 3}
    assert await world.claim(1) == []
    assert (await world.run()).state == "SKIPPED"
    assert await quotas.set_limits(world.pool, "nobody", daily=1) is None
    assert await quotas.read(world.pool, "nobody") is None


@pytest.mark.parametrize(
    "counter",
    ["pipelines_run_today", "pipelines_run_month", "concurrent_running", "reserved_today", "reserved_month"],
)
async def test_a_falsified_counter_is_explained(world: World, counter: str):
    await world.customer()
    await world.pending("acme", 3)
    await world.succeed((await world.claim(2))[0])
    assert await quotas.explain_drift(world.pool) == []
    await world.execute(f"UPDATE subscription_quotas SET {counter} = {counter} + 1")
    (drift,) = await quotas.explain_drift(world.pool)
    assert (drift.customer_id, drift.counter, drift.stored - drift.counted) == ("acme", counter, 1)
    await world.execute(f"UPDATE subscription_quotas SET {counter} = {counter} - 1")


async def test_what_a_crash_has_left_scheduled_is_let_in_later(world: World):
    await world.customer(daily=7)
    await world.pending("acme", 0)
    await world.execute(
        "INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name, priority,"
        " scheduled_time, trigger_type, state, created_at, updated_at)"
        " SELECT 'left-' || number, 'acme', 'GCP', 'COST', 'cost_billing', 5, service_now(), 'scheduler',"
        " 'SCHEDULED', service_now(), service_now() FROM generate_series(1, 9) AS number"
    )
    assert sum(await asyncio.gather(*(admission.admit(world.pool) for _ in range(4)))) == 9
    assert await world.states() == {"PENDING": 7, "SKIPPED": 2}
    assert await _messages(world) == {DAILY}
