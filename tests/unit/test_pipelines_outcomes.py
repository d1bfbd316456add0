"""Ends of runs: success, failure, retry, healing, late reports, and what a failure announces."""

from datetime import timedelta

import pytest
from pipelines_support import NOON, World
from testyard.lab.pipelines.records import Failure, Outcome
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.store import outcomes, runs

pytestmark = pytest.mark.anyio

STALE = timedelta(milliseconds=1)
NEVER_RETRIED = ["AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED", "INVALID_CONFIGURATION", "RESOURCE_NOT_FOUND"]


async def test_success_ends_the_run_and_uses_the_reservation(world: World):
    await world.customer()
    run = await world.run()
    before = await world.quota()
    assert (before["reserved_today"], before["today"]) == (1, 0)
    work = await world.claim_one()
    assert await world.succeed(work) == {run.run_id}
    after = await world.quota()
    assert (after["today"], after["month"], after["running"]) == (1, 1, 0)
    assert (after["reserved_today"], after["reserved_month"]) == (0, 0)
    ended = await runs.read(world.pool, run.run_id)
    assert ended is not None
    assert (ended.state, ended.ended_at, ended.error_class) == ("COMPLETED", NOON, None)
    _, history = await runs.read_with_transitions(world.pool, run.run_id)
    assert [(step.from_state, step.to_state) for step in history] == [
        (None, "SCHEDULED"),
        ("SCHEDULED", "PENDING"),
        ("PENDING", "RUNNING"),
        ("RUNNING", "COMPLETED"),
    ]


async def test_the_same_report_again_changes_nothing(world: World):
    await world.customer()
    await world.run()
    work = await world.claim_one()
    assert await world.succeed(work, work) == {work.run_id}
    assert await world.succeed(work) == set()
    assert await world.fail(work) == set()
    assert (await world.quota())["today"] == 1
    assert await world.state(work) == "COMPLETED"


async def test_a_failure_is_retried_three_times_on_the_same_row_with_growing_delays(world: World):
    await world.customer()
    run = await world.run()
    moment = NOON
    for retry, longest in ((1, 1), (2, 2), (3, 4)):
        await world.fail(await world.claim_one())
        waiting = await runs.read(world.pool, run.run_id)
        assert waiting is not None
        assert (waiting.state, waiting.retry_attempt) == ("PENDING", retry)
        assert waiting.not_before is not None
        delay = waiting.not_before - moment
        assert timedelta(minutes=longest) / 2 <= delay <= timedelta(minutes=longest)
        assert (waiting.error_class, waiting.error_message) == (ErrorClass.TIMEOUT, "it failed")
        quota = await world.quota()
        assert (quota["running"], quota["reserved_today"]) == (0, 1), "a retry keeps its reservation, not its slot"
        moment = waiting.not_before
        await world.move_clock(moment)
    await world.fail(await world.claim_one())
    failed = await runs.read(world.pool, run.run_id)
    assert failed is not None
    assert (failed.state, failed.retry_attempt, failed.claim_number) == ("FAILED", 3, 4)
    assert (await world.quota())["reserved_today"] == 0
    assert (await world.quota())["today"] == 0, "a failure uses no quota"
    _, history = await runs.read_with_transitions(world.pool, run.run_id)
    assert [step.retry_attempt for step in history if step.to_state == "RUNNING"] == [0, 1, 2, 3]
    assert [step.not_before is not None for step in history if step.from_state == "FAILED"] == [True] * 3
    assert await world.rows("SELECT FROM scheduled_pipeline_runs") == [{}], "always the same row"


@pytest.mark.parametrize("error_class", NEVER_RETRIED)
async def test_errors_that_time_does_not_cure_end_the_run_at_once(world: World, error_class: str):
    await world.customer()
    run = await world.run()
    await world.fail(await world.claim_one(), error_class=ErrorClass(error_class))
    assert await world.state(run) == "FAILED"
    assert (await world.quota())["reserved_today"] == 0


async def test_a_second_report_does_not_revive_a_failed_run(world: World):
    await world.customer()
    run = await world.run()
    work = await world.claim_one()
    await world.fail(work, error_class=ErrorClass.AUTHENTICATION_FAILED)
    assert await world.fail(work, error_class=ErrorClass.TIMEOUT) == set()
    assert await world.state(run) == "FAILED"


async def test_a_run_without_heartbeat_is_healed_and_its_workers_late_report_ignored(world: World):
    await world.customer(concurrent=1)
    run = await world.run()
    lost = await world.claim_one("lost")
    assert await outcomes.heal(world.pool, timedelta(minutes=5)) == 0
    await world.silence(run)
    assert await outcomes.heal(world.pool, STALE) == 1
    healed = await runs.read(world.pool, run.run_id)
    assert healed is not None
    assert (healed.state, healed.retry_attempt, healed.error_class) == ("PENDING", 1, ErrorClass.WORKER_LOST)
    assert healed.error_message is not None
    assert healed.error_message.startswith("no heartbeat for 3600")
    assert await world.succeed(lost) == set()
    await world.move_clock(NOON + timedelta(minutes=1))
    again = await world.claim_one("next")
    assert await world.succeed(lost) == set(), "it is another claim's now"
    assert await world.state(run) == "RUNNING"
    assert await world.succeed(again) == {run.run_id}
    assert (await world.quota())["today"] == 1


async def test_a_database_that_was_away_is_nobodys_lost_heartbeat(world: World):
    """Until the database has been up for the stale time itself, no worker could send a heartbeat."""
    await world.customer()
    run = await world.run()
    await world.claim_one()
    await world.silence(run, timedelta(days=300))
    assert await outcomes.heal(world.pool, timedelta(days=200)) == 0
    assert await world.state(run) == "RUNNING"


async def test_many_outcomes_at_once_over_customers_and_days(world: World):
    await world.customer("a")
    await world.customer("b", concurrent=2)
    configuration = await world.configuration("cfg", "a")
    await world.pending("a", 3)
    await world.pending("b", 3)
    works = await world.claim(10)
    assert len(works) == 5
    by_run = {work.run_id: work for work in works}
    timeout = Failure(ErrorClass.TIMEOUT, "late")
    denied = Failure(ErrorClass.AUTHORIZATION_FAILED, "no")
    reports = [
        Outcome.of(by_run["a-1"]),
        Outcome.of(by_run["a-2"], timeout),
        Outcome.of(by_run["b-1"], denied),
        Outcome("missing", 1, 0),
        Outcome("b-2", 77, 0),
    ]
    assert await outcomes.finish(world.pool, reports) == {"a-1", "a-2", "b-1"}
    assert await world.states() == {"COMPLETED": 1, "PENDING": 2, "FAILED": 1, "RUNNING": 2}
    quota = await world.quota("b")
    assert (quota["running"], quota["reserved_today"]) == (1, 2)
    assert await outcomes.finish(world.pool, []) == set()
    assert configuration == "cfg"


async def test_the_configuration_knows_how_its_last_run_ended(world: World):
    await world.customer()
    await world.configuration("cfg")
    await world.schedule()
    await world.fail(await world.claim_one())
    read = "SELECT last_run_status, last_run_time FROM pipeline_configurations"
    assert await world.rows(read) == [{"last_run_status": None, "last_run_time": None}], "it will be tried again"
    later = NOON + timedelta(minutes=1)
    await world.move_clock(later)
    await world.succeed(await world.claim_one())
    assert await world.rows(read) == [{"last_run_status": "COMPLETED", "last_run_time": later}]


async def test_runs_of_a_deleted_customer_end_in_silence(world: World):
    await world.customer()
    await world.customer("other")
    await world.pending("acme", 1)
    await world.pending("other", 1)
    works = await world.claim(2)
    await world.execute("DELETE FROM customers WHERE customer_id = 'acme'")
    assert await world.succeed(*works) == {"other-1"}


async def test_a_message_that_no_database_takes_is_made_storable(world: World):
    await world.customer()
    run = await world.run()
    work = await world.claim_one()
    failure = Failure(ErrorClass.AUTHENTICATION_FAILED, "a\0b\ud800c" + "x" * 10_000)
    await outcomes.finish(world.pool, [Outcome.of(work, failure)])
    failed = await runs.read(world.pool, run.run_id)
    assert failed is not None
    assert failed.error_message is not None
    assert failed.error_message.startswith("a?b?cxxx")
    assert len(failed.error_message) == outcomes.LONGEST_MESSAGE


async def test_one_notification_per_channel_for_a_terminal_failure_and_none_for_a_retry(world: World):
    await world.customer()
    await world.customer("other")
    await world.channel("webhook", "http://127.0.0.1:1/hook")
    await world.channel("email", "qa@example.com")
    await world.channel("email", "other@example.com", "other")
    run = await world.run()
    for minute in (0, 1, 3, 7):
        await world.move_clock(NOON + timedelta(minutes=minute))
        assert await world.rows("SELECT FROM notifications") == [], "the run is tried again"
        await world.fail(await world.claim_one())
    rows = await world.rows("SELECT channel, target, body FROM notifications ORDER BY channel")
    assert [(row["channel"], row["target"]) for row in rows] == [
        ("email", "qa@example.com"),
        ("webhook", "http://127.0.0.1:1/hook"),
    ]
    facts = rows[0]["body"]
    assert (facts["run_id"], facts["error_class"], facts["retry_attempt"]) == (run.run_id, "TIMEOUT", 3)


async def test_success_announces_nothing(world: World):
    await world.customer()
    await world.channel("email", "qa@example.com")
    await world.run()
    await world.succeed(await world.claim_one())
    assert await world.rows("SELECT FROM notifications") == []
