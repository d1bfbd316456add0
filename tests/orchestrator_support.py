"""The orchestrator and the reducer in tests: workflows as events, and a reducer without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import httpx
from anyio.from_thread import start_blocking_portal
from bridge_support import (
    BREAKER,
    ENVIRONMENT,
    Event,
    behind_a_proxy,
    called_here,
    events_of,
    migrated,
    proxy_to,
    running_bus,
    secrets_of,
    served,
    short_settings,
)
from fastapi import FastAPI
from pydantic import BaseModel
from testyard.lab.bridge.discovery.services import ONEXTREE, STAMPING
from testyard.lab.bridge.envelope import Envelope, SecurityContext, SigningKey
from testyard.lab.bridge.events import StateTransition, WorkflowEnded, WorkflowStarted, WorkflowState
from testyard.lab.bridge.node import Node, open_node, tracing_of
from testyard.lab.bridge.onextree.app import create_app as create_onextree
from testyard.lab.bridge.orchestrator.app import create_app as create_orchestrator
from testyard.lab.bridge.orchestrator.engine import Orchestrator
from testyard.lab.bridge.reducer.aggregation import Execution, execution_of
from testyard.lab.bridge.reducer.service import Reducer
from testyard.lab.bridge.settings import (
    BusSettings,
    ConsumerSettings,
    DiscoverySettings,
    OrchestratorSettings,
    Settings,
    StampingSettings,
)
from testyard.lab.bridge.stamping.app import create_app as create_stamping
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.kafka_mock import MockKafka

NAMESPACE = "omninode.services.metadata"
STARTED_AT = datetime(2024, 11, 4, 9, 30, tzinfo=UTC)
KEY = "the lab's signing key"

Told = tuple[Route, Envelope]

REDUCER = ConsumerSettings(
    group="reducer-group",
    poll=timedelta(milliseconds=200),
    fetch_wait=timedelta(milliseconds=10),
    session_timeout=timedelta(milliseconds=1500),
    heartbeat=timedelta(milliseconds=300),
)


# For what is a lot of work on a machine that is busy.
LONG = timedelta(minutes=2)
BUS = BusSettings(request_timeout=timedelta(seconds=5), breaker=BREAKER, look_after=timedelta(milliseconds=100))


def lab_settings(bootstrap_servers: str, directory: Path, **sections: Any) -> Settings:
    """The services' settings with short waits; sections as of ``short_settings``."""
    return short_settings(bootstrap_servers, directory, **{"bus": BUS, "reducer": REDUCER, **sections})


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
            "request": {"content": "# Readme", "file_path": "README.md", "namespace": self.namespace},
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
    async with open_node(tracing_of(service, settings), settings, secrets_of(url)) as node:
        yield node


@asynccontextmanager
async def reducing(node: Node, signing_key: SigningKey | None = None) -> AsyncIterator[Reducer]:
    """A reducer that runs."""
    reducer = Reducer(node, signing_key)
    async with reducer.running():
        yield reducer


# What is well is not taken for slow on a machine that is busy.
ORCHESTRATOR: dict[str, Any] = {
    "stamping_timeout": 20,
    "onextree_timeout": 20,
    "workflow_timeout": 40,
    "workflow_grace": 5,
    "breaker": {"failures": 5, "open_for": 0.4, "successes": 2, "probes": 3},
    "resume_after": 0.2,
}
WORKFLOWS = "/api/v1/workflows"


@dataclass
class Neighbours:
    """What an orchestrator works with: real services in a thread of their own.

    Attributes:
        kafka: The brokers, with all topics.
        url: The tables.
        stamping: Where the stamping service answers.
        onextree: Where OnexTree answers, which has read a project.
    """

    kafka: MockKafka
    url: str
    stamping: str
    onextree: str


@contextmanager
def neighbours(url: str, directory: Path) -> Iterator[Neighbours]:
    """Brokers, tables and services.

    Args:
        url: A database with nothing in it yet.
        directory: Where events wait.
    """
    with running_bus() as kafka, start_blocking_portal() as portal, ExitStack() as stack:
        # It is asked more often in a minute than it answers a stranger.
        many = StampingSettings(requests_per_minute=1_000_000)
        settings = lab_settings(kafka.bootstrap_servers, directory, stamping=many)
        stamping, onextree = (
            stack.enter_context(portal.wrap_async_context_manager(served(application)))
            for application in (create_stamping(settings, secrets_of(migrated(url))), create_onextree(settings))
        )
        project = {"project_root": str(Path(__file__).parent)}
        assert httpx.post(f"{onextree}/generate", json=project, timeout=20).status_code == 200
        yield Neighbours(kafka, url, stamping, onextree)


@dataclass
class Bench:
    """An orchestrator in this process, with its neighbours behind proxies that can be broken.

    Attributes:
        kafka: The brokers.
        settings: Of all services.
        application: The orchestrator.
        client: Calls it.
        stamping: Stands before the stamping service.
        onextree: Stands before OnexTree, which has read a project.
        database: Stands between the orchestrator and the tables.
    """

    kafka: MockKafka
    settings: Settings
    application: FastAPI
    client: httpx.AsyncClient
    stamping: FaultProxy
    onextree: FaultProxy
    database: FaultProxy

    async def run(self, content: str = "# Readme", expect: int = 200, **options: Any) -> dict[str, Any]:
        """Have a workflow run, and wait for its end."""
        body = {"content": content, "file_path": "README.md", **options}
        answer = await self.client.post(WORKFLOWS, json=body, timeout=60)
        assert answer.status_code == expect, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def told(self, workflow: dict[str, Any], at_least: int) -> list[Event]:
        """What a workflow has told, in order; waits until it is so much."""
        return await told_by(self.kafka, workflow["correlation_id"], at_least)

    async def event(self, route: Route, workflow: dict[str, Any]) -> Event:
        """The one event of a sort that belongs to a workflow."""
        (found,) = await events_about(self.kafka, {workflow["correlation_id"]}, [route], 1)
        return found

    @property
    def orchestrator(self) -> Orchestrator:
        """What runs the workflows."""
        found: Orchestrator = self.application.state.orchestrator
        return found

    @property
    def node(self) -> Node:
        """The orchestrator's process."""
        found: Node = self.application.state.node
        return found

    def breaker(self, name: str) -> dict[str, Any]:
        """What a breaker knows."""
        return self.node.breakers[name].metrics()


TOLD = (
    Route.WORKFLOW_STARTED,
    Route.STATE_TRANSITION,
    Route.STEP_COMPLETED,
    Route.WORKFLOW_COMPLETED,
    Route.WORKFLOW_FAILED,
)


async def told_by(kafka: MockKafka, correlation_id: str, at_least: int) -> list[Event]:
    """What a workflow has told, in order; waits until it is so much."""
    events = await events_about(kafka, {correlation_id}, TOLD, at_least)
    return sorted(events, key=lambda it: datetime.fromisoformat(it.envelope["timestamp"]))


async def events_about(
    kafka: MockKafka, correlation_ids: Collection[str], routes: Collection[Route], at_least: int
) -> list[Event]:
    """What is told of some workflows; waits until it is so much."""
    async with asyncio.timeout(LONG.total_seconds()):
        while True:
            events = [it for route in routes for it in await events_of(kafka, route, 0)]
            own = [it for it in events if it.envelope.get("correlation_id") in correlation_ids]
            if len(own) >= at_least:
                return own


def shape(events: list[Event]) -> list[str]:
    """What events say, in short."""
    return [_in_short(it.envelope["event_type"], it.payload) for it in events]


def _in_short(event_type: str, payload: dict[str, Any]) -> str:
    match event_type:
        case "STATE_TRANSITION":
            return f"{payload['from_state']} to {payload['to_state']}"
        case "STEP_COMPLETED":
            return f"{payload['step_name']} {payload['status']}"
        case _:
            return event_type


@asynccontextmanager
async def bench(
    around: Neighbours, directory: Path, *, consul: str | None = None, bus: BusSettings = BUS, **orchestrator: Any
) -> AsyncIterator[Bench]:
    """An orchestrator among its neighbours.

    Args:
        around: The neighbours.
        directory: Where its events wait.
        consul: Who says where the neighbours are; None: the settings do.
        bus: How it reaches Kafka.
        orchestrator: What differs from the settings above.
    """
    async with AsyncExitStack() as stack:
        proxies = [stack.enter_context(proxy_to(it)) for it in (around.stamping, around.onextree)]
        through, database = stack.enter_context(behind_a_proxy(around.url))
        settings = lab_settings(
            around.kafka.bootstrap_servers,
            directory,
            bus=bus,
            orchestrator=OrchestratorSettings.model_validate({**ORCHESTRATOR, **orchestrator}),
            discovery=DiscoverySettings(
                consul=consul,
                fallback={
                    name: f"http://{proxy.host}:{proxy.port}"
                    for name, proxy in zip((STAMPING, ONEXTREE), proxies, strict=True)
                },
            ),
        )
        application = create_orchestrator(settings, secrets_of(through))
        client = await stack.enter_async_context(called_here(application))
        yield Bench(around.kafka, settings, application, client, *proxies, database)
        for proxy in (*proxies, database):
            proxy.heal()
