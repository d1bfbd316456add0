"""An orchestrator whose brokers, tables, disk or clients go away: its workflows go on, and are told later."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from bridge_support import until
from orchestrator_support import BUS, WORKFLOWS, Neighbours, bench, events_about, neighbours, shape
from postgresql_support import private_schema
from testyard.lab.bridge.events import WorkflowState
from testyard.lab.bridge.orchestrator import engine
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.postgresql import PostgresqlServer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def around(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """What the orchestrator works with; there is no reducer, so nobody finds what another test has left."""
    with (
        private_schema(postgresql_server) as url,
        neighbours(url, tmp_path_factory.mktemp("neighbours")) as around,
    ):
        yield around


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


async def test_workflows_are_taken_on_without_the_database(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path) as lab:
        lab.database.refuse()
        lab.database.cut()
        for correlation_id in (None, str(uuid4())):
            workflow = await lab.run(correlation_id=correlation_id)
            assert workflow["state"] == "COMPLETED"


async def test_without_kafka_workflows_complete_and_are_told_later(around: Neighbours, tmp_path: Path):
    quick = BUS.model_copy(update={"request_timeout": timedelta(milliseconds=500)})
    async with bench(around, tmp_path, bus=quick) as lab:
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
