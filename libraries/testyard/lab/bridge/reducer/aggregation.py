"""What a batch of events says about workflows: one line for each workflow, whatever order its events came in.

Events of one workflow come over several topics, between which there is no order: the end may be read before the
start. A workflow that was resumed after a crash may even end twice, as the crash may have come between its end and
the row that tells of it: the first end is the one that counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

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

LONGEST_NAME: Final = 255
"""Characters of a namespace or a workflow's type: they stand in an index, which refuses what is much longer."""
MOST_ITEMS: Final = 2**31 - 1
"""Of one workflow, so that the totals of a namespace have room for four thousand million of them."""

REQUEST: Final = "request"
"""Where the metadata of a row has what the workflow was asked to do."""

_RANKS: Final = {WorkflowState.PENDING: 0, WorkflowState.PROCESSING: 1}
_LAST_RANK: Final = 2


class NotReducibleError(ValueError):
    """An event says nothing that can be understood; the database adapter dead-letters it."""


class _WorkflowTransition(BaseModel):
    """What a transition of a workflow tells beside its state."""

    model_config = ConfigDict(frozen=True)

    workflow_type: str
    namespace: str
    items: int = 1
    started_at: AwareDatetime


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
        metadata: The environment, what the start says (the request, and which instance took it on) and what the
            end says (the result, and which instance told it).
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

    @property
    def is_final(self) -> bool:
        """Whether the workflow has ended."""
        return self.state in FINAL

    def joined_with(self, other: Execution) -> Execution:
        """What both know together: the state that is further wins, of two ends the first one."""
        winner, loser = (other, self) if other._goes_before(self) else (self, other)
        return replace(
            winner, items=max(winner.items, loser.items), metadata={**loser.metadata, **winner.metadata}
        )

    def _goes_before(self, other: Execution) -> bool:
        if self.completed_at is not None and other.completed_at is not None:
            return (self.completed_at, self.state.value) < (other.completed_at, other.state.value)
        return _rank(self.state) > _rank(other.state)


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
        NotReducibleError: The payload is not one of this route, there is no correlation id, or no row can hold it.
    """
    if envelope.correlation_id is None:
        message = f"The event {envelope.event_id} has no correlation_id."
        raise NotReducibleError(message)
    try:
        execution = _execution_of(route, envelope, envelope.correlation_id)
    except ValueError as problem:
        message = f"The event {envelope.event_id} is no {route.event_type}: {problem}"
        raise NotReducibleError(message) from None
    if execution is not None:
        _check(envelope, execution)
    return execution


def _execution_of(route: Route, envelope: Envelope, correlation_id: UUID) -> Execution | None:
    environment = {"environment": envelope.environment}
    match route:
        case Route.WORKFLOW_STARTED:
            started = WorkflowStarted.model_validate(envelope.payload)
            request = {REQUEST: started.request, "instance": envelope.source_instance}
            return Execution(
                started.workflow_id,
                correlation_id,
                started.workflow_type,
                WorkflowState.PENDING,
                started.namespace,
                started.items,
                started.started_at,
                metadata={**environment, "items": started.items, **request},
            )
        case Route.STATE_TRANSITION:
            return _of_transition(StateTransition.model_validate(envelope.payload), correlation_id, environment)
        case Route.WORKFLOW_COMPLETED | Route.WORKFLOW_FAILED:
            ended = WorkflowEnded.model_validate(envelope.payload)
            result = {"result": ended.result, "ended_by": envelope.source_instance}
            return Execution(
                ended.workflow_id,
                correlation_id,
                ended.workflow_type,
                WorkflowState.FAILED if route is Route.WORKFLOW_FAILED else WorkflowState.COMPLETED,
                ended.namespace,
                ended.items,
                ended.started_at,
                ended.completed_at,
                ended.execution_time_ms,
                ended.error_message,
                {**environment, "items": ended.items, **result},
            )
        case _:
            return None


def _of_transition(
    transition: StateTransition, correlation_id: UUID, environment: dict[str, Any]
) -> Execution | None:
    if transition.entity_type != "workflow":
        return None
    state = WorkflowState(transition.to_state)
    if state in FINAL:
        # The end is told by an event of its own, which says more.
        return None
    told = _WorkflowTransition.model_validate(transition.transition_data)
    return Execution(
        UUID(transition.entity_id),
        correlation_id,
        told.workflow_type,
        state,
        told.namespace,
        told.items,
        told.started_at,
        metadata=environment,
    )


def _check(envelope: Envelope, execution: Execution) -> None:
    problem = None
    if max(len(execution.namespace), len(execution.workflow_type)) > LONGEST_NAME:
        problem = f"a namespace or workflow_type is longer than {LONGEST_NAME} characters"
    elif not 0 <= execution.items <= MOST_ITEMS:
        problem = f"{execution.items} items are not from 0 to {MOST_ITEMS}"
    elif execution.completed_at is not None and execution.completed_at < execution.started_at:
        problem = "the workflow has ended before it started"
    if problem is not None:
        message = f"The event {envelope.event_id} cannot be kept: {problem}."
        raise NotReducibleError(message)
