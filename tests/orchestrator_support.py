"""The orchestrator and the reducer in tests: workflows as events, and a reducer without HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

from bridge_support import ENVIRONMENT, secrets_of, short_settings
from pydantic import BaseModel
from testyard.lab.bridge.envelope import Envelope, SecurityContext, SigningKey
from testyard.lab.bridge.events import StateTransition, WorkflowEnded, WorkflowStarted, WorkflowState
from testyard.lab.bridge.node import Node, open_node
from testyard.lab.bridge.reducer.aggregation import Execution, execution_of
from testyard.lab.bridge.reducer.service import Reducer
from testyard.lab.bridge.settings import ConsumerSettings, Settings
from testyard.lab.bridge.topics import Route

NAMESPACE = "omninode.services.metadata"
STARTED_AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
KEY = "the lab's signing key"

Told = tuple[Route, Envelope]

REDUCER = ConsumerSettings(
    group="reducer-group",
    poll=timedelta(milliseconds=200),
    fetch_wait=timedelta(milliseconds=10),
    session_timeout=timedelta(milliseconds=1500),
    heartbeat=timedelta(milliseconds=300),
)


def lab_settings(bootstrap_servers: str, directory: Path, **sections: Any) -> Settings:
    """The services' settings with short waits; sections as of ``short_settings``."""
    return short_settings(bootstrap_servers, directory, **{"reducer": REDUCER, **sections})


class Story:
    """What one workflow tells.

    Args:
        namespace: Whose it is.
        items: How many files it is about.
    """

    def __init__(self, namespace: str = NAMESPACE, items: int = 1) -> None:
        self.correlation_id = uuid4()
        self.namespace = namespace
        self.items = items

    @property
    def workflow_id(self) -> UUID:
        """Its row."""
        return uuid5(self.correlation_id, "workflow")

    def told(self, route: Route, payload: BaseModel, instance: str = "orchestrator-1") -> Told:
        """One event of it."""
        envelope = Envelope(
            event_type=route.event_type,
            correlation_id=self.correlation_id,
            source_service="orchestrator",
            source_instance=instance,
            environment=ENVIRONMENT,
            security_context=SecurityContext(actor_id="orchestrator"),
            payload=payload.model_dump(mode="json"),
        )
        return route, envelope.signed(SigningKey(KEY))

    def start(self, **changes: Any) -> Told:
        """It was taken on."""
        given = {
            "workflow_id": self.workflow_id,
            "namespace": self.namespace,
            "items": self.items,
            "started_at": STARTED_AT,
            "request": {"content": "# Readme", "file_path": "README.md"},
        }
        return self.told(Route.WORKFLOW_STARTED, WorkflowStarted.model_validate({**given, **changes}))

    def transition(
        self, state: WorkflowState = WorkflowState.PROCESSING, instance: str = "orchestrator-1", **data: Any
    ) -> Told:
        """It has changed its state."""
        told = {
            "namespace": self.namespace,
            "workflow_type": "metadata_stamping",
            "items": self.items,
            "started_at": STARTED_AT.isoformat(),
        }
        payload = StateTransition(
            entity_id=str(self.workflow_id),
            entity_type="workflow",
            from_state="PENDING",
            to_state=state.value,
            transition_event="workflow_started",
            transition_data={**told, **data},
        )
        return self.told(Route.STATE_TRANSITION, payload, instance)

    def end(
        self, error: str | None = None, after: float = 0.025, instance: str = "orchestrator-1", **changes: Any
    ) -> Told:
        """It has ended, so many seconds after its start."""
        given = {
            "workflow_id": self.workflow_id,
            "namespace": self.namespace,
            "items": self.items,
            "started_at": STARTED_AT,
            "completed_at": STARTED_AT + timedelta(seconds=after),
            "execution_time_ms": after * 1000,
            "error_message": error,
            "result": {"told_by": instance},
        }
        route = Route.WORKFLOW_COMPLETED if error is None else Route.WORKFLOW_FAILED
        return self.told(route, WorkflowEnded.model_validate({**given, **changes}), instance)

    def whole(self) -> list[Told]:
        """All of it that the reducer reads, in order."""
        return [self.start(), self.transition(), self.transition(WorkflowState.COMPLETED), self.end()]


def execution(told: Told) -> Execution:
    """What the reducer makes of an event that it understands."""
    found = execution_of(*told)
    assert found is not None
    return found


async def tell(node: Node, *events: Told) -> None:
    """Publish events, one after the other."""
    for route, envelope in events:
        await node.publisher.deliver(route.topic(ENVIRONMENT), envelope)


@asynccontextmanager
async def opened(settings: Settings, url: str, service: str = "reducer") -> AsyncIterator[Node]:
    """What every service has."""
    async with open_node(service, settings, secrets_of(url)) as node:
        yield node


@asynccontextmanager
async def reducing(node: Node, signing_key: SigningKey | None = None) -> AsyncIterator[Reducer]:
    """A reducer that runs."""
    reducer = Reducer(node, signing_key)
    async with reducer.running():
        yield reducer
