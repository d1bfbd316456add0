"""The database adapter in tests: events of every route, a node without HTTP, and words to ask about its work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, SecretStr
from testyard.lab.bridge import events
from testyard.lab.bridge.adapter.app import SERVICE
from testyard.lab.bridge.adapter.service import Adapter
from testyard.lab.bridge.envelope import Envelope, SecurityContext, SigningKey
from testyard.lab.bridge.node import Node, open_node
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.topics import Route

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


@asynccontextmanager
async def running_adapter(
    settings: Settings, database_url: str, *, signing_key: SigningKey | None = None, more_topics: tuple[str, ...] = ()
) -> AsyncIterator[RunningAdapter]:
    """Run an adapter in this process, without its HTTP interface."""
    secrets = Secrets(database_url=SecretStr(database_url))
    async with open_node(SERVICE, settings, secrets) as node:
        adapter = Adapter(node, signing_key, more_topics)
        async with adapter.running():
            yield RunningAdapter(adapter, node)


def short_settings(bootstrap_servers: str, directory: Path, **adapter: Any) -> Settings:
    """Settings with which nothing takes long."""
    breaker = {"failures": 3, "open_for": 0.2, "successes": 2, "probes": 3}
    return Settings.model_validate(
        {
            "environment": "test",
            "bootstrap_servers": bootstrap_servers,
            "outbox_directory": str(directory),
            "bus": {"request_timeout": 1, "retry_backoff": 0.05, "look_after": 0.1},
            "database": {"timeout": 1, "breaker": breaker},
            "adapter": {
                "group": f"adapter-{uuid4().hex[:8]}",
                "poll": 0.1,
                "fetch_wait": 0.01,
                "session_timeout": 1,
                "heartbeat": 0.2,
                "retry_backoff": 0.02,
                "retry_longest": 0.1,
                **adapter,
            },
        }
    )


PATIENCE = timedelta(seconds=20)
