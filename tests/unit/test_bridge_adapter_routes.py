"""Where the database adapter stores the events of each route."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from adapter_support import Bench, envelope_of, new_hash, open_bench
from bridge_support import until
from testyard.lab.bridge.topics import Route

pytestmark = pytest.mark.anyio

EARLY = datetime(2030, 1, 15, 12, tzinfo=UTC)
LATE = EARLY + timedelta(minutes=1)
BOTH_TRANSITIONS = [Route.STATE_TRANSITION, Route.REDUCER_STATE_TRANSITION]


@pytest.fixture
async def bench(database_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(database_url, tmp_path) as bench:
        yield bench


@pytest.mark.parametrize("route", list(Route), ids=lambda it: it.name)
async def test_every_event_is_in_the_log(bench: Bench, route: Route):
    event = envelope_of(route)
    [published] = await bench.publish(route, event)
    async with bench.adapter() as running:
        await running.has_handled(1)
    [row] = bench.rows(
        "SELECT event_id, session_id, correlation_id, event_type, topic, timestamp, payload, metadata,"
        " kafka_partition, kafka_offset FROM event_logs"
    )
    assert row == (
        event.event_id,
        f"session-{event.correlation_id}",
        event.correlation_id,
        event.event_type,
        route.topic("test"),
        event.timestamp,
        event.payload,
        event.metadata,
        published.partition,
        published.offset,
    )


@pytest.mark.parametrize(
    ("route", "status", "milliseconds"),
    [
        (Route.WORKFLOW_STARTED, "processing", None),
        (Route.WORKFLOW_COMPLETED, "completed", 12.5),
        (Route.WORKFLOW_FAILED, "failed", 12.5),
        (Route.STEP_COMPLETED, "received", 1.25),
        (Route.METADATA_STAMPED, "received", 1.5),
        (Route.NODE_HEARTBEAT, "received", None),
    ],
    ids=lambda it: getattr(it, "name", str(it)),
)
async def test_the_log_says_how_it_went_and_how_long_it_took(
    bench: Bench, route: Route, status: str, milliseconds: float | None
):
    await bench.publish(route)
    async with bench.adapter() as running:
        await running.has_handled(1)
    assert bench.rows("SELECT status, processing_time_ms FROM event_logs") == [(status, milliseconds)]


async def test_the_type_of_an_event_is_whatever_its_sender_says(bench: Bench):
    event = envelope_of(Route.STATE_TRANSITION, envelope={"event_type": "test_event", "correlation_id": None})
    await bench.publish(Route.STATE_TRANSITION, event)
    async with bench.adapter() as running:
        await running.has_handled(1)
    assert bench.rows("SELECT event_type, correlation_id FROM event_logs") == [("test_event", None)]


async def test_a_payload_is_stored_as_it_was_written(bench: Bench):
    strange = 'tab \t, line end \n, backslash \\, quote ", \\N, ünï'
    event = envelope_of(Route.STATE_TRANSITION, transition_data={"strange": strange, "unknown": [1, None]})
    precise = event.to_bytes().replace(b'"unknown":[1,null]', b'"precise":\t1.000000000000000000001\n')
    await bench.send(Route.STATE_TRANSITION.topic("test"), precise)
    async with bench.adapter() as running:
        await running.has_handled(1)
    [row] = bench.rows(
        "SELECT payload #>> '{transition_data,strange}', payload #>> '{transition_data,precise}' FROM event_logs"
    )
    assert row == (strange, "1.000000000000000000001")
    assert bench.rows("SELECT transition_data ->> 'strange' FROM fsm_transitions") == [(strange,)]


@pytest.mark.parametrize("route", BOTH_TRANSITIONS, ids=lambda it: it.name)
async def test_transitions_are_stored(bench: Bench, route: Route):
    event = envelope_of(route)
    await bench.publish(route, event)
    async with bench.adapter() as running:
        await running.has_handled(1)
    told = event.payload
    assert bench.rows(
        "SELECT event_id, entity_id, entity_type, from_state, to_state, transition_event, transition_data,"
        " occurred_at FROM fsm_transitions"
    ) == [
        (
            event.event_id,
            told["entity_id"],
            told["entity_type"],
            told["from_state"],
            told["to_state"],
            told["transition_event"],
            told["transition_data"],
            event.timestamp,
        )
    ]


async def test_a_step_belongs_to_its_workflow(bench: Bench):
    workflow = uuid4()
    bench.know(workflow)
    event = envelope_of(Route.STEP_COMPLETED, workflow)
    await bench.publish(Route.STEP_COMPLETED, event)
    async with bench.adapter() as running:
        await running.has_handled(1)
    told = event.payload
    assert bench.rows(
        "SELECT event_id, workflow_id, step_name, step_order, status, execution_time_ms, step_data, error_message"
        " FROM workflow_steps"
    ) == [
        (
            event.event_id,
            workflow,
            told["step_name"],
            told["step_order"],
            told["status"],
            told["execution_time_ms"],
            told["step_data"],
            None,
        )
    ]
    assert bench.count("workflow_steps_waiting") == 0


async def test_steps_wait_for_their_workflow(bench: Bench):
    workflow = uuid4()
    steps = [envelope_of(Route.STEP_COMPLETED, workflow, step_order=order) for order in range(3)]
    stranger = envelope_of(Route.STEP_COMPLETED)
    await bench.publish(Route.STEP_COMPLETED, *steps, stranger)
    async with bench.adapter() as running:
        await running.has_handled(4)
        assert bench.count("workflow_steps_waiting") == 4
        assert bench.count("workflow_steps") == 0
        bench.know(workflow)
        # Nothing is published any more.
        await until(lambda: bench.count("workflow_steps") == 3, "the steps are adopted")
        await until(lambda: running.adapter.metrics()["steps_adopted"] == 3, "they are counted")
    assert bench.rows("SELECT event_id FROM workflow_steps ORDER BY step_order") == [
        (step.event_id,) for step in steps
    ]
    assert bench.rows("SELECT event_id FROM workflow_steps_waiting") == [(stranger.event_id,)]


async def test_a_step_that_waited_and_comes_again_is_stored_once(bench: Bench):
    workflow = uuid4()
    step = envelope_of(Route.STEP_COMPLETED, workflow)
    await bench.publish(Route.STEP_COMPLETED, step)
    async with bench.adapter() as running:
        await running.has_handled(1)
        bench.know(workflow)
        await bench.publish(Route.STEP_COMPLETED, step)
        await running.has_handled(2)
        await until(lambda: bench.count("workflow_steps_waiting") == 0, "nothing waits any more")
    assert bench.rows("SELECT event_id FROM workflow_steps") == [(step.event_id,)]


async def test_a_stamp_is_stored_once_for_each_file(bench: Bench):
    file_hash, op_id = new_hash(), uuid4()
    first = envelope_of(
        Route.METADATA_STAMPED,
        file_hash=file_hash,
        op_id=op_id,
        intelligence_data={"analysis_type": "api"},
        version=2,
    )
    second = envelope_of(Route.METADATA_STAMPED, file_hash=file_hash)
    other = envelope_of(Route.METADATA_STAMPED, envelope={"partition_key": first.key})
    same_order = {"partition_key": first.key}
    await bench.publish(Route.METADATA_STAMPED, first, second.model_copy(update=same_order), other)
    async with bench.adapter() as running:
        await running.has_handled(3)
    told = first.payload
    stamps = bench.rows(
        "SELECT id::text, file_path, file_size, content_type, stamp_data, protocol_version, intelligence_data,"
        " version, op_id, namespace, metadata_version, created_at FROM metadata_stamps WHERE file_hash = %s",
        file_hash,
    )
    assert stamps == [
        (
            told["stamp_id"],
            told["file_path"],
            told["file_size_bytes"],
            told["content_type"],
            told["stamp_data"],
            "1.0",
            {"analysis_type": "api"},
            2,
            op_id,
            told["namespace"],
            "0.1",
            datetime.fromisoformat(told["created_at"]),
        )
    ]
    assert bench.rows("SELECT intelligence_data FROM metadata_stamps WHERE file_hash <> %s", file_hash) == [
        (None,)
    ]
    assert bench.count("event_logs") == 3


NODE = "SELECT node_type, node_version, capabilities, endpoints, metadata, health_status, last_heartbeat FROM"


async def test_a_node_is_what_it_said_last_whatever_is_read_first(bench: Bench):
    node = "node-1"
    old = envelope_of(Route.NODE_INTROSPECTION, envelope={"timestamp": EARLY}, node_id=node, node_version="1")
    new = envelope_of(Route.NODE_INTROSPECTION, envelope={"timestamp": LATE}, node_id=node, node_version="2")
    healthy = envelope_of(Route.NODE_HEARTBEAT, node_id=node, sent_at=LATE)
    degraded = envelope_of(Route.NODE_HEARTBEAT, node_id=node, sent_at=EARLY, health_status="DEGRADED")
    async with bench.adapter() as running:
        for handled, (route, event) in enumerate(
            [
                (Route.NODE_HEARTBEAT, degraded),
                (Route.NODE_INTROSPECTION, new),
                (Route.NODE_HEARTBEAT, healthy),
                (Route.NODE_INTROSPECTION, old),
                (Route.NODE_HEARTBEAT, degraded.model_copy(update={"event_id": uuid4()})),
            ],
            start=1,
        ):
            await bench.publish(route, event)
            await running.has_handled(handled)
    told = new.payload
    assert bench.rows(f"{NODE} node_registrations") == [
        (told["node_type"], "2", told["capabilities"], told["endpoints"], told["metadata"], "HEALTHY", LATE)
    ]


async def test_one_batch_may_say_several_things_of_one_node(bench: Bench):
    for route, values in (
        (Route.NODE_INTROSPECTION, {"node_version": "1"}),
        (Route.NODE_INTROSPECTION, {"node_version": "2"}),
        (Route.NODE_HEARTBEAT, {"sent_at": EARLY}),
        (Route.NODE_HEARTBEAT, {"sent_at": LATE}),
    ):
        await bench.publish(route, envelope_of(route, node_id="node-1", **values))
    async with bench.adapter() as running:
        await running.has_handled(4)
    assert bench.rows("SELECT node_version, last_heartbeat FROM node_registrations") == [("2", LATE)]


async def test_a_node_that_has_only_a_heartbeat_is_unknown(bench: Bench):
    await bench.publish(Route.NODE_HEARTBEAT, envelope_of(Route.NODE_HEARTBEAT, node_id="node-1"))
    async with bench.adapter() as running:
        await running.has_handled(1)
    assert bench.rows("SELECT node_id, node_type, node_version, health_status FROM node_registrations") == [
        ("node-1", "UNKNOWN", "UNKNOWN", "HEALTHY")
    ]


async def test_what_the_reducer_writes_is_left_to_it(bench: Bench):
    workflow = uuid4()
    bench.know(workflow)
    before = bench.rows("SELECT * FROM workflow_executions")
    await asyncio.gather(*(bench.publish(route, envelope_of(route, workflow)) for route in Route))
    await asyncio.gather(*(bench.publish(route) for route in Route))
    async with bench.adapter() as running:
        await running.has_handled(2 * len(Route))
    assert bench.rows("SELECT * FROM workflow_executions") == before
    assert bench.count("bridge_states") == 0
