"""Copies records from one Kafka cluster to another: two regions, each with a cluster of its own.

One mirror copies in one direction; two make regions that are both written to. A record tells where it has been by
its headers, one of each for every mirror that it came through:

- ``x-mirror-source``: the region that it was copied from,
- ``x-mirror-offset``: where it was there, as ``topic:partition:offset``.

A record that has been in a region is not copied there again. What a mirror has read is committed, for a consumer
group in the source cluster, after the target has acknowledged it: nothing is lost, and what was under way when
something broke may be copied twice. The mirror reads alone: that group has no members, and nobody is to join it.
The records of a partition are copied in their order, into the partition of the same number.

Source: MirrorMaker 2 (Kafka improvement proposal 382), which renames topics where this one has headers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from testyard.core.deadline import Deadline, wait_until
from testyard.lab.children import LabError
from testyard.lab.servers.loop_thread import LoopThread
from testyard.lab.waiting import Backoff, elapse

SOURCE_HEADER: Final = "x-mirror-source"
OFFSET_HEADER: Final = "x-mirror-offset"

Batch = Mapping[TopicPartition, Sequence[ConsumerRecord]]
Headers = tuple[tuple[str, bytes], ...]

BATCH_SIZE: Final = 256 * 1024
MOST_RECORDS: Final = 500
KEPT_DELAYS: Final = 100_000
_RETRY_AFTER: Final = timedelta(milliseconds=50)
_POLL: Final = timedelta(milliseconds=100)
# The leaders of partitions are asked for so often, as they change when a broker goes.
_METADATA_AGE: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MirrorFigures:
    """What a mirror has done since it was started.

    Attributes:
        copied: Records that the target has acknowledged.
        skipped: Records that had been in the target's region already.
        connected: How often it has connected to both clusters.
    """

    copied: int
    skipped: int
    connected: int


class KafkaMirror(LoopThread):
    """Copies the records of some topics, from the oldest one on, until it is stopped.

    The topics are expected to be in both clusters. When the target has fewer partitions, the remainder of the
    number says which one it is.

    Args:
        source: The bootstrap servers that are read from.
        target: The bootstrap servers that are written to.
        topics: Which topics.
        source_region: How the source's region is called; with ``target_region`` the name of the consumer group.
        target_region: How the target's region is called.
        fetch_wait: How long a broker that has nothing new keeps a request; the mock brokers keep it for so long
            also when something comes.
        request_timeout: After so long without an answer the mirror connects anew; ``stop`` may take as long while
            the target is away.

    Example:
        >>> with KafkaMirror(
        ...     europe.bootstrap_servers, america.bootstrap_servers, ["orders"],
        ...     source_region="europe", target_region="america",
        ... ) as mirror:                                                       # doctest: +SKIP
        ...     mirror.wait_until_level(timedelta(seconds=5))
    """

    def __init__(
        self,
        source: str,
        target: str,
        topics: Sequence[str],
        *,
        source_region: str,
        target_region: str,
        fetch_wait: timedelta = timedelta(milliseconds=10),
        request_timeout: timedelta = timedelta(seconds=3),
    ) -> None:
        super().__init__(f"mirror from {source_region} to {target_region}")
        if source_region == target_region:
            message = f"A mirror needs two regions, found {source_region!r} as source and as target."
            raise LabError(message)
        self.source_region = source_region
        self.target_region = target_region
        self.trouble: str | None = None
        self._source = source
        self._target = target
        self._topics = tuple(topics)
        self._fetch_wait = fetch_wait
        self._request_timeout = request_timeout
        self._copied = self._skipped = self._connected = 0
        self._delays: deque[timedelta] = deque(maxlen=KEPT_DELAYS)
        self._committed: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._open = asyncio.Event()
        self._mirroring: asyncio.Task[None] | None = None
        self._forwarding: asyncio.Task[None] | None = None

    @property
    def group(self) -> str:
        """The consumer group in the source cluster that tells how far the mirror is."""
        return f"mirror-{self.source_region}-to-{self.target_region}"

    @property
    def figures(self) -> MirrorFigures:
        """What it has done."""
        return MirrorFigures(self._copied, self._skipped, self._connected)

    @property
    def paused(self) -> bool:
        """Whether nothing is copied because ``pause`` said so."""
        return not self._open.is_set()

    def pause(self) -> None:
        """Cut the regions off from each other: after the return nothing is copied any more."""
        self._portal.call(self._pause)

    def resume(self) -> None:
        """Go on where the cut has been."""
        self._portal.call(self._open.set)

    def delays(self) -> list[timedelta]:
        """How long after its timestamp each copied record was acknowledged by the target; the last ones."""
        return list(self._delays)

    def lag(self) -> int:
        """How many records of the source, of all topics, have not been dealt with.

        Raises:
            LabError: The source is away, or the mirror has not connected yet.
        """
        return sum(self.lags().values())

    def lags(self) -> Mapping[tuple[str, int], int]:
        """How many records have not been dealt with, by topic and partition; errors as of ``lag``."""
        return self._portal.call(self._measure_lags)

    def wait_until_level(self, within: timedelta) -> None:
        """Wait until everything that is in the source is in the target.

        Args:
            within: Give up after this time.

        Raises:
            NotMetError: It takes longer; tells the lag, and what keeps the mirror.
        """

        def state() -> int | str:
            try:
                return self.lag()
            except LabError as problem:
                return str(problem)

        what = f"the {self._name} to have copied everything (its lag to be 0)"
        wait_until(state, lambda lag: lag == 0, Deadline(within), what)

    # On the loop.

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        self._open, self._forwarding = asyncio.Event(), None
        self._open.set()
        self._mirroring = asyncio.create_task(self._mirror_for_ever(), name=self._name)
        try:
            yield
        finally:
            self._mirroring.cancel()
            with suppress(asyncio.CancelledError):
                await self._mirroring

    async def _pause(self) -> None:
        self._open.clear()
        if self._forwarding is not None:
            await asyncio.wait([self._forwarding])

    async def _mirror_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with AsyncExitStack() as stack:
                    producer = await stack.enter_async_context(self._producer(self._target))
                    consumer = await stack.enter_async_context(self._reading())
                    self._connected += 1
                    backoff.reset()
                    while True:
                        await self._copy_some(consumer, producer)
            except (KafkaError, OSError) as problem:
                self.trouble = f"{type(problem).__name__}: {problem}"
                _log.warning("The %s connects anew: %s", self._name, self.trouble)
            await elapse(backoff.next())

    @asynccontextmanager
    async def _producer(self, servers: str) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(
            bootstrap_servers=servers,
            client_id=self.group,
            acks="all",
            max_batch_size=BATCH_SIZE,
            request_timeout_ms=_milliseconds(self._request_timeout),
            retry_backoff_ms=_milliseconds(_RETRY_AFTER),
            metadata_max_age_ms=_milliseconds(_METADATA_AGE),
        )
        try:
            await producer.start()
            yield producer
        finally:
            with suppress(KafkaError):
                await producer.stop()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of all partitions, at what was committed last; it is alone, so there is no group to join."""
        async with self._producer(self._source) as source:
            partitions = [
                TopicPartition(topic, number)
                for topic in self._topics
                for number in sorted(await source.partitions_for(topic))
            ]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._source,
            client_id=self.group,
            group_id=self.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_milliseconds(self._fetch_wait),
            request_timeout_ms=_milliseconds(self._request_timeout),
            retry_backoff_ms=_milliseconds(_RETRY_AFTER),
            metadata_max_age_ms=_milliseconds(_METADATA_AGE),
        )
        try:
            await consumer.start()
            consumer.assign(partitions)
            begin = await consumer.beginning_offsets(partitions)
            self._committed = {it: await consumer.committed(it) or begin[it] for it in partitions}
            self._consumer, self.trouble = consumer, None
            yield consumer
        finally:
            self._consumer = None
            with suppress(KafkaError):
                await consumer.stop()

    async def _copy_some(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        await self._open.wait()
        batch: Batch = await consumer.getmany(timeout_ms=_milliseconds(_POLL), max_records=MOST_RECORDS)
        if not batch:
            return
        # A pause that came meanwhile.
        await self._open.wait()
        self._forwarding = asyncio.create_task(self._forward(consumer, producer, batch))
        try:
            await asyncio.shield(self._forwarding)
        except asyncio.CancelledError:
            # What is under way comes to its end: it would be copied twice.
            with suppress(KafkaError):
                await self._forwarding
            raise

    async def _forward(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, batch: Batch) -> None:
        ends = await asyncio.gather(
            *(self._copy(producer, partition, records) for partition, records in batch.items()),
            return_exceptions=True,
        )
        for problem in filter(None, ends):
            raise problem
        done = {partition: records[-1].offset + 1 for partition, records in batch.items()}
        await consumer.commit(done)
        self._committed |= done

    async def _copy(
        self, producer: AIOKafkaProducer, partition: TopicPartition, records: Sequence[ConsumerRecord]
    ) -> None:
        """Copy records of one partition: batch after batch, so that none can overtake another one."""
        new = [it for it in records if not _has_been_in(self.target_region, it)]
        self._skipped += len(records) - len(new)
        target = partition.partition % len(await producer.partitions_for(partition.topic))
        while new:
            batch = producer.create_batch()
            taken = 0
            for record in new:
                headers = [*record.headers, *self._origin_of(record)]
                appended = batch.append(
                    key=record.key, value=record.value, timestamp=record.timestamp, headers=headers
                )
                if appended is None:
                    break
                taken += 1
            await (await producer.send_batch(batch, partition.topic, partition=target))
            now = datetime.now(UTC).timestamp() * 1000
            self._delays.extend(timedelta(milliseconds=now - it.timestamp) for it in new[:taken])
            self._copied += taken
            new = new[taken:]

    def _origin_of(self, record: ConsumerRecord) -> Headers:
        where = f"{record.topic}:{record.partition}:{record.offset}"
        return ((SOURCE_HEADER, self.source_region.encode()), (OFFSET_HEADER, where.encode()))

    async def _measure_lags(self) -> Mapping[tuple[str, int], int]:
        if self._mirroring is not None and self._mirroring.done():
            # It ends only by a defect.
            self._mirroring.result()
        consumer, committed = self._consumer, dict(self._committed)
        why = self.trouble or "it connects"
        if consumer is None:
            message = f"The lag of the {self._name} cannot be measured: {why}."
            raise LabError(message)
        try:
            ends: Mapping[TopicPartition, int] = await consumer.end_offsets(list(committed))
        except KafkaError as problem:
            message = f"The lag of the {self._name} cannot be measured: the source does not answer: {problem!r}."
            raise LabError(message) from None
        return {(it.topic, it.partition): max(0, end - committed[it]) for it, end in ends.items()}


def _has_been_in(region: str, record: ConsumerRecord) -> bool:
    return (SOURCE_HEADER, region.encode()) in record.headers


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
