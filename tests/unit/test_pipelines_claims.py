"""Claims: atomic, within the concurrent limit, first in first out inside a priority; and heartbeats."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from pipelines_support import NOON, World
from testyard.lab.pipelines.store import claims

pytestmark = pytest.mark.anyio


async def _claim_all(world: World, worker: str, batch: int) -> list[str]:
    claimed: list[str] = []
    while works := await world.claim(batch, worker):
        claimed += [work.run_id for work in works]
    return claimed


async def test_eight_claimers_get_each_run_once(world: World):
    await world.customer(daily=1000, concurrent=1000)
    await world.pending("acme", 400)
    claimed = await asyncio.gather(*(_claim_all(world, f"w{number}", 7) for number in range(8)))
    assert Counter(run_id for run_ids in claimed for run_id in run_ids) == Counter(
        f"acme-{number}" for number in range(1, 401)
    )
    histories = await world.rows("SELECT run_id FROM run_transitions WHERE to_state = 'RUNNING'")
    assert len(histories) == 400


async def test_eight_claimers_fill_the_concurrent_limit_and_no_more(world: World):
    for customer, limit in (("acme", 3), ("globex", 5), ("initech", 0)):
        await world.customer(customer, daily=1000, concurrent=limit)
        await world.pending(customer, 60)
    most = 0
    for _ in range(4):
        works = [
            work
            for claimed in await asyncio.gather(*(world.claim(4, f"w{number}") for number in range(8)))
            for work in claimed
        ]
        rows = await world.rows(
            "SELECT customer_id, count(*) AS runs FROM scheduled_pipeline_runs WHERE state = 'RUNNING' GROUP BY 1"
        )
        running = {row["customer_id"]: row["runs"] for row in rows}
        assert running.get("acme", 0) <= 3
        assert running.get("globex", 0) <= 5
        assert "initech" not in running
        most = max(most, sum(running.values()))
        await world.succeed(*works)
    assert most == 8


async def test_a_full_customer_stays_pending_and_does_not_hold_up_others(world: World):
    await world.customer("full", concurrent=1)
    await world.customer("free", concurrent=1)
    await world.pending("full", 30)
    await world.pending("free", 1)
    first = await world.claim(1)
    assert [work.customer_id for work in first] == ["full"]
    second = await world.claim(10)
    assert [work.customer_id for work in second] == ["free"]
    assert await world.claim(10) == []
    await world.succeed(*first)
    assert [work.run_id for work in await world.claim(10)] == ["full-2"]


async def test_higher_priority_first_and_first_in_first_out_inside(world: World):
    await world.customer()
    runs = [await world.run(priority=priority) for priority in (5, 1, 10, 5, 10)]
    claimed = [(await world.claim_one()).run_id for _ in runs]
    assert claimed == [runs[place].run_id for place in (2, 4, 0, 3, 1)]


async def test_a_batch_is_in_the_order_of_the_queue(world: World):
    await world.customer()
    runs = [await world.run(priority=priority) for priority in (1, 5, 10, 5)]
    claimed = await world.claim(3)
    assert [work.run_id for work in claimed] == [runs[place].run_id for place in (2, 1, 3)]


async def test_a_claim_names_the_worker_counts_and_gives_a_new_logging_id(world: World):
    await world.customer()
    run = await world.run()
    work = await world.claim_one("worker-7")
    rows = await world.rows("SELECT * FROM scheduled_pipeline_runs")
    assert (rows[0]["worker_id"], rows[0]["claim_number"], rows[0]["started_at"]) == ("worker-7", 1, NOON)
    assert rows[0]["pipeline_logging_id"] == work.pipeline_logging_id
    assert (await world.quota())["running"] == 1
    assert run.pipeline_logging_id is None


async def test_one_particular_run_can_be_claimed_once(world: World):
    await world.customer(concurrent=1)
    first, second = await world.run(), await world.run()
    work = await claims.claim_run(world.pool, "outside", second.run_id)
    assert work is not None
    assert work.run_id == second.run_id
    assert await claims.claim_run(world.pool, "outside", second.run_id) is None
    assert await claims.claim_run(world.pool, "outside", first.run_id) is None, "the slot is taken"
    await world.succeed(work)
    assert await claims.claim_run(world.pool, "outside", first.run_id) is not None


async def test_a_heartbeat_tells_which_runs_are_still_ours(world: World):
    await world.customer()
    await world.pending("acme", 3)
    kept, done, again = await world.claim(3)
    await world.succeed(done)
    await world.silence(kept, timedelta(hours=1))
    beat = [(kept.run_id, 1), (done.run_id, 1), (again.run_id, again.claim_number + 1), ("missing", 1)]
    assert await claims.heartbeat(world.pool, beat) == {kept.run_id}
    rows = await world.rows(
        "SELECT run_id FROM scheduled_pipeline_runs WHERE heartbeat_at < clock_timestamp() - interval '1 minute'"
    )
    assert rows == []
    assert await claims.heartbeat(world.pool, []) == set()


async def test_a_run_is_not_claimed_before_its_time(world: World):
    await world.customer()
    await world.run()
    await world.fail(await world.claim_one())
    assert await world.claim(1) == []
    await world.move_clock(NOON + timedelta(seconds=29))
    assert await world.claim(1) == [], "a retry waits at least half of its minute"
    await world.move_clock(NOON + timedelta(seconds=60))
    assert len(await world.claim(1)) == 1


async def test_completed_rows_cost_a_claim_nothing(world: World):
    """The queue's index holds only what is pending: 20000 old runs are no pages to read."""
    await world.customer()
    await world.pending("acme", 5)
    await world.execute("ALTER TABLE scheduled_pipeline_runs DISABLE TRIGGER USER")
    await world.execute(
        "INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name, priority,"
        " scheduled_time, trigger_type, state, created_at, updated_at, reservation_date)"
        " SELECT 'old-' || number, 'acme', 'GCP', 'COST', 'cost_billing', 5, service_now(), 'api', 'SKIPPED',"
        " service_now(), service_now(), NULL FROM generate_series(1, 20000) AS number"
    )
    await world.execute("ALTER TABLE scheduled_pipeline_runs ENABLE TRIGGER USER")
    await world.execute("ANALYZE scheduled_pipeline_runs")
    statement = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + claims.CLAIM
    rows = await world.rows(statement, worker="w1", count=5, claim_id="c1")
    plan = rows[0]["QUERY PLAN"][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 400
    assert "scheduled_pipeline_runs_queue" in str(plan)
