"""Clients of a real Kafka for tests, and what was published while it was broken."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from testyard.lab.servers.kafka_install import missing_kafka
from testyard.lab.waiting import elapse

ANSWER_SECONDS = 30
NEEDS_KAFKA = pytest.mark.skipif(bool(missing_kafka()), reason=missing_kafka())


@asynccontextmanager
async def producer(bootstrap_servers: str, **settings: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that has started; idempotent, so that every replica has what it acknowledges."""
    settings = {"enable_idempotence": True, **settings}
    client = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, **settings)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def consumer(bootstrap_servers: str, *topics: str, **settings: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that has started, from the beginning."""
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **settings}
    client = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap_servers, **settings)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


async def stored(bootstrap_servers: str, topic: str, **settings: Any) -> list[bytes]:
    """The values of all records that a topic has, as a reader without a group finds them."""
    values: list[bytes] = []
    async with consumer(bootstrap_servers, **settings) as client:
        partitions = [TopicPartition(topic, number) for number in await partitions_of(client, topic)]
        client.assign(partitions)
        ends = await client.end_offsets(partitions)
        async with asyncio.timeout(ANSWER_SECONDS):
            while any([await client.position(partition) < end for partition, end in ends.items()]):
                for records in (await client.getmany(timeout_ms=200)).values():
                    values += [record.value for record in records]
    return values


async def partitions_of(client: AIOKafkaConsumer, topic: str) -> list[int]:
    """The partitions of a topic."""
    client.subscribe([topic])
    await client._client.force_metadata_update()
    found = sorted(client.partitions_for_topic(topic) or [])
    client.unsubscribe()
    return found


@dataclass
class Load:
    """What is published at a rate in the background.

    Attributes:
        acknowledged: The values that the cluster has acknowledged.
        refused: How many it has not.
    """

    client: AIOKafkaProducer
    topic: str
    per_second: int
    acknowledged: list[bytes] = field(default_factory=list)
    refused: list[BaseException] = field(default_factory=list)
    _under_way: set[asyncio.Future[Any]] = field(default_factory=set)
    _published: int = 0
    _stopping: bool = False

    async def publish(self) -> None:
        """Publish until ``stop``, in steps of ten milliseconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._stopping:
            while self._published < (loop.time() - began) * self.per_second:
                await self._publish_one()
            await elapse(timedelta(milliseconds=10))
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=ANSWER_SECONDS)
        # What was waited for is noted in the next turn of the loop.
        await elapse(timedelta())
        assert not self._under_way, f"{len(self._under_way)} records have got no answer"

    def stop(self) -> None:
        """Publish no more; ``publish`` then waits for the answers."""
        self._stopping = True

    async def at_least(self, more: int) -> None:
        """Wait until so many more records are acknowledged than now."""
        wanted = len(self.acknowledged) + more
        async with asyncio.timeout(ANSWER_SECONDS):
            while len(self.acknowledged) < wanted:
                await elapse(timedelta(milliseconds=10))

    async def _publish_one(self) -> None:
        value = b"%d" % self._published
        self._published += 1
        answer = await self.client.send(self.topic, value, key=b"%d" % (self._published % 16))
        self._under_way.add(answer)
        answer.add_done_callback(lambda done: self._note(done, value))

    def _note(self, done: asyncio.Future[Any], value: bytes) -> None:
        self._under_way.discard(done)
        problem = done.exception()
        if problem is None:
            self.acknowledged.append(value)
        else:
            self.refused.append(problem)


def lost_and_doubled(acknowledged: list[bytes], found: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What was acknowledged but is not there, and what is there twice."""
    counts = Counter(found)
    return [value for value in acknowledged if value not in counts], [
        it for it, count in counts.items() if count > 1
    ]


def java_processes(parent: int) -> list[psutil.Process]:
    """The brokers that a process has started, by their guards, with the guards."""
    return psutil.Process(parent).children(recursive=True)
