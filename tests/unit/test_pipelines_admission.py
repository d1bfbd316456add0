"""The due evaluation in many batches, beside others, and cut off in the middle; its histories and its locks."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from pipelines_support import NOON, PATIENCE, World
from psycopg.rows import DictRow
from testyard.lab.database import Connection, DatabaseUnavailableError, Pool, Statement
from testyard.lab.pipelines.database import fetch_within_day
from testyard.lab.pipelines.store import admission, runs

pytestmark = pytest.mark.anyio

DAILY = "Daily pipeline quota exceeded (1 pipelines/day). Try again tomorrow."
SOMEBODY_WAITS = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few configurations take several pages, batches and lanes."""
    monkeypatch.setattr(admission, "PAGE", 7)
    monkeypatch.setattr(admission, "BATCH", 3)


@asynccontextmanager
async def _while_locked(world: World, statement: str) -> AsyncIterator[Connection]:
    """A transaction of somebody else, which holds the statement's locks."""
    async with world.pool.connection() as connection, connection.transaction():
        await connection.execute(statement)
        yield connection


async def _somebody_waits(world: World) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not await world.rows(SOMEBODY_WAITS):
            pass


async def _steps(world: World, config_id: str) -> list[tuple[Any, ...]]:
    rows = await world.rows(
        "SELECT from_state, to_state, reason FROM run_transitions JOIN scheduled_pipeline_runs USING (run_id)"
        " WHERE config_id = %(config_id)s ORDER BY sequence",
        config_id=config_id,
    )
    return [tuple(row.values()) for row in rows]


async def test_the_history_has_both_steps_though_a_run_is_decided_when_it_is_made(world: World):
    await world.customer(daily=1)
    await world.configuration("low", priority=1)
    await world.configuration("high", priority=9)
    await world.schedule()
    created = (None, "SCHEDULED", None)
    assert await _steps(world, "high") == [created, ("SCHEDULED", "PENDING", None)]
    assert await _steps(world, "low") == [created, ("SCHEDULED", "SKIPPED", DAILY)]
    skipped, pending = sorted(await runs.find(world.pool), key=lambda run: run.priority)
    assert (skipped.error_message, skipped.ended_at, skipped.reservation_date) == (DAILY, NOON, None)
    assert (pending.error_message, pending.ended_at, pending.reservation_date) == (None, None, NOON.date())


@pytest.mark.usefixtures("small_batches")
async def test_batches_give_a_quota_to_the_highest_priorities_and_places_to_the_longest_due(world: World):
    for customer_id in ("acme", "other", "third"):
        await world.customer(customer_id, daily=6)
    for number in range(20):
        for customer_id in ("acme", "other"):
            await world.configuration(
                f"{customer_id}{number:02}",
                customer_id,
                due=NOON - timedelta(minutes=number % 5),
                priority=1 + number % 10,
            )
    await world.configuration("third", "third")
    triggered = await world.schedule()
    assert (triggered.due_found, triggered.triggered, triggered.queued, triggered.skipped) == (41, 41, 13, 28)
    granted = await world.rows(
        "SELECT customer_id, priority, count(*) AS runs FROM scheduled_pipeline_runs"
        " WHERE state = 'PENDING' AND customer_id <> 'third' GROUP BY 1, 2 ORDER BY 1, 2 DESC"
    )
    assert [tuple(row.values()) for row in granted] == [
        (customer_id, priority, 2) for customer_id in ("acme", "other") for priority in (10, 9, 8)
    ]
    in_places = await world.rows("SELECT config_id FROM scheduled_pipeline_runs ORDER BY queue_position")
    longest_due = await world.rows(
        "SELECT config_id FROM scheduled_pipeline_runs ORDER BY scheduled_time, config_id"
    )
    assert in_places == longest_due


@pytest.mark.usefixtures("small_batches")
async def test_triggers_claims_and_reports_at_once_make_everything_once(world: World):
    for number in range(4):
        await world.customer(f"c{number}", daily=15, concurrent=3)
    for number in range(80):
        await world.configuration(f"cfg{number:02}", f"c{number % 4}")
    done: set[str] = set()

    async def work(worker: str) -> None:
        while len(done) < 60:
            done.update(await world.succeed(*await world.claim(5, worker)))

    async with asyncio.timeout(PATIENCE.total_seconds()):
        triggers = asyncio.gather(*(world.schedule() for _ in range(4)))
        await asyncio.gather(*(work(f"w{number}") for number in range(4)))
    assert sum(triggered.triggered for triggered in await triggers) == 80
    assert await world.states() == {"COMPLETED": 60, "SKIPPED": 20}


async def test_quotas_are_locked_before_configurations_as_reports_do(world: World):
    await world.customer()
    await world.configuration("cfg")
    async with _while_locked(world, "SELECT FROM subscription_quotas FOR UPDATE") as reporting:
        triggering = asyncio.create_task(world.schedule())
        await _somebody_waits(world)
        await reporting.execute("SELECT FROM pipeline_configurations FOR UPDATE NOWAIT")
    assert (await triggering).triggered == 1


async def test_what_is_disabled_meanwhile_makes_no_run(world: World):
    await world.customer()
    await world.configuration("disabled")
    await world.configuration("sound")
    async with _while_locked(world, "SELECT FROM subscription_quotas FOR UPDATE"):
        triggering = asyncio.create_task(world.schedule())
        await _somebody_waits(world)
        await world.execute(
            "UPDATE pipeline_configurations SET is_active = false, next_run_time = NULL"
            " WHERE config_id = 'disabled'"
        )
    triggered = await triggering
    assert (triggered.due_found, triggered.triggered) == (1, 1)
    assert [run.config_id for run in await runs.find(world.pool)] == ["sound"]


async def test_a_limit_takes_others_for_those_that_another_evaluation_has(world: World):
    await world.customer()
    for number in range(5):
        await world.configuration(f"cfg{number}", due=NOON - timedelta(minutes=number))
    async with _while_locked(world, "SELECT FROM pipeline_configurations WHERE config_id = 'cfg4' FOR UPDATE"):
        triggered = await world.schedule(limit=2)
    assert (triggered.due_found, triggered.triggered) == (2, 2)
    assert {run.config_id for run in await runs.find(world.pool)} == {"cfg3", "cfg2"}


async def test_what_was_left_scheduled_comes_first(world: World):
    await world.customer(daily=1)
    await world.execute(
        "INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name, priority,"
        " scheduled_time, trigger_type, state, created_at, updated_at) VALUES ('left', 'acme', 'GCP', 'COST',"
        " 'cost_billing', 5, service_now(), 'scheduler', 'SCHEDULED', service_now(), service_now())"
    )
    await world.configuration("cfg")
    triggered = await world.schedule()
    assert (triggered.triggered, triggered.skipped) == (1, 1)
    assert [run.run_id for run in await runs.yet_to_run(world.pool, "acme")] == ["left"]


@pytest.mark.usefixtures("small_batches")
async def test_an_evaluation_that_is_cut_off_is_completed_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    await world.customer(daily=8)
    for number in range(10):
        await world.configuration(f"cfg{number}")
    left = 2

    async def twice(pool: Pool, *statements: Statement) -> list[list[DictRow]]:
        nonlocal left
        if not left:
            raise DatabaseUnavailableError("it went away")
        left -= 1
        return await fetch_within_day(pool, *statements)

    with monkeypatch.context() as patch:
        patch.setattr(admission, "fetch_within_day", twice)
        with pytest.raises(DatabaseUnavailableError, match="it went away"):
            await world.schedule()
    assert await world.states() == {"PENDING": 6}
    triggered = await world.schedule()
    assert (triggered.triggered, triggered.queued, triggered.skipped) == (4, 2, 2)
    assert await world.states() == {"PENDING": 8, "SKIPPED": 2}


async def test_a_trigger_with_nothing_due_asks_once(world: World, monkeypatch: pytest.MonkeyPatch):
    await world.customer()
    await world.configuration("later", due=NOON + timedelta(minutes=10))
    asked: list[str] = []
    original = Connection.execute

    async def execute(self: Connection, query: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(query)
        return await original(self, query, *arguments, **options)

    monkeypatch.setattr(Connection, "execute", execute)
    triggered = await world.schedule()
    assert (triggered.due_found, triggered.next_trigger_time) == (0, NOON + timedelta(minutes=10))
    assert len(asked) == 1


async def test_a_trigger_after_midnight_takes_from_the_new_day(world: World):
    await world.customer(daily=1)
    await world.run()
    tomorrow = NOON + timedelta(days=1)
    await world.configuration("cfg", due=tomorrow)
    await world.move_clock(tomorrow)
    assert (await world.schedule()).queued == 1
    assert (await world.quota())["usage_date"] == tomorrow.date()


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED", "FAILED", "UNHEARD-OF"])
async def test_a_run_is_not_made_in_a_state_that_comes_later(world: World, state: str):
    await world.customer()
    with pytest.raises(psycopg.Error, match=f"transition not allowed: x: created as {state}"):
        await world.execute(
            "INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name, priority,"
            " scheduled_time, trigger_type, state, created_at, updated_at)"
            " VALUES ('x', 'acme', 'GCP', 'COST', 't', 5, now(), 'api', %(state)s, now(), now())",
            state=state,
        )


def test_a_customer_is_in_one_lane_and_lanes_are_even() -> None:
    due: Sequence[admission._Due] = [
        admission._Due(f"cfg{number}", f"c{number % 4}", number % 10 + 1, "0 * * * *", "UTC", NOON, number)
        for number in range(2 * admission.BATCH)
    ]
    lanes = admission._lanes(due)
    assert [len(lane) for lane in lanes] == [admission.BATCH] * admission.LANES
    assert not set.intersection(*({one.customer_id for one in lane} for lane in lanes))
    assert lanes == [sorted(lane, key=lambda one: (-one.priority, one.queue_position)) for lane in lanes]
