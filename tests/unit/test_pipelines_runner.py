"""The runner: concurrent work, batched reports, lost claims, a database that is away; the lab's templates."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pipelines_support import NOON, PATIENCE, World
from testyard.lab import waiting
from testyard.lab.database import DatabaseUnavailableError, Pool
from testyard.lab.pipelines import runner as runner_module
from testyard.lab.pipelines.execution import (
    ExecutionLog,
    PipelineError,
    RunAbandonedError,
    TemplateExecutor,
    abandon_run,
)
from testyard.lab.pipelines.records import Outcome, Work
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.runner import Runner
from testyard.lab.pipelines.store import claims, clock, outcomes
from testyard.lab.pipelines.store.clock import PatientClock

pytestmark = pytest.mark.anyio


class Gate:
    """An executor whose runs end when the test says so."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[Work] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.open = asyncio.Event()

    async def execute(self, work: Work) -> None:
        """Wait for the gate."""
        self.started.put_nowait(work)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(work.run_id)
            raise


def _runner(world: World, executor: Any = None, **settings: Any) -> Runner:
    return Runner(
        world.pool, executor or TemplateExecutor(abandon_run, PatientClock(world.pool)), "w1", **settings
    )


async def _soon(awaitable: Any) -> Any:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        return await awaitable


async def test_it_claims_executes_and_reports(world: World):
    await world.customer()
    await world.pending("acme", 12)
    async with _runner(world) as runner:
        assert await runner.claim(10) == 10
        assert await runner.wait_until_idle(PATIENCE)
        assert await world.states() == {"COMPLETED": 10, "PENDING": 2}
        assert (runner.running, runner.unreported) == (0, 0)


async def test_process_next_takes_one_and_tells_when_there_is_none(world: World):
    await world.customer()
    await world.pending("acme", 2)
    gate = Gate()
    async with _runner(world, gate) as runner:
        first = await runner.process_next()
        assert first is not None
        assert first.run_id == "acme-1"
        assert await world.states() == {"RUNNING": 1, "PENDING": 1}
        assert await runner.process_next() is not None
        assert await runner.process_next() is None
        assert runner.running == 2
        gate.open.set()
        assert await runner.wait_until_idle(PATIENCE)


async def test_reports_that_end_together_are_one_statement(world: World, monkeypatch: pytest.MonkeyPatch):
    sent: list[int] = []
    finish = outcomes.finish

    async def counted(pool: Any, reports: list[Outcome]) -> set[str]:
        sent.append(len(reports))
        return await finish(pool, reports)

    monkeypatch.setattr(runner_module.outcomes, "finish", counted)
    await world.customer()
    await world.pending("acme", 20)
    gate = Gate()
    async with _runner(world, gate) as runner:
        await runner.claim(20)
        for _ in range(20):
            await _soon(gate.started.get())
        gate.open.set()
        assert await runner.wait_until_idle(PATIENCE)
    assert sent == [20]


async def test_the_first_report_does_not_wait_for_a_long_run(world: World):
    await world.customer()
    await world.run(template="hangs")
    await world.run()
    async with _runner(world, flush_after=timedelta(milliseconds=20)) as runner:
        await runner.claim(2)

        async def until_completed() -> None:
            while (await world.states()).get("COMPLETED") != 1:
                pass

        await _soon(until_completed())
        assert runner.running == 1


async def test_heartbeats_keep_a_long_run(world: World):
    await world.customer()
    run = await world.run(template="hangs")
    async with _runner(world, stale_after=timedelta(milliseconds=200)) as runner:
        await runner.claim(1)
        await world.silence(run)

        async def until_beaten() -> None:
            fresh = (
                "SELECT FROM scheduled_pipeline_runs WHERE heartbeat_at > clock_timestamp() - interval '1 minute'"
            )
            while not await world.rows(fresh):
                pass

        await _soon(until_beaten())
        assert await outcomes.heal(world.pool, timedelta(minutes=1)) == 0
        assert runner.running == 1


async def test_a_run_that_is_taken_away_is_cancelled(world: World):
    await world.customer()
    run = await world.run()
    gate = Gate()
    async with _runner(world, gate, stale_after=timedelta(milliseconds=200)) as runner:
        work = await runner.process_next()
        assert work is not None
        await _soon(gate.started.get())
        await world.fail(work, error_class=ErrorClass.WORKER_LOST)
        assert await _soon(gate.cancelled.get()) == run.run_id
        assert await runner.wait_until_idle(PATIENCE)
        assert runner.unreported == 0
    assert await world.state(run) == "PENDING"


async def test_reports_are_kept_while_the_database_is_away_and_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    finish = outcomes.finish
    failures = 3
    away = asyncio.Event()

    async def unreliable(pool: Any, reports: list[Outcome]) -> set[str]:
        nonlocal failures
        if failures:
            failures -= 1
            if failures == 1:
                # The answer is lost, not the report.
                await finish(pool, reports)
            away.set()
            raise DatabaseUnavailableError("away")
        return await finish(pool, reports)

    monkeypatch.setattr(runner_module.outcomes, "finish", unreliable)
    monkeypatch.setattr(waiting, "FIRST_RETRY", timedelta(milliseconds=1))
    await world.customer()
    await world.pending("acme", 3)
    async with _runner(world) as runner:
        await runner.claim(3)
        await _soon(away.wait())
        assert runner.unreported == 3
        assert await runner.wait_until_idle(PATIENCE)
    assert failures == 0
    assert await world.states() == {"COMPLETED": 3}


async def test_a_claim_whose_answer_is_lost_is_taken_up(world: World, monkeypatch: pytest.MonkeyPatch):
    claim = claims.claim

    async def unanswered(*arguments: Any) -> list[Work]:
        await claim(*arguments)
        raise DatabaseUnavailableError("away")

    await world.customer()
    await world.pending("acme", 3)
    async with _runner(world) as runner:
        monkeypatch.setattr(runner_module.claims, "claim", unanswered)
        with pytest.raises(DatabaseUnavailableError):
            await runner.claim(2)
        monkeypatch.setattr(runner_module.claims, "claim", claim)
        assert await world.states() == {"RUNNING": 2, "PENDING": 1}
        assert runner.running == 0
        assert await runner.claim(2) == 2, "two slots were free: what was taken already comes first"
        assert await runner.claim(2) == 1
        assert await runner.wait_until_idle(PATIENCE)
    assert await world.states() == {"COMPLETED": 3}
    claimed = await world.rows("SELECT FROM run_transitions WHERE to_state = 'RUNNING'")
    assert len(claimed) == 3, "none was claimed twice"


async def test_what_was_healed_meanwhile_is_not_taken_up(world: World, monkeypatch: pytest.MonkeyPatch):
    claim, taken_by = claims.claim, claims.taken_by

    async def unanswered(*arguments: Any) -> list[Work]:
        await claim(*arguments)
        raise DatabaseUnavailableError("away")

    async def away(*_: Any) -> list[Work]:
        raise DatabaseUnavailableError("still away")

    await world.customer()
    run = await world.run()
    async with _runner(world) as runner:
        monkeypatch.setattr(runner_module.claims, "claim", unanswered)
        monkeypatch.setattr(runner_module.claims, "taken_by", away)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailableError):
                await runner.claim(1)
        monkeypatch.setattr(runner_module.claims, "claim", claim)
        monkeypatch.setattr(runner_module.claims, "taken_by", taken_by)
        await world.silence(run)
        assert await outcomes.heal(world.pool, timedelta(milliseconds=100)) == 1
        assert await runner.claim(1) == 0
        assert runner.running == 0


async def test_a_runner_that_cannot_send_heartbeats_gives_its_runs_up_and_says_so_when_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    async def lost(*_: Any) -> set[str]:
        raise DatabaseUnavailableError("away")

    monkeypatch.setattr(runner_module.claims, "heartbeat", lost)
    await world.customer()
    run = await world.run()
    gate = Gate()
    async with _runner(world, gate, stale_after=timedelta(milliseconds=50)) as runner:
        await runner.claim(1)
        assert await _soon(gate.cancelled.get()) == run.run_id
        assert await runner.wait_until_idle(PATIENCE)
    lost_runs = await world.rows("SELECT state, retry_attempt, error_class FROM scheduled_pipeline_runs")
    assert lost_runs == [{"state": "PENDING", "retry_attempt": 1, "error_class": "WORKER_LOST"}]


async def test_the_end_cancels_what_runs_and_reports_what_has_ended(world: World):
    await world.customer()
    hanging = await world.run(template="hangs")
    done = await world.run()
    async with _runner(world, flush_after=timedelta(minutes=1)) as runner:
        await runner.claim(2)

        async def until_ended() -> None:
            while runner.unreported != 1:
                await world.states()

        await _soon(until_ended())
    assert await world.state(hanging) == "RUNNING"
    assert await world.state(done) == "COMPLETED"


@pytest.mark.parametrize(
    ("template", "parameters", "state", "error"),
    [
        ("fails", {}, "PENDING", "SERVICE_UNAVAILABLE"),
        ("fails", {"error_class": "AUTHENTICATION_FAILED"}, "FAILED", "AUTHENTICATION_FAILED"),
        ("fails", {"failures": 0}, "COMPLETED", None),
        ("fails", {"failures": "many"}, "FAILED", "INVALID_CONFIGURATION"),
        ("fails", {"error_class": "BAD_LUCK"}, "FAILED", "INVALID_CONFIGURATION"),
        ("usage_tracking", {"duration_ms": 1}, "COMPLETED", None),
        ("usage_tracking", {"duration_ms": -1}, "FAILED", "INVALID_CONFIGURATION"),
        ("usage_tracking", {"until": "2030-01-15 11:59"}, "COMPLETED", None),
        ("usage_tracking", {"until": "at noon"}, "FAILED", "INVALID_CONFIGURATION"),
        ("usage_tracking", {"until": 12}, "FAILED", "INVALID_CONFIGURATION"),
        ("unheard_of", {}, "FAILED", "RESOURCE_NOT_FOUND"),
        ("crashes", {}, "RUNNING", None),
    ],
)
async def test_templates(world: World, template: str, parameters: dict[str, Any], state: str, error: str | None):
    await world.customer()
    run = await world.run(template=template, parameters=parameters)
    async with _runner(world) as runner:
        await runner.claim(1)
        assert await runner.wait_until_idle(PATIENCE)
    rows = await world.rows("SELECT state, error_class FROM scheduled_pipeline_runs")
    assert rows == [{"state": state, "error_class": error}]
    assert run.template_name == template


async def test_a_duration_is_meant_by_the_services_clock(world: World):
    await world.customer()
    run = await world.run(parameters={"duration_seconds": 600})
    async with _runner(world) as runner:
        await world.move_clock(NOON)
        await runner.claim(1)
        await world.move_clock(NOON + timedelta(seconds=599))
        assert not await runner.wait_until_idle(timedelta(milliseconds=200))
        assert await world.state(run) == "RUNNING"
        await world.move_clock(NOON + timedelta(seconds=600))
        assert await runner.wait_until_idle(PATIENCE)
    assert await world.state(run) == "COMPLETED"


async def test_until_is_a_moment_of_the_services_clock_which_retries_do_not_wait_for_again(world: World):
    await world.customer()
    until = (NOON + timedelta(minutes=5)).isoformat()
    await world.run(template="fails", parameters={"failures": 1, "until": until})
    async with _runner(world) as runner:
        assert await runner.claim(1) == 1
        await world.move_clock(NOON + timedelta(seconds=299))
        assert not await runner.wait_until_idle(timedelta(milliseconds=200))
        for minute in (5, 7):
            await world.move_clock(NOON + timedelta(minutes=minute))
            await runner.claim(1)
            assert await runner.wait_until_idle(PATIENCE)
    assert await world.rows("SELECT state, retry_attempt FROM scheduled_pipeline_runs") == [
        {"state": "COMPLETED", "retry_attempt": 1}
    ]


async def test_many_who_wait_for_the_clock_read_it_as_often_as_one(world: World, monkeypatch: pytest.MonkeyPatch):
    reads = 0
    read = clock.read

    async def counted(pool: Pool) -> datetime:
        nonlocal reads
        reads += 1
        return await read(pool)

    monkeypatch.setattr(clock, "read", counted)
    monkeypatch.setattr(clock, "FRESH_FOR", timedelta(hours=1))
    patient = PatientClock(world.pool)
    assert await asyncio.gather(*(patient() for _ in range(10))) == [NOON] * 10
    assert reads == 1
    monkeypatch.setattr(clock, "FRESH_FOR", timedelta(0))
    later = PatientClock(world.pool)
    assert [await later() for _ in range(2)] == [NOON] * 2
    assert reads == 3


async def test_a_duration_begins_with_the_claim_however_late_its_executor_looks_at_the_clock(world: World):
    await world.customer()
    run = await world.run(parameters={"duration_seconds": 600})
    work = await world.claim_one()
    await world.move_clock(NOON + timedelta(seconds=600))
    await _soon(TemplateExecutor(abandon_run, PatientClock(world.pool)).execute(work))
    assert work.run_id == run.run_id


async def test_fails_n_times_then_succeeds(world: World):
    await world.customer()
    run = await world.run(template="fails", parameters={"failures": 2})
    async with _runner(world) as runner:
        for minute in (0, 1, 3):
            await world.move_clock(NOON + timedelta(minutes=minute))
            assert await runner.claim(1) == 1
            assert await runner.wait_until_idle(PATIENCE)
    rows = await world.rows("SELECT state, retry_attempt FROM scheduled_pipeline_runs")
    assert rows == [{"state": "COMPLETED", "retry_attempt": 2}]
    assert run.retry_attempt == 0


async def test_an_executor_that_breaks_ends_its_run_not_the_runner(world: World):
    class Broken:
        async def execute(self, work: Work) -> None:
            raise KeyError(work.run_id)

    await world.customer()
    run = await world.run()
    async with _runner(world, Broken()) as runner:
        await runner.claim(1)
        assert await runner.wait_until_idle(PATIENCE)
    rows = await world.rows("SELECT state, error_class, error_message FROM scheduled_pipeline_runs")
    assert rows == [{"state": "PENDING", "error_class": "UNKNOWN", "error_message": f"KeyError: '{run.run_id}'"}]


async def test_the_execution_log_has_a_line_for_each_start_and_success(world: World, tmp_path: Path):
    await world.customer()
    good = await world.run()
    bad = await world.run(template="fails")
    path = tmp_path / "executions.jsonl"
    with ExecutionLog(path, "w1") as log:
        async with _runner(world, log=log) as runner:
            await runner.claim(2)
            assert await runner.wait_until_idle(PATIENCE)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines if line["run_id"] == good.run_id] == [
        "started",
        "succeeded",
        "reported",
    ]
    assert [line["event"] for line in lines if line["run_id"] == bad.run_id] == ["started"]
    assert {(line["worker"], line["claim_number"], line["retry_attempt"]) for line in lines} == {("w1", 1, 0)}
    assert [line["monotonic_ns"] for line in lines] == sorted(line["monotonic_ns"] for line in lines)


def test_errors_carry_what_they_say():
    error = PipelineError(ErrorClass.TIMEOUT, "too late")
    assert (error.error_class, error.message, str(error)) == (ErrorClass.TIMEOUT, "too late", "too late")
    with pytest.raises(RunAbandonedError):
        abandon_run()


async def test_a_database_that_refuses_a_report_ends_nobody(world: World):
    await world.customer()
    run = await world.run()
    await world.rows("UPDATE subscription_quotas SET reserved_today = 0 RETURNING customer_id")
    async with _runner(world) as runner:
        await runner.claim(1)
        assert not await runner.wait_until_idle(timedelta(milliseconds=300))
        assert await world.state(run) == "RUNNING"
        await world.rows("UPDATE subscription_quotas SET reserved_today = 1 RETURNING customer_id")
        assert await runner.wait_until_idle(PATIENCE)
    assert await world.state(run) == "COMPLETED"
