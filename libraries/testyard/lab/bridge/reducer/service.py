"""The reducer's loop: read a batch, persist what it says, tell it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID, uuid5

import psycopg
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from pydantic import BaseModel, ValidationError

from testyard.core.deadline import Deadline
from testyard.lab.bridge.breaker import CircuitOpenError
from testyard.lab.bridge.ending import end_tasks
from testyard.lab.bridge.envelope import Envelope, SigningError, SigningKey
from testyard.lab.bridge.events import StateAggregationCompleted, StateTransition
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.outage import Outage
from testyard.lab.bridge.reducer.aggregation import CONSUMED, Execution, NotReducibleError, aggregate, execution_of
from testyard.lab.bridge.reducer.store import ACTIVE, Offsets, Totals, persist, read_offsets, read_totals
from testyard.lab.bridge.topics import Route
from testyard.lab.database import DATABASE_TROUBLE
from testyard.lab.waiting import Backoff, elapse

Value = TypeVar("Value")

Batch = Mapping[TopicPartition, Sequence[ConsumerRecord]]

COUNTED: Final = ("events", "workflows", "not_understood", "refused")
STOPS_WITHIN: Final = timedelta(seconds=1)
"""How long leaving the consumer group may take; the brokers may be away."""

_AWAY: Final = (*DATABASE_TROUBLE, CircuitOpenError)
_REFUSED: Final = (psycopg.DataError, psycopg.IntegrityError)
_FOR_EVER_MS: Final = 2**31 - 1

_log = logging.getLogger(__name__)


class Reducer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Aggregates the orchestrator's events.

    Args:
        node: The tables, and publishes what was aggregated.
        signing_key: Envelopes must be signed with it; None: they need not be.

    Attributes:
        counts: Events that were read, workflows that were counted, events that were not understood, and those that
            the tables refuse.
    """

    def __init__(self, node: Node, signing_key: SigningKey | None = None) -> None:
        self.counts = Counter(dict.fromkeys(COUNTED, 0))
        self._node = node
        self._signing_key = signing_key
        self._settings = node.settings.reducer
        self._routes = {route.topic(node.settings.environment): route for route in CONSUMED}
        self._kafka = Outage("Kafka")
        self._database = Outage("the database")
        self._consumer: AIOKafkaConsumer | None = None
        self._leaving: asyncio.Task[None] | None = None
        # Since partitions were assigned last, nobody has looked where to go on.
        self._must_seek = False
        node.degraded_for.append(self._kafka.reasons)
        node.unhealthy_for.append(self._database.reasons)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reduce for the length of a block, whatever is away meanwhile.

        Raises:
            ExceptionGroup: It could not go on.
        """
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            reducing = tasks.create_task(self._reduce_for_ever(), name="reduce")
            # First the task ends, which may take some attempts that would each interrupt what leaves the group.
            stack.push_async_callback(self._leave)
            stack.push_async_callback(end_tasks, [reducing])
            yield

    async def _reduce_for_ever(self) -> None:
        await self._tell_again()
        backoff = Backoff()
        while True:
            self._consumer = consumer = self._new_consumer()
            try:
                await consumer.start()
                self._kafka.is_over()
                backoff.reset()
                consumer.subscribe(list(self._routes), listener=self)
                while True:
                    await self._reduce_next(consumer)
            except KafkaError as problem:
                self._kafka.goes_on(repr(problem))
            await self._leave()
            await elapse(backoff.next())

    async def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._leaving = asyncio.create_task(_stop(consumer), name="leave the group")
        if self._leaving is not None:
            await asyncio.wait([self._leaving])

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        return AIOKafkaConsumer(
            bootstrap_servers=self._node.settings.bootstrap_servers,
            client_id=self._node.instance,
            group_id=settings.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_milliseconds(settings.fetch_wait),
            session_timeout_ms=_milliseconds(settings.session_timeout),
            heartbeat_interval_ms=_milliseconds(settings.heartbeat),
            # A database that is away must not make it leave the group.
            max_poll_interval_ms=_FOR_EVER_MS,
            retry_backoff_ms=_milliseconds(self._node.settings.bus.retry_backoff),
            metadata_max_age_ms=_milliseconds(settings.session_timeout),
        )

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Nothing: a batch is persisted with its offsets, or not at all."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Remember to look where to go on; the consumer could not be stopped while this waited for the tables."""
        self._must_seek = True

    async def _reduce_next(self, consumer: AIOKafkaConsumer) -> None:
        batch = await self._gather(consumer)
        if self._must_seek:
            self._must_seek = False
            await self._go_on_where_the_tables_say(consumer)
        elif batch:
            await self._reduce(consumer, batch)

    async def _gather(self, consumer: AIOKafkaConsumer) -> Batch:
        """What one poll brings, and what follows soon."""
        batch: defaultdict[TopicPartition, list[ConsumerRecord]] = defaultdict(list)
        polled = await self._poll(consumer, self._settings.poll)
        deadline = Deadline(self._settings.gather)
        while polled:
            for partition, records in polled.items():
                batch[partition] += records
            is_full = sum(map(len, batch.values())) >= self._settings.poll_records
            polled = {} if is_full or deadline.expired else await self._poll(consumer, deadline.remaining)
        return batch

    async def _poll(self, consumer: AIOKafkaConsumer, patience: timedelta) -> Batch:
        polled: Batch = await consumer.getmany(
            timeout_ms=_milliseconds(patience), max_records=self._settings.poll_records
        )
        return polled

    async def _go_on_where_the_tables_say(self, consumer: AIOKafkaConsumer) -> None:
        known = await self._when_the_database_is_there(lambda: read_offsets(self._node.pool, list(self._routes)))
        for partition in consumer.assignment():
            consumer.seek(partition, known.get((partition.topic, partition.partition), 0))

    async def _reduce(self, consumer: AIOKafkaConsumer, batch: Batch) -> None:
        read = [self._read(self._routes[it.topic], record) for it, records in batch.items() for record in records]
        ends = {it: records[-1].offset + 1 for it, records in batch.items()}
        records = [record for some in batch.values() for record in some]
        with self._node.tracing.consumer_spans(records, self._settings.group):
            await self._persist_and_tell(read, {(it.topic, it.partition): end for it, end in ends.items()})
        # Only for those who look at the group's lag: the tables say where to go on.
        with suppress(KafkaError):
            await consumer.commit(ends)

    async def _persist_and_tell(self, read: Sequence[Execution | None], offsets: Offsets) -> None:
        totals = await self._persist([it for it in read if it is not None], offsets)
        self.counts["events"] += len(read)
        self.counts["workflows"] += sum(total.workflows for total in totals)
        for total in totals:
            await self._tell(total)

    def _read(self, route: Route, record: ConsumerRecord) -> Execution | None:
        try:
            envelope = Envelope.model_validate_json(record.value or b"")
            if self._signing_key is not None:
                envelope.verify(self._signing_key)
            return execution_of(route, envelope)
        except (ValidationError, SigningError, NotReducibleError):
            # The database adapter reads the same topics and dead-letters what cannot be understood.
            self.counts["not_understood"] += 1
            return None

    async def _persist(self, told: Sequence[Execution], offsets: Offsets) -> list[Totals]:
        """Persist what a batch says, without the events that the tables refuse."""
        environment = self._node.settings.environment
        try:
            return await self._when_the_database_is_there(
                lambda: persist(self._node.pool, environment, aggregate(told), offsets)
            )
        except _REFUSED as problem:
            if not told:
                raise
            if len(told) == 1:
                _log.warning("the tables refuse an event of the workflow %s: %s", told[0].workflow_id, problem)
                self.counts["refused"] += 1
                return await self._persist([], offsets)
        # The offsets go with the last part: until then, all of it is read again after a crash.
        half = len(told) // 2
        return await self._persist(told[:half], {}) + await self._persist(told[half:], offsets)

    async def _when_the_database_is_there(self, work: Callable[[], Awaitable[Value]]) -> Value:
        backoff = Backoff()
        while True:
            try:
                with self._node.database_breaker.call(*_REFUSED):
                    done = await work()
            except _REFUSED:
                raise
            except _AWAY as problem:
                self._database.goes_on(problem)
            else:
                self._database.is_over()
                return done
            await elapse(backoff.next())

    async def _tell_again(self) -> None:
        """Tell the totals as they are: a crash may have come between the last ones and their publication.

        The events have the ids that they had, so that who has stored them stores them once.
        """
        environment = self._node.settings.environment
        totals = await self._when_the_database_is_there(lambda: read_totals(self._node.pool, environment))
        await asyncio.gather(*(self._tell(total) for total in totals))

    async def _tell(self, total: Totals) -> None:
        if total.is_new:
            first = StateTransition(
                entity_id=str(total.bridge_id),
                entity_type="bridge",
                to_state=ACTIVE,
                transition_event="first_aggregation",
                transition_data={"namespace": total.namespace},
            )
            await self._publish(Route.REDUCER_STATE_TRANSITION, first, total.bridge_id, ACTIVE)
        completed = StateAggregationCompleted(
            bridge_id=total.bridge_id,
            namespace=total.namespace,
            workflows=total.workflows,
            items=total.items,
            total_workflows_processed=total.total_workflows,
            total_items_aggregated=total.total_items,
        )
        # Every aggregation has added something, so the total tells it from all others.
        what = f"total {total.total_workflows}"
        await self._publish(Route.STATE_AGGREGATION_COMPLETED, completed, total.bridge_id, what)

    async def _publish(self, route: Route, payload: BaseModel, bridge_id: UUID, what: str) -> None:
        try:
            await self._node.publisher.publish(
                route, payload, partition_key=str(bridge_id), event_id=uuid5(bridge_id, what)
            )
        except (KafkaError, OSError) as problem:
            # It is in the tables; the next aggregation, or the next start, tells it.
            _log.error("an aggregation could not be told: %s", problem)

    def metrics(self) -> dict[str, Any]:
        """What ``/metrics`` tells; JSON values."""
        return {**self.counts, "publisher": self._node.publisher.metrics()}


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(STOPS_WITHIN.total_seconds()):
            await consumer.stop()
    except (KafkaError, TimeoutError):
        # The group does without being told. The connections are closed last, and nothing has come to that.
        await consumer._client.close()


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
