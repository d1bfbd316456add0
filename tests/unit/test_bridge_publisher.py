"""The publisher while brokers come and go: nothing is lost, doubled or overtaken, and nobody is kept waiting."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from publisher_support import (
    FAILURES,
    PARTITIONS,
    PATIENCE,
    TOPIC,
    Arrived,
    Stage,
    arrived,
    calls,
    deliver,
    event,
    fail,
    new_stage,
    open_publisher,
    replayed,
    settings_of,
    until,
)
from testyard.lab.bridge.breaker import BreakerState, Transition
from testyard.lab.bridge.envelope import Envelope, SigningKey
from testyard.lab.bridge.events import StateTransition
from testyard.lab.bridge.outbox_file import Headers
from testyard.lab.bridge.publisher import Delivery, Publisher
from testyard.lab.bridge.topics import Route
from testyard.lab.bridge.tracing import Tracing
from testyard.lab.servers.kafka_mock import Api, Failure, MockKafka
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with new_stage(database_url, tmp_path / "outbox") as stage:
        yield stage


# ---- while all is well


async def test_what_is_published_arrives_once_and_in_order(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    events = [event(number, f"key-{number % 7}") for number in range(200)]
    assert await deliver(publisher, *events) == {Delivery.SENT: 200}
    read = await stage.arrived()
    assert read.numbers == set(range(200))
    assert (read.doubled, read.reordered()) == (0, {})
    assert publisher.trouble() == []


async def test_a_record_has_its_key_its_headers_and_the_signed_envelope(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    publisher._tracing = InTrace("00-abc")
    publisher._signing_key = SigningKey("a key of at least thirty-two bytes")
    payload = StateTransition(entity_id="1", entity_type="workflow", to_state="PENDING", transition_event="new")
    envelope = await publisher.publish(Route.STATE_TRANSITION, payload, partition_key="mine")
    envelope.verify(publisher._signing_key)
    (record,) = (await stage.arrived()).records
    assert record.key == "mine"
    assert record.headers == (("traceparent", b"00-abc"),)
    assert Envelope.model_validate_json(record.value) == envelope
    assert envelope.payload == payload.model_dump(mode="json")
    assert (envelope.source_service, envelope.source_instance) == ("orchestrator", "orchestrator-1")


class InTrace(Tracing):
    """Has every record belong to one trace."""

    def __init__(self, traceparent: str) -> None:
        super().__init__("", "")
        self._traceparent = traceparent

    def inject_headers(self) -> Headers:
        return (("traceparent", self._traceparent),)


async def test_what_waits_keeps_the_trace_in_which_it_was_published(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    publisher._tracing = InTrace("00-abc")
    stage.kafka.fail_next(Api.PRODUCE, Failure.UNKNOWN_SERVER_ERROR)
    assert await publisher.deliver(TOPIC, event(1)) is Delivery.WAITING
    publisher._tracing = InTrace("00-def")
    await replayed(publisher)
    (record,) = (await stage.arrived()).records
    assert record.headers == (("traceparent", b"00-abc"),)


async def test_no_more_are_under_way_than_may_be(stage):
    publisher = await stage.publisher(at_a_time=3, request_timeout=PATIENCE)
    await deliver(publisher, event(0))
    stage.kafka.slow_down(timedelta(milliseconds=100))
    began = time.monotonic()
    assert await deliver(publisher, *(event(number) for number in range(1, 10))) == {Delivery.SENT: 9}
    assert time.monotonic() - began >= 0.3


# ---- an outage


async def test_an_outage_of_two_seconds_loses_doubles_and_reorders_nothing(stage):
    publisher = await stage.publisher(request_timeout=timedelta(milliseconds=1500))
    numbers = itertools.count()
    await deliver(publisher, *(event(next(numbers)) for _ in range(30)))
    after: list[timedelta] = []

    def opens(transition: Transition) -> None:
        failed_at = datetime.fromisoformat(publisher.breaker.metrics()["last_failure_time"])
        after.append(transition.at - failed_at)

    publisher.breaker.when_it_changes(opens)
    stage.kafka.down()
    down_at = time.monotonic()
    await fail(publisher, numbers)
    assert timedelta(0) <= after[0] < timedelta(milliseconds=100)
    worked = []
    for _ in range(95):
        began, began_work = time.monotonic(), time.process_time()
        assert await publisher.deliver(TOPIC, event(next(numbers), "one key")) is Delivery.WAITING
        worked.append(time.process_time() - began_work)
        assert time.monotonic() - began < 1, "it does not wait for the bus"
    assert sorted(worked)[int(len(worked) * 0.95)] < 0.01
    assert "the event bus: 100 events wait in the outbox" in publisher.trouble()
    assert any("circuit breaker" in reason for reason in publisher.trouble())
    await until(lambda: time.monotonic() - down_at > 2, "two seconds have passed")
    stage.kafka.up()
    back_at = time.monotonic()
    await replayed(publisher)
    # Two seconds on a machine that has nothing else to do.
    assert 0.9 < time.monotonic() - back_at < 10
    read = await stage.arrived()
    assert read.numbers == set(range(next(numbers)))
    assert (read.doubled, read.reordered()) == (0, {})
    assert len(read.of_key("one key")) == 95
    assert publisher.breaker.state is BreakerState.CLOSED
    assert publisher.trouble() == []
    assert publisher.metrics()["outbox"] | {"replayed": 0, "settled": 0} == {
        "waiting": 0,
        "in_file": 0,
        "replayed": 0,
        "settled": 0,
        "refused": 0,
    }
    assert publisher.replayed + publisher.metrics()["outbox"]["settled"] == 100


async def test_five_hundred_that_wait_come_at_a_hundred_a_second_and_in_order(stage):
    publisher = await stage.publisher()
    numbers = itertools.count()
    stage.kafka.down()
    await fail(publisher, numbers)
    first = next(numbers)
    for _ in range(500):
        await publisher.deliver(TOPIC, event(next(numbers)))
    stage.kafka.up()
    began = time.monotonic()
    await replayed(publisher)
    assert time.monotonic() - began > 500 / 110
    read = await stage.arrived()
    backlog = sorted((it for it in read.records if it.number > first), key=lambda it: (it.at_ms, it.number))
    assert [it.number for it in backlog] == list(range(first + 1, first + 501))
    assert Arrived(backlog).most_in_a_second() <= 110
    assert read.doubled == 0


async def test_who_publishes_at_once_when_the_bus_goes_waits_no_longer_than_one_publication(stage):
    publisher = await stage.publisher(at_a_time=20)
    await deliver(publisher, event(0))
    stage.kafka.down()
    began = time.monotonic()
    assert await deliver(publisher, *(event(number) for number in range(1, 301))) == {Delivery.WAITING: 300}
    assert time.monotonic() - began < 4, "fifteen times in turn would be 15 s"
    stage.kafka.up()
    await replayed(publisher)
    read = await stage.arrived()
    assert read.numbers == set(range(301))
    assert read.doubled == 0


async def test_brokers_that_come_and_go_under_load_lose_and_reorder_nothing(stage):
    publisher = await stage.publisher(replay_per_second=5000)
    published = 0
    ended = asyncio.Event()

    async def keep_publishing(key: str) -> None:
        nonlocal published
        while not ended.is_set():
            published += 1
            await publisher.deliver(TOPIC, event(published, key))
            await elapse(timedelta(milliseconds=30))

    publishing = [asyncio.create_task(keep_publishing(f"key-{number}")) for number in range(12)]
    for outage in (0.2, 0.6, 1.0, 0.05):
        stage.kafka.down()
        await elapse(timedelta(seconds=outage))
        stage.kafka.up()
        await elapse(timedelta(seconds=0.5))
    ended.set()
    await asyncio.gather(*publishing)
    await replayed(publisher)
    read = await stage.arrived()
    assert published > 300
    assert read.numbers == set(range(1, published + 1))
    assert read.reordered() == {}
    assert read.doubled <= published / 1000


async def test_a_partition_without_a_leader_holds_up_only_its_own_keys(stage):
    topic = "dev.omninode-bridge.orchestrator.step-completed.v1"
    stage.kafka.create_topic(topic, PARTITIONS, replication=1)
    publisher = await stage.publisher()
    await deliver(publisher, *(event(number) for number in range(12)), topic=topic)
    of = {it.key: it.partition for it in (await arrived(stage.kafka, topic)).records}
    dead = {key for key, partition in of.items() if partition == 0}
    assert 0 < len(dead) < 12
    stage.kafka.take_broker_down(1)
    await deliver(publisher, *(event(100 + number, f"key-{number}") for number in range(12)), topic=topic)
    await _wait_for_only(publisher, dead, of)
    # Nor when all of them have to wait, and those of the dead partition come first.
    stage.kafka.down()
    for key in sorted(of, key=lambda key: key not in dead):
        await publisher.deliver(topic, event(200 + int(key.removeprefix("key-")), key))
    stage.kafka.bring_broker_up(2)
    stage.kafka.bring_broker_up(3)
    await _wait_for_only(publisher, dead, of)
    stage.kafka.bring_broker_up(1)
    await replayed(publisher)
    read = await arrived(stage.kafka, topic)
    assert read.numbers == {number + many for number in range(12) for many in (0, 100, 200)}
    assert (read.doubled, read.reordered()) == (0, {})


async def _wait_for_only(publisher: Publisher, dead: set[str], keys: Iterable[str]) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while {key for key in keys if await publisher.outbox.holds_up(key)} != dead:
            await elapse(timedelta(milliseconds=10))


async def test_with_the_database_away_too_the_file_keeps_everything(stage):
    publisher = await stage.publisher()
    numbers = itertools.count()
    await deliver(publisher, event(next(numbers), "one key"))
    stage.kafka.down()
    await fail(publisher, numbers)
    for _ in range(20):
        await publisher.deliver(TOPIC, event(next(numbers), "one key"))
    stage.database.away()
    for _ in range(30):
        await publisher.deliver(TOPIC, event(next(numbers), "one key"))
    for _ in range(20):
        await publisher.deliver(TOPIC, event(next(numbers)))
    assert publisher.outbox.in_file == 50
    stage.kafka.up()
    await until(lambda: publisher.outbox.in_file <= 30, "what the table holds up nothing of is published")
    stage.database.back()
    await replayed(publisher)
    read = await stage.arrived()
    assert read.numbers == set(range(next(numbers)))
    assert (read.doubled, read.reordered()) == (0, {})


async def test_what_kafka_answers_late_is_not_published_again(stage):
    publisher = await stage.publisher(request_timeout=timedelta(milliseconds=1500))
    await deliver(publisher, *(event(1000 + number) for number in range(20)))
    stage.kafka.slow_down(timedelta(milliseconds=2000))
    deliveries = await deliver(publisher, *(event(number) for number in range(1, 21)))
    assert deliveries[Delivery.WAITING] == 20
    stage.kafka.slow_down(timedelta(0))
    await replayed(publisher)
    read = await stage.arrived()
    assert read.numbers == {*range(1, 21), *range(1000, 1020)}
    assert read.doubled == 0
    assert publisher.metrics()["outbox"]["settled"] > 0


async def test_events_of_one_key_that_are_published_at_once_keep_their_order_when_the_first_fails(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    await deliver(publisher, event(0, "key"))
    stage.kafka.slow_down(timedelta(milliseconds=300))
    stage.kafka.fail_next(Api.PRODUCE, Failure.UNKNOWN_SERVER_ERROR)
    first = asyncio.create_task(publisher.deliver(TOPIC, event(1, "key")))
    await until(lambda: calls(publisher) == 2, "the first is under way")
    await elapse(timedelta(milliseconds=100))
    assert await publisher.deliver(TOPIC, event(2, "key")) is Delivery.WAITING
    assert await first is Delivery.WAITING
    stage.kafka.slow_down(timedelta(0))
    await replayed(publisher)
    assert (await stage.arrived()).of_key("key") == [0, 1, 2]


async def test_events_of_one_key_keep_their_order_when_the_first_fails_again(stage):
    stage.kafka.down()
    publisher = await stage.publisher()
    await deliver(publisher, *(event(number, "key") for number in range(5)))
    stage.kafka.fail_next(Api.PRODUCE, *[Failure.UNKNOWN_SERVER_ERROR, Failure.NONE] * 2)
    stage.kafka.up()
    await replayed(publisher)
    assert (await stage.arrived()).of_key("key") == list(range(5))


@pytest.mark.parametrize("topic", [TOPIC, "dev.omninode-bridge.orchestrator.step-completed.v1"])
async def test_brokers_that_come_back_elsewhere_are_found(stage, topic):
    with MockKafka() as elsewhere:
        elsewhere.create_topics(dict.fromkeys([TOPIC, topic], PARTITIONS))
        elsewhere.down()
        servers = f"{stage.kafka.bootstrap_servers},{elsewhere.bootstrap_servers}"
        async with open_publisher(stage.database, settings_of(servers, stage.directory)) as publisher:
            await deliver(publisher, event(0))
            stage.kafka.down()
            assert await deliver(publisher, event(1), event(2), topic=topic) == {Delivery.WAITING: 2}
            elsewhere.up()
            await replayed(publisher)
        assert (await arrived(elsewhere, topic)).numbers == {1, 2}


async def test_brokers_that_come_back_elsewhere_close_the_breaker_also_when_nobody_publishes(stage):
    with MockKafka() as elsewhere:
        elsewhere.down()
        servers = f"{stage.kafka.bootstrap_servers},{elsewhere.bootstrap_servers}"
        async with open_publisher(stage.database, settings_of(servers, stage.directory)) as publisher:
            await deliver(publisher, event(0))
            stage.kafka.down()
            await fail(publisher, range(1, 10))
            await publisher.outbox.remove(await publisher.outbox.oldest(FAILURES))
            elsewhere.up()
            await until(lambda: publisher.breaker.state is BreakerState.CLOSED, "it is closed")
