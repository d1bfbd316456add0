"""One connection to Kafka: what is published, asked and created through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, KafkaTimeoutError
from aiokafka.protocol.metadata import MetadataRequest

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import UserError
from testyard.core.loop_thread import LoopThread
from testyard.kafka.ending import CLOSE_TIMEOUT, end_client
from testyard.kafka.event import PARTITION_MARK, partition_called
from testyard.kafka.problems import (
    REFUSALS,
    CannotConnectError,
    CredentialRefusedError,
    NoAnswerError,
    UnsupportedRequestError,
    reason,
    unknown_topic,
)
from testyard.kafka.target import Target

Result = TypeVar("Result")

CONNECT_TIMEOUT = timedelta(seconds=10)
ANSWER_TIMEOUT = timedelta(seconds=10)


class Compression(Enum):
    """How batches of events are compressed."""

    GZIP = "gzip"
    LZ4 = "lz4"
    SNAPPY = "snappy"
    ZSTD = "zstd"


# Whether what they need is installed.
CODECS = {
    Compression.GZIP: has_gzip,
    Compression.LZ4: has_lz4,
    Compression.SNAPPY: has_snappy,
    Compression.ZSTD: has_zstd,
}


@dataclass(frozen=True)
class ProducerSettings:
    """How events are sent.

    Attributes:
        idempotent: Whether a request that is repeated is written once; the brokers have to play along.
        compression: None: none.
        request_timeout: How long a broker may take to answer before the request is repeated.
    """

    idempotent: bool = True
    compression: Compression | None = None
    request_timeout: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        if self.compression and not CODECS[self.compression]():
            message = (
                f"Events cannot be compressed by {self.compression.value}: its library is not installed "
                f"(pip install 'aiokafka[{self.compression.value}]')."
            )
            raise UserError(message)

    @property
    def options(self) -> dict[str, Any]:
        """What aiokafka's producer needs. An event is acknowledged by all replicas that are in sync."""
        return {
            "acks": "all",
            "enable_idempotence": self.idempotent,
            "compression_type": self.compression.value if self.compression else None,
            "request_timeout_ms": round(self.request_timeout.total_seconds() * 1000),
        }


class Connection:
    """Some brokers, and the clients that talk to them on the loop's thread.

    Args:
        loop: The thread.
        target: The brokers.
        producing: How events are sent.
        within: Give up connecting after this time.

    Raises:
        CannotConnectError: No broker answers, or the credentials are refused.
    """

    def __init__(
        self,
        loop: LoopThread,
        target: Target,
        *,
        producing: ProducerSettings | None = None,
        within: timedelta = CONNECT_TIMEOUT,
    ) -> None:
        self.loop = loop
        self.target = target
        self.options = target.options
        self._producing = producing or ProducerSettings()
        self._stack = AsyncExitStack()
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}
        self._admin: AIOKafkaAdminClient
        self._reader: AIOKafkaConsumer
        loop.run(self._open(within))

    def close(self) -> None:
        """End every connection. What was not acknowledged by then may still have been written."""
        if self.loop.is_running:
            self.loop.run(self._stack.aclose())
        self._producer = None

    def ask(
        self,
        question: Callable[[], Awaitable[Result]],
        what: str,
        within: timedelta = ANSWER_TIMEOUT,
        *,
        repeatable: bool = True,
    ) -> Result:
        """Ask the brokers, again and again as long as they only say that they cannot answer yet.

        Args:
            question: Asks once, on the loop's thread.
            what: What is asked for, after "could not".
            within: Give up after this time.
            repeatable: Whether asking again does no harm.

        Raises:
            NoAnswerError: They did not answer in time.
            UnsupportedRequestError: They do not know what they are asked.
            UserError: They refuse.
        """
        deadline = Deadline(within)

        async def once() -> Result:
            async with asyncio.timeout(max(deadline.remaining.total_seconds(), 0.1)):
                return await question()

        while True:
            try:
                return self.loop.run(once())
            except IncompatibleBrokerVersion:
                message = f"{self.target} could not {what}: its brokers do not know that request."
                raise UnsupportedRequestError(message) from None
            except (KafkaError, OSError) as problem:
                passing = isinstance(problem, OSError | KafkaTimeoutError) or problem.retriable
                if passing and repeatable and not deadline.expired:
                    deadline.pause()
                    continue
                message = f"{self.target} could not {what}: {reason(problem)}."
                if passing:
                    message = f"{message[:-1]} (tried for {seconds(deadline.elapsed)})."
                    raise NoAnswerError(message) from None
                raise UserError(message) from None

    def topics(self) -> dict[str, int]:
        """The topics with their numbers of partitions; Kafka's own are left out."""
        described = self.ask(self._admin.describe_topics, "list its topics")
        self._partitions = {topic["topic"]: len(topic["partitions"]) for topic in described}
        return {name: count for name, count in self._partitions.items() if not name.startswith("__")}

    def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """The partitions of some topics, in order.

        Raises:
            UnknownTopicError: There is no such topic; it is not created by asking.
        """
        self.require_topics(topics)
        return [TopicPartition(topic, number) for topic in topics for number in range(self._partitions[topic])]

    def partitions_of(self, place: str) -> list[TopicPartition]:
        """The partition that is called so, such as ``orders/0``, or all partitions of the topic that is.

        Raises:
            UserError: There is no such topic or partition.
        """
        if PARTITION_MARK in place:
            return self.chosen_partitions(*partition_called(place))
        return self.partitions([place])

    def chosen_partitions(self, topic: str, number: int | None) -> list[TopicPartition]:
        """One partition of a topic, or all of them when no number is given.

        Raises:
            UnknownTopicError: There is no such topic.
            UserError: It has no such partition.
        """
        partitions = self.partitions([topic])
        if number is None:
            return partitions
        if not 0 <= number < len(partitions):
            message = f"The topic {topic!r} has no partition {number}; it has 0 to {len(partitions) - 1}."
            raise UserError(message)
        return [partitions[number]]

    def require_topics(self, topics: Iterable[str]) -> None:
        """Make sure that topics are there: brokers that create what they are asked for would hide a misspelt name.

        Raises:
            UnknownTopicError: One is not; lists those there are.
        """
        if all(topic in self._partitions for topic in topics):
            return
        self.topics()
        for topic in topics:
            if topic not in self._partitions:
                raise unknown_topic(topic, self._partitions)

    def forget_topics(self) -> None:
        """Ask again which topics there are, when that matters next."""
        self._partitions = {}

    def beginnings(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset of each partition that is still there."""
        return self._offsets(lambda: self._reader.beginning_offsets(partitions), partitions, "first")

    def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of each partition that the next event will get."""
        return self._offsets(lambda: self._reader.end_offsets(partitions), partitions, "last")

    def offsets_at(self, partitions: Sequence[TopicPartition], moment_ms: int) -> dict[TopicPartition, int]:
        """The offset of each partition's first event from a moment on, or its end when there is none.

        Args:
            partitions: The partitions.
            moment_ms: The moment, in milliseconds since 1970.
        """
        asked = dict.fromkeys(partitions, moment_ms)
        found = self.ask(lambda: self._reader.offsets_for_times(asked), "tell offsets by time")
        ends = self.ends(partitions)
        return {it: found[it].offset if found.get(it) else ends[it] for it in partitions}

    @property
    def admin(self) -> AIOKafkaAdminClient:
        """The client for administration; for use on the loop's thread."""
        return self._admin

    def producer(self) -> AIOKafkaProducer:
        """The client that sends; made when first asked for, and anew when a broker has failed an event.

        Raises:
            NoAnswerError: No broker answers.
        """
        if self._producer is None:
            self._producer = self.ask(self._new_producer, "take a producer")
        return self._producer

    def new_transactional_producer(self, transactional_id: str) -> AIOKafkaProducer:
        """A client that sends in transactions; whoever else has its id is fenced off.

        Args:
            transactional_id: The producer's id, by which the brokers know it again.

        Raises:
            UserError: The brokers do not let it.
        """
        return self.ask(
            lambda: self._new_producer(transactional_id=transactional_id), "take a transactional producer"
        )

    def replace_producer(self) -> None:
        """Forget the client that sends: after a failure its sequence numbers are not those that brokers expect."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            self.loop.run(end_client(producer))

    # On the loop's thread.

    async def _open(self, within: timedelta) -> None:
        async with AsyncExitStack() as stack:
            deadline = Deadline(within)
            advertised = await _reach(self.target, self.options, self.target.servers, deadline)
            await _reach(self.target, self.options, advertised, deadline, advertised=True)
            self._admin = AIOKafkaAdminClient(**self.options, request_timeout_ms=_milliseconds(ANSWER_TIMEOUT))
            stack.push_async_callback(self._admin.close)
            self._reader = AIOKafkaConsumer(**self.options, request_timeout_ms=_milliseconds(ANSWER_TIMEOUT))
            stack.push_async_callback(end_client, self._reader)
            try:
                await self._admin.start()
                await self._reader.start()
            except KafkaError as problem:
                message = f"Cannot connect to {self.target}: {reason(problem)}."
                raise CannotConnectError(message) from None
            self._stack = stack.pop_all()

    async def _new_producer(self, **more: Any) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(**self.options, **self._producing.options, **more)
        try:
            await producer.start()
        except BaseException:
            await end_client(producer)
            raise
        self._stack.push_async_callback(end_client, producer)
        return producer

    def _offsets(
        self,
        question: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
        partitions: Sequence[TopicPartition],
        which: str,
    ) -> dict[TopicPartition, int]:
        found = self.ask(question, f"tell the {which} offsets") if partitions else {}
        return {partition: found[partition] for partition in partitions}


async def _reach(
    target: Target,
    options: Mapping[str, Any],
    servers: Sequence[str],
    deadline: Deadline,
    *,
    advertised: bool = False,
) -> list[str]:
    """Make sure that one of some brokers lets us in, as aiokafka only logs why none does.

    Returns:
        What the brokers of the cluster call themselves.

    Raises:
        CannotConnectError: None does; says why, for each.
    """
    settings = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    problems: dict[str, Exception] = {}
    for server in servers:
        host, _, port = server.rpartition(":")
        remaining = max(_milliseconds(deadline.remaining) // (len(servers) - len(problems)), 100)
        connection = AIOKafkaConnection(host.strip("[]"), int(port), request_timeout_ms=remaining, **settings)
        try:
            async with asyncio.timeout(remaining / 1000):
                await connection.connect()
                metadata = await connection.send(MetadataRequest([]))
        except OSError as problem:
            problems[server] = problem
        except KafkaError as problem:
            await _close(connection)
            problems[server] = problem
        else:
            await _close(connection)
            return [f"{host}:{port}" for _, host, port, *_ in metadata.brokers]
        finally:
            # Also when this is interrupted; one that was not made has no end to wait for.
            connection.close()
    told = {server: reason(problem) for server, problem in problems.items()}
    # When all say the same, it is said once: the target has their names.
    alike = len(set(told.values())) == 1 and not advertised
    reasons = next(iter(told.values())) if alike else "; ".join(f"{it}: {why}" for it, why in told.items())
    if any(isinstance(problem, REFUSALS) for problem in problems.values()):
        message = f"The credentials were refused by {target}: {reasons}."
        raise CredentialRefusedError(message)
    if advertised:
        message = (
            f"{target} answers, but its brokers call themselves by addresses that cannot be reached from here "
            f"(advertised.listeners): {reasons}."
        )
        raise CannotConnectError(message)
    message = f"Cannot connect to {target}: {reasons}."
    raise CannotConnectError(message)


async def _close(connection: AIOKafkaConnection) -> None:
    """Close a connection that was made, which over TLS takes another word from the broker."""
    await asyncio.wait([connection.close()], timeout=CLOSE_TIMEOUT.total_seconds())


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
