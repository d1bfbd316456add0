"""The orchestrator's HTTP interface, put together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from testyard.lab.bridge.breaker import CircuitOpenError
from testyard.lab.bridge.bus import REFUSED
from testyard.lab.bridge.ending import end_tasks
from testyard.lab.bridge.node import VERSION, node_of, open_node, operations, tracing_of
from testyard.lab.bridge.onextree_client import OnextreeClient
from testyard.lab.bridge.orchestrator import bus_api
from testyard.lab.bridge.orchestrator.engine import Orchestrator, StoppingError
from testyard.lab.bridge.orchestrator.recovery import resume_for_ever
from testyard.lab.bridge.orchestrator.services import Services
from testyard.lab.bridge.orchestrator.stored import read_stored
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.stamping_client import StampingClient
from testyard.lab.bridge.topics import Route
from testyard.lab.bridge.tracing import traces_router
from testyard.lab.database import DatabaseUnavailableError

SERVICE: Final = "orchestrator"
LARGEST_BATCH: Final = 1000
ONEXTREE_RETRIES: Final = 1
"""How often OnexTree is asked again within the time that it has (contract page "event-bus", 3.9)."""

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
    (workflow,) = _taken_on(await orchestrator.accept([wanted]))
    if wait:
        await orchestrator.end_of(workflow)
    if not workflow.has_ended:
        response.status_code = 202
    return workflow.answer()


@router.post("/batch", status_code=202)
async def run_batch(request: Request, batch: Batch) -> dict[str, Any]:
    """Take several workflows on; answers when all of them would outlive a crash."""
    accepted = _taken_on(await orchestrator_of(request).accept(batch.workflows))
    return {
        "workflows": [
            {"workflow_id": str(it.workflow_id), "correlation_id": str(it.correlation_id)} for it in accepted
        ]
    }


def _taken_on(accepted: Sequence[Workflow | BaseException]) -> list[Workflow]:
    """The workflows that were taken on.

    Raises:
        HTTPException: Not all were; tells why one was not.
    """
    workflows = [it for it in accepted if isinstance(it, Workflow)]
    for number, problem in enumerate(accepted):
        if isinstance(problem, Workflow):
            continue
        others = f" {len(workflows)} of {len(accepted)} were taken on." if len(accepted) > 1 else ""
        if isinstance(problem, REFUSED):
            reason = f"Workflow {number} is too large for an event of the bus: {problem}{others}"
            raise HTTPException(413, reason) from problem
        if isinstance(problem, StoppingError):
            raise HTTPException(503, f"The orchestrator is about to end.{others}") from problem
        reason = f"Workflow {number} would not outlive a crash, as nothing can keep an event: {problem}{others}"
        raise HTTPException(503, reason) from problem
    return workflows


@router.get("/{workflow_id}")
async def read(request: Request, workflow_id: UUID) -> dict[str, Any]:
    """How a workflow is."""
    found = orchestrator_of(request).find(workflow_id)
    if found is None:
        try:
            found = await read_stored(node_of(request), workflow_id)
        except (DatabaseUnavailableError, CircuitOpenError) as problem:
            raise HTTPException(503, f"The database is away: {problem}") from problem
    if found is None:
        raise HTTPException(404, f"There is no workflow {workflow_id}.")
    return found.answer()


metrics_router = APIRouter()


@metrics_router.get("/metrics")
async def metrics(request: Request) -> dict[str, Any]:
    """How many workflows there are and were."""
    orchestrator = orchestrator_of(request)
    return {
        "in_flight": len(orchestrator.in_flight),
        "most_in_flight": orchestrator.most_in_flight,
        **orchestrator.counts,
        "publisher": node_of(request).publisher.metrics(),
        "topics": {route.name: route.topic(node_of(request).settings.environment) for route in Route},
    }


def create_app(settings: Settings, secrets: Secrets) -> FastAPI:
    """The application; its lifespan starts the service and resumes what was left unfinished.

    Args:
        settings: Of all services.
        secrets: Of all services.
    """

    tracing = tracing_of(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(tracing, settings, secrets))
            stamping = await stack.enter_async_context(StampingClient(settings, tracing=tracing))
            onextree = await stack.enter_async_context(
                OnextreeClient(settings, retries=ONEXTREE_RETRIES, tracing=tracing)
            )
            orchestrator = Orchestrator(node, Services(node, stamping, onextree))
            stack.push_async_callback(orchestrator.stop)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            resuming = tasks.create_task(resume_for_ever(node, orchestrator), name="resume")
            stack.push_async_callback(end_tasks, [resuming])
            application.state.node = node
            application.state.orchestrator = orchestrator
            yield

    application = FastAPI(title="Orchestrator", version=VERSION, lifespan=lifespan, telemetry=tracing.telemetry)
    for each in (router, bus_api.router, metrics_router, operations, traces_router(tracing)):
        application.include_router(each)
    application.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    return application


async def _say_what_is_wrong(request: Request, problem: Exception) -> Response:
    """Answer a request that is not understood, without the file that was in it."""
    assert isinstance(problem, RequestValidationError)
    found = [{"loc": it["loc"], "msg": it["msg"]} for it in problem.errors()]
    # What is no text can stand in a message, too, and has to be escaped.
    return Response(json.dumps({"detail": found}), status_code=422, media_type="application/json")
