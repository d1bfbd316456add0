"""The bridge's publisher in a test: brokers and a database that come and go, and what arrives in Kafka."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from testyard.lab.bridge.breaker import BreakerSettings, BreakerState, CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.envelope import Envelope
from testyard.lab.bridge.outbox import Outbox
from testyard.lab.bridge.publisher import Delivery, Publisher
from testyard.lab.bridge.settings import BusSettings, DatabaseSettings, Settings
from testyard.lab.bridge.tables import migrate, open_tables
from testyard.lab.database import Pool
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.waiting import elapse

PATIENCE = timedelta(seconds=60)
TOPIC = "dev.omninode-bridge.orchestrator.state-transition.v1"
PARTITIONS = 3
FAILURES = 5
# Other tests may keep the machine busy: a time limit that matters is short only where one is to be met.
DATABASE_TIMEOUT = timedelta(seconds=10)
DATABASE_BREAKER = BreakerSettings(failures=1, open_for=timedelta(minutes=10), successes=1)
BUS = BusSettings(
    request_timeout=timedelta(seconds=1),
    retry_backoff=timedelta(milliseconds=50),
    breaker=BreakerSettings(failures=5, open_for=timedelta(milliseconds=300), successes=3),
    look_after=timedelta(milliseconds=100),
)


async def until(holds: Callable[[], bool], what: str, within: timedelta = PATIENCE) -> None:
    """Wait for a condition."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            while not holds():
                await elapse(timedelta(milliseconds=2))
    except TimeoutError:
        message = f"not within {within.total_seconds():g} s: {what}"
        raise AssertionError(message) from None


def event(number: int, key: str | None = None, **payload: Any) -> Envelope:
    """One event, numbered in its payload."""
    return Envelope(
        event_type="STATE_TRANSITION",
        source_service="orchestrator",
        environment="dev",
        partition_key=key or f"key-{number}",
        payload={"number": number, **payload},
    )


@dataclass(frozen=True)
class Record:
    """One record as a consumer sees it."""

    number: int
    key: str
    event_id: str
    partition: int
    at_ms: int
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


@dataclass
class Arrived:
    """Everything that is in a topic."""

    records: list[Record] = field(default_factory=list)

    @property
    def numbers(self) -> set[int]:
        """The events' numbers."""
        return {it.number for it in self.records}

    @property
    def doubled(self) -> int:
        """How many records there are more than events."""
        return len(self.records) - len({it.event_id for it in self.records})

    def of_key(self, key: str) -> list[int]:
        """The numbers of the events of one key, in the order of their offsets, doubles left out."""
        return list(dict.fromkeys(it.number for it in self.records if it.key == key))

    def reordered(self) -> dict[str, list[int]]:
        """The keys whose events are not in the order of their numbers."""
        keys = {it.key: self.of_key(it.key) for it in self.records}
        return {key: numbers for key, numbers in keys.items() if numbers != sorted(numbers)}

    def most_in_a_second(self) -> int:
        """How many records came within any one second."""
        times = sorted(it.at_ms for it in self.records)
        return max(sum(1 for other in times[index:] if other - first < 1000) for index, first in enumerate(times))


async def arrived(kafka: MockKafka, topic: str = TOPIC) -> Arrived:
    """Read a topic from its beginning to its end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, retry_backoff_ms=50)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(kafka.topics[topic])]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        read = Arrived()
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while any([await consumer.position(it) < ends[it] for it in partitions]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    read.records += [_record(it) for it in records]
        return read
    finally:
        await consumer.stop()


def _record(given: ConsumerRecord[bytes, bytes]) -> Record:
    told = json.loads(given.value)
    number = told["payload"].get("number", -1)
    headers = tuple(given.headers)
    return Record(
        number, given.key.decode(), told["event_id"], given.partition, given.timestamp, headers, given.value
    )


@dataclass
class Database:
    """A database that can be taken away: for its clients and, at once, for their circuit breaker."""

    url: str
    through: str
    proxy: FaultProxy
    breaker: CircuitBreaker = field(default_factory=lambda: CircuitBreaker("database", DATABASE_BREAKER))

    def away(self) -> None:
        """Take it away."""
        self.proxy.refuse()
        with suppress(ConnectionError, CircuitOpenError), self.breaker.call():
            raise ConnectionError
        assert self.breaker.state is BreakerState.OPEN

    def back(self) -> None:
        """Bring it back."""
        self.proxy.heal()
        self.breaker.reset()

    def ask(self, question: LiteralString) -> int:
        """Ask it for a number, not through the proxy."""
        with psycopg.connect(self.url) as connection:
            (number,) = connection.execute(question).fetchone() or (0,)
            return int(number)

    def stored(self) -> int:
        """How many events the outbox's table has."""
        return self.ask("SELECT count(*) FROM outbox")

    @asynccontextmanager
    async def pool(self, timeout: timedelta = DATABASE_TIMEOUT) -> AsyncIterator[Pool]:
        """Connections."""
        async with open_tables(self.through, DatabaseSettings(timeout=timeout), "test") as pool:
            yield pool


@asynccontextmanager
async def new_database(url: str) -> AsyncIterator[Database]:
    """The tables in a database with nothing in it."""
    await migrate(url)
    parts = urlsplit(url)
    with FaultProxy(parts.hostname or "", parts.port or 0) as proxy:
        through = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}")
        database = Database(url, urlunsplit(through), proxy)
        yield database
        database.back()


def settings_of(bootstrap_servers: str, directory: Path, **bus: Any) -> Settings:
    """Settings with short waits."""
    return Settings(
        bootstrap_servers=bootstrap_servers,
        outbox_directory=directory,
        bus=BusSettings.model_validate({**BUS.model_dump(), **bus}),
    )


@asynccontextmanager
async def open_outbox(
    database: Database, pool: Pool, directory: Path, service: str = "orchestrator"
) -> AsyncIterator[Outbox]:
    """One process's outbox."""
    outbox = Outbox(pool, database.breaker, service, directory)
    await outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


@asynccontextmanager
async def open_publisher(
    database: Database, settings: Settings, service: str = "orchestrator"
) -> AsyncIterator[Publisher]:
    """One process's publisher."""
    async with database.pool() as pool:
        outbox = Outbox(pool, database.breaker, service, settings.outbox_directory)
        async with Publisher(settings, service, f"{service}-1", outbox) as publisher:
            yield publisher


async def deliver(publisher: Publisher, *events: Envelope, topic: str = TOPIC) -> Counter[Delivery]:
    """Publish events all at once; how many were sent and how many wait."""
    return Counter(await asyncio.gather(*(publisher.deliver(topic, it) for it in events)))


async def replayed(publisher: Publisher, within: timedelta = PATIENCE) -> None:
    """Wait until nothing waits any more."""
    outbox = publisher.outbox
    await until(lambda: outbox.is_known and not len(outbox), "the outbox is empty", within)


async def fail(publisher: Publisher, numbers: Iterable[int]) -> None:
    """Publish in vain until the breaker opens."""
    events = [event(number) for number in itertools.islice(numbers, FAILURES)]
    assert await deliver(publisher, *events[1:]) == {Delivery.WAITING: FAILURES - 1}
    assert publisher.breaker.state is BreakerState.CLOSED
    assert await deliver(publisher, events[0]) == {Delivery.WAITING: 1}
    # Or half open again, on a machine that has a lot to do.
    assert publisher.breaker.state is not BreakerState.CLOSED


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


@asynccontextmanager
async def new_stage(url: str, directory: Path) -> AsyncIterator[Stage]:
    """Brokers that are up, and tables with nothing in them."""
    with MockKafka() as kafka:
        kafka.create_topic(TOPIC, PARTITIONS)
        async with new_database(url) as database, AsyncExitStack() as stack:
            yield Stage(kafka, database, directory, stack)
            kafka.up()


def calls(publisher: Publisher) -> int:
    """How often the publisher's breaker was asked."""
    return int(publisher.breaker.metrics()["totals"]["calls"])
