"""The adapter's work: read ahead, store, dead-letter, commit; in this order for each record, for ever.

Four tasks share one consumer. One reads and checks records while the database is still busy with those before; one
stores them; one writes what is to be dead-lettered; one commits, so that none of them waits for it. When the
database is away the inbox runs full and nothing is read any more; heartbeats go on, and the member keeps its
partitions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from testyard.lab.bridge.adapter.dead_letters import DeadLetter, DeadLetters, milliseconds
from testyard.lab.bridge.adapter.figures import ErrorType, Figures
from testyard.lab.bridge.adapter.inbox import POLLS_PER_BATCH, Batch, Commits, Inbox
from testyard.lab.bridge.adapter.postbox import Postbox
from testyard.lab.bridge.adapter.reading import Reader
from testyard.lab.bridge.adapter.store import Store
from testyard.lab.bridge.outage import Outage
from testyard.lab.bridge.settings import ConsumerSettings, Settings
from testyard.lab.bridge.tracing import NO_TRACING, Tracing
from testyard.lab.waiting import Backoff, elapse, happens

# A database that is away must not make a member leave its group.
_FOR_EVER_MS: Final = 2**31 - 1
_HAND_OVER_WITHIN: Final = 3
"""The share of the session's timeout, in which what is in flight may end before partitions are given up."""

_log = logging.getLogger(__name__)


class Consumption(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One membership of the consumer group, from its beginning to its end.

    Args:
        consumer: Reads for it; started, and stopped by whoever started it.
        settings: How it consumes.
        topics: What is read.
        reader: Makes events of records.
        store: Takes events.
        dead_letters: Takes what is none.
        figures: Counts.
        tracing: Says which traces records belong to.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        settings: ConsumerSettings,
        topics: Collection[str],
        *,
        reader: Reader,
        store: Store,
        dead_letters: DeadLetters,
        figures: Figures,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._consumer = consumer
        self._tracing = tracing
        self._settings = settings
        self._store = store
        self._topics = topics
        self._inbox = Inbox(self._settings.poll_records * POLLS_PER_BATCH, reader)
        self._commits = Commits()
        self._postbox = Postbox(dead_letters, figures, lambda letter: self._commits.close(letter.record))
        self._coordinator = Outage("the coordinator of the consumer group")
        # Tells what was read before partitions were given up from what was read after.
        self._assignment = 0
        self._in_flight = 0
        self._reads = asyncio.Event()
        self._reads.set()
        self._settled = asyncio.Event()
        self._settled.set()

    async def run(self) -> None:
        """Work until cancelled, or until the consumer fails.

        Raises:
            ExceptionGroup: Of ``KafkaError``: Kafka refuses this member.
        """
        self._consumer.subscribe(list(self._topics), listener=self)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_for_ever(), name="read")
            tasks.create_task(self._store_for_ever(), name="store")
            tasks.create_task(self._postbox.write_for_ever(), name="dead letters")
            tasks.create_task(self._commit_for_ever(), name="commit")

    async def finish(self, within: timedelta) -> bool:
        """Read no more; whether everything that was read is stored and committed in time."""
        self._reads.clear()
        return await happens(self._settled, within)

    # Partitions come and go.

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Store and commit what is in flight; what cannot be in time is read again by who gets the partition."""
        del revoked  # All of them are given up, and some may come back.
        await self.finish(self._settings.session_timeout / _HAND_OVER_WITHIN)
        self._assignment += 1
        self._inbox.clear()
        self._postbox.clear()
        self._commits.clear()
        self._settle()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Go on reading, from where the group has committed."""
        del assigned
        self._reads.set()

    def _settle(self) -> None:
        if self.read_ahead == 0 and not self._commits.pending():
            self._settled.set()

    # Reading.

    async def _read_for_ever(self) -> None:
        while True:
            await self._inbox.room()
            await self._reads.wait()
            records = await self._consumer.getmany(
                timeout_ms=milliseconds(self._settings.poll), max_records=self._settings.poll_records
            )
            if records:
                self._settled.clear()
                self._inbox.add(records)

    # Storing.

    async def _store_for_ever(self) -> None:
        while True:
            batch = await self._inbox.take(self._settings.gather)
            self._in_flight = batch.records
            try:
                await self._settle_batch(batch, self._assignment)
            finally:
                self._in_flight = 0
            self._settle()

    async def _settle_batch(self, batch: Batch, assignment: int) -> None:
        with self._tracing.consumer_spans([event.record for event in batch.events], self._settings.group):
            refused = await self._store.store(batch.events)
        letters = batch.letters + [
            DeadLetter(it.event.record, ErrorType.DATABASE_OPERATION_FAILED, it.reason, it.retries)
            for it in refused
        ]
        if assignment == self._assignment:
            self._commits.allow(batch.ends, [letter.record for letter in letters])
            self._postbox.add(letters)
            await self._postbox.room()

    # Committing.

    async def _commit_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            await self._commits.changed.wait()
            self._commits.changed.clear()
            if await self._commit():
                backoff.reset()
                self._settle()
            else:
                await elapse(backoff.next())
                self._commits.changed.set()

    async def _commit(self) -> bool:
        """Commit what may be; whether nothing is left to be tried again."""
        own = self._consumer.assignment()
        ends = {partition: end for partition, end in self._commits.pending().items() if partition in own}
        if not ends:
            return True
        try:
            await self._consumer.commit(ends)
        except (CommitFailedError, IllegalStateError) as problem:
            # The partitions are another member's, or about to be: it reads again what was not committed.
            _log.warning("the group has rebalanced before a commit: %r", problem)
            self._commits.give_up()
            return True
        except KafkaError as problem:
            self._coordinator.goes_on(repr(problem))
            return False
        self._coordinator.is_over()
        self._commits.committed(ends)
        return True

    @property
    def read_ahead(self) -> int:
        """How many records were read and are neither stored nor dead-lettered yet."""
        return len(self._inbox) + self._in_flight + len(self._postbox)

    def partitions(self) -> dict[str, dict[str, int | None]]:
        """What ``/metrics`` tells of each partition: its end, what is committed, and how much lies between."""
        told: dict[str, dict[str, int | None]] = {}
        for partition in sorted(self._consumer.assignment()):
            end, committed = self._consumer.highwater(partition), self._commits.position(partition)
            told[f"{partition.topic}-{partition.partition}"] = {
                "end": end,
                "committed": committed,
                "lag": None if end is None or committed is None else end - committed,
            }
        return told


def new_consumer(settings: Settings, instance: str) -> AIOKafkaConsumer:
    """A consumer in the adapter's group, not yet started.

    Args:
        settings: Of all services.
        instance: The process.
    """
    own = settings.adapter
    return AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        client_id=instance,
        group_id=own.group,
        enable_auto_commit=False,
        # What was published before the group first read is not lost either.
        auto_offset_reset="earliest",
        session_timeout_ms=milliseconds(own.session_timeout),
        heartbeat_interval_ms=milliseconds(own.heartbeat),
        max_poll_interval_ms=_FOR_EVER_MS,
        fetch_max_wait_ms=milliseconds(own.fetch_wait),
        retry_backoff_ms=milliseconds(settings.bus.retry_backoff),
        metadata_max_age_ms=milliseconds(own.session_timeout),
    )
