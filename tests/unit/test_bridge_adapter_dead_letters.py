"""What becomes of records that are no events, or that the database can never take."""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from adapter_support import ONE_AFTER_THE_OTHER, Bench, envelope_of, open_bench
from aiokafka import ConsumerRecord
from bridge_support import until
from testyard.lab.bridge.adapter.dead_letters import original_value
from testyard.lab.bridge.adapter.service import FINISHES_WITHIN
from testyard.lab.bridge.envelope import SigningKey
from testyard.lab.bridge.topics import Route, dead_letter_topic
from testyard.lab.servers.kafka_mock import Api, Failure

pytestmark = pytest.mark.anyio

ROUTE = Route.STEP_COMPLETED
TOPIC = ROUTE.topic("test")
KEY = b"workflow-1"
PUBLISHED_AT = 1_900_000_000_123
# Longer than what an index of PostgreSQL takes, and not compressible.
TOO_LONG = "".join(f"{number * 7919 % 1_000_003:x}" for number in range(1500))


@pytest.fixture
async def bench(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with open_bench(database_url, tmp_path, **getattr(request, "param", {})) as bench:
        yield bench


def headers_of(letter: ConsumerRecord) -> list[tuple[str, bytes]]:
    """The headers that the adapter has added."""
    return [(name, value) for name, value in letter.headers if name.startswith("x-")]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, KEY),
        (b"", None),
        (b"stamped", b"\xff\x00"),
        (b'{"event_id": "\\u0000", "a": "\\ud800", "b": "line\\nend"}', KEY),
        ('\u2028 \x00 \t\r\n \\ " ünï'.encode(), b""),
        (bytes(range(256)), None),
    ],
    ids=["null", "empty", "text", "JSON", "strange text", "bytes"],
)
async def test_a_record_that_is_no_event_is_dead_lettered_as_it_was(
    bench: Bench, value: bytes | None, key: bytes | None
):
    headers = [("traceparent", b"00-1-2-01"), ("empty", b""), ("traceparent", b"\xff")]
    began = datetime.now(UTC)
    sent = await bench.send(TOPIC, value, key=key, headers=headers, timestamp=PUBLISHED_AT)
    async with bench.adapter() as running:
        await running.has_handled(1)
    [letter] = await bench.dead_letters(TOPIC, 1)
    assert letter.key == key
    assert original_value(letter.value) == value
    assert list(letter.headers[: len(headers)]) == headers
    body = json.loads(letter.value)
    message = body["original_message"]
    assert (message["offset"], message["partition"]) == (sent.offset, sent.partition)
    assert began <= datetime.fromisoformat(body["failed_at"]) <= datetime.now(UTC)
    assert headers_of(letter) == [
        ("x-original-topic", TOPIC.encode()),
        ("x-original-partition", b"%d" % sent.partition),
        ("x-original-offset", b"%d" % sent.offset),
        ("x-original-timestamp", b"%d" % PUBLISHED_AT),
        ("x-error-type", b"VALIDATION_ERROR"),
        ("x-error-message", body["error_message"].encode()),
        ("x-failed-at", body["failed_at"].encode()),
        ("x-retry-count", b"0"),
    ]
    assert bench.count("event_logs") == 0


async def test_a_dead_letter_says_everything_under_both_names(bench: Bench):
    event = envelope_of(ROUTE)
    broken = event.to_bytes().replace(b'"step_order":2', b'"step_order":-2')
    sent = await bench.send(TOPIC, broken, key=KEY, timestamp=PUBLISHED_AT)
    async with bench.adapter() as running:
        await running.has_handled(1)
    [letter] = await bench.dead_letters(TOPIC, 1)
    body = json.loads(letter.value)
    reason = "payload.step_order: Input should be greater than or equal to 0"
    assert body.pop("failed_at") == body.pop("failure_timestamp")
    instance = body["error_context"].pop("instance")
    assert instance.startswith("database-adapter-")
    assert body == {
        "original_message": {
            "key": "workflow-1",
            "key_encoding": "utf-8",
            "value": broken.decode(),
            "value_encoding": "utf-8",
            "offset": sent.offset,
            "partition": sent.partition,
        },
        "original_topic": TOPIC,
        "original_partition": sent.partition,
        "original_offset": sent.offset,
        "original_timestamp": PUBLISHED_AT,
        "correlation_id": str(event.correlation_id),
        "error_type": "VALIDATION_ERROR",
        "error_message": reason,
        "error_context": {"group": bench.settings.adapter.group},
        "failure_reason": reason,
        "retry_count": 0,
    }


async def test_an_event_on_a_topic_that_nobody_publishes_to_is_dead_lettered(bench: Bench):
    topic = "test.omninode-bridge.orchestrator.workflow-paused.v1"
    bench.kafka.create_topic(topic, 1)
    bench.kafka.create_topic(dead_letter_topic(topic), 1)
    value = envelope_of(ROUTE).to_bytes()
    await bench.send(topic, value)
    async with bench.adapter(more_topics=(topic,)) as running:
        await running.has_handled(1)
    [letter] = await bench.dead_letters(topic, 1)
    assert original_value(letter.value) == value
    assert json.loads(letter.value)["error_message"] == f"No service publishes to the topic {topic}."


async def test_an_event_with_a_wrong_signature_is_dead_lettered(bench: Bench):
    right, wrong = SigningKey("right"), SigningKey("wrong")
    good, bad = envelope_of(ROUTE).signed(right), envelope_of(ROUTE).signed(wrong)
    await bench.publish(ROUTE, good, bad)
    async with bench.adapter(signing_key="right") as running:
        await running.has_handled(2)
        assert running.adapter.metrics()["dead_lettered_by_error"]["VALIDATION_ERROR"] == 1
    [letter] = await bench.dead_letters(TOPIC, 1)
    assert original_value(letter.value) == bad.to_bytes()
    assert bench.rows("SELECT event_id FROM event_logs") == [(good.event_id,)]


@pytest.mark.parametrize(
    ("route", "changes", "reason"),
    [
        (ROUTE, {"step_data": {"name": "\x00"}}, "unsupported Unicode escape sequence"),
        (ROUTE, {"step_order": 2**40}, 'value "1099511627776" is out of range for type integer'),
        (Route.STATE_TRANSITION, {"entity_id": TOO_LONG}, "index row size"),
        (Route.NODE_HEARTBEAT, {"node_id": TOO_LONG}, "index row size"),
    ],
    ids=["no text", "too large", "too long for an index", "too long for a key"],
)
async def test_only_the_record_that_the_database_refuses_is_dead_lettered(
    bench: Bench, route: Route, changes: dict[str, Any], reason: str
):
    events = [envelope_of(route) for _ in range(20)]
    for place in (7, 13):
        events.insert(place, envelope_of(route, **changes))
    await bench.publish(route, *events)
    async with bench.adapter() as running:
        await running.has_handled(22)
        metrics = running.adapter.metrics()
    letters = await bench.dead_letters(route.topic("test"), 2)
    assert sorted(original_value(it.value) for it in letters) == sorted(
        [events[7].to_bytes(), events[13].to_bytes()]
    )
    body = json.loads(letters[0].value)
    assert body["error_type"] == "DATABASE_OPERATION_FAILED"
    assert reason in body["error_message"]
    assert bench.count("event_logs") == 20
    assert metrics["stored"] == 20
    assert metrics["dead_lettered_by_error"]["DATABASE_OPERATION_FAILED"] == 2
    assert metrics["errors"]["DATABASE_CONNECTION_FAILED"] == 0


async def test_what_violates_a_constraint_is_dead_lettered_and_the_breaker_stays_closed(bench: Bench):
    bench.execute("ALTER TABLE fsm_transitions ADD CHECK (to_state <> 'POISON')")
    events = [envelope_of(Route.STATE_TRANSITION) for _ in range(30)]
    poisoned = [envelope_of(Route.STATE_TRANSITION, to_state="POISON") for _ in range(12)]
    await bench.publish(Route.STATE_TRANSITION, *events[:10], *poisoned, *events[10:])
    async with bench.adapter() as running:
        await running.has_handled(42)
        assert running.node.database_breaker.metrics()["totals"].get("failures", 0) == 0
        assert running.node.failures() == []
    letters = await bench.dead_letters(Route.STATE_TRANSITION.topic("test"), 12)
    assert {original_value(it.value) for it in letters} == {it.to_bytes() for it in poisoned}
    assert {event for (event,) in bench.rows("SELECT event_id FROM event_logs")} == {it.event_id for it in events}
    assert bench.count("fsm_transitions") == 30


@ONE_AFTER_THE_OTHER
async def test_a_dead_letter_is_committed_past(bench: Bench):
    for value in (b"1", b"2", envelope_of(ROUTE).to_bytes(), b"3"):
        await bench.send(TOPIC, value, partition=0)
    async with bench.adapter() as running:
        await running.has_handled(4)
        await bench.commits(TOPIC, 4)
    async with bench.adapter() as running:
        await bench.send(TOPIC, b"4", partition=0)
        await running.has_handled(1)
        assert running.adapter.metrics()["dead_lettered"] == 1
    letters = await bench.dead_letters(TOPIC, 4)
    assert [original_value(it.value) for it in letters] == [b"1", b"2", b"3", b"4"]


async def test_a_record_whose_dead_letter_cannot_be_written_is_not_committed_past(bench: Bench):
    good = [envelope_of(ROUTE).to_bytes() for _ in range(5)]
    for value in (good[0], good[1], b"broken", good[2], b"also broken"):
        await bench.send(TOPIC, value, partition=0)
    bench.kafka.fail_next(Api.PRODUCE, *[Failure.TOPIC_AUTHORIZATION_FAILED] * 1000)
    async with bench.adapter() as running:
        await until(lambda: bool(running.node.trouble()), "the trouble is told")
        # Events go on being stored, and what is before the gap is committed.
        await until(lambda: bench.count("event_logs") == 3, "the events of the partition are stored")
        await bench.commits(TOPIC, 2)
        [trouble] = running.adapter.trouble()
        assert "cannot be dead-lettered: TopicAuthorizationFailedError" in trouble
        assert running.adapter.metrics()["dead_lettered"] == 0
        bench.kafka.fail_no_more(Api.PRODUCE)
        await bench.send(TOPIC, good[3], partition=0)
        await bench.send(TOPIC, good[4], partition=1)
        await bench.commits(TOPIC, 7)
        assert await bench.committed(TOPIC) == {0: 6, 1: 1, 2: None}
        assert running.adapter.trouble() == []
        assert running.adapter.metrics()["dead_lettered"] == 2
    letters = await bench.dead_letters(TOPIC, 2)
    assert [original_value(it.value) for it in letters] == [b"broken", b"also broken"]
    assert bench.count("outbox") == 0


@ONE_AFTER_THE_OTHER
async def test_what_is_behind_such_a_record_is_read_again_by_the_next_one_and_stored_once(bench: Bench):
    for value in (envelope_of(ROUTE).to_bytes(), b"broken", envelope_of(ROUTE).to_bytes()):
        await bench.send(TOPIC, value, partition=0)
    bench.kafka.fail_next(Api.PRODUCE, *[Failure.TOPIC_AUTHORIZATION_FAILED] * 1000)
    async with bench.adapter() as running:
        await until(lambda: bench.count("event_logs") == 2, "the events are stored")
        await bench.commits(TOPIC, 1)
    bench.kafka.fail_no_more(Api.PRODUCE)
    async with bench.adapter() as running:
        await running.has_handled(2)
        assert running.adapter.metrics()["duplicates"] == 1
        await bench.commits(TOPIC, 3)
    assert bench.count("event_logs") == 2


@ONE_AFTER_THE_OTHER
async def test_a_dead_letter_that_was_not_written_is_written_by_the_next_one(bench: Bench):
    await bench.send(TOPIC, b"broken")
    bench.kafka.fail_next(Api.PRODUCE, *[Failure.TOPIC_AUTHORIZATION_FAILED] * 1000)
    async with bench.adapter() as running:
        await until(lambda: bool(running.adapter.trouble()), "the trouble is told")
    bench.kafka.fail_no_more(Api.PRODUCE)
    async with bench.adapter() as running:
        await running.has_handled(1)
    [letter] = await bench.dead_letters(TOPIC, 1)
    assert original_value(letter.value) == b"broken"


async def test_a_large_record_is_dead_lettered(bench: Bench):
    # As text in JSON it has twice as many bytes.
    value = b"\n" * 1_000_000
    await bench.send(TOPIC, value)
    async with bench.adapter() as running:
        await running.has_handled(1)
    [letter] = await bench.dead_letters(TOPIC, 1)
    assert original_value(letter.value) == value


async def test_a_time_that_no_calendar_has_stops_nothing(bench: Bench):
    await bench.send(TOPIC, b"broken", timestamp=2**60)
    late = envelope_of(ROUTE, envelope={"timestamp": datetime.max.replace(tzinfo=UTC)})
    early = envelope_of(ROUTE, envelope={"timestamp": datetime.min.replace(tzinfo=UTC)})
    await bench.publish(ROUTE, late, early)
    async with bench.adapter() as running:
        await running.has_handled(3)
    [letter] = await bench.dead_letters(TOPIC, 1)
    assert json.loads(letter.value)["original_timestamp"] == 2**60
    assert bench.count("event_logs") == 2


async def test_ending_does_not_wait_for_a_bus_that_is_away(bench: Bench):
    bus = bench.settings.bus.model_copy(update={"request_timeout": timedelta(seconds=30)})
    bench.settings = bench.settings.model_copy(update={"bus": bus})
    bench.kafka.fail_next(Api.PRODUCE, Failure.NONE, *[Failure.NOT_ENOUGH_REPLICAS] * 1000)
    await bench.send(TOPIC, b"broken")
    async with bench.adapter() as running:
        await until(lambda: running.adapter.metrics()["read_ahead"] == 1, "the record is read")
        bench.kafka.down()
        began = time.monotonic()
    assert time.monotonic() - began < 3 * FINISHES_WITHIN.total_seconds()
