"""Workflows outlive the process that has taken them on, the brokers, the tables and the clients."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from bridge_support import ENVIRONMENT, rows, service_process, until
from orchestrator_support import (
    BUS,
    LONG,
    WORKFLOWS,
    Bench,
    Neighbours,
    Story,
    bench,
    events_about,
    execution,
    lab_settings,
    neighbours,
    opened,
    reducing,
    shape,
)
from testyard.core.deadline import Deadline
from testyard.lab.bridge.orchestrator import stored
from testyard.lab.bridge.reducer.store import persist
from testyard.lab.bridge.settings import BusSettings, Settings
from testyard.lab.bridge.topics import Route

pytestmark = pytest.mark.anyio

MODULE = "testyard.lab.bridge.orchestrator"
STATES = "SELECT current_state, count(*) FROM workflow_executions WHERE namespace = %s GROUP BY 1"
TOTAL = "SELECT total_workflows_processed FROM bridge_states WHERE namespace = %s"


@pytest.fixture
def around(database_url: str, tmp_path: Path) -> Iterator[Neighbours]:
    """What the orchestrator works with, and nothing that another test has left unfinished."""
    with neighbours(database_url, tmp_path / "neighbours") as around:
        yield around


@asynccontextmanager
async def a_reducer(around: Neighbours, lab: Bench) -> AsyncIterator[None]:
    """The events become rows."""
    async with opened(lab.settings, around.url) as node, reducing(node):
        yield


def states(around: Neighbours, namespace: str) -> dict[str, int]:
    return dict(rows(around.url, STATES, namespace))


def files(count: int, namespace: str, **more: Any) -> dict[str, Any]:
    """The body of a batch."""
    each = {"file_path": "x.md", "namespace": namespace, **more}
    return {"workflows": [{"content": f"{namespace} {it}", **each} for it in range(count)]}


@dataclass
class Processes:
    """Orchestrators that follow each other, each a process.

    Attributes:
        around: What they work with.
        settings: What they are started with.
        directory: Where their settings and their events are.
    """

    around: Neighbours
    settings: Settings
    directory: Path

    @contextmanager
    def next(self) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
        """The next one, and what calls it."""
        with (
            service_process(
                MODULE, self.settings, self.around.url, self.directory, stderr=subprocess.DEVNULL
            ) as service,
            httpx.Client(base_url=service.url, timeout=120) as client,
        ):
            yield service.process, client


@asynccontextmanager
async def processes(
    around: Neighbours, directory: Path, bus: BusSettings = BUS, **orchestrator: Any
) -> AsyncIterator[tuple[Bench, Processes]]:
    """A bench whose own orchestrator resumes nothing, a reducer, and orchestrators as processes that do."""
    settings = {"stamping_timeout": 200, "workflow_timeout": 300, **orchestrator}
    async with bench(around, directory, bus=bus, resume_after=600, **settings) as lab, a_reducer(around, lab):
        eager = lab.settings.orchestrator.model_copy(update={"resume_after": timedelta(milliseconds=200)})
        yield lab, Processes(around, lab.settings.model_copy(update={"orchestrator": eager}), directory)


async def submit(client: httpx.Client, count: int, namespace: str) -> set[str]:
    """Have workflows taken on; gives their correlation ids."""
    answer = await asyncio.to_thread(client.post, f"{WORKFLOWS}/batch", json=files(count, namespace))
    assert answer.status_code == 202
    return {it["correlation_id"] for it in answer.json()["workflows"]}


def stamping_works(lab: Bench) -> None:
    """From now on; what was on its way to the service is lost."""
    lab.stamping.heal()
    lab.stamping.cut()


async def completed(around: Neighbours, namespace: str, count: int) -> None:
    """Wait until so many workflows, and no others, have a row that says so, and are counted."""
    await until(lambda: states(around, namespace) == {"COMPLETED": count}, "all have completed", LONG)
    assert rows(around.url, TOTAL, namespace) == [(count,)]


async def test_a_killed_orchestrator_loses_no_workflow_and_tells_none_twice(around: Neighbours, tmp_path: Path):
    namespace = f"killed-{uuid4()}"
    async with processes(around, tmp_path) as (lab, orchestrators):
        lab.stamping.silence()
        with orchestrators.next() as (process, client):
            accepted = await submit(client, 200, namespace)
            # Until some of the steps before stamping are done, so that they are done twice.
            steps = await events_about(lab.kafka, accepted, [Route.STEP_COMPLETED], 50)
            os.kill(process.pid, 9)
        assert len(accepted) == 200
        assert len(steps) < 400
        await until(lambda: sum(states(around, namespace).values()) == 200, "all have rows", LONG)
        stamping_works(lab)
        with orchestrators.next() as (_, client):
            await completed(around, namespace, 200)
            assert client.get("/metrics").json()["resumed"] == 200
        told = await events_about(lab.kafka, accepted, TOLD_ONCE, 7 * 200)
        once = {it.envelope["event_id"]: it for it in told}
        assert len(told) > len(once), "what was told before the crash was told again"
        assert len(once) == 7 * 200, "by the ids that it had"
        for event in told:
            assert event.payload == {**once[event.envelope["event_id"]].payload, **measured(event.payload)}


TOLD_ONCE = (Route.WORKFLOW_STARTED, Route.STATE_TRANSITION, Route.STEP_COMPLETED, Route.WORKFLOW_COMPLETED)


def measured(payload: dict[str, Any]) -> dict[str, Any]:
    """What may differ when the same is done again."""
    return {name: value for name, value in payload.items() if name == "execution_time_ms"}


async def test_an_orchestrator_that_ends_leaves_its_work_to_the_next_one(around: Neighbours, tmp_path: Path):
    namespace = f"ended-{uuid4()}"
    async with processes(around, tmp_path) as (lab, orchestrators):
        lab.stamping.silence()
        with orchestrators.next() as (process, client):
            await submit(client, 100, namespace)
            body = {"content": "# Waited for", "file_path": "x.md", "namespace": namespace}
            waiting = asyncio.create_task(asyncio.to_thread(client.post, WORKFLOWS, json=body))
            await until(lambda: client.get("/metrics").json()["accepted"] == 101, "it waits", LONG)
            # Who waits for an answer is waited for, but not for as long as a workflow may take.
            deadline = Deadline(timedelta(seconds=60))
            process.terminate()
            await asyncio.to_thread(process.wait, 100)
            assert not deadline.expired, deadline.elapsed
            assert process.returncode == 0
            await asyncio.wait([waiting])
        stamping_works(lab)
        with orchestrators.next():
            await completed(around, namespace, 101)


async def test_a_workflow_that_was_taken_on_without_kafka_outlives_a_kill(around: Neighbours, tmp_path: Path):
    namespace = f"without-{uuid4()}"
    quick = BUS.model_copy(update={"request_timeout": timedelta(milliseconds=500)})
    async with processes(around, tmp_path, bus=quick) as (lab, orchestrators):
        lab.stamping.silence()
        lab.kafka.down()
        with orchestrators.next() as (process, client):
            await submit(client, 20, namespace)
            os.kill(process.pid, 9)
        lab.kafka.up()
        stamping_works(lab)
        assert states(around, namespace) == {}, "only the outbox knows them"
        with orchestrators.next():
            await completed(around, namespace, 20)


async def test_more_than_can_be_read_at_once_is_found(
    around: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stored, "MOST_AT_ONCE", 7)
    async with opened(lab_settings(around.kafka.bootstrap_servers, tmp_path), around.url, "orchestrator") as node:
        unfinished = [Story() for _ in range(30)]
        own, elsewhere, ended = execution(Story().start()), execution(Story().start()), Story()
        soon = datetime.now(UTC) + timedelta(minutes=5)
        later = execution(Story().start(started_at=soon))
        own.metadata["instance"] = node.instance
        elsewhere.metadata["environment"] = "staging"
        others = [execution(Story().start(request={"path": "x"})) for _ in range(20)]
        unread = [execution(Story().transition()) for _ in range(5)]
        executions = [execution(it.start()) for it in unfinished] + [own, elsewhere, later] + others + unread
        executions.append(execution(ended.start()).joined_with(execution(ended.end())))
        await persist(node.pool, ENVIRONMENT, executions, {})
        found = await stored.Unfinished(node).find()
        assert {it.correlation_id for it in found} == {it.correlation_id for it in unfinished}
        assert len(found) == 30
        monkeypatch.setattr(stored, "CLOCKS_DIFFER_BY", timedelta(days=-3650))
        assert len(await stored.Unfinished(node).find()) == 30, "also when the clock was set back since"


async def test_what_cannot_be_resumed_is_told_once(
    around: Neighbours, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with opened(lab_settings(around.kafka.bootstrap_servers, tmp_path), around.url, "orchestrator") as node:
        unfinished = stored.Unfinished(node)
        for count in (1, 2):
            await persist(node.pool, ENVIRONMENT, [execution(Story().start(request={}))], {})
            for _ in range(3):
                assert await unfinished.find() == []
            told = [it for it in caplog.messages if "cannot be resumed" in it]
            assert len(told) == count
            assert told[-1].startswith(f"{count} unfinished workflows cannot be resumed")


async def test_a_workflow_of_an_earlier_process_is_answered_for(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path / "first") as lab, a_reducer(around, lab):
        first = await lab.run("# Earlier", namespace="earlier")
        failed = await lab.run("", namespace="earlier")
        await until(lambda: sum(states(around, "earlier").values()) == 2, "both have rows", LONG)
        await until(lambda: set(states(around, "earlier")) == {"COMPLETED", "FAILED"}, "both have ended", LONG)
    async with bench(around, tmp_path / "second") as lab:
        for workflow in (first, failed):
            answer = await lab.client.get(f"{WORKFLOWS}/{workflow['workflow_id']}")
            assert answer.status_code == 200
            assert set(answer.json()) == set(workflow) - {"steps"} | ({"steps"} & set(answer.json()))
            for name in ("state", "correlation_id", "error_message", "stamp", "fallbacks", "namespace"):
                assert answer.json()[name] == workflow[name], name
            assert answer.json()["execution_time_ms"] == pytest.approx(workflow["execution_time_ms"])
        again = await lab.run("something else", correlation_id=first["correlation_id"])
        assert again["stamp"] == first["stamp"]
        assert lab.orchestrator.counts["accepted"] == 0, "the same correlation id is the same workflow"


async def test_a_workflow_that_is_asked_for_again_before_it_is_resumed_is_resumed(
    around: Neighbours, tmp_path: Path
):
    story = Story(f"again-{uuid4()}")
    async with bench(around, tmp_path, resume_after=600) as lab:
        await persist(lab.node.pool, ENVIRONMENT, [execution(story.start())], {})
        workflow = await lab.run("something else", correlation_id=str(story.correlation_id))
        assert workflow["state"] == "COMPLETED"
        assert workflow["namespace"] == story.namespace, "as it was asked for first"
        counts = lab.orchestrator.counts
        assert (counts["accepted"], counts["resumed"], counts["completed"]) == (0, 1, 1)
        assert "WORKFLOW_STARTED" not in shape(await lab.told(workflow, 6))
