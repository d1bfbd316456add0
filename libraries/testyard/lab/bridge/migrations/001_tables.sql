-- Source: contract page "event-bus", 3.6.

CREATE TABLE workflow_executions (
    id uuid PRIMARY KEY,
    correlation_id uuid NOT NULL UNIQUE,
    workflow_type text NOT NULL,
    current_state text NOT NULL CHECK (current_state IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED')),
    namespace text NOT NULL,
    started_at timestamptz NOT NULL,
    completed_at timestamptz CHECK (completed_at >= started_at),
    execution_time_ms double precision CHECK (execution_time_ms >= 0),
    error_message text,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX workflow_executions_unfinished ON workflow_executions (started_at)
    WHERE current_state IN ('PENDING', 'PROCESSING');
CREATE INDEX workflow_executions_of_namespace ON workflow_executions (namespace, started_at);

CREATE TABLE workflow_steps (
    event_id uuid PRIMARY KEY,
    workflow_id uuid NOT NULL REFERENCES workflow_executions ON DELETE CASCADE,
    step_name text NOT NULL,
    step_order integer NOT NULL CHECK (step_order >= 0),
    status text NOT NULL,
    execution_time_ms double precision NOT NULL CHECK (execution_time_ms >= 0),
    step_data jsonb NOT NULL DEFAULT '{}',
    error_message text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX workflow_steps_of_workflow ON workflow_steps (workflow_id, step_order);

-- Steps whose workflow the reducer has not written yet: two services write at their own pace.
CREATE TABLE workflow_steps_waiting (LIKE workflow_steps INCLUDING DEFAULTS, PRIMARY KEY (event_id));
CREATE INDEX workflow_steps_waiting_for ON workflow_steps_waiting (workflow_id);

CREATE TABLE fsm_transitions (
    event_id uuid PRIMARY KEY,
    entity_id text NOT NULL,
    entity_type text NOT NULL,
    from_state text,
    to_state text NOT NULL,
    transition_event text NOT NULL,
    transition_data jsonb NOT NULL DEFAULT '{}',
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX fsm_transitions_of_entity ON fsm_transitions (entity_id, occurred_at);

CREATE TABLE bridge_states (
    bridge_id uuid PRIMARY KEY,
    namespace text NOT NULL,
    total_workflows_processed bigint NOT NULL CHECK (total_workflows_processed >= 0),
    total_items_aggregated bigint NOT NULL CHECK (total_items_aggregated >= 0),
    aggregation_metadata jsonb NOT NULL DEFAULT '{}',
    current_fsm_state text NOT NULL,
    last_aggregation_timestamp timestamptz NOT NULL
);

CREATE TABLE metadata_stamps (
    id uuid PRIMARY KEY,
    file_hash varchar(64) NOT NULL UNIQUE CHECK (file_hash ~ '^[0-9a-f]{64}$'),
    file_path text NOT NULL,
    file_size bigint NOT NULL CHECK (file_size >= 0),
    content_type text,
    stamp_data jsonb NOT NULL,
    protocol_version text NOT NULL DEFAULT '1.0',
    intelligence_data jsonb,
    version integer NOT NULL DEFAULT 1,
    op_id uuid,
    namespace text NOT NULL DEFAULT 'omninode.services.metadata',
    metadata_version text NOT NULL DEFAULT '0.1',
    created_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX metadata_stamps_of_namespace ON metadata_stamps (namespace, created_at);

CREATE TABLE event_logs (
    event_id uuid PRIMARY KEY,
    session_id text,
    correlation_id uuid,
    event_type text NOT NULL,
    topic text NOT NULL,
    timestamp timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('sent', 'received', 'failed', 'processing', 'completed')),
    processing_time_ms double precision CHECK (processing_time_ms >= 0),
    payload jsonb NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX event_logs_of_correlation ON event_logs (correlation_id);
CREATE INDEX event_logs_of_topic ON event_logs (topic, timestamp);
CREATE INDEX event_logs_of_session ON event_logs (session_id) WHERE session_id IS NOT NULL;

-- A node that was heard of, but has not said what it is, is UNKNOWN.
CREATE TABLE node_registrations (
    node_id text PRIMARY KEY,
    node_type text NOT NULL DEFAULT 'UNKNOWN',
    node_version text NOT NULL DEFAULT 'UNKNOWN',
    capabilities jsonb NOT NULL DEFAULT '{}',
    endpoints jsonb NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    introspected_at timestamptz,
    health_status text NOT NULL DEFAULT 'UNKNOWN',
    last_heartbeat timestamptz
);

-- Events that wait for the bus, one line after the other. Keys are bytes: not every text may stand in a table.
CREATE TABLE outbox (
    service text NOT NULL,
    position bigint NOT NULL,
    topic text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    headers json NOT NULL DEFAULT '[]',
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (service, position)
);

-- How far the reducer has read, written together with what it has made of it.
CREATE TABLE reducer_offsets (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
