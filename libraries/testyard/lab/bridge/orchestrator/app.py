"""The orchestrator's HTTP interface, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from testyard.lab.bridge.node import VERSION, open_node, operations
from testyard.lab.bridge.onextree_client import OnextreeClient
from testyard.lab.bridge.orchestrator import bus_api
from testyard.lab.bridge.orchestrator.engine import Orchestrator
from testyard.lab.bridge.orchestrator.recovery import resume_for_ever
from testyard.lab.bridge.orchestrator.services import Services
from testyard.lab.bridge.orchestrator.workflow import WorkflowRequest
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.stamping_client import StampingClient
from testyard.lab.bridge.topics import Route
from testyard.lab.database import fetch

SERVICE: Final = "orchestrator"
LARGEST_BATCH: Final = 1000

STORED: Final = """
    SELECT id AS workflow_id, correlation_id, current_state AS state, namespace, started_at, completed_at,
        execution_time_ms, error_message
    FROM workflow_executions WHERE id = %(id)s"""

router = APIRouter(prefix="/api/v1/workflows")


class Batch(BaseModel):
    """Several workflows at once.

    Attributes:
        workflows: What each is asked to do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workflows: Annotated[list[WorkflowRequest], Field(min_length=1, max_length=LARGEST_BATCH)]


def orchestrator_of(request: Request) -> Orchestrator:
    """The orchestrator of the application that a request came to."""
    found: Orchestrator = request.app.state.orchestrator
    return found


@router.post("")
async def run(request: Request, wanted: WorkflowRequest, response: Response, wait: bool = True) -> dict[str, Any]:
    """Take a workflow on, and answer when it has ended, or at once with 202."""
    orchestrator = orchestrator_of(request)
    workflow = await orchestrator.accept(wanted)
    if wait:
        await orchestrator.end_of(workflow)
    else:
        response.status_code = 202
    return workflow.answer()


@router.post("/batch", status_code=202)
async def run_batch(request: Request, batch: Batch) -> dict[str, Any]:
    """Take several workflows on; answers when all of them would outlive a crash."""
    orchestrator = orchestrator_of(request)
    accepted = await asyncio.gather(*(orchestrator.accept(each) for each in batch.workflows))
    return {
        "workflows": [
            {"workflow_id": str(it.workflow_id), "correlation_id": str(it.correlation_id)} for it in accepted
        ]
    }


@router.get("/{workflow_id}")
async def read(request: Request, workflow_id: UUID) -> dict[str, Any]:
    """How a workflow is."""
    found = orchestrator_of(request).find(workflow_id)
    if found is not None:
        return found.answer()
    rows = await fetch(request.app.state.node.pool, STORED, {"id": workflow_id})
    if not rows:
        raise HTTPException(404, f"There is no workflow {workflow_id}.")
    return dict(rows[0])


metrics_router = APIRouter()


@metrics_router.get("/metrics")
async def metrics(request: Request) -> dict[str, Any]:
    """How many workflows there are and were."""
    orchestrator = orchestrator_of(request)
    return {
        "in_flight": len(orchestrator.in_flight),
        "most_in_flight": orchestrator.most_in_flight,
        **{name: orchestrator.counts[name] for name in ("accepted", "completed", "failed", "resumed")},
        "publisher": request.app.state.node.publisher.metrics(),
        "topics": {route.name: route.topic(request.app.state.node.settings.environment) for route in Route},
    }


def create_app(settings: Settings, secrets: Secrets) -> FastAPI:
    """The application; its lifespan starts the service and resumes what was left unfinished.

    Args:
        settings: Of all services.
        secrets: Of all services.
    """

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(SERVICE, settings, secrets))
            stamping = await stack.enter_async_context(StampingClient(settings))
            onextree = await stack.enter_async_context(OnextreeClient(settings))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            orchestrator = Orchestrator(node, Services(node, stamping, onextree), tasks)
            resuming = tasks.create_task(resume_for_ever(node, orchestrator))
            stack.callback(orchestrator.stop)
            stack.callback(resuming.cancel)
            application.state.node = node
            application.state.orchestrator = orchestrator
            yield

    application = FastAPI(title="Orchestrator", version=VERSION, lifespan=lifespan)
    for each in (router, bus_api.router, metrics_router, operations):
        application.include_router(each)
    return application
