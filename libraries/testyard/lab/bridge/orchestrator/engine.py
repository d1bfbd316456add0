"""How workflows are run: one after the other for each file, many at a time, each step told on the bus.

Every event of a workflow has an id that follows from the workflow and the step. One that is resumed after a crash
publishes the same ids again, and what stores them by id stores them once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID, uuid4

from pydantic import BaseModel

from testyard.lab.bridge.events import (
    StateTransition,
    Step,
    StepCompleted,
    WorkflowEnded,
    WorkflowStarted,
    WorkflowState,
)
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.orchestrator.services import Services, StepError
from testyard.lab.bridge.orchestrator.time_limit import TimeLimit, time_limit
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.bridge.topics import Route

REMEMBERED: Final = 20_000
"""How many workflows that have ended are still answered for without a look into the tables."""

_log = logging.getLogger(__name__)


class Orchestrator:
    """Runs workflows.

    Args:
        node: Publishes what they go through.
        services: Do the work.
        tasks: Where workflows run.

    Attributes:
        in_flight: The workflows that have not ended, by their id.
        most_in_flight: How many there have been at a time.
        counts: How many were accepted, completed, failed, resumed.
    """

    def __init__(self, node: Node, services: Services, tasks: asyncio.TaskGroup) -> None:
        self.in_flight: dict[UUID, Workflow] = {}
        self.most_in_flight = 0
        self.counts: Counter[str] = Counter()
        self._node = node
        self._services = services
        self._tasks = tasks
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._ended: OrderedDict[UUID, Workflow] = OrderedDict()

    async def accept(self, request: WorkflowRequest) -> Workflow:
        """Take a workflow on; from then on a crash does not lose it.

        Returns:
            The workflow, which runs; or the one that has the request's correlation id already.
        """
        workflow = Workflow(request, request.correlation_id or uuid4())
        known = self.find(workflow.workflow_id)
        if known is not None:
            return known
        # Known from here on, so that the same request that comes meanwhile is not taken for another one.
        self.in_flight[workflow.workflow_id] = workflow
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        try:
            await self._tell_start(workflow)
        except BaseException:
            del self.in_flight[workflow.workflow_id]
            raise
        self.counts["accepted"] += 1
        self._start(workflow)
        return workflow

    def resume(self, workflow: Workflow) -> None:
        """Run a workflow again that another process has left unfinished."""
        if self.find(workflow.workflow_id) is None:
            self.in_flight[workflow.workflow_id] = workflow
            self.counts["resumed"] += 1
            self._start(workflow)

    def find(self, workflow_id: UUID) -> Workflow | None:
        """A workflow of this process; None when there is none or it is forgotten."""
        return self.in_flight.get(workflow_id) or self._ended.get(workflow_id)

    async def end_of(self, workflow: Workflow) -> Workflow:
        """Wait until a workflow has ended."""
        running = self._running.get(workflow.workflow_id)
        if running is not None:
            await asyncio.wait([running])
        return workflow

    def _start(self, workflow: Workflow) -> None:
        task = self._tasks.create_task(self._run(workflow), name=f"workflow {workflow.workflow_id}")
        self._running[workflow.workflow_id] = task

    def stop(self) -> None:
        """Leave what is in flight unfinished: the next process resumes it."""
        for task in self._running.values():
            task.cancel()

    async def _run(self, workflow: Workflow) -> None:
        settings = self._node.settings.orchestrator

        def warn() -> None:
            _log.warning("The workflow %s has used up most of its time.", workflow.workflow_id)

        try:
            async with time_limit(settings.workflow_timeout, settings.workflow_grace, warn) as limit:
                await self._go_through(workflow, limit)
        except StepError as problem:
            workflow.error = str(problem)
        except TimeoutError:
            workflow.error = "workflow timeout"
        await self._tell_end(workflow)
        del self.in_flight[workflow.workflow_id], self._running[workflow.workflow_id]
        self.counts[workflow.state.value.lower()] += 1
        self._ended[workflow.workflow_id] = workflow
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    async def _go_through(self, workflow: Workflow, limit: TimeLimit) -> None:
        fallbacks: list[str] = []
        workflow.result = {"intelligence": None, "fallback_used": False, "fallbacks": fallbacks, "stamp": None}
        await self._change(workflow, WorkflowState.PROCESSING, "workflow_started")
        await self._step(workflow, Step.VALIDATION, lambda: _validate(workflow.request))
        if workflow.request.intelligence and not limit.is_over:
            await self._step(workflow, Step.ONEXTREE_INTELLIGENCE, lambda: self._intelligence(workflow, fallbacks))
        await self._step(workflow, Step.STAMP_CREATION, lambda: self._stamp(workflow, fallbacks))
        workflow.result["fallback_used"] = bool(fallbacks)

    async def _intelligence(self, workflow: Workflow, fallbacks: list[str]) -> dict[str, Any]:
        found = await self._services.intelligence(workflow)
        if isinstance(found, str):
            fallbacks.append("onextree_unavailable_skip_intelligence")
            return {"skipped": found}
        workflow.result["intelligence"] = found.model_dump(mode="json")
        return {"confidence": found.confidence}

    async def _stamp(self, workflow: Workflow, fallbacks: list[str]) -> dict[str, Any]:
        stamp = await self._services.stamp(workflow, workflow.result["intelligence"])
        workflow.result["stamp"] = stamp
        if stamp["source"] != "metadata_stamping":
            fallbacks.append("metadata_stamping_in_memory_hash")
        hashed = {"file_hash": stamp["file_hash"], "source": stamp["source"]}
        await self._tell_step(workflow, Step.HASH_GENERATION, hashed, float(stamp.get("hash_time_ms") or 0.0))
        return {"stamp_id": stamp["stamp_id"], **hashed}

    async def _step(self, workflow: Workflow, step: Step, do: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        began = time.monotonic()
        try:
            data = await do()
        except (StepError, TimeoutError) as problem:
            await self._tell_step(workflow, step, {}, (time.monotonic() - began) * 1000, error=str(problem))
            raise
        took_ms = (time.monotonic() - began) * 1000
        workflow.result.setdefault("steps", {})[step.value] = took_ms
        await self._tell_step(workflow, step, data, took_ms)

    # What is told.

    async def _publish(self, workflow: Workflow, route: Route, payload: BaseModel, what: str) -> None:
        await self._node.publisher.publish(
            route, payload, correlation_id=workflow.correlation_id, event_id=workflow.event_id(what)
        )

    async def _tell_start(self, workflow: Workflow) -> None:
        request = workflow.request
        started = WorkflowStarted(
            workflow_id=workflow.workflow_id,
            namespace=request.namespace,
            started_at=workflow.started_at,
            request=request.model_dump(mode="json"),
        )
        await self._publish(workflow, Route.WORKFLOW_STARTED, started, "started")

    async def _change(self, workflow: Workflow, state: WorkflowState, event: str) -> None:
        before = workflow.become(state)
        transition = StateTransition(
            entity_id=str(workflow.workflow_id),
            entity_type="workflow",
            from_state=before.value,
            to_state=state.value,
            transition_event=event,
            transition_data={
                "namespace": workflow.request.namespace,
                "workflow_type": "metadata_stamping",
                "started_at": workflow.started_at.isoformat(),
            },
        )
        await self._publish(workflow, Route.STATE_TRANSITION, transition, f"to {state.value}")

    async def _tell_step(
        self, workflow: Workflow, step: Step, data: dict[str, Any], took_ms: float, *, error: str | None = None
    ) -> None:
        status = "failed" if error is not None else "skipped" if "skipped" in data else "completed"
        completed = StepCompleted(
            workflow_id=workflow.workflow_id,
            step_name=step.value,
            step_order=list(Step).index(step),
            status=status,
            execution_time_ms=took_ms,
            step_data=data,
            error_message=error,
        )
        await self._publish(workflow, Route.STEP_COMPLETED, completed, step.value)

    async def _tell_end(self, workflow: Workflow) -> None:
        if workflow.state is WorkflowState.PENDING:
            await self._change(workflow, WorkflowState.PROCESSING, "workflow_started")
        failed = workflow.error is not None
        state = WorkflowState.FAILED if failed else WorkflowState.COMPLETED
        await self._change(workflow, state, "workflow_failed" if failed else "workflow_completed")
        ended = WorkflowEnded(
            workflow_id=workflow.workflow_id,
            namespace=workflow.request.namespace,
            started_at=workflow.started_at,
            completed_at=workflow.completed_at or workflow.started_at,
            execution_time_ms=workflow.execution_time_ms,
            error_message=workflow.error,
            result=workflow.result,
        )
        await self._publish(
            workflow, Route.WORKFLOW_FAILED if failed else Route.WORKFLOW_COMPLETED, ended, "ended"
        )


async def _validate(request: WorkflowRequest) -> dict[str, Any]:
    if not request.content:
        raise StepError("validation: the file is empty")
    if not request.file_path.strip() or "\0" in request.file_path:
        raise StepError(f"validation: {request.file_path!r} is no path of a file")
    return {"file_size_bytes": len(request.content.encode())}
