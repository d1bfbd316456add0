"""A workflow: what was asked for, and the states it goes through.

Source: contract page "event-bus", 3.3: PENDING, PROCESSING, then COMPLETED or FAILED, which are final.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID, uuid4, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from testyard.lab.bridge.events import WorkflowState
from testyard.lab.bridge.stamping.json_text import storable

WAYS: Final = {
    WorkflowState.PENDING: frozenset({WorkflowState.PROCESSING}),
    WorkflowState.PROCESSING: frozenset({WorkflowState.COMPLETED, WorkflowState.FAILED}),
    WorkflowState.COMPLETED: frozenset[WorkflowState](),
    WorkflowState.FAILED: frozenset[WorkflowState](),
}

LARGEST_CONTENT: Final = 1024 * 1024
"""Characters of a file's content; one that an event of the bus does not take is refused, too."""
LONGEST_NAMESPACE: Final = 255
LONGEST_ERROR: Final = 1000
"""Characters of the reason for which a workflow fails."""

Text = Annotated[str, AfterValidator(storable)]
Json = Annotated[dict[str, Any], AfterValidator(storable)]


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

    content: Annotated[Text, Field(max_length=LARGEST_CONTENT)]
    file_path: Text
    namespace: Annotated[Text, Field(min_length=1, max_length=LONGEST_NAMESPACE)] = "omninode.services.metadata"
    intelligence: bool = False
    correlation_id: UUID | None = None
    metadata: Json = Field(default_factory=dict)


def nothing_yet() -> dict[str, Any]:
    """The result of a workflow of which nothing has come yet."""
    return {"intelligence": None, "fallback_used": False, "fallbacks": [], "stamp": None}


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
    result: dict[str, Any] = field(default_factory=nothing_yet)
    error: str | None = None
    _began: float = field(init=False, repr=False)
    _took_ms: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.workflow_id = self.event_id("workflow")
        # One that is resumed has begun in another process.
        earlier = max(datetime.now(UTC) - self.started_at, timedelta(0))
        self._began = time.monotonic() - earlier.total_seconds()

    @classmethod
    def as_stored(
        cls,
        request: WorkflowRequest,
        correlation_id: UUID,
        started_at: datetime,
        *,
        state: WorkflowState,
        completed_at: datetime | None,
        execution_time_ms: float | None,
        error: str | None,
        result: dict[str, Any],
    ) -> Workflow:
        """A workflow of another process, as the tables have it."""
        workflow = cls(
            request, correlation_id, started_at, state, completed_at, {**nothing_yet(), **result}, error
        )
        workflow._took_ms = execution_time_ms
        return workflow

    def event_id(self, what: str) -> UUID:
        """The id of an event of this workflow: the same one when the workflow is resumed after a crash."""
        return uuid5(self.correlation_id, what)

    @property
    def has_ended(self) -> bool:
        """Whether its state is final."""
        return not WAYS[self.state]

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
        if self.has_ended:
            self._took_ms = self._elapsed_ms
            # Not by the clock, which somebody may set back meanwhile.
            self.completed_at = self.started_at + timedelta(milliseconds=self._took_ms)
        return before

    def fail(self, reason: str) -> None:
        """Remember why it fails; it does so when its end is told."""
        self.error = reason if len(reason) <= LONGEST_ERROR else f"{reason[: LONGEST_ERROR - 1]}…"

    def fall_back(self, way: str) -> None:
        """Remember that something could not be had, and what was done instead."""
        self.result["fallbacks"].append(way)
        self.result["fallback_used"] = True

    def forget_content(self) -> None:
        """Keep the workflow, but not its file."""
        self.request = self.request.model_copy(update={"content": "", "metadata": {}})

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
            **self.result,
            "workflow_id": str(self.workflow_id),
            "correlation_id": str(self.correlation_id),
            "state": self.state.value,
            "namespace": self.request.namespace,
            "started_at": self.started_at.isoformat(),
            "completed_at": self.completed_at.isoformat() if self.completed_at else None,
            "execution_time_ms": self.execution_time_ms,
            "error_message": self.error,
        }
