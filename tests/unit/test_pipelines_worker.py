"""The worker process: killed, cut off from the database, told to end."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pipelines_support import NOON, PATIENCE, World
from testyard.lab.pipelines.worker import main

pytestmark = pytest.mark.anyio

STALE = 0.5


@asynccontextmanager
async def _worker(world: World, name: str, *arguments: object) -> AsyncIterator[Process]:
    """A worker that is ready; it is killed in the end if it still lives."""
    command = ["-m", "testyard.lab.pipelines.worker", "--database", world.url, "--name", name, "--test-clock"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--stale-after", str(STALE), *map(str, arguments),
        stdin=PIPE, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE.total_seconds()):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _until(world: World, accepts: Callable[[dict[str, int]], bool]) -> None:
    states: dict[str, int] = {}
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while not accepts(states := await world.states()):
                pass
    except TimeoutError:
        pytest.fail(f"the runs were {states} in the end")


async def _until_logged(log: Path, event: str) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while event not in {line["event"] for line in _lines(log)}:
            await asyncio.to_thread(os.stat, log)


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def _ended(process: Process) -> tuple[int | None, list[str]]:
    """How it ended, and what it complained of."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        assert process.stderr is not None
        complaints = (await process.stderr.read()).decode().splitlines()
        return await process.wait(), complaints


async def test_it_executes_what_comes_and_ends_with_its_input(world: World):
    await world.customer()
    await world.pending("acme", 25)
    async with _worker(world, "w1") as process:
        await _until(world, lambda states: states == {"COMPLETED": 25})
        await world.run()
        await _until(world, lambda states: states == {"COMPLETED": 26})
        assert process.stdin is not None
        process.stdin.close()
        assert await _ended(process) == (0, [])


async def test_sigterm_ends_it_after_the_last_report(world: World):
    await world.customer()
    await world.run(parameters={"duration_ms": 300})
    async with _worker(world, "w1", "--flush-ms", 5000) as process:
        await _until(world, lambda states: states == {"RUNNING": 1})
        process.send_signal(signal.SIGTERM)
        assert await _ended(process) == (0, [])
    assert await world.states() == {"COMPLETED": 1}


async def test_a_notification_wakes_it_at_once(world: World):
    """Half of the poll interval would pass on average without LISTEN, for ten runs in a row five times that."""
    await world.customer()
    async with _worker(world, "w1"):
        started = asyncio.get_running_loop().time()
        for count in range(1, 11):
            await world.run()
            await _until(world, lambda states, count=count: states.get("COMPLETED") == count)  # type: ignore[misc]
        assert asyncio.get_running_loop().time() - started < 2


async def test_a_killed_workers_run_is_healed_and_completed_elsewhere(world: World, tmp_path: Path):
    log = tmp_path / "executions.jsonl"
    await world.customer()
    run = await world.run(parameters={"duration_ms": 2000})
    async with _worker(world, "victim", "--execution-log", log) as victim:
        await _until_logged(log, "started")
        victim.kill()
        await victim.wait()
        async with _worker(world, "heir", "--execution-log", log):
            await _until(world, lambda states: states == {"PENDING": 1})
            await world.move_clock(NOON + timedelta(minutes=1))
            await _until_logged(log, "reported")
    rows = await world.rows("SELECT worker_id, retry_attempt, claim_number FROM scheduled_pipeline_runs")
    assert rows == [{"worker_id": "heir", "retry_attempt": 1, "claim_number": 2}]
    lines = _lines(log)
    assert [(line["worker"], line["event"]) for line in lines] == [
        ("victim", "started"),
        ("heir", "started"),
        ("heir", "succeeded"),
        ("heir", "reported"),
    ]
    assert {line["run_id"] for line in lines} == {run.run_id}


async def test_the_template_that_crashes_takes_the_worker_along(world: World):
    await world.customer()
    async with _worker(world, "w1") as process:
        await world.run(template="crashes")
        assert await _ended(process) == (-signal.SIGKILL, [])
    assert await world.states() == {"RUNNING": 1}


async def test_terminated_connections_do_not_stop_it(world: World, tmp_path: Path):
    log = tmp_path / "executions.jsonl"
    await world.customer(daily=1000, concurrent=1000)
    await world.pending("acme", 300)
    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'w%%' AND %(yes)s"
    )
    settings = ("--batch", 3, "--capacity", 3, "--execution-log", log)
    async with _worker(world, "w1", *settings) as first, _worker(world, "w2", *settings) as second:
        for completed in range(20, 300, 40):
            await _until(world, lambda states, least=completed: states.get("COMPLETED", 0) >= least)  # type: ignore[misc]
            await world.rows(terminate, yes=True)
        # Runs whose claim was lost with its answer are healed, and then wait for their retry.
        moment = NOON
        async with asyncio.timeout(PATIENCE.total_seconds() * 2):
            while await world.states() != {"COMPLETED": 300}:
                moment += timedelta(seconds=10)
                await world.move_clock(moment)
        for process in (first, second):
            process.send_signal(signal.SIGTERM)
            status, complaints = await _ended(process)
            assert status == 0
            assert not [line for line in complaints if "Traceback" in line]
    lines = _lines(log)
    assert set(Counter(line["run_id"] for line in lines if line["event"] == "reported").values()) <= {1}
    history = await world.rows("SELECT run_id FROM run_transitions WHERE to_state = 'COMPLETED'")
    assert len(history) == 300


async def test_it_waits_for_a_database_that_is_away():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "testyard.lab.pipelines.worker", "--name", "w1",
        "--database", "postgresql://nobody:geheim@127.0.0.1:1/none",
        stdin=PIPE, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE.total_seconds()):
        first = (await process.stderr.readline()).decode()
    process.send_signal(signal.SIGTERM)
    stopped = asyncio.get_running_loop().time()
    status, complaints = await _ended(process)
    assert asyncio.get_running_loop().time() - stopped < 4
    assert status == 0
    assert "127.0.0.1" in first
    assert "geheim" not in "".join([first, *complaints])
    assert not [line for line in complaints if line.startswith(("Traceback", " "))]


@pytest.mark.parametrize("wrong", [["--batch", "0"], ["--capacity", "x"], ["--stale-after", "-1"], []])
def test_wrong_arguments_are_named(wrong: list[str], capsys: pytest.CaptureFixture[str]):
    arguments: list[Any] = ["--database", "postgresql://localhost/x", *(["--name", "w"] if wrong else []), *wrong]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert (wrong[0] if wrong else "--name") in capsys.readouterr().err
