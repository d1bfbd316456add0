"""The reducer's loop: read a batch, persist what it says, tell it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from pydantic import ValidationError

from testyard.lab.bridge.breaker import CircuitOpenError
from testyard.lab.bridge.envelope import Envelope
from testyard.lab.bridge.events import StateAggregationCompleted, StateTransition
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.reducer.aggregation import CONSUMED, Execution, NotReducibleError, aggregate, execution_of
from testyard.lab.bridge.reducer.store import Offsets, Totals, persist, read_offsets
from testyard.lab.bridge.topics import Route
from testyard.lab.database import DatabaseUnavailableError
from testyard.lab.waiting import Backoff, elapse

Value = TypeVar("Value")

Batch = Mapping[TopicPartition, Sequence[ConsumerRecord]]

_AWAY: Final = (DatabaseUnavailableError, CircuitOpenError)
_FOR_EVER_MS: Final = 2**31 - 1

_log = logging.getLogger(__name__)


class Reducer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Aggregates the orchestrator's events.

    Args:
        node: The tables, and publishes what was aggregated.

    Attributes:
        counts: Events and workflows, persisted and not understood.
    """

    def __init__(self, node: Node) -> None:
        self.counts: Counter[str] = Counter()
        self._node = node
        self._settings = node.settings.reducer
        self._routes = {route.topic(node.settings.environment): route for route in CONSUMED}
        self._consumer: AIOKafkaConsumer | None = None

    async def run(self) -> None:
        """Reduce until cancelled, whatever is away meanwhile."""
        backoff = Backoff()
        while True:
            consumer = self._new_consumer()
            try:
                await consumer.start()
                self._consumer = consumer
                backoff.reset()
                consumer.subscribe(list(self._routes), listener=self)
                while True:
                    await self._reduce(consumer, await self._next(consumer))
            except KafkaError as problem:
                _log.warning("Kafka: %s", problem)
            finally:
                self._consumer = None
                with suppress(KafkaError):
                    await consumer.stop()
            await elapse(backoff.next())

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
        """Go on where the tables say, which is never behind what was committed to the bus."""
        consumer = self._consumer
        known = await self._when_the_database_is_there(lambda: read_offsets(self._node.pool, list(self._routes)))
        for partition in assigned:
            offset = known.get((partition.topic, partition.partition))
            if consumer is not None and offset is not None:
                consumer.seek(partition, offset)

    async def _next(self, consumer: AIOKafkaConsumer) -> Batch:
        batch: Batch = await consumer.getmany(
            timeout_ms=_milliseconds(self._settings.poll), max_records=self._settings.poll_records
        )
        return batch

    async def _reduce(self, consumer: AIOKafkaConsumer, batch: Batch) -> None:
        if not batch:
            return
        told = (self._read(self._routes[it.topic], record) for it, records in batch.items() for record in records)
        executions = aggregate(it for it in told if it is not None)
        offsets = {(it.topic, it.partition): records[-1].offset + 1 for it, records in batch.items()}
        totals = await self._persist(executions, offsets)
        self.counts["events"] += sum(map(len, batch.values()))
        await consumer.commit({it: records[-1].offset + 1 for it, records in batch.items()})
        for total in totals:
            self.counts["workflows"] += total.workflows
            await self._tell(total)

    def _read(self, route: Route, record: ConsumerRecord) -> Execution | None:
        try:
            return execution_of(route, Envelope.model_validate_json(record.value or b""))
        except (ValidationError, NotReducibleError):
            # The database adapter reads the same topics and dead-letters what cannot be understood.
            self.counts["not_understood"] += 1
            return None

    async def _persist(self, executions: list[Execution], offsets: Offsets) -> list[Totals]:
        return await self._when_the_database_is_there(
            lambda: persist(self._node.pool, self._node.settings.environment, executions, offsets)
        )

    async def _when_the_database_is_there(self, work: Callable[[], Awaitable[Value]]) -> Value:
        backoff = Backoff()
        while True:
            try:
                with self._node.database_breaker.call():
                    return await work()
            except _AWAY as problem:
                _log.warning("the database is away: %s", problem)
            await elapse(backoff.next())

    async def _tell(self, total: Totals) -> None:
        publisher = self._node.publisher
        if total.is_new:
            first = StateTransition(
                entity_id=str(total.bridge_id),
                entity_type="bridge",
                to_state="ACTIVE",
                transition_event="first_aggregation",
                transition_data={"namespace": total.namespace},
            )
            await publisher.publish(Route.REDUCER_STATE_TRANSITION, first, partition_key=str(total.bridge_id))
        completed = StateAggregationCompleted(
            bridge_id=total.bridge_id,
            namespace=total.namespace,
            workflows=total.workflows,
            items=total.items,
            total_workflows_processed=total.total_workflows,
            total_items_aggregated=total.total_items,
        )
        await publisher.publish(Route.STATE_AGGREGATION_COMPLETED, completed, partition_key=str(total.bridge_id))


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
