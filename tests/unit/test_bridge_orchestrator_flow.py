"""What a workflow goes through, what it tells, and how the orchestrator is asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from blake3 import blake3
from bridge_support import ENVIRONMENT, until
from orchestrator_support import (
    LONG,
    NAMESPACE,
    WORKFLOWS,
    Bench,
    Neighbours,
    bench,
    events_about,
    neighbours,
    shape,
)
from postgresql_support import private_schema
from testyard.lab.bridge.orchestrator.workflow import LARGEST_CONTENT
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.postgresql import PostgresqlServer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def around(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """What the orchestrator works with."""
    with (
        private_schema(postgresql_server) as url,
        neighbours(url, tmp_path_factory.mktemp("neighbours")) as around,
    ):
        yield around


@pytest.fixture
async def lab(around: Neighbours, tmp_path: Path) -> AsyncIterator[Bench]:
    """An orchestrator with its services."""
    async with bench(around, tmp_path) as lab:
        yield lab


async def test_a_workflow_tells_its_story_in_order(lab: Bench):
    workflow = await lab.run()
    events = await lab.told(workflow, 7)
    assert shape(events) == [
        "WORKFLOW_STARTED",
        "PENDING to PROCESSING",
        "validation completed",
        "hash_generation completed",
        "stamp_creation completed",
        "PROCESSING to COMPLETED",
        "WORKFLOW_COMPLETED",
    ]
    ids = {it.payload.get("workflow_id") or it.payload["entity_id"] for it in events}
    assert ids == {workflow["workflow_id"]}
    assert {it.key for it in events} == {workflow["correlation_id"]}, "one key keeps them in one order"
    assert len({it.envelope["event_id"] for it in events}) == len(events)
    known = UUID(workflow["correlation_id"])
    ids = [it.envelope["event_id"] for it in events]
    assert ids[0] == str(uuid5(known, "started")), "whoever takes it on tells the same event"
    assert ids[-1] == str(uuid5(known, "ended"))
    steps = [it.payload["step_order"] for it in events if it.envelope["event_type"] == "STEP_COMPLETED"]
    assert steps == sorted(steps) == [0, 2, 3]


async def test_a_workflow_answers_with_what_has_come_of_it(lab: Bench):
    workflow = await lab.run("# An answer", metadata={"team": "a"})
    assert (workflow["state"], workflow["error_message"]) == ("COMPLETED", None)
    assert workflow["stamp"]["file_hash"] == blake3(b"# An answer").hexdigest()
    assert workflow["stamp"]["source"] == "metadata_stamping"
    assert "stamped_content" not in workflow["stamp"], "the file itself is not told on the bus once more"
    assert (workflow["intelligence"], workflow["fallback_used"], workflow["fallbacks"]) == (None, False, [])
    assert workflow["execution_time_ms"] > 0
    assert (await lab.client.get(f"{WORKFLOWS}/{workflow['workflow_id']}")).json() == workflow
    ended = await lab.event(Route.WORKFLOW_COMPLETED, workflow)
    assert ended.payload["result"]["stamp"] == workflow["stamp"]
    assert ended.payload["execution_time_ms"] == workflow["execution_time_ms"]
    stamped = await lab.event(Route.METADATA_STAMPED, workflow)
    assert stamped.envelope["correlation_id"] == workflow["correlation_id"]
    assert stamped.payload["stamp_data"]["metadata"] == {"team": "a"}


async def test_intelligence_goes_into_the_answer_and_into_the_stamp(lab: Bench):
    workflow = await lab.run("def login(): ...", file_path="src/login.py", intelligence=True)
    assert workflow["intelligence"]["analysis_type"] == "security_analysis"
    assert workflow["intelligence"]["confidence_score"] > 0.9
    assert not workflow["fallback_used"]
    assert "onextree_intelligence completed" in shape(await lab.told(workflow, 8))
    stamped = await lab.event(Route.METADATA_STAMPED, workflow)
    assert stamped.payload["intelligence_data"]["analysis_type"] == "security_analysis"


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"content": ""}, "the file is empty"), ({"file_path": " "}, "the path of the file is empty")],
)
async def test_a_workflow_that_fails_tells_why_and_where(lab: Bench, given: dict[str, Any], reason: str):
    workflow = await lab.run(**given)
    assert (workflow["state"], workflow["error_message"]) == ("FAILED", f"validation: {reason}")
    events = await lab.told(workflow, 5)
    assert shape(events) == [
        "WORKFLOW_STARTED",
        "PENDING to PROCESSING",
        "validation failed",
        "PROCESSING to FAILED",
        "WORKFLOW_FAILED",
    ]
    assert events[2].payload["error_message"] == events[-1].payload["error_message"] == workflow["error_message"]
    assert lab.orchestrator.counts["failed"] == 1


async def test_what_stamping_refuses_fails_the_workflow_and_opens_no_breaker(lab: Bench):
    for _ in range(6):
        workflow = await lab.run(namespace="not a namespace")
        assert workflow["state"] == "FAILED"
        assert workflow["error_message"].startswith("NAMESPACE_INVALID")
    assert lab.breaker("stamping")["state"] == "closed"
    assert "stamp_creation failed" in shape(await lab.told(workflow, 6))


async def test_the_same_correlation_id_is_the_same_workflow(lab: Bench):
    correlation_id = str(uuid4())
    answers = await asyncio.gather(*(lab.run(correlation_id=correlation_id) for _ in range(5)))
    assert all(it["state"] == "COMPLETED" for it in answers), "each waits for the end of the one workflow"
    assert len({json.dumps(it) for it in answers}) == 1
    again = await lab.run("another content", correlation_id=correlation_id)
    assert again == answers[0]
    assert len(await lab.told(again, 7)) == 7
    assert lab.orchestrator.counts["accepted"] == 1


async def test_a_workflow_that_nobody_waits_for_is_answered_at_once(lab: Bench):
    accepted = await lab.client.post(
        WORKFLOWS, params={"wait": False}, json={"content": "# Readme", "file_path": "README.md"}
    )
    assert accepted.status_code == 202
    workflow = accepted.json()
    assert workflow["state"] in {"PENDING", "PROCESSING"}
    started = await lab.event(Route.WORKFLOW_STARTED, workflow)
    assert started.payload["workflow_id"] == workflow["workflow_id"], "it outlives a crash from now on"
    await until(lambda: lab.orchestrator.counts["completed"] == 1, "it ends")
    assert (await lab.client.get(f"{WORKFLOWS}/{workflow['workflow_id']}")).json()["state"] == "COMPLETED"


async def test_a_thousand_workflows_are_taken_on_at_once(lab: Bench):
    files = [{"content": f"file {it}", "file_path": f"{it}.md", "namespace": "many"} for it in range(1000)]
    answer = await lab.client.post(f"{WORKFLOWS}/batch", json={"workflows": files}, timeout=120)
    assert answer.status_code == 202
    accepted = answer.json()["workflows"]
    assert len({it["workflow_id"] for it in accepted}) == 1000
    await until(lambda: lab.orchestrator.counts["completed"] == 1000, "all have completed", LONG)
    metrics = (await lab.client.get("/metrics")).json()
    assert (metrics["in_flight"], metrics["accepted"], metrics["failed"]) == (0, 1000, 0)
    assert metrics["most_in_flight"] > 100
    ids = {it["correlation_id"] for it in accepted}
    ended = await events_about(lab.kafka, ids, [Route.WORKFLOW_COMPLETED], 1000)
    assert {it.payload["workflow_id"] for it in ended} == {it["workflow_id"] for it in accepted}
    assert len(ended) == 1000


async def test_a_batch_of_nothing_or_too_much_is_refused(lab: Bench):
    for count in (0, 1001):
        files = [{"content": "x", "file_path": "x.md"}] * count
        assert (await lab.client.post(f"{WORKFLOWS}/batch", json={"workflows": files})).status_code == 422
    assert lab.orchestrator.counts["accepted"] == 0


async def test_a_file_that_no_event_can_carry_is_refused_with_a_reason(lab: Bench):
    # Each of these characters is three bytes of an event.
    large = {"content": "€" * (LARGEST_CONTENT // 2), "file_path": "large.txt"}
    answer = await lab.client.post(WORKFLOWS, json=large)
    assert answer.status_code == 413
    assert "too large for an event" in answer.json()["detail"]
    small = {"content": "x", "file_path": "small.txt"}
    answer = await lab.client.post(f"{WORKFLOWS}/batch", json={"workflows": [small, large, small]})
    assert answer.status_code == 413
    assert "Workflow 1 " in answer.json()["detail"]
    assert "2 of 3 were taken on" in answer.json()["detail"]
    await until(lambda: not lab.orchestrator.in_flight, "the others have ended")
    assert lab.orchestrator.counts["completed"] == 2


@pytest.mark.parametrize(
    "body", [b'{"content": "\\ud800", "file_path": "x"}', b'{"\\ud800": 1}', b"{", b"[]", b""]
)
async def test_what_is_not_understood_is_refused_without_repeating_it(lab: Bench, body: bytes):
    answer = await lab.client.post(WORKFLOWS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert all(set(it) == {"loc", "msg"} for it in answer.json()["detail"])


async def test_a_workflow_that_is_not_there_is_not_found(lab: Bench):
    answer = await lab.client.get(f"{WORKFLOWS}/{uuid4()}")
    assert answer.status_code == 404
    lab.database.refuse()
    lab.database.cut()
    answer = await lab.client.get(f"{WORKFLOWS}/{uuid4()}")
    assert answer.status_code == 503
    assert "database is away" in answer.json()["detail"]


async def test_events_are_published_by_http_in_order(lab: Bench):
    payload = {"entity_id": "1", "entity_type": "bridge", "to_state": "ACTIVE", "transition_event": "new"}
    correlation_id = str(uuid4())
    events = [
        {
            "route": "STATE_TRANSITION",
            "payload": {**payload, "transition_data": {"number": it}},
            "partition_key": "k",
            "correlation_id": correlation_id,
        }
        for it in range(50)
    ]
    answers = (await lab.client.post("/api/v1/events", json={"events": events})).json()["events"]
    assert {it["delivery"] for it in answers} == {"sent"}
    found = await events_about(lab.kafka, {correlation_id}, [Route.STATE_TRANSITION], 50)
    assert [it.payload["transition_data"]["number"] for it in found] == list(range(50))
    assert [it.envelope["event_id"] for it in found] == [it["event_id"] for it in answers]
    assert {it.key for it in found} == {"k"}


@pytest.mark.parametrize(
    ("route", "payload", "status", "reason"),
    [
        ("LUNCH", {}, 422, "expected one of WORKFLOW_STARTED"),
        ("WORKFLOW_STARTED", {"namespace": "a"}, 422, "workflow_id"),
        ("STATE_TRANSITION", {"entity_id": "\ud800"}, 422, "surrogate"),
        ("STATE_TRANSITION", {"transition_data": {"text": "x" * LARGEST_CONTENT}}, 413, "cannot be published"),
    ],
)
async def test_an_event_that_is_none_is_refused(
    lab: Bench, route: str, payload: dict[str, Any], status: int, reason: str
):
    given = {"entity_id": "1", "entity_type": "bridge", "to_state": "ACTIVE", "transition_event": "new"}
    event = {"route": route, "payload": {**given, **payload} if route == "STATE_TRANSITION" else payload}
    answer = await lab.client.post(
        "/api/v1/events",
        content=json.dumps({"events": [event]}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == status
    assert reason in answer.text


async def test_the_metrics_tell_the_topics_and_the_service_its_namespace(lab: Bench):
    metrics = (await lab.client.get("/metrics")).json()
    assert metrics["topics"]["WORKFLOW_STARTED"] == Route.WORKFLOW_STARTED.topic(ENVIRONMENT)
    assert set(metrics) >= {"in_flight", "most_in_flight", "accepted", "completed", "failed", "resumed"}
    assert (await lab.run())["namespace"] == NAMESPACE
