"""The publisher while brokers come and go: nothing is lost, doubled or overtaken, and nobody is kept waiting."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from publisher_support import (
    PARTITIONS,
    PATIENCE,
    TOPIC,
    Arrived,
    Database,
    arrived,
    deliver,
    event,
    new_database,
    open_publisher,
    replayed,
    settings_of,
    until,
)
from testyard.lab.bridge.breaker import BreakerState
from testyard.lab.bridge.bus import LARGEST_REQUEST
from testyard.lab.bridge.envelope import Envelope, SigningKey
from testyard.lab.bridge.events import StateTransition
from testyard.lab.bridge.publisher import Delivery, Publisher
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.kafka_mock import Api, Failure, MockKafka
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio

FAILURES = 5


@dataclass
class Stage:
    """Brokers, tables, a directory, and publishers on them."""

    kafka: MockKafka
    database: Database
    directory: Path
    stack: AsyncExitStack

    async def publisher(self, **bus: Any) -> Publisher:
        """A publisher that lives as long as the test."""
        return await self.stack.enter_async_context(self.process(**bus))

    def process(self, **bus: Any) -> AbstractAsyncContextManager[Publisher]:
        """A publisher that is stopped like a process."""
        return open_publisher(self.database, settings_of(self.kafka.bootstrap_servers, self.directory, **bus))

    async def arrived(self) -> Arrived:
        """What is in Kafka."""
        return await arrived(self.kafka)


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    with MockKafka() as kafka:
        kafka.create_topic(TOPIC, PARTITIONS)
        async with new_database(database_url) as database, AsyncExitStack() as stack:
            yield Stage(kafka, database, tmp_path / "outbox", stack)
            kafka.up()


async def fail(publisher: Publisher, numbers: Iterable[int]) -> None:
    """Publish in vain until the breaker opens."""
    events = [event(number) for number in itertools.islice(numbers, FAILURES)]
    assert await deliver(publisher, *events[1:]) == {Delivery.WAITING: FAILURES - 1}
    assert publisher.breaker.state is BreakerState.CLOSED
    assert await deliver(publisher, events[0]) == {Delivery.WAITING: 1}
    assert publisher.breaker.state is BreakerState.OPEN


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
    publisher._headers = lambda: (("traceparent", "00-abc"),)
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


async def test_no_more_are_under_way_than_may_be(stage):
    publisher = await stage.publisher(at_a_time=3, request_timeout=PATIENCE)
    await deliver(publisher, event(0))
    stage.kafka.slow_down(timedelta(milliseconds=100))
    began = time.monotonic()
    assert await deliver(publisher, *(event(number) for number in range(1, 10))) == {Delivery.SENT: 9}
    assert time.monotonic() - began >= 0.3


# ---- an outage


async def test_an_outage_of_two_seconds_loses_doubles_and_reorders_nothing(stage):
    publisher = await stage.publisher()
    numbers = itertools.count()
    await deliver(publisher, *(event(next(numbers)) for _ in range(30)))
    stage.kafka.down()
    down_at = time.monotonic()
    await fail(publisher, numbers)
    opened = publisher.breaker.transitions[-1]
    last_failure = datetime.fromisoformat(publisher.breaker.metrics()["last_failure_time"])
    assert abs(opened.at - last_failure) < timedelta(milliseconds=100)
    worked = []
    for _ in range(95):
        began, began_work = time.monotonic(), time.process_time()
        assert await publisher.deliver(TOPIC, event(next(numbers), "one key")) is Delivery.WAITING
        worked.append(time.process_time() - began_work)
        assert time.monotonic() - began < 0.5, "it does not wait for the bus"
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
    await deliver(publisher, *(event(number) for number in range(30)), topic=topic)
    of = {it.key: it.partition for it in (await arrived(stage.kafka, topic)).records}
    stage.kafka.take_broker_down(1)
    await deliver(publisher, *(event(100 + number, f"key-{number}") for number in range(30)), topic=topic)
    dead = {key for key, partition in of.items() if partition == 0}
    await until(lambda: len(publisher.outbox) == len(dead), f"only {len(dead)} wait, not {len(publisher.outbox)}")
    for key in of:
        assert await publisher.outbox.holds_up(key) is (key in dead)
    stage.kafka.bring_broker_up(1)
    await replayed(publisher)
    read = await arrived(stage.kafka, topic)
    assert read.numbers == {*range(30), *range(100, 130)}
    assert (read.doubled, read.reordered()) == (0, {})


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
    await deliver(publisher, event(0))
    stage.kafka.slow_down(timedelta(milliseconds=2000))
    deliveries = await deliver(publisher, *(event(number) for number in range(1, 21)))
    assert deliveries[Delivery.WAITING] == 20
    stage.kafka.slow_down(timedelta(0))
    await replayed(publisher)
    read = await stage.arrived()
    assert read.numbers == set(range(21))
    assert read.doubled == 0
    assert publisher.metrics()["outbox"]["settled"] > 0


# ---- Kafka that is not there


async def test_without_kafka_at_the_start_events_wait_and_are_published_when_it_comes(stage):
    stage.kafka.down()
    publisher = await stage.publisher()
    assert await deliver(publisher, *(event(number) for number in range(40))) == {Delivery.WAITING: 40}
    assert publisher.breaker.state is not BreakerState.CLOSED
    stage.kafka.up()
    await replayed(publisher)
    assert (await stage.arrived()).numbers == set(range(40))


async def test_a_kafka_that_says_nothing_is_waited_for_once_and_not_by_one_after_the_other(stage):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_of(f"127.0.0.1:{silent.getsockname()[1]}", stage.directory)
        async with open_publisher(stage.database, settings) as publisher:
            began = time.monotonic()
            assert await deliver(publisher, *(event(number) for number in range(20))) == {Delivery.WAITING: 20}
            assert time.monotonic() - began < 5, "twenty times in turn would be 20 s"
            began = time.monotonic()
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("servers", ["", "nobody.invalid:9092", "127.0.0.1:not-a-port", "[::1"])
async def test_servers_that_cannot_be_connected_to_lose_nothing(stage, servers):
    settings = settings_of(servers, stage.directory)
    async with open_publisher(stage.database, settings) as publisher:
        assert await deliver(publisher, event(1)) == {Delivery.WAITING: 1}
    publisher = await stage.publisher()
    await replayed(publisher)
    assert (await stage.arrived()).numbers == {1}


# ---- what brokers answer


@pytest.mark.parametrize(
    "failure", [Failure.NOT_LEADER_OR_FOLLOWER, Failure.REQUEST_TIMED_OUT, Failure.NOT_ENOUGH_REPLICAS]
)
async def test_an_error_that_passes_is_not_noticed(stage, failure):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    stage.kafka.fail_next(Api.PRODUCE, failure, failure)
    assert await publisher.deliver(TOPIC, event(1)) is Delivery.SENT
    assert [it.number for it in (await stage.arrived()).records] == [1]
    assert publisher.breaker.metrics()["totals"]["failures"] == 0


@pytest.mark.parametrize(
    "failure",
    [Failure.UNKNOWN_SERVER_ERROR, Failure.OUT_OF_ORDER_SEQUENCE_NUMBER, Failure.TOPIC_AUTHORIZATION_FAILED],
)
async def test_an_error_that_ends_a_producer_costs_one_failure_and_another_producer(stage, failure):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    await deliver(publisher, event(0))
    stage.kafka.fail_next(Api.PRODUCE, failure)
    assert await publisher.deliver(TOPIC, event(1)) is Delivery.WAITING
    assert publisher.breaker.metrics()["totals"]["failures"] == 1
    await replayed(publisher)
    assert await publisher.deliver(TOPIC, event(2)) is Delivery.SENT
    read = await stage.arrived()
    assert (read.numbers, read.doubled) == ({0, 1, 2}, 0)


async def test_a_bus_that_answers_but_takes_nothing_does_not_close_the_breaker(stage):
    publisher = await stage.publisher()
    await deliver(publisher, event(0))
    stage.kafka.fail_next(Api.PRODUCE, *[Failure.NOT_ENOUGH_REPLICAS] * 1000)
    await fail(publisher, range(1, 10))
    await until(lambda: len(publisher.breaker.transitions) > 4, "it was tried out twice")
    assert {it.target for it in publisher.breaker.transitions} == {BreakerState.OPEN, BreakerState.HALF_OPEN}
    stage.kafka.fail_no_more(Api.PRODUCE)
    await replayed(publisher)
    read = await stage.arrived()
    assert (read.numbers, read.doubled) == (set(range(FAILURES + 1)), 0)


async def test_a_bus_that_is_back_closes_the_breaker_also_when_nobody_publishes(stage):
    publisher = await stage.publisher()
    await deliver(publisher, event(0))
    stage.kafka.down()
    await fail(publisher, range(1, 10))
    await publisher.outbox.remove(await publisher.outbox.oldest(FAILURES))
    assert len(publisher.outbox) == 0
    stage.kafka.up()
    await until(lambda: publisher.breaker.state is BreakerState.CLOSED, "it is closed")
    assert publisher.trouble() == []


async def test_a_producer_that_has_died_is_replaced(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    await deliver(publisher, event(0))
    producer = await publisher._bus._producer
    producer._message_accumulator.fail_all(KafkaError("Unexpected error during batch delivery"))
    assert await publisher.deliver(TOPIC, event(1)) is Delivery.WAITING
    await replayed(publisher)
    assert (await stage.arrived()).numbers == {0, 1}


@pytest.mark.parametrize("away", [False, True])
async def test_what_is_too_large_is_refused_at_once_and_harms_nothing(stage, away):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    await deliver(publisher, event(0))
    if away:
        stage.kafka.down()
    for _ in range(2 * FAILURES):
        with pytest.raises(MessageSizeTooLargeError, match=f"Kafka takes at most {LARGEST_REQUEST}"):
            await publisher.deliver(TOPIC, event(1, text="x" * LARGEST_REQUEST))
    assert publisher.breaker.state is BreakerState.CLOSED
    assert len(publisher.outbox) == 0


async def test_the_largest_event_that_is_let_through_is_one_that_kafka_takes(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    text = "x" * (LARGEST_REQUEST - len(event(1, text="").to_bytes()) - 200)
    assert await publisher.deliver(TOPIC, event(1, text=text)) is Delivery.SENT


async def test_what_a_broker_refuses_is_told_to_the_caller_and_is_no_failure(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    await deliver(publisher, event(0))
    for _ in range(2 * FAILURES):
        stage.kafka.fail_next(Api.PRODUCE, Failure.MESSAGE_TOO_LARGE)
        with pytest.raises(MessageSizeTooLargeError):
            await publisher.deliver(TOPIC, event(1))
    assert publisher.breaker.state is BreakerState.CLOSED
    assert await publisher.deliver(TOPIC, event(2)) is Delivery.SENT


async def test_what_a_broker_refuses_later_is_set_aside_and_the_rest_is_published(stage, caplog):
    stage.kafka.down()
    publisher = await stage.publisher()
    await deliver(publisher, event(0, "key"), event(1, "key"), event(2, "key"))
    stage.kafka.fail_next(Api.PRODUCE, Failure.MESSAGE_TOO_LARGE)
    stage.kafka.up()
    await replayed(publisher)
    assert (await stage.arrived()).of_key("key") == [1, 2]
    assert publisher.metrics()["outbox"]["refused"] == 1
    (aside,) = stage.directory.glob("*.refused")
    assert json.loads(json.loads(aside.read_text())["value"])["payload"]["number"] == 0
    assert "refuses the event" in caplog.text


# ---- cancellations and ends


async def test_a_cancelled_publication_frees_everything_and_overtakes_nothing(stage):
    publisher = await stage.publisher(at_a_time=2, request_timeout=PATIENCE)
    await deliver(publisher, event(0, "key"))
    stage.kafka.slow_down(timedelta(milliseconds=300))
    for number in range(1, 6):
        publishing = asyncio.create_task(publisher.deliver(TOPIC, event(number, "key")))
        await until(lambda calls=number + 1: _calls(publisher) == calls, "it is under way")
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
    stage.kafka.slow_down(timedelta(0))
    assert await publisher.deliver(TOPIC, event(6, "key")) is Delivery.SENT
    read = await stage.arrived()
    assert read.doubled == 0
    assert read.of_key("key") == sorted(read.of_key("key"))
    assert {0, 6} <= read.numbers
    assert publisher.breaker.metrics()["totals"]["cancelled"] == 5


def _calls(publisher: Publisher) -> int:
    calls: int = publisher.breaker.metrics()["totals"]["calls"]
    return calls


async def test_what_waits_when_the_process_ends_is_published_by_the_next_one(stage):
    async with stage.process() as publisher:
        await deliver(publisher, event(0, "key"))
        stage.kafka.down()
        await fail(publisher, range(100, 200))
        for number in range(1, 20):
            await publisher.deliver(TOPIC, event(number, "key"))
        began = time.monotonic()
    assert time.monotonic() - began < 10
    stage.kafka.up()
    assert (await stage.arrived()).numbers == {0}
    publisher = await stage.publisher()
    await replayed(publisher)
    read = await stage.arrived()
    assert read.of_key("key") == list(range(20))
    assert read.numbers == {*range(20), *range(100, 100 + FAILURES)}
    assert read.doubled == 0


async def test_a_start_without_the_database_publishes_what_is_left_when_it_is_back(stage):
    stage.kafka.down()
    async with stage.process() as publisher:
        await deliver(publisher, event(0, "key"), event(1, "key"))
    stage.kafka.up()
    stage.database.away()
    publisher = await stage.publisher(look_after=timedelta(milliseconds=10))
    assert not publisher.outbox.is_known
    # It has looked for what waits, and found nothing.
    await elapse(timedelta(milliseconds=100))
    stage.database.back()
    await replayed(publisher)
    assert (await stage.arrived()).of_key("key") == [0, 1]


async def test_what_is_under_way_when_the_process_ends_is_in_kafka_or_waits(stage):
    async with stage.process(request_timeout=PATIENCE) as publisher:
        await deliver(publisher, event(0))
        stage.kafka.down()
        publishing = [asyncio.create_task(publisher.deliver(TOPIC, event(number))) for number in range(1, 200)]
        await until(lambda: publisher._under_way == 199, "all are under way")
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert [await it for it in publishing] == [Delivery.WAITING] * 199
    stage.kafka.up()
    publisher = await stage.publisher(replay_per_second=1000)
    await replayed(publisher)
    read = await stage.arrived()
    assert read.numbers == set(range(200))
    assert read.doubled == 0


async def test_trouble_with_the_outbox_is_told_and_does_not_end_the_replay(stage, monkeypatch, caplog):
    stage.kafka.down()
    publisher = await stage.publisher()
    await deliver(publisher, event(0))
    oldest = publisher.outbox.oldest
    troubles = 0

    async def failing(limit: int) -> Any:
        nonlocal troubles
        troubles += 1
        if troubles < 3:
            raise OSError("no space left on device")
        return await oldest(limit)

    monkeypatch.setattr(publisher.outbox, "oldest", failing)
    await until(lambda: troubles >= 2, "it has tried again")
    stage.kafka.up()
    await replayed(publisher)
    assert "cannot be published" in caplog.text
    assert (await stage.arrived()).numbers == {0}
