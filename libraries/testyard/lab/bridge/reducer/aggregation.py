"""What a batch of events says about workflows: one line for each workflow, whatever order its events came in.

Events of one workflow come over several topics, between which there is no order: the end may be read before the
start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from testyard.lab.bridge.envelope import Envelope
from testyard.lab.bridge.events import StateTransition, WorkflowEnded, WorkflowStarted, WorkflowState
from testyard.lab.bridge.topics import Route

CONSUMED: Final = (
    Route.WORKFLOW_STARTED,
    Route.STATE_TRANSITION,
    Route.WORKFLOW_COMPLETED,
    Route.WORKFLOW_FAILED,
)
FINAL: Final = frozenset({WorkflowState.COMPLETED, WorkflowState.FAILED})
_RANKS: Final = {WorkflowState.PENDING: 0, WorkflowState.PROCESSING: 1}
_LAST_RANK: Final = 2


class NotReducibleError(ValueError):
    """An event says nothing that can be understood; the database adapter dead-letters it."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What is known of one workflow.

    Attributes:
        workflow_id: Its row.
        correlation_id: Tells its events.
        workflow_type: What sort of workflow.
        state: The furthest one.
        namespace: Whose.
        items: How many files it is about.
        started_at: When it was taken on.
        completed_at: When it ended.
        execution_time_ms: How long it took, in milliseconds.
        error_message: Why it failed.
        metadata: The request, and who runs it.
    """

    workflow_id: UUID
    correlation_id: UUID
    workflow_type: str
    state: WorkflowState
    namespace: str
    items: int
    started_at: datetime
    completed_at: datetime | None = None
    execution_time_ms: float | None = None
    error_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def joined_with(self, other: Execution) -> Execution:
        """What both know together; the one whose state is further wins."""
        further, nearer = (other, self) if _rank(other.state) > _rank(self.state) else (self, other)
        return replace(
            further, items=max(further.items, nearer.items), metadata={**nearer.metadata, **further.metadata}
        )


def _rank(state: WorkflowState) -> int:
    return _RANKS.get(state, _LAST_RANK)


def aggregate(told: Iterable[Execution]) -> list[Execution]:
    """Put together what the events of a batch say.

    Args:
        told: What each event says, from ``execution_of``.

    Returns:
        One line for each workflow.
    """
    known: dict[UUID, Execution] = {}
    for it in told:
        before = known.get(it.correlation_id)
        known[it.correlation_id] = it if before is None else before.joined_with(it)
    return list(known.values())


def execution_of(route: Route, envelope: Envelope) -> Execution | None:
    """What one event says.

    Returns:
        The workflow; None when it is about something else.

    Raises:
        NotReducibleError: The payload is not one of this route, or there is no correlation id.
    """
    if envelope.correlation_id is None:
        message = f"The event {envelope.event_id} has no correlation_id."
        raise NotReducibleError(message)
    origin = {"environment": envelope.environment, "instance": envelope.source_instance}
    try:
        match route:
            case Route.WORKFLOW_STARTED:
                started = WorkflowStarted.model_validate(envelope.payload)
                return Execution(
                    started.workflow_id,
                    envelope.correlation_id,
                    started.workflow_type,
                    WorkflowState.PENDING,
                    started.namespace,
                    started.items,
                    started.started_at,
                    metadata={**origin, "items": started.items, "request": started.request},
                )
            case Route.STATE_TRANSITION:
                return _of_transition(StateTransition.model_validate(envelope.payload), envelope, origin)
            case _:
                ended = WorkflowEnded.model_validate(envelope.payload)
                return Execution(
                    ended.workflow_id,
                    envelope.correlation_id,
                    ended.workflow_type,
                    WorkflowState.FAILED if route is Route.WORKFLOW_FAILED else WorkflowState.COMPLETED,
                    ended.namespace,
                    ended.items,
                    ended.started_at,
                    ended.completed_at,
                    ended.execution_time_ms,
                    ended.error_message,
                    {**origin, "items": ended.items, "result": ended.result},
                )
    except (ValidationError, KeyError, ValueError) as problem:
        message = f"The event {envelope.event_id} is no {route.event_type}: {problem}"
        raise NotReducibleError(message) from None


def _of_transition(transition: StateTransition, envelope: Envelope, origin: dict[str, Any]) -> Execution | None:
    state = WorkflowState(transition.to_state)
    if transition.entity_type != "workflow" or state in FINAL:
        # The end is told by an event of its own, which says more.
        return None
    assert envelope.correlation_id is not None
    told = transition.transition_data
    return Execution(
        UUID(transition.entity_id),
        envelope.correlation_id,
        told["workflow_type"],
        state,
        told["namespace"],
        int(told.get("items", 1)),
        datetime.fromisoformat(told["started_at"]),
        metadata=origin,
    )
