"""A workflow: what was asked for, and the states it goes through.

Source: contract page "event-bus", 3.3: PENDING, PROCESSING, then COMPLETED or FAILED, which are final.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from pydantic import BaseModel, ConfigDict, Field

from testyard.lab.bridge.events import WorkflowState

WAYS: Final = {
    WorkflowState.PENDING: frozenset({WorkflowState.PROCESSING}),
    WorkflowState.PROCESSING: frozenset({WorkflowState.COMPLETED, WorkflowState.FAILED}),
    WorkflowState.COMPLETED: frozenset[WorkflowState](),
    WorkflowState.FAILED: frozenset[WorkflowState](),
}

LARGEST_CONTENT: Final = 1024 * 1024
"""Characters of a file's content."""


class StateError(Exception):
    """A workflow cannot go from one state to another."""


class WorkflowRequest(BaseModel):
    """What a workflow is asked to do: stamp one file.

    Attributes:
        content: The file's content.
        file_path: Which file.
        namespace: Whose.
        intelligence: Whether OnexTree is asked first.
        correlation_id: Tells this workflow's events; a new one when not given. The same one again is the
            same workflow.
        metadata: Goes along.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str = Field(max_length=LARGEST_CONTENT)
    file_path: str
    namespace: str = Field(default="omninode.services.metadata", min_length=1)
    intelligence: bool = False
    correlation_id: UUID | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


@dataclass
class Workflow:
    """One workflow, from its request to its end.

    Attributes:
        request: What was asked for.
        correlation_id: Tells its events.
        workflow_id: Its row.
        state: Where it is.
        started_at: When it was taken on.
        completed_at: When it ended.
        result: What has come of it so far.
        error: Why it failed.
    """

    request: WorkflowRequest
    correlation_id: UUID = field(default_factory=uuid4)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    workflow_id: UUID = field(init=False)
    state: WorkflowState = WorkflowState.PENDING
    completed_at: datetime | None = None
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    _began: float = field(default_factory=time.monotonic, init=False, repr=False)
    _took_ms: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.workflow_id = self.event_id("workflow")

    def event_id(self, what: str) -> UUID:
        """The id of an event of this workflow: the same one when the workflow is resumed after a crash."""
        return uuid5(self.correlation_id, what)

    def become(self, state: WorkflowState) -> WorkflowState:
        """Go to another state.

        Returns:
            The state it was in.

        Raises:
            StateError: There is no such way.
        """
        before = self.state
        if state not in WAYS[before]:
            message = (
                f"STATE_ERROR: the workflow {self.workflow_id} cannot go from {before.value} to {state.value}."
            )
            raise StateError(message)
        self.state = state
        if not WAYS[state]:
            self.completed_at = datetime.now(UTC)
            self._took_ms = self._elapsed_ms
        return before

    @property
    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self._began) * 1000

    @property
    def execution_time_ms(self) -> float:
        """How long it has taken, in milliseconds."""
        return self._elapsed_ms if self._took_ms is None else self._took_ms

    def answer(self) -> dict[str, Any]:
        """What the interface tells of it."""
        return {
            "workflow_id": str(self.workflow_id),
            "correlation_id": str(self.correlation_id),
            "state": self.state.value,
            "namespace": self.request.namespace,
            "started_at": self.started_at.isoformat(),
            "completed_at": self.completed_at.isoformat() if self.completed_at else None,
            "execution_time_ms": self.execution_time_ms,
            "error_message": self.error,
            **self.result,
        }
