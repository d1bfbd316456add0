"""The database adapter in tests: events of every route, a node without HTTP, and words to ask about its work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.structs import RecordMetadata
from bridge_support import ENVIRONMENT, PATIENCE, rows, running_bus, secrets_of, short_settings, until
from kafka_support import consumer_of, producer_of, read
from pydantic import BaseModel
from testyard.lab.bridge import events
from testyard.lab.bridge.adapter.app import SERVICE
from testyard.lab.bridge.adapter.service import Adapter
from testyard.lab.bridge.envelope import Envelope, SecurityContext
from testyard.lab.bridge.node import Node, open_node, tracing_of
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.tables import migrate
from testyard.lab.bridge.topics import Route, dead_letter_topic
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.waiting import elapse

HASH_LENGTH = 64
NAMESPACE = "omninode.services.metadata"


def new_hash() -> str:
    """A file hash that no other file has."""
    return (uuid4().hex + uuid4().hex)[:HASH_LENGTH]


def payload_of(route: Route, workflow: UUID, **changes: Any) -> BaseModel:
    """What is published to a route, about a workflow where it is about one."""
    now = datetime.now(UTC)
    model, values = _PAYLOADS[route]
    about: dict[str, Any] = {
        "workflow_id": workflow,
        "entity_id": str(workflow),
        "started_at": now,
        "completed_at": now,
        "created_at": now,
        "sent_at": now,
        "stamp_id": uuid4(),
        "file_hash": new_hash(),
        "bridge_id": uuid4(),
        "node_id": f"node-{workflow}",
    }
    return model.model_validate({**about, **values, **changes})


_ENDED: dict[str, Any] = {"namespace": NAMESPACE, "execution_time_ms": 12.5, "result": {"file_hash": "0" * 64}}
_TRANSITION = {
    "entity_type": "workflow",
    "from_state": "PENDING",
    "to_state": "PROCESSING",
    "transition_event": "workflow_started",
    "transition_data": {"attempt": 1, "namespace": NAMESPACE},
}
_PAYLOADS: dict[Route, tuple[type[events.Payload], dict[str, Any]]] = {
    Route.WORKFLOW_STARTED: (
        events.WorkflowStarted,
        {"namespace": NAMESPACE, "request": {"file_path": "/data/models/weather/2026/11/forecast.py"}},
    ),
    Route.WORKFLOW_COMPLETED: (events.WorkflowEnded, _ENDED),
    Route.WORKFLOW_FAILED: (events.WorkflowEnded, {**_ENDED, "error_message": "timeout"}),
    Route.STEP_COMPLETED: (
        events.StepCompleted,
        {
            "step_name": "hash_generation",
            "step_order": 2,
            "status": "completed",
            "execution_time_ms": 1.25,
            "step_data": {"file_path": "/data/models/weather/2026/11/forecast.py", "size": 4096},
        },
    ),
    Route.STATE_TRANSITION: (events.StateTransition, _TRANSITION),
    Route.REDUCER_STATE_TRANSITION: (
        events.StateTransition,
        {**_TRANSITION, "entity_type": "bridge", "from_state": None, "to_state": "ACTIVE"},
    ),
    Route.METADATA_STAMPED: (
        events.MetadataStamped,
        {
            "file_path": "/data/models/weather/2026/11/forecast.py",
            "file_size_bytes": 4096,
            "execution_time_ms": 1.5,
            "content_type": "text/x-python",
            "stamp_data": {"stamp_type": "lightweight"},
        },
    ),
    Route.STATE_AGGREGATION_COMPLETED: (
        events.StateAggregationCompleted,
        {
            "namespace": NAMESPACE,
            "workflows": 1,
            "items": 1,
            "total_workflows_processed": 10,
            "total_items_aggregated": 10,
        },
    ),
    Route.NODE_INTROSPECTION: (
        events.NodeIntrospection,
        {
            "node_type": "orchestrator",
            "node_version": "1.0.0",
            "capabilities": {"workflows": ["metadata_stamping"]},
            "endpoints": {"health": "http://localhost:8060/health"},
            "metadata": {"region": "eu"},
        },
    ),
    Route.NODE_HEARTBEAT: (events.NodeHeartbeat, {"health_status": "HEALTHY"}),
}


def envelope_of(
    route: Route, workflow: UUID | None = None, *, envelope: dict[str, Any] | None = None, **changes: Any
) -> Envelope:
    """An event as a service publishes it.

    Args:
        route: What sort of event.
        workflow: What it is about; None: a new one.
        envelope: What differs in the envelope.
        changes: What differs in the payload.
    """
    about = workflow or uuid4()
    given: dict[str, Any] = {
        "event_type": route.event_type,
        "correlation_id": about,
        "causation_id": uuid4(),
        "source_service": route.service,
        "source_instance": f"{route.service}-machine-1-4711",
        "environment": "test",
        "security_context": SecurityContext(actor_id=route.service, session_id=f"session-{about}"),
        "payload": payload_of(route, about, **changes).model_dump(mode="json"),
        "metadata": {"attempt": 1},
    }
    return Envelope(**{**given, **(envelope or {})})


WORKFLOW_ROUTES = (
    Route.WORKFLOW_STARTED,
    Route.STATE_TRANSITION,
    *[Route.STEP_COMPLETED] * 4,
    Route.METADATA_STAMPED,
    Route.STATE_TRANSITION,
    Route.WORKFLOW_COMPLETED,
    Route.STATE_AGGREGATION_COMPLETED,
)
"""What a workflow with four steps publishes, in its order."""


def events_of_workflows(count: int) -> Iterator[tuple[UUID, Route, Envelope]]:
    """The events of some workflows, one workflow after the other: which workflow, which route, which event."""
    for _ in range(count):
        workflow = uuid4()
        for route in WORKFLOW_ROUTES:
            yield workflow, route, envelope_of(route, workflow)


@dataclass
class RunningAdapter:
    """An adapter that works.

    Attributes:
        adapter: It.
        node: Its tables and breakers.
    """

    adapter: Adapter
    node: Node

    async def has_handled(self, records: int) -> None:
        """Wait until so many records are stored, dead-lettered or known to be there already."""

        def handled() -> bool:
            metrics = self.adapter.metrics()
            return bool(metrics["stored"] + metrics["duplicates"] + metrics["dead_lettered"] >= records)

        await until(handled, f"{records} records are handled")


@asynccontextmanager
async def running_adapter(
    settings: Settings, database_url: str, *, signing_key: str | None = None, more_topics: tuple[str, ...] = ()
) -> AsyncIterator[RunningAdapter]:
    """Run an adapter in this process, without its HTTP interface."""
    secrets = secrets_of(database_url, signing_key)
    async with open_node(tracing_of(SERVICE, settings), settings, secrets) as node:
        adapter = Adapter(node, secrets.signing_key, more_topics)
        async with adapter.running():
            yield RunningAdapter(adapter, node)


def adapter_settings(bootstrap_servers: str, directory: Path, **adapter: Any) -> Settings:
    """Settings with which nothing takes long; every call has a consumer group of its own.

    Args:
        bootstrap_servers: Kafka.
        directory: The test's own.
        adapter: How it consumes, where that is to be different.
    """
    quick = {
        "group": f"adapter-{uuid4().hex[:8]}",
        "poll": 0.1,
        "fetch_wait": 0.01,
        # A busy machine must not end a session; one that is to end soon is asked for.
        "session_timeout": 15,
        "heartbeat": 0.5,
        "retry_backoff": 0.02,
        "retry_longest": 0.1,
    }
    return short_settings(bootstrap_servers, directory, adapter={**quick, **adapter})


ONE_AFTER_THE_OTHER = pytest.mark.parametrize(
    "bench", [{"session_timeout": 3, "heartbeat": 0.3}], indirect=True, ids=["short session"]
)
"""For adapters that come after another one: the mock brokers let them wait until its session is over."""


@dataclass
class Bench:
    """Kafka, a database with the services' tables, and somebody who publishes.

    Attributes:
        kafka: The brokers.
        url: The database.
        settings: What adapters run with.
        producer: Publishes.
    """

    kafka: MockKafka
    url: str
    settings: Settings
    producer: AIOKafkaProducer

    @asynccontextmanager
    async def adapter(self, **arguments: Any) -> AsyncIterator[RunningAdapter]:
        """Run an adapter in this process."""
        async with running_adapter(self.settings, self.url, **arguments) as running:
            yield running

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> RecordMetadata:
        """Publish any record; its timestamp is in milliseconds since 1970."""
        return await self.producer.send_and_wait(
            topic, value, key=key, headers=headers, partition=partition, timestamp_ms=timestamp
        )

    async def publish(self, route: Route, *envelopes: Envelope) -> list[RecordMetadata]:
        """Publish events, in this order; one of a new workflow when none is given."""
        sending = [
            await self.producer.send(route.topic(ENVIRONMENT), it.to_bytes(), key=it.key.encode())
            for it in envelopes or (envelope_of(route),)
        ]
        return [await it for it in sending]

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What stands in the database."""
        return rows(self.url, statement, *parameters)

    def count(self, table: str) -> int:
        """How many rows a table has."""
        [(number,)] = self.rows(f"SELECT count(*) FROM {table}")
        return int(number)

    def execute(self, statement: str, *parameters: Any) -> None:
        """Change something in the database."""
        with psycopg.connect(self.url) as connection:
            connection.execute(statement, parameters)

    def know(self, *workflows: UUID) -> None:
        """Write workflows, as the reducer does."""
        self.execute(KNOWN_WORKFLOWS, list(workflows))

    async def dead_letters(self, topic: str, count: int) -> list[ConsumerRecord]:
        """The dead letters of a topic, which must be so many."""
        async with consumer_of(self.kafka.bootstrap_servers, dead_letter_topic(topic)) as consumer:
            letters = await read(consumer, count)
            ends = await consumer.end_offsets(consumer.assignment())
        assert sum(ends.values()) == count
        return letters

    async def committed(self, topic: str) -> dict[int, int | None]:
        """What the adapter's group has committed of a topic, by partition."""
        partitions = [TopicPartition(topic, number) for number in range(self.kafka.topics[topic])]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers,
            group_id=self.settings.adapter.group,
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            return {it.partition: await consumer.committed(it) for it in partitions}
        finally:
            await consumer.stop()

    async def commits(self, topic: str, records: int) -> None:
        """Wait until the group has committed so many records of a topic."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while sum(it or 0 for it in (await self.committed(topic)).values()) != records:
                await elapse(timedelta(milliseconds=10))


KNOWN_WORKFLOWS = """
    INSERT INTO workflow_executions (id, correlation_id, workflow_type, current_state, namespace, started_at)
    SELECT id, id, 'metadata_stamping', 'PROCESSING', 'omninode.services.metadata', now()
    FROM unnest(%s::uuid[]) AS id"""


@asynccontextmanager
async def open_bench(url: str, directory: Path, **adapter: Any) -> AsyncIterator[Bench]:
    """Everything that an adapter needs; the database is migrated."""
    await migrate(url)
    with running_bus() as kafka:
        settings = adapter_settings(kafka.bootstrap_servers, directory, **adapter)
        async with producer_of(kafka.bootstrap_servers) as producer:
            yield Bench(kafka, url, settings, producer)
