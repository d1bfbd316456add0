"""What a workflow tells on the bus, and in which order.

Every event has an id that follows from the workflow and from what it tells. A workflow that is resumed after a
crash publishes the same ids again, and what stores events by their ids stores them once. A workflow ends once: its
last transition and its end have one id each, whether it completes or fails.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from testyard.lab.bridge.events import (
    StateTransition,
    Step,
    StepCompleted,
    WorkflowEnded,
    WorkflowStarted,
    WorkflowState,
)
from testyard.lab.bridge.orchestrator.workflow import Workflow
from testyard.lab.bridge.outage import Outage
from testyard.lab.bridge.publisher import Publisher
from testyard.lab.bridge.topics import Route
from testyard.lab.waiting import Backoff, elapse

WORKFLOW_TYPE = "metadata_stamping"


class Telling:
    """Tells what workflows go through.

    Args:
        publisher: The orchestrator's.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.outage = Outage("everything that could take an event")
        self._publisher = publisher

    async def started(self, workflow: Workflow) -> None:
        """Tell that a workflow was taken on; from then on a crash does not lose it.

        Raises:
            KafkaError: It is too large for an event.
            OSError: Nothing can take it.
        """
        request = workflow.request
        started = WorkflowStarted(
            workflow_id=workflow.workflow_id,
            workflow_type=WORKFLOW_TYPE,
            namespace=request.namespace,
            started_at=workflow.started_at,
            request=request.model_dump(mode="json"),
        )
        await self._publisher.publish(
            Route.WORKFLOW_STARTED,
            started,
            correlation_id=workflow.correlation_id,
            event_id=workflow.event_id("started"),
        )

    async def change(self, workflow: Workflow, state: WorkflowState, event: str) -> None:
        """Let a workflow change its state, and tell that.

        Args:
            workflow: Which one.
            state: The new one.
            event: What makes it change.

        Raises:
            StateError: There is no such way.
            KafkaError: It is too large for an event.
        """
        before = workflow.become(state)
        transition = StateTransition(
            entity_id=str(workflow.workflow_id),
            entity_type="workflow",
            from_state=before.value,
            to_state=state.value,
            transition_event=event,
            transition_data={
                "namespace": workflow.request.namespace,
                "workflow_type": WORKFLOW_TYPE,
                "started_at": workflow.started_at.isoformat(),
            },
        )
        what = "to its end" if workflow.has_ended else f"to {state.value}"
        await self._tell(workflow, Route.STATE_TRANSITION, transition, what)

    async def step(
        self, workflow: Workflow, step: Step, data: dict[str, Any], took_ms: float, *, error: str | None = None
    ) -> None:
        """Tell that a step has ended.

        Args:
            workflow: Of which workflow.
            step: Which step.
            data: What came of it; with ``skipped``: why nothing did.
            took_ms: How long it took, in milliseconds.
            error: Why it failed.

        Raises:
            KafkaError: It is too large for an event.
        """
        completed = StepCompleted(
            workflow_id=workflow.workflow_id,
            step_name=step.value,
            step_order=list(Step).index(step),
            status="failed" if error is not None else "skipped" if "skipped" in data else "completed",
            execution_time_ms=took_ms,
            step_data=data,
            error_message=error,
        )
        await self._tell(workflow, Route.STEP_COMPLETED, completed, step.value)

    async def ended(self, workflow: Workflow) -> None:
        """Let a workflow end, as its ``error`` says, and tell that.

        Raises:
            KafkaError: It is too large for an event.
        """
        if workflow.state is WorkflowState.PENDING:
            await self.change(workflow, WorkflowState.PROCESSING, "workflow_started")
        failed = workflow.error is not None
        state = WorkflowState.FAILED if failed else WorkflowState.COMPLETED
        # Before its end: who has ended is not resumed, and nobody would tell of the last change after a crash.
        await self.change(workflow, state, "workflow_failed" if failed else "workflow_completed")
        ended = WorkflowEnded(
            workflow_id=workflow.workflow_id,
            workflow_type=WORKFLOW_TYPE,
            namespace=workflow.request.namespace,
            started_at=workflow.started_at,
            completed_at=workflow.completed_at or workflow.started_at,
            execution_time_ms=workflow.execution_time_ms,
            error_message=workflow.error,
            result=workflow.result,
        )
        route = Route.WORKFLOW_FAILED if failed else Route.WORKFLOW_COMPLETED
        await self._tell(workflow, route, ended, "ended")

    async def _tell(self, workflow: Workflow, route: Route, payload: BaseModel, what: str) -> None:
        """Publish an event, when there is something that can take it."""
        backoff = Backoff()
        while True:
            try:
                await self._publisher.publish(
                    route, payload, correlation_id=workflow.correlation_id, event_id=workflow.event_id(what)
                )
            except OSError as problem:
                self.outage.goes_on(problem)
            else:
                self.outage.is_over()
                return
            await elapse(backoff.next())
