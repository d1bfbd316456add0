"""The mock Kafka cluster against a real client: where it is not like a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    CorruptRecordException,
    IncompatibleBrokerVersion,
    KafkaError,
    OffsetOutOfRangeError,
)
from kafka_support import consumer_of, do, eventually, producer_of, quiet_client, read
from testyard.lab.servers.kafka_mock import (
    AUTO_CREATED_PARTITIONS,
    PARTITION_BATCHES,
    PARTITION_CAPACITY,
    PARTITION_SAFE_SIZE,
    MockKafka,
    partitions_for,
)

SECOND = timedelta(seconds=1)
GROUP_OPTIONS = {"session_timeout_ms": 1100, "heartbeat_interval_ms": 100}


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """A running cluster with nothing in it."""
    with quiet_client(), MockKafka() as cluster:
        yield cluster


# ---- what it keeps, and what it drops


def test_a_partition_keeps_five_mebibytes_and_drops_the_oldest_without_a_word(kafka: MockKafka) -> None:
    size, count = 1000, 7000

    async def scenario() -> int:
        async with producer_of(kafka.bootstrap_servers) as producer:
            sent = [await producer.send("orders", b"x" * size, partition=0) for _ in range(count)]
            assert len(await asyncio.gather(*sent)) == count
        async with consumer_of(kafka.bootstrap_servers) as consumer:
            partition = TopicPartition("orders", 0)
            return (await consumer.beginning_offsets([partition]))[partition]

    kafka.create_topic("orders", partitions=1)
    assert kafka.dropped_records() == {}
    dropped = do(scenario())
    assert kafka.dropped_records() == {"orders": dropped}
    kept = (count - dropped) * size
    assert PARTITION_SAFE_SIZE < 0.9 * PARTITION_CAPACITY < kept <= PARTITION_CAPACITY


def test_a_topic_that_is_sized_for_a_run_keeps_all_of_it(kafka: MockKafka) -> None:
    count, size = 8000, 1000

    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            sent = [await producer.send("orders", b"x" * size, key=b"%d" % (n % 200)) for n in range(count)]
            await asyncio.gather(*sent)

    kafka.create_topic("orders", partitions_for(count, size))
    do(scenario())
    assert kafka.dropped_records() == {}


def test_partitions_are_counted_by_size_and_by_batches() -> None:
    assert partitions_for(10, 100) == 3
    assert partitions_for(10, 100, at_least=1) == 1
    assert partitions_for(8000, 900) == 3
    assert partitions_for(100_000, 900) == 25
    assert partitions_for(10 * PARTITION_BATCHES, 1, at_least=1) >= 10


@pytest.mark.parametrize("policy", ["none", "earliest"])
def test_a_consumer_notices_that_records_were_dropped_only_when_it_does_not_reset(
    kafka: MockKafka, policy: str
) -> None:
    async def scenario() -> list[bytes]:
        async with producer_of(kafka.bootstrap_servers) as producer:
            for number in range(10):
                await producer.send_and_wait("orders", b"%d" % number, partition=0)
        kafka.delete_records("orders", 0, 6)
        async with consumer_of(kafka.bootstrap_servers, auto_offset_reset=policy) as consumer:
            consumer.assign([TopicPartition("orders", 0)])
            consumer.seek(TopicPartition("orders", 0), 2)
            return [record.value for record in await read(consumer, 4)]

    kafka.create_topic("orders", partitions=1)
    if policy == "none":
        with pytest.raises(OffsetOutOfRangeError):
            do(scenario())
    else:
        assert do(scenario()) == [b"6", b"7", b"8", b"9"]
    assert kafka.dropped_records() == {"orders": 6}


# ---- unlike a real cluster


def test_a_request_that_finds_nothing_is_answered_late(kafka: MockKafka) -> None:
    async def delay(wait_ms: int) -> float:
        async with (
            producer_of(kafka.bootstrap_servers) as producer,
            consumer_of(kafka.bootstrap_servers, "orders", fetch_max_wait_ms=wait_ms) as consumer,
        ):
            await consumer.seek_to_end()
            waiting = asyncio.ensure_future(consumer.getone())
            delays = []
            for _ in range(5):
                asked = time.monotonic()
                # The consumer's request is under way by then.
                await eventually(lambda asked=asked: time.monotonic() - asked > 0.2)
                started = time.monotonic()
                await producer.send_and_wait("orders", b"x", partition=0)
                await waiting
                delays.append(time.monotonic() - started)
                waiting = asyncio.ensure_future(consumer.getone())
            waiting.cancel()
            return max(delays)

    kafka.create_topic("orders", partitions=1)
    assert do(delay(1000)) > 0.3
    assert do(delay(10)) < 0.3


def test_a_second_member_of_a_group_is_refused(kafka: MockKafka) -> None:
    async def scenario() -> None:
        # Long enough that the first one is not taken for dead.
        options = {"group_id": "readers", "session_timeout_ms": 3000, "heartbeat_interval_ms": 100}
        async with consumer_of(kafka.bootstrap_servers, "orders", **options):
            with pytest.raises(KafkaError, match="InvalidRequestError"):
                async with consumer_of(kafka.bootstrap_servers, "orders", **options):
                    await asyncio.get_running_loop().create_future()

    kafka.create_topic("orders")
    do(scenario())


def test_transactions_are_taken_but_cannot_be_read(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers, transactional_id="writer") as producer:
            for number in range(2):
                async with producer.transaction():
                    await producer.send_and_wait("orders", b"%d" % number, partition=0)
        async with consumer_of(kafka.bootstrap_servers, "orders", isolation_level="read_committed") as consumer:
            with pytest.raises(CorruptRecordException):
                await read(consumer, 2)

    kafka.create_topic("orders", partitions=1)
    do(scenario())


def test_a_topic_that_nobody_created_is_made_when_it_is_asked_for(kafka: MockKafka) -> None:
    async def scenario() -> int:
        async with producer_of(kafka.bootstrap_servers) as producer:
            return len(await producer.partitions_for("surprise"))

    assert do(scenario()) == AUTO_CREATED_PARTITIONS
    assert kafka.topics == {}


def test_administration_is_not_known(kafka: MockKafka) -> None:
    async def scenario() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            cluster = await admin.describe_cluster()
            assert cluster["controller_id"] not in kafka.brokers
            with pytest.raises(AttributeError):
                await admin.create_topics([NewTopic("orders", 1, 1)])
            with pytest.raises(IncompatibleBrokerVersion):
                await admin.describe_consumer_groups(["readers"])
            with pytest.raises(IncompatibleBrokerVersion):
                await admin.list_consumer_groups()
        finally:
            await admin.close()

    do(scenario())
