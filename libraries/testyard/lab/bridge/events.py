"""What events carry: one model for each payload.

Source: contract page "event-bus", 3.3 to 3.6; document 004, sections 1 and 2.
"""

from __future__ import annotations

from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

FILE_HASH_PATTERN = "^[0-9a-f]{64}$"


class WorkflowState(Enum):
    """The states of a workflow; the last two are final."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Step(Enum):
    """The steps of a workflow, in their order."""

    VALIDATION = "validation"
    ONEXTREE_INTELLIGENCE = "onextree_intelligence"
    HASH_GENERATION = "hash_generation"
    STAMP_CREATION = "stamp_creation"


class Payload(BaseModel):
    """What every payload has in common: fields that are not known are kept out of the tables, not refused."""

    model_config = ConfigDict(frozen=True)


class WorkflowStarted(Payload):
    """A workflow was taken on.

    Attributes:
        workflow_id: The workflow; its correlation id is the envelope's.
        workflow_type: What sort of workflow.
        namespace: Whose.
        items: How many files it is about.
        started_at: When it was taken on.
        request: What was asked for: enough to do it again after a crash.
    """

    workflow_id: UUID
    workflow_type: str = "metadata_stamping"
    namespace: str
    items: NonNegativeInt = 1
    started_at: AwareDatetime
    request: dict[str, Any] = Field(default_factory=dict)


class WorkflowEnded(Payload):
    """A workflow has ended, well or not.

    Attributes:
        workflow_id: The workflow.
        workflow_type: What sort of workflow.
        namespace: Whose.
        items: How many files it was about.
        started_at: When it was taken on.
        completed_at: When it ended.
        execution_time_ms: How long it took, in milliseconds.
        error_message: Why it failed; None when it did not.
        result: What came of it.
    """

    workflow_id: UUID
    workflow_type: str = "metadata_stamping"
    namespace: str
    items: NonNegativeInt = 1
    started_at: AwareDatetime
    completed_at: AwareDatetime
    execution_time_ms: NonNegativeFloat
    error_message: str | None = None
    result: dict[str, Any] = Field(default_factory=dict)


class StepCompleted(Payload):
    """A step of a workflow has ended.

    Attributes:
        workflow_id: The workflow.
        step_name: Which step.
        step_order: Its place in the workflow, from 0.
        status: ``completed``, ``failed`` or ``skipped``.
        execution_time_ms: How long it took, in milliseconds.
        step_data: What came of it.
        error_message: Why it failed.
    """

    workflow_id: UUID
    step_name: str
    step_order: NonNegativeInt
    status: str
    execution_time_ms: NonNegativeFloat
    step_data: dict[str, Any] = Field(default_factory=dict)
    error_message: str | None = None


class StateTransition(Payload):
    """Something has changed its state.

    Attributes:
        entity_id: What has: a workflow, a bridge.
        entity_type: ``workflow`` or ``bridge``.
        from_state: What it was; None when it is new.
        to_state: What it is now.
        transition_event: What made it change.
        transition_data: Anything else.
    """

    entity_id: str
    entity_type: str
    from_state: str | None = None
    to_state: str
    transition_event: str
    transition_data: dict[str, Any] = Field(default_factory=dict)


class MetadataStamped(Payload):
    """A file was stamped.

    Attributes:
        stamp_id: The stamp.
        file_hash: BLAKE3 of the content, 64 hexadecimal digits.
        file_path: Which file.
        file_size_bytes: Its size.
        execution_time_ms: How long stamping took, in milliseconds.
        hash_algorithm: Always BLAKE3.
        created_at: When it was stamped first.
        content_type: The content's media type.
        stamp_data: The stamp, with the O.N.E. v0.1 fields.
        protocol_version: Of the stamping protocol.
        intelligence_data: What OnexTree had to say.
        version: Of the stamp.
        op_id: Which operation stamped.
        namespace: Whose it is.
        metadata_version: Of the O.N.E. metadata.
    """

    stamp_id: UUID
    file_hash: str = Field(pattern=FILE_HASH_PATTERN)
    file_path: str
    file_size_bytes: NonNegativeInt
    execution_time_ms: NonNegativeFloat
    hash_algorithm: str = "BLAKE3"
    created_at: AwareDatetime
    content_type: str | None = None
    stamp_data: dict[str, Any] = Field(default_factory=dict)
    protocol_version: str = "1.0"
    intelligence_data: dict[str, Any] | None = None
    version: int = 1
    op_id: UUID | None = None
    namespace: str = "omninode.services.metadata"
    metadata_version: str = "0.1"


class StateAggregationCompleted(Payload):
    """The reducer has persisted what it had aggregated.

    Attributes:
        bridge_id: The reducer's state for a namespace.
        namespace: Which one.
        workflows: How many workflows ended in this batch.
        items: How many files they were about.
        total_workflows_processed: How many altogether.
        total_items_aggregated: How many files altogether.
    """

    bridge_id: UUID
    namespace: str
    workflows: NonNegativeInt
    items: NonNegativeInt
    total_workflows_processed: NonNegativeInt
    total_items_aggregated: NonNegativeInt


class HealthStatus(Enum):
    """How a node is."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"


class NodeIntrospection(Payload):
    """A service tells what it is.

    Attributes:
        node_id: The process.
        node_type: Which service.
        node_version: Its version.
        capabilities: What it can do.
        endpoints: Where it answers.
        metadata: Anything else.
    """

    node_id: str
    node_type: str
    node_version: str
    capabilities: dict[str, Any] = Field(default_factory=dict)
    endpoints: dict[str, str] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)


class NodeHeartbeat(Payload):
    """A service still runs.

    Attributes:
        node_id: The process.
        health_status: How it is.
        sent_at: When it said so.
    """

    node_id: str
    health_status: HealthStatus
    sent_at: AwareDatetime
