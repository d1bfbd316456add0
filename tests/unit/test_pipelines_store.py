"""Making runs of due configurations, reading them, the service's clock, and what the database itself refuses."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from pipelines_support import NOON, World
from testyard.lab.database import (
    Connection,
    DatabaseUnavailableError,
    Statement,
    fetch,
    fetch_together,
    in_transaction,
)
from testyard.lab.pipelines.database import open_pool
from testyard.lab.pipelines.records import Channel, NotificationChannel
from testyard.lab.pipelines.states import RunState
from testyard.lab.pipelines.store import admission, clock, notifications, runs

pytestmark = pytest.mark.anyio


async def test_a_due_pipeline_makes_one_run_and_moves_on(world: World):
    await world.customer()
    await world.configuration("due", due=NOON - timedelta(hours=5))
    await world.configuration("later", due=NOON + timedelta(minutes=10))
    triggered = await world.schedule()
    assert (triggered.triggered, triggered.queued, triggered.skipped, triggered.due_found) == (1, 1, 0, 1)
    assert triggered.next_trigger_time == NOON + timedelta(minutes=10)
    rows = await world.rows("SELECT config_id, next_run_time FROM pipeline_configurations ORDER BY config_id")
    assert rows[0] == {"config_id": "due", "next_run_time": NOON + timedelta(hours=1)}, "missed times are one run"
    (run,) = await runs.find(world.pool)
    assert (run.config_id, run.scheduled_time, run.trigger_type) == ("due", NOON - timedelta(hours=5), "scheduler")
    again = await world.schedule()
    assert (again.triggered, again.due_found) == (0, 0)


async def test_two_triggers_at_once_make_each_run_once(world: World):
    await world.customer(daily=1000)
    for number in range(50):
        await world.configuration(f"cfg{number}")
    results = await asyncio.gather(*(world.schedule() for _ in range(6)))
    assert sum(result.triggered for result in results) == 50
    assert sum(result.queued for result in results) == 50
    assert await world.states() == {"PENDING": 50}


async def test_one_time_of_one_pipeline_makes_one_run_even_when_it_is_due_again(world: World):
    await world.customer()
    await world.configuration("cfg")
    await world.schedule()
    await world.execute("UPDATE pipeline_configurations SET next_run_time = %(noon)s", noon=NOON)
    again = await world.schedule()
    assert (again.due_found, again.triggered) == (1, 0)
    assert await world.states() == {"PENDING": 1}


async def test_a_limit_takes_the_longest_due_first(world: World):
    await world.customer()
    for number in range(5):
        await world.configuration(f"cfg{number}", due=NOON - timedelta(minutes=number))
    triggered = await world.schedule(limit=2)
    assert (triggered.triggered, triggered.next_trigger_time) == (2, NOON - timedelta(minutes=2))
    assert {run.config_id for run in await runs.find(world.pool)} == {"cfg3", "cfg4"}


async def test_only_active_pipelines_of_active_customers_are_due(world: World):
    await world.customer()
    await world.customer("away")
    await world.configuration("off")
    await world.configuration("suspended", "away")
    await world.execute("UPDATE pipeline_configurations SET is_active = false WHERE config_id = 'off'")
    await world.execute("UPDATE customers SET status = 'SUSPENDED' WHERE customer_id = 'away'")
    triggered = await world.schedule()
    assert (triggered.due_found, triggered.next_trigger_time) == (0, None)


async def test_a_schedule_that_cannot_be_read_stops_nobody_else(world: World):
    await world.customer()
    await world.configuration("broken", schedule="at dawn")
    await world.configuration("sound")
    triggered = await world.schedule()
    assert triggered.triggered == 2
    rows = await world.rows("SELECT config_id FROM pipeline_configurations WHERE next_run_time IS NULL")
    assert rows == [{"config_id": "broken"}]


async def test_runs_are_found_by_customer_state_and_day(world: World):
    await world.customer()
    await world.customer("other", daily=1)
    mine = await world.run()
    theirs = [await world.run("other") for _ in range(2)]
    await world.move_clock(NOON + timedelta(days=1))
    tomorrow = await world.run()

    async def found(**filters: object) -> list[str]:
        return [run.run_id for run in await runs.find(world.pool, **filters)]  # type: ignore[arg-type]

    assert await found(customer_id="acme") == [tomorrow.run_id, mine.run_id]
    assert await found(state=RunState.SKIPPED) == [theirs[1].run_id]
    assert await found(scheduled_on=date(2030, 1, 15), customer_id="acme") == [mine.run_id]
    assert await found(limit=1, offset=1) == [theirs[1].run_id]
    assert await runs.read(world.pool, "missing") is None
    assert await runs.read_with_transitions(world.pool, "missing") == (None, [])


async def test_counts_are_those_of_the_rows(world: World):
    await world.customer(concurrent=2)
    await world.configuration("cfg")
    await world.configuration("off")
    await world.execute("UPDATE pipeline_configurations SET is_active = false WHERE config_id = 'off'")
    await world.pending("acme", 4)
    first, _second = await world.claim(2)
    await world.succeed(first)
    counts = await runs.customer_counts(world.pool, "acme")
    assert counts is not None
    assert (counts.total_configured, counts.scheduled_today, counts.completed_today) == (1, 4, 1)
    assert (counts.completed, counts.running, counts.yet_to_run) == (1, 1, 2)
    assert (counts.failed, counts.skipped) == (0, 0)
    states = await runs.counts_by_state(world.pool)
    assert (states[RunState.PENDING], states[RunState.RUNNING], states[RunState.FAILED]) == (2, 1, 0)
    assert [run.run_id for run in await runs.yet_to_run(world.pool, "acme")] == ["acme-3", "acme-4"]
    assert [run.run_id for run in await runs.running(world.pool, "acme")] == ["acme-2"]
    scheduler = await runs.scheduler_counts(world.pool)
    assert (scheduler.active_configurations, scheduler.due_now, scheduler.queued) == (1, 1, 2)
    assert (scheduler.running, scheduler.completed_today, scheduler.failed_today) == (1, 1, 0)
    assert scheduler.average_execution_time == timedelta()


async def test_a_new_customer_has_zeros_and_nobody_has_none(world: World):
    counts = await runs.customer_counts(world.pool, await world.customer())
    assert counts is not None
    assert (counts.total_configured, counts.scheduled_today, counts.yet_to_run) == (0, 0, 0)
    assert await runs.customer_counts(world.pool, "nobody") is None
    assert (await runs.scheduler_counts(world.pool)).completed_today == 0


@pytest.mark.parametrize(
    ("state", "target"),
    [("PENDING", "COMPLETED"), ("COMPLETED", "RUNNING"), ("COMPLETED", "PENDING"), ("SKIPPED", "PENDING")],
)
async def test_the_database_refuses_an_illegal_step(world: World, state: str, target: str):
    await world.customer(daily=1)
    await world.pending("acme", 2)
    if state == "COMPLETED":
        await world.succeed(await world.claim_one())
    with pytest.raises(psycopg.Error, match=f"transition not allowed: acme-.*{state} to {target}") as refusal:
        await world.execute(
            "UPDATE scheduled_pipeline_runs SET state = %(target)s WHERE state = %(state)s",
            target=target,
            state=state,
        )
    assert refusal.value.sqlstate == "TY001"


async def test_a_run_cannot_begin_in_the_middle(world: World):
    await world.customer()
    with pytest.raises(psycopg.Error, match="transition not allowed: x: created as COMPLETED") as refusal:
        await world.execute(
            "INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name, priority,"
            " scheduled_time, trigger_type, state, created_at, updated_at)"
            " VALUES ('x', 'acme', 'GCP', 'COST', 't', 5, now(), 'api', 'COMPLETED', now(), now())"
        )
    assert refusal.value.sqlstate == "TY001"


async def test_the_clock_goes_forward_only(world: World):
    assert await clock.read(world.pool) == NOON
    later = NOON + timedelta(hours=1)
    await world.customer()
    assert await clock.move(world.pool, later) == later
    assert await clock.move(world.pool, later) == later
    with pytest.raises(
        clock.ClockError, match=r"it shows 2030-01-15T13:00:00\+00:00, which is after 2030-01-15T12"
    ):
        await clock.move(world.pool, NOON)
    assert await clock.read(world.pool) == later


async def test_who_has_no_test_clock_has_the_databases_time(world: World):
    async with open_pool(world.url, test_clock=False, size=1, application_name="real") as pool:
        assert abs(await clock.read(pool) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_channels_are_replaced_as_a_whole(world: World):
    await world.customer()
    email = NotificationChannel(Channel.EMAIL, "qa@example.com")
    slack = NotificationChannel(Channel.SLACK, "http://127.0.0.1:1/slack")
    await notifications.set_channels(world.pool, "acme", [slack, email, email])
    assert await notifications.channels(world.pool, "acme") == [email, slack]
    await notifications.set_channels(world.pool, "acme", [])
    assert await notifications.channels(world.pool, "acme") == []


async def test_a_lost_connection_is_told_apart_from_other_errors(world: World):
    async def slow(connection: Connection) -> None:
        await connection.execute("SET LOCAL statement_timeout = 20")
        await connection.execute("SELECT pg_sleep(5)")

    with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
        await in_transaction(world.pool, slow)
    with pytest.raises(DatabaseUnavailableError, match="terminating connection"):
        await fetch(world.pool, "SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(psycopg.errors.UndefinedTable):
        await fetch(world.pool, "SELECT FROM nowhere")
    assert await fetch(world.pool, "SELECT 1 AS one") == [{"one": 1}], "the pool gives a new connection"


async def test_statements_that_are_sent_together_are_one_transaction(world: World):
    await world.customer()
    rename = Statement("UPDATE customers SET company_name = 'renamed'")
    name = Statement("SELECT company_name AS name, pg_current_xact_id()::text AS transaction FROM customers")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await fetch_together(world.pool, rename, name, Statement("SELECT 1 / 0"))
    assert [row["name"] for row in await fetch(world.pool, name.text)] == ["acme"]
    changed, *seen = await fetch_together(world.pool, rename, name, name)
    assert (changed, [row["name"] for rows in seen for row in rows]) == ([], ["renamed", "renamed"])
    assert len({row["transaction"] for rows in seen for row in rows}) == 1


async def test_the_connection_that_was_used_last_is_the_next(world: World):
    async with AsyncExitStack() as stack:
        for _ in range(3):
            given_back_first = await stack.enter_async_context(world.pool.connection())
    async with world.pool.connection() as first:
        assert first is not given_back_first
    for _ in range(3):
        async with world.pool.connection() as again:
            assert again is first


async def test_an_unreachable_database_is_an_error_in_bounded_time(world: World):
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    async with open_pool(nowhere, test_clock=False, size=1, application_name="x") as pool:
        pool.timeout = 0.2
        with pytest.raises(DatabaseUnavailableError):
            await admission.admit(pool)
