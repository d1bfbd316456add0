"""Clients for tests of Kafka, and something in front of a broker that does TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from testyard.core.loop_thread import LoopThread
from testyard.kafka.client import Kafka
from testyard.kafka.target import Target
from testyard.lab.servers.kafka_mock import MockKafka

# The mock brokers do not wake a waiting request up.
FETCH_WAIT_MS = 20
PATIENCE = 20
Result = TypeVar("Result")


def do(work: Coroutine[Any, Any, Result]) -> Result:
    """Run something on a loop of its own, to its end."""
    return asyncio.run(asyncio.wait_for(work, 3 * PATIENCE))


@asynccontextmanager
async def producer_of(bootstrap_servers: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that is stopped at the end."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, **options)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consumer_of(bootstrap_servers: str, *topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that reads from the oldest event, commits only when told to, and is stopped at the end."""
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": FETCH_WAIT_MS}
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap_servers, **{**settings, **options})
    # Stopped also when it is not let in.
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def read(consumer: AIOKafkaConsumer, count: int) -> list[ConsumerRecord[bytes, bytes]]:
    """The next events; in the order in which they come."""
    async with asyncio.timeout(PATIENCE):
        return [await consumer.getone() for _ in range(count)]


async def values_in(bootstrap_servers: str, topic: str) -> list[bytes | None]:
    """What is in a topic now, in order of partitions and offsets."""
    async with consumer_of(bootstrap_servers, topic) as consumer:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        records = await read(consumer, sum(ends[it] - beginnings[it] for it in partitions))
    return [record.value for record in sorted(records, key=lambda it: (it.partition, it.offset))]


async def eventually(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not (await held if isinstance(held := condition(), Awaitable) else held):
            await asyncio.sleep(0.01)


@contextmanager
def quiet_client() -> Iterator[None]:
    """The client says nothing while this lasts: one that is cut off says so again and again."""
    client = logging.getLogger("aiokafka")
    client.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        client.setLevel(logging.NOTSET)


@contextmanager
def open_kafka(cluster: MockKafka, **settings: Any) -> Iterator[Kafka]:
    """A connection to the mock cluster that is closed at the end."""
    loop = LoopThread("kafka under test")
    try:
        connection = Kafka(loop, Target(cluster.bootstrap_servers), **settings)
        try:
            yield connection
        finally:
            connection.close()
    finally:
        loop.stop()


def new_topic(cluster: MockKafka, partitions: int = 3) -> str:
    """A topic that no other test has."""
    name = f"topic-{uuid4().hex[:8]}"
    cluster.create_topic(name, partitions)
    return name


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def refusing_broker(code: int, said: str) -> Iterator[int]:
    """A broker that lets nobody in (SaslHandshake version 1, SaslAuthenticate version 0)."""
    loop = LoopThread("refusing broker")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def request() -> tuple[int, int]:
            (length,) = struct.unpack(">i", await reader.readexactly(4))
            api, _, correlation = struct.unpack(">hhi", (await reader.readexactly(length))[:8])
            return api, correlation

        apis = struct.pack(">ihhhhhhhhh", 3, 3, 0, 1, 17, 0, 1, 36, 0, 0)
        text = said.encode()
        answers = {
            18: struct.pack(">h", 0) + apis,
            17: struct.pack(">hi", 0, 1) + struct.pack(">h5s", 5, b"PLAIN"),
            36: struct.pack(">hh", code, len(text)) + text + struct.pack(">i", 0),
        }
        try:
            while True:
                api, correlation = await request()
                body = struct.pack(">i", correlation) + answers[api]
                writer.write(struct.pack(">i", len(body)) + body)
        except asyncio.IncompleteReadError:
            writer.close()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(answer, "127.0.0.1", 0)

    server = loop.run(listen())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.get_loop().call_soon_threadsafe(server.close)
        loop.stop()
