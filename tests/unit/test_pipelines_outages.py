"""A database that says nothing, and healing after it was away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from pipelines_support import PATIENCE, World
from testyard.lab.database import Connection, DatabaseUnavailableError, Pool, fetch, in_transaction
from testyard.lab.pipelines.database import open_pool
from testyard.lab.pipelines.execution import TemplateExecutor, abandon_run
from testyard.lab.pipelines.maintenance import STALE_TIMES_TO_RETURN, heal_forever
from testyard.lab.pipelines.runner import Runner
from testyard.lab.pipelines.store.clock import PatientClock
from testyard.lab.servers.fault_proxy import FaultProxy

pytestmark = pytest.mark.anyio

TIMEOUT = timedelta(milliseconds=300)
STALE = timedelta(milliseconds=400)
# psycopg_pool waits a whole second after its first failure.
THE_POOL_WAITS = timedelta(seconds=1)
HEARTBEAT_OF = "SELECT heartbeat_at FROM scheduled_pipeline_runs WHERE run_id = %(run_id)s"


@asynccontextmanager
async def _through_a_proxy(world: World, timeout: timedelta = TIMEOUT) -> AsyncIterator[tuple[Pool, FaultProxy]]:
    parts = urlsplit(world.url)
    with FaultProxy(parts.hostname or "", parts.port or 0) as proxy:
        netloc = f"{parts.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}"
        url = urlunsplit(parts._replace(netloc=netloc))
        async with open_pool(
            url, test_clock=True, size=1, application_name="behind a proxy", timeout=timeout
        ) as pool:
            await fetch(pool, "SELECT 1")
            yield pool, proxy
            proxy.heal()


async def test_a_connection_that_says_nothing_is_not_waited_for(world: World):
    async with _through_a_proxy(world) as (pool, proxy):
        proxy.silence()
        asked_at = time.monotonic()
        with pytest.raises(DatabaseUnavailableError):
            await fetch(pool, "SELECT 1")
        assert time.monotonic() - asked_at < 10 * TIMEOUT.total_seconds()


async def test_a_connection_that_was_cut_is_replaced_before_the_pool_would(world: World):
    async with _through_a_proxy(world, PATIENCE) as (pool, proxy):
        for _ in range(3):
            proxy.cut()
            asked_at = time.monotonic()
            assert await fetch(pool, "SELECT 1 AS one") == [{"one": 1}]
            assert time.monotonic() - asked_at < THE_POOL_WAITS.total_seconds()


async def test_a_database_that_is_back_is_used_before_the_pool_would(world: World):
    async with _through_a_proxy(world, PATIENCE) as (pool, proxy):
        proxy.refuse()
        asked_at = time.monotonic()
        asyncio.get_running_loop().call_later(0.2, proxy.accept)
        assert await fetch(pool, "SELECT 1 AS one") == [{"one": 1}]
        assert 0.2 <= time.monotonic() - asked_at < THE_POOL_WAITS.total_seconds()


async def test_a_transaction_whose_connection_falls_silent_ends(world: World):
    async with _through_a_proxy(world) as (pool, proxy):

        async def work(connection: Connection) -> None:
            await connection.execute("SELECT 1")
            proxy.silence()
            await connection.execute("SELECT 2")

        with pytest.raises(DatabaseUnavailableError):
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await in_transaction(pool, work)
        proxy.heal()
        async with asyncio.timeout(PATIENCE.total_seconds()):
            assert await fetch(pool, "SELECT 3 AS three") == [{"three": 3}]


async def test_the_timeout_is_the_one_asked_for(world: World):
    async with _through_a_proxy(world) as (pool, _):
        assert await fetch(pool, "SHOW statement_timeout") == [{"statement_timeout": "300ms"}]


async def test_statements_are_not_compiled(world: World):
    async with _through_a_proxy(world) as (pool, _):
        assert await fetch(pool, "SHOW jit") == [{"jit": "off"}]


async def test_after_an_absence_of_the_database_others_have_time_to_return(world: World):
    await world.customer()
    await world.run()
    run = await world.claim_one()
    await world.silence(run)
    with psycopg.connect(world.url) as holder:
        # As long as it is held, neither heartbeats nor healing get an answer.
        holder.execute("LOCK TABLE scheduled_pipeline_runs")
        healing = asyncio.create_task(heal_forever(world.pool, STALE))
        await asyncio.to_thread(holder.execute, "SELECT pg_sleep(%s)", [STALE.total_seconds()])
    back_at = time.monotonic()
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while await world.state(run) == "RUNNING":
            pass
    assert time.monotonic() - back_at >= (STALE * STALE_TIMES_TO_RETURN).total_seconds() - 0.05
    healing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await healing


async def test_a_report_that_waits_does_not_hold_up_the_heartbeats_of_others(world: World):
    await world.customer(concurrent=2)
    hanging = await world.run(template="hangs")
    await world.run()
    executor = TemplateExecutor(abandon_run, PatientClock(world.pool))
    with psycopg.connect(world.url) as holder:
        async with Runner(world.pool, executor, "w1", stale_after=STALE) as runner:
            assert await runner.claim(2) == 2
            holder.execute("SELECT FROM subscription_quotas FOR UPDATE")
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while runner.unreported != 1:
                    await world.states()
            for _ in range(3):
                before = await world.rows(HEARTBEAT_OF, run_id=hanging.run_id)
                async with asyncio.timeout(STALE.total_seconds()):
                    while await world.rows(HEARTBEAT_OF, run_id=hanging.run_id) == before:
                        pass
            holder.rollback()


async def test_without_an_absence_healing_waits_for_nothing(world: World):
    await world.customer()
    await world.run()
    run = await world.claim_one()
    await world.silence(run)
    started_at = time.monotonic()
    healing = asyncio.create_task(heal_forever(world.pool, timedelta(seconds=2)))
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while await world.state(run) == "RUNNING":
            pass
    assert time.monotonic() - started_at < 2 * STALE_TIMES_TO_RETURN
    healing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await healing
