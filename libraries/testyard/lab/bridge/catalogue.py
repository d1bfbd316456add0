"""Which payload each event carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testyard.lab.bridge.events import (
    MetadataStamped,
    NodeHeartbeat,
    NodeIntrospection,
    Payload,
    StateAggregationCompleted,
    StateTransition,
    StepCompleted,
    WorkflowEnded,
    WorkflowStarted,
)
from testyard.lab.bridge.topics import Route

PAYLOADS: Final[Mapping[Route, type[Payload]]] = {
    Route.WORKFLOW_STARTED: WorkflowStarted,
    Route.WORKFLOW_COMPLETED: WorkflowEnded,
    Route.WORKFLOW_FAILED: WorkflowEnded,
    Route.STEP_COMPLETED: StepCompleted,
    Route.STATE_TRANSITION: StateTransition,
    Route.METADATA_STAMPED: MetadataStamped,
    Route.STATE_AGGREGATION_COMPLETED: StateAggregationCompleted,
    Route.REDUCER_STATE_TRANSITION: StateTransition,
    Route.NODE_INTROSPECTION: NodeIntrospection,
    Route.NODE_HEARTBEAT: NodeHeartbeat,
}
