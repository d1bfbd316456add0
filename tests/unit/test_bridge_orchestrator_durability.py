"""Workflows outlive the process that has taken them on, the brokers, the tables and the clients."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from bridge_support import ENVIRONMENT, rows, service_process, until
from orchestrator_support import (
    WORKFLOWS,
    Bench,
    Neighbours,
    Story,
    bench,
    events_about,
    execution,
    neighbours,
    opened,
    reducing,
    shape,
)
from postgresql_support import private_schema
from testyard.core.deadline import Deadline
from testyard.lab.bridge.events import WorkflowState
from testyard.lab.bridge.orchestrator import engine, stored
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.bridge.reducer.store import persist
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.postgresql import PostgresqlServer

pytestmark = pytest.mark.anyio

MODULE = "testyard.lab.bridge.orchestrator"
STATES = "SELECT current_state, count(*) FROM workflow_executions WHERE namespace = %s GROUP BY 1"
TOTAL = "SELECT total_workflows_processed FROM bridge_states WHERE namespace = %s"


@pytest.fixture(scope="module")
def around(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """What the orchestrator works with."""
    with (
        private_schema(postgresql_server) as url,
        neighbours(url, tmp_path_factory.mktemp("neighbours")) as around,
    ):
        yield around


@asynccontextmanager
async def a_reducer(around: Neighbours, lab: Bench) -> AsyncIterator[None]:
    """The events become rows."""
    async with opened(lab.settings, around.url) as node, reducing(node):
        yield


def states(around: Neighbours, namespace: str) -> dict[str, int]:
    return {state: count for state, count in rows(around.url, STATES, namespace)}


def files(count: int, namespace: str, **more: Any) -> dict[str, Any]:
    """The body of a batch."""
    each = {"file_path": "x.md", "namespace": namespace, **more}
    return {"workflows": [{"content": f"{namespace} {it}", **each} for it in range(count)]}


async def test_a_killed_orchestrator_loses_no_workflow_and_tells_none_twice(around: Neighbours, tmp_path: Path):
    namespace = f"killed-{uuid4()}"
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(bench(around, tmp_path))
        await stack.enter_async_context(a_reducer(around, lab))
        lab.stamping.silence()
        with (
            service_process(MODULE, lab.settings, around.url, tmp_path, stderr=subprocess.DEVNULL) as service,
            httpx.Client(base_url=service.url, timeout=60) as client,
        ):
            answer = await asyncio.to_thread(client.post, f"{WORKFLOWS}/batch", json=files(200, namespace))
            assert answer.status_code == 202
            accepted = {it["correlation_id"] for it in answer.json()["workflows"]}
            # Until the steps before stamping are done, so that they are done twice.
            steps = await events_about(lab.kafka, accepted, [Route.STEP_COMPLETED], 100)
            os.kill(service.process.pid, 9)
        assert len(accepted) == 200
        assert len(steps) < 400
        lab.stamping.heal()
        lab.stamping.cut()
        # The bench's own orchestrator is the next one that looks for what is unfinished.
        await until(lambda: states(around, namespace) == {"COMPLETED": 200}, "all have completed")
        assert lab.orchestrator.counts["resumed"] == 200
        assert rows(around.url, TOTAL, namespace) == [(200,)]
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
    async with bench(around, tmp_path) as lab, a_reducer(around, lab):
        lab.stamping.silence()
        with (
            service_process(MODULE, lab.settings, around.url, tmp_path, stderr=subprocess.DEVNULL) as service,
            httpx.Client(base_url=service.url, timeout=60) as client,
        ):
            answer = await asyncio.to_thread(client.post, f"{WORKFLOWS}/batch", json=files(100, namespace))
            assert answer.status_code == 202
            deadline = Deadline(timedelta(seconds=5))
            service.process.terminate()
            await asyncio.to_thread(service.process.wait, 20)
            assert not deadline.expired, deadline.elapsed
            assert service.process.returncode == 0
        lab.stamping.heal()
        lab.stamping.cut()
        await until(lambda: states(around, namespace) == {"COMPLETED": 100}, "all have completed")


async def test_who_waits_for_a_workflow_is_told_that_it_goes_on_elsewhere(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path) as lab:
        lab.stamping.silence()
        waiting = asyncio.create_task(lab.run(expect=202))
        await until(lambda: lab.breaker("stamping")["totals"]["calls"] == 1, "it is being stamped")
        await lab.orchestrator.stop()
        assert (await waiting)["state"] == "PROCESSING"
        answer = await lab.client.post(WORKFLOWS, json={"content": "x", "file_path": "x"})
        assert answer.status_code == 503
        assert "about to end" in answer.json()["detail"]
        assert lab.orchestrator.in_flight == {}


async def test_a_client_that_goes_away_takes_no_workflow_with_it(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path) as lab:
        lab.stamping.silence()
        waiting = asyncio.create_task(lab.run())
        await until(lambda: len(lab.orchestrator.in_flight) == 1, "it has come")
        waiting.cancel()
        await asyncio.wait([waiting])
        lab.stamping.heal()
        lab.stamping.cut()
        await until(lambda: lab.orchestrator.counts["completed"] == 1, "it has completed all the same")


async def test_more_than_can_be_read_at_once_is_resumed(
    around: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stored, "MOST_AT_ONCE", 7)
    namespace = f"unfinished-{uuid4()}"
    async with bench(around, tmp_path, resume_after=600) as lab:
        unfinished = [Story(namespace) for _ in range(30)]
        not_understood = [Story(namespace) for _ in range(20)]
        elsewhere = Story(namespace)
        executions = [execution(it.start()) for it in unfinished]
        executions += [execution(it.start(request={"path": "x"})) for it in not_understood]
        await persist(lab.node.pool, ENVIRONMENT, executions, {})
        other = execution(elsewhere.start())
        other.metadata["environment"] = "staging"
        await persist(lab.node.pool, ENVIRONMENT, [other], {})
        found = await stored.Unfinished(lab.node).find()
        assert {it.correlation_id for it in found if it.request.namespace} >= {
            it.correlation_id for it in unfinished
        }
        assert not {it.correlation_id for it in found} & {it.correlation_id for it in [*not_understood, elsewhere]}


async def test_what_cannot_be_resumed_is_told_once(
    around: Neighbours, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with bench(around, tmp_path, resume_after=600) as lab:
        await persist(lab.node.pool, ENVIRONMENT, [execution(Story().start(request={}))], {})
        unfinished = stored.Unfinished(lab.node)
        for _ in range(3):
            await unfinished.find()
    told = [it for it in caplog.messages if "cannot be resumed" in it]
    assert len(told) == 2, "once by the orchestrator at its start or later, and once by this one" or told


async def test_a_workflow_of_an_earlier_process_is_answered_for(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path / "first") as lab, a_reducer(around, lab):
        first = await lab.run("# Earlier", namespace="earlier")
        failed = await lab.run("", namespace="earlier")
        await until(lambda: sum(states(around, "earlier").values()) == 2, "both have rows")
        await until(lambda: set(states(around, "earlier")) == {"COMPLETED", "FAILED"}, "both have ended")
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


async def test_workflows_are_taken_on_without_the_database(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path) as lab:
        lab.database.refuse()
        lab.database.cut()
        for correlation_id in (None, str(uuid4())):
            workflow = await lab.run(correlation_id=correlation_id)
            assert workflow["state"] == "COMPLETED"


async def test_without_kafka_workflows_complete_and_are_told_later(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path) as lab:
        await lab.run()
        lab.kafka.down()
        try:
            workflow = await lab.run("# Without Kafka", intelligence=True)
            assert workflow["state"] == "COMPLETED"
            assert len(lab.node.publisher.outbox) > 0
        finally:
            lab.kafka.up()
        assert shape(await lab.told(workflow, 8)) == [
            "WORKFLOW_STARTED",
            "PENDING to PROCESSING",
            "validation completed",
            "onextree_intelligence completed",
            "hash_generation completed",
            f"stamp_creation {'completed' if workflow['stamp']['stamp_id'] else 'skipped'}",
            "PROCESSING to COMPLETED",
            "WORKFLOW_COMPLETED",
        ]


async def test_a_workflow_that_nothing_can_keep_is_not_taken_on(
    around: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def no_room(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    async with bench(around, tmp_path) as lab:
        monkeypatch.setattr(lab.node.publisher, "deliver", no_room)
        answer = await lab.client.post(WORKFLOWS, json={"content": "x", "file_path": "x"})
        assert answer.status_code == 503
        assert "No space left" in answer.json()["detail"]
        assert lab.orchestrator.in_flight == {}
        assert lab.orchestrator.counts["accepted"] == 0
        monkeypatch.undo()
        assert (await lab.run())["state"] == "COMPLETED"


async def test_a_workflow_waits_for_room_to_tell_what_it_has_done(
    around: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with bench(around, tmp_path) as lab:
        deliver, full = lab.node.publisher.deliver, asyncio.Event()

        async def sometimes(topic: str, envelope: Any) -> Any:
            if full.is_set() and envelope.event_type != "WORKFLOW_STARTED":
                raise OSError(28, "No space left on device")
            return await deliver(topic, envelope)

        monkeypatch.setattr(lab.node.publisher, "deliver", sometimes)
        full.set()
        running = asyncio.create_task(lab.run())
        await until(lambda: any("No space left" in it for it in lab.node.trouble()), "it says so")
        full.clear()
        workflow = await running
        assert workflow["state"] == "COMPLETED"
        assert len(await lab.told(workflow, 7)) == 7
        assert not any("No space left" in it for it in lab.node.trouble())


async def test_an_end_that_cannot_be_told_is_left_to_the_next_process(
    around: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with bench(around, tmp_path) as lab:
        deliver = lab.node.publisher.deliver

        async def not_the_end(topic: str, envelope: Any) -> Any:
            if envelope.event_type == "WORKFLOW_COMPLETED":
                raise ZeroDivisionError
            return await deliver(topic, envelope)

        monkeypatch.setattr(lab.node.publisher, "deliver", not_the_end)
        await lab.client.post(WORKFLOWS, json={"content": "x", "file_path": "x"})
        assert lab.orchestrator.in_flight == {}
        assert (lab.orchestrator.counts["completed"], lab.orchestrator.counts["failed"]) == (0, 0)
        monkeypatch.undo()
        assert (await lab.run())["state"] == "COMPLETED"


async def test_what_has_ended_is_forgotten_one_after_the_other(
    around: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "REMEMBERED", 2)
    async with bench(around, tmp_path) as lab:
        workflows = [await lab.run(f"# {it}") for it in range(3)]
        found = [lab.orchestrator.find(UUID(it["workflow_id"])) for it in workflows]
        assert [it is not None for it in found] == [False, True, True]
        assert {it.request.content for it in found if it is not None} == {""}, "of their files nothing is kept"


async def test_an_end_is_told_by_one_id_whether_it_is_told_once_or_twice(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path) as lab:
        request = WorkflowRequest(content="# Readme", file_path="README.md")
        correlation_id = uuid4()
        for error in (None, "metadata stamping timeout"):
            workflow = Workflow(request, correlation_id, state=WorkflowState.PROCESSING, error=error)
            await lab.orchestrator._telling.ended(workflow)
        routes = (Route.STATE_TRANSITION, Route.WORKFLOW_COMPLETED, Route.WORKFLOW_FAILED)
        told = await events_about(lab.kafka, {str(correlation_id)}, routes, 4)
        assert len(told) == 4
        assert len({it.envelope["event_id"] for it in told}) == 2
