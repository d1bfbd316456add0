"""The publisher and what brokers answer: nothing, errors, refusals; and what becomes of what is broken off."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from publisher_support import (
    FAILURES,
    PATIENCE,
    TOPIC,
    Stage,
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
from testyard.lab.bridge.breaker import BreakerState
from testyard.lab.bridge.bus import LARGEST_REQUEST
from testyard.lab.bridge.publisher import Delivery
from testyard.lab.servers.kafka_mock import Api, Failure
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with new_stage(database_url, tmp_path / "outbox") as stage:
        yield stage


# ---- Kafka that is not there


async def test_without_kafka_at_the_start_events_wait_and_are_published_when_it_comes(stage):
    stage.kafka.down()
    publisher = await stage.publisher()
    assert await deliver(publisher, *(event(number) for number in range(40))) == {Delivery.WAITING: 40}
    assert publisher.breaker.state is not BreakerState.CLOSED
    stage.kafka.up()
    await replayed(publisher)
    assert (await stage.arrived()).numbers == set(range(40))


async def test_a_kafka_that_is_slow_at_the_start_is_connected_to_nevertheless(stage):
    stage.kafka.slow_down(timedelta(milliseconds=700))
    # There and back four times until a producer can be used: longer than a publication may take.
    publisher = await stage.publisher(request_timeout=timedelta(seconds=2))
    assert await publisher.deliver(TOPIC, event(1)) is Delivery.WAITING
    await replayed(publisher)
    stage.kafka.slow_down(timedelta(0))
    assert [it.number for it in (await stage.arrived()).records] == [1]


async def test_many_that_fail_together_replace_a_producer_once(stage):
    publisher = await stage.publisher(request_timeout=PATIENCE)
    await deliver(publisher, event(0))
    bus = publisher._bus
    dead = bus._producer
    (await dead)._message_accumulator.fail_all(KafkaError("Unexpected error during batch delivery"))
    assert await deliver(publisher, event(1)) == {Delivery.WAITING: 1}
    await replayed(publisher)
    renewed = bus._producer
    assert renewed is not dead
    bus._give_up(dead)
    assert bus._producer is renewed


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
    producer = publisher._bus._producer
    assert await publisher.deliver(TOPIC, event(1)) is Delivery.WAITING
    assert publisher._bus._producer is not producer
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
        await until(lambda wanted=number + 1: calls(publisher) == wanted, "it is under way")
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


async def test_what_waits_when_the_process_ends_is_published_by_the_next_one(stage):
    async with stage.process() as publisher:
        await deliver(publisher, event(0, "key"))
        stage.kafka.down()
        await fail(publisher, range(100, 200))
        for number in range(1, 20):
            await publisher.deliver(TOPIC, event(number, "key"))
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert _tasks_of_aiokafka() == []
    stage.kafka.up()
    assert (await stage.arrived()).numbers == {0}
    publisher = await stage.publisher()
    await replayed(publisher)
    read = await stage.arrived()
    assert read.of_key("key") == list(range(20))
    assert read.numbers == {*range(20), *range(100, 100 + FAILURES)}
    assert read.doubled == 0


def _tasks_of_aiokafka() -> list[str]:
    return [repr(task) for task in asyncio.all_tasks() if "aiokafka" in repr(task)]


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
        if troubles < 10:
            raise OSError("no space left on device")
        return await oldest(limit)

    monkeypatch.setattr(publisher.outbox, "oldest", failing)
    await until(lambda: troubles >= 2, "it has tried again")
    assert (
        "the event bus: what waits cannot be published: OSError('no space left on device')" in publisher.trouble()
    )
    stage.kafka.up()
    await replayed(publisher)
    await until(lambda: publisher.trouble() == [], "it is over")
    assert caplog.text.count("what waits cannot be published") == 1
    assert (await stage.arrived()).numbers == {0}
