"""The mock Kafka cluster against a real client: what it does as a real one, and how it is steered."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.conn import create_conn
from aiokafka.errors import (
    MessageSizeTooLargeError,
)
from aiokafka.protocol.metadata import MetadataRequest
from kafka_support import consumer_of, do, eventually, producer_of, quiet_client, read, values_in
from testyard.lab.children import LabError
from testyard.lab.servers import librdkafka as library_module
from testyard.lab.servers.kafka_mock import (
    Api,
    Failure,
    MockKafka,
)

SECOND = timedelta(seconds=1)
GROUP_OPTIONS = {"session_timeout_ms": 1100, "heartbeat_interval_ms": 100}


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """A running cluster with nothing in it."""
    with quiet_client(), MockKafka() as cluster:
        yield cluster


# ---- as a real cluster


def test_a_group_reads_what_was_published_with_keys_and_headers(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with (
            producer_of(kafka.bootstrap_servers) as producer,
            consumer_of(kafka.bootstrap_servers, "orders", group_id="readers", **GROUP_OPTIONS) as consumer,
        ):
            await producer.send_and_wait("orders", b"one", key=b"k", headers=[("trace", b"t-1")])
            (record,) = await read(consumer, 1)
            assert (record.value, record.key, record.headers) == (b"one", b"k", (("trace", b"t-1"),))

    kafka.create_topic("orders")
    do(scenario())


def test_the_first_member_of_a_group_is_let_in_at_once(kafka: MockKafka) -> None:
    async def scenario() -> float:
        started = time.monotonic()
        async with consumer_of(kafka.bootstrap_servers, "orders", group_id="readers"):
            return time.monotonic() - started

    kafka.create_topic("orders")
    assert do(scenario()) < 1


def test_a_new_member_goes_on_after_the_committed_offset(kafka: MockKafka) -> None:
    async def first(count: int) -> list[bytes]:
        async with consumer_of(kafka.bootstrap_servers, "orders", group_id="readers", **GROUP_OPTIONS) as consumer:
            records = await read(consumer, count)
            await consumer.commit()
            assert await consumer.committed(TopicPartition("orders", 0)) == records[-1].offset + 1
            return [record.value for record in records]

    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            for number in range(6):
                await producer.send_and_wait("orders", b"%d" % number)
        assert await first(4) == [b"0", b"1", b"2", b"3"]
        assert await first(2) == [b"4", b"5"]

    kafka.create_topic("orders", partitions=1)
    do(scenario())


def test_events_with_one_key_are_in_one_partition_in_their_order(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            sent = [await producer.send("orders", b"%d" % n, key=b"key-%d" % (n % 5)) for n in range(100)]
            await asyncio.gather(*sent)
        async with consumer_of(kafka.bootstrap_servers, "orders") as consumer:
            records = await read(consumer, 100)
        for key in {record.key for record in records}:
            of_key = [record for record in records if record.key == key]
            assert len({record.partition for record in of_key}) == 1
            numbers = [int(record.value) for record in of_key]
            assert numbers == sorted(numbers)
        assert len({record.partition for record in records}) > 1

    kafka.create_topic("orders", partitions=4)
    do(scenario())


@pytest.mark.parametrize("options", [{"compression_type": "gzip"}, {"enable_idempotence": True}, {"acks": "all"}])
def test_what_is_published_so_comes_back(kafka: MockKafka, options: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers, **options) as producer:
            await asyncio.gather(*[await producer.send("orders", b"%d" % n, partition=0) for n in range(50)])
        assert await values_in(kafka.bootstrap_servers, "orders") == [b"%d" % n for n in range(50)]

    kafka.create_topic("orders")
    do(scenario())


# ---- outages


def test_an_outage_keeps_ports_and_acknowledged_events_and_ends_for_a_client_that_waits(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            for number in range(20):
                await producer.send_and_wait("orders", b"%d" % number, partition=0)
            kafka.down()
            refused = set()
            for server in kafka.bootstrap_servers.split(","):
                host, port = server.split(":")
                with socket.socket() as probe:
                    refused.add(probe.connect_ex((host, int(port))) != 0)
            assert refused == {True}
            waiting = await producer.send("orders", b"during", partition=0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting), 0.5)
            kafka.up()
            await waiting
        expected = [*(b"%d" % n for n in range(20)), b"during"]
        assert await values_in(kafka.bootstrap_servers, "orders") == expected

    kafka.create_topic("orders", partitions=1)
    before = kafka.bootstrap_servers
    do(scenario())
    assert kafka.bootstrap_servers == before


def test_when_one_broker_is_down_its_replicated_partitions_are_led_by_another(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            await producer.send_and_wait("orders", b"before", partition=0)
            kafka.take_broker_down(1)
            await producer.send_and_wait("orders", b"during", partition=0)
            kafka.bring_broker_up(1)
            await producer.send_and_wait("orders", b"after", partition=0)
        assert await values_in(kafka.bootstrap_servers, "orders") == [b"before", b"during", b"after"]

    kafka.create_topic("orders", partitions=1, replication=3)
    do(scenario())


def test_when_one_broker_is_down_a_partition_without_replicas_waits_for_it(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            await producer.send_and_wait("orders", b"before", partition=0)
            kafka.take_broker_down(1)
            waiting = await producer.send("orders", b"during", partition=0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting), 0.5)
            kafka.bring_broker_up(1)
            await waiting

    kafka.create_topic("orders", partitions=1, replication=1)
    do(scenario())


def test_a_group_whose_coordinator_is_up_reads_on_while_another_broker_is_down(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with (
            producer_of(kafka.bootstrap_servers) as producer,
            consumer_of(kafka.bootstrap_servers, "orders", group_id="readers", **GROUP_OPTIONS) as consumer,
        ):
            kafka.take_broker_down(1)
            await producer.send_and_wait("orders", b"during", partition=0)
            (record,) = await read(consumer, 1)
            await consumer.commit()
            assert record.value == b"during"

    kafka.create_topic("orders", partitions=1)
    kafka.coordinate_group("readers", 2)
    do(scenario())


class Assignments(ConsumerRebalanceListener):
    """Counts how often a consumer was given partitions."""

    def __init__(self) -> None:
        self.count = 0

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """They are taken back."""

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """They are given."""
        self.count += 1


def test_a_group_that_was_cut_off_for_longer_than_its_session_joins_again_and_commits(kafka: MockKafka) -> None:
    async def scenario() -> None:
        assignments, partition = Assignments(), TopicPartition("orders", 0)
        async with (
            producer_of(kafka.bootstrap_servers) as producer,
            consumer_of(kafka.bootstrap_servers, group_id="readers", **GROUP_OPTIONS) as consumer,
        ):
            consumer.subscribe(["orders"], listener=assignments)
            await producer.send_and_wait("orders", b"before", partition=0)
            await read(consumer, 1)
            await consumer.commit()
            kafka.down()
            started = time.monotonic()
            # Members are looked at once in a second.
            await eventually(lambda: time.monotonic() - started > 2.5)
            kafka.up()
            await eventually(lambda: assignments.count == 2)
            await producer.send_and_wait("orders", b"after", partition=0)
            (record,) = await read(consumer, 1)
            assert record.value == b"after"
            await consumer.commit()
            assert await consumer.committed(partition) == 2

    kafka.create_topic("orders", partitions=1)
    do(scenario())


# ---- failures on request


def test_failed_requests_are_repeated_by_the_client_and_store_nothing(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            kafka.fail_next(
                Api.PRODUCE, Failure.NOT_LEADER_OR_FOLLOWER, Failure.REQUEST_TIMED_OUT, Failure.DISCONNECT
            )
            await producer.send_and_wait("orders", b"once", partition=0)
            kafka.fail_next(Api.PRODUCE, Failure.MESSAGE_TOO_LARGE)
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait("orders", b"never", partition=0)
        assert await values_in(kafka.bootstrap_servers, "orders") == [b"once"]

    kafka.create_topic("orders", partitions=1)
    do(scenario())


def test_failures_can_be_forgotten(kafka: MockKafka) -> None:
    async def scenario() -> None:
        async with producer_of(kafka.bootstrap_servers) as producer:
            kafka.fail_next(Api.PRODUCE, Failure.MESSAGE_TOO_LARGE)
            kafka.fail_no_more(Api.PRODUCE)
            await producer.send_and_wait("orders", b"fine", partition=0)

    kafka.create_topic("orders", partitions=1)
    do(scenario())


def test_one_broker_can_fail_late(kafka: MockKafka) -> None:
    async def scenario() -> float:
        async with producer_of(kafka.bootstrap_servers) as producer:
            await producer.send_and_wait("orders", b"before", partition=0)
            kafka.fail_next(Api.PRODUCE, Failure.MESSAGE_TOO_LARGE, broker=1, delay=timedelta(milliseconds=300))
            await producer.send_and_wait("orders", b"elsewhere", partition=1)
            started = time.monotonic()
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait("orders", b"here", partition=0)
            return time.monotonic() - started

    kafka.create_topic("orders", partitions=2)
    assert do(scenario()) >= 0.3


def test_a_slow_broker_has_stored_what_its_client_gave_up_on_so_that_a_repetition_stores_it_twice(
    kafka: MockKafka,
) -> None:
    async def scenario() -> None:
        # Also for an idempotent producer: only transactional ones are checked.
        async with producer_of(
            kafka.bootstrap_servers, enable_idempotence=True, request_timeout_ms=300
        ) as producer:
            await producer.send_and_wait("orders", b"first", partition=0)
            kafka.slow_down(SECOND)
            waiting = await producer.send("orders", b"again", partition=0)
            async with consumer_of(kafka.bootstrap_servers) as consumer:
                partition = TopicPartition("orders", 0)

                async def stored() -> bool:
                    return (await consumer.end_offsets([partition]))[partition] == 2

                await eventually(stored)
                assert not waiting.done()
                kafka.slow_down(timedelta())
                await waiting
        assert await values_in(kafka.bootstrap_servers, "orders") == [b"first", b"again", b"again"]

    kafka.create_topic("orders", partitions=1)
    do(scenario())


# ---- starting and stopping


def test_topics_are_known_with_their_partitions(kafka: MockKafka) -> None:
    kafka.create_topics({"orders": 6, "payments": 1})
    assert kafka.topics == {"orders": 6, "payments": 1}
    kafka.delete_topic("payments")
    assert kafka.topics == {"orders": 6}


def test_several_clusters_stand_side_by_side(kafka: MockKafka) -> None:
    with MockKafka(brokers=1) as other:
        assert len(other.bootstrap_servers.split(",")) == 1
        assert len(kafka.bootstrap_servers.split(",")) == 3
        assert not set(other.bootstrap_servers.split(",")) & set(kafka.bootstrap_servers.split(","))


def test_it_listens_on_the_loopback_interface_only(kafka: MockKafka) -> None:
    listening = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    addresses = {line.split()[1] for line in listening if line.split()[3] == "0A"}
    for server in kafka.bootstrap_servers.split(","):
        port = f"{int(server.split(':')[1]):04X}"
        assert {address for address in addresses if address.endswith(f":{port}")} == {f"0100007F:{port}"}


def test_clients_can_be_told_another_address(kafka: MockKafka) -> None:
    async def scenario() -> dict[int, tuple[str, int]]:
        host, port = kafka.bootstrap_servers.split(",")[0].split(":")
        connection = await create_conn(host, int(port))
        metadata = await connection.send(MetadataRequest([]))
        await connection.close()
        return {number: (host, port) for number, host, port, *_ in metadata.brokers}

    before = kafka.bootstrap_servers
    kafka.advertise(2, "127.0.0.1", 4711)
    assert do(scenario())[2] == ("127.0.0.1", 4711)
    assert kafka.bootstrap_servers == before


def test_starting_and_stopping_again_does_no_harm() -> None:
    kafka = MockKafka(brokers=1)
    kafka.start()
    first = kafka.bootstrap_servers
    kafka.start()
    assert kafka.bootstrap_servers == first
    kafka.stop()
    kafka.stop()
    with pytest.raises(LabError, match="is not running: start it first"):
        _ = kafka.bootstrap_servers
    kafka.start()
    assert kafka.topics == {}
    kafka.stop()


def test_a_cluster_that_nobody_stops_does_not_hold_its_process_up() -> None:
    code = """
        from testyard.lab.servers.kafka_mock import MockKafka
        kafka = MockKafka()
        kafka.start()
        print(kafka.bootstrap_servers)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    host, port = finished.stdout.strip().split(",")[0].split(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
    assert finished.stderr == ""


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda it: it.create_topic("orders"),
            "create the topic 'orders': Broker: Topic already exists",
        ),
        (lambda it: it.delete_topic("payments"), "could not delete the topic 'payments': "),
        (
            lambda it: it.delete_records("orders", 0, 7),
            "delete records of 'orders' partition 0 before offset 7",
        ),
        (lambda it: it.take_broker_down(9), "could not take broker 9 down: "),
        (lambda it: it.bring_broker_up(9), "could not bring broker 9 up: "),
        (lambda it: it.slow_down(SECOND, broker=9), "could not slow down: "),
        (lambda it: it.fail_next(Api.FETCH, Failure.NONE, broker=9), "could not let broker 9 fail: "),
        (lambda it: it.fail_next(Api.FETCH, Failure.NONE, delay=SECOND), "needs the broker that it comes from"),
    ],
)
def test_what_cannot_be_done_is_told(kafka: MockKafka, ask: Any, said: str) -> None:
    kafka.create_topic("orders")
    with pytest.raises(LabError) as told:
        ask(kafka)
    assert said in str(told.value)


def test_a_missing_library_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library_module.librdkafka.cache_clear()
    monkeypatch.setattr(library_module, "find_spec", lambda _: None)
    with pytest.raises(
        LabError, match=r"needs the package confluent-kafka: pip install 'robotframework-testyard\[lab\]'"
    ):
        MockKafka().start()

    class Found:
        origin = str(tmp_path / "confluent_kafka" / "__init__.py")

    monkeypatch.setattr(library_module, "find_spec", lambda _: Found())
    with pytest.raises(LabError, match=r"built from source\. Install the wheel"):
        MockKafka().start()
