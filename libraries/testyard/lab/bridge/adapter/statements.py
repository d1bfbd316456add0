"""What the adapter does in the database: a batch comes into a temporary table, and from there to where it belongs.

The adapter never writes ``workflow_executions`` and ``bridge_states``, which the reducer alone does. (By contract
page "event-bus", 3.5, the adapter would write them too; two writers of one row could only disagree.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testyard.lab.bridge.topics import Route

INCOMING: Final = """
    CREATE TEMPORARY TABLE IF NOT EXISTS incoming (
        event_id uuid NOT NULL,
        correlation_id uuid,
        timestamp timestamptz NOT NULL,
        route text NOT NULL,
        topic text NOT NULL,
        kafka_partition integer NOT NULL,
        kafka_offset bigint NOT NULL,
        envelope jsonb NOT NULL
    ) ON COMMIT DELETE ROWS"""

COPY: Final = """
    COPY incoming (event_id, correlation_id, timestamp, route, topic, kafka_partition, kafka_offset, envelope)
    FROM STDIN"""

LOG: Final = """
    WITH fresh AS (
        INSERT INTO event_logs (event_id, session_id, correlation_id, event_type, topic, timestamp, status,
            processing_time_ms, payload, metadata, kafka_partition, kafka_offset)
        SELECT event_id, envelope #>> '{security_context,session_id}', correlation_id, envelope ->> 'event_type',
            topic, timestamp,
            CASE route WHEN 'WORKFLOW_STARTED' THEN 'processing' WHEN 'WORKFLOW_COMPLETED' THEN 'completed'
                WHEN 'WORKFLOW_FAILED' THEN 'failed' ELSE 'received' END,
            CASE WHEN route IN ('WORKFLOW_COMPLETED', 'WORKFLOW_FAILED', 'STEP_COMPLETED', 'METADATA_STAMPED')
                THEN (envelope #>> '{payload,execution_time_ms}')::double precision END,
            envelope -> 'payload', coalesce(envelope -> 'metadata', '{}'), kafka_partition, kafka_offset
        FROM incoming
        ON CONFLICT (event_id) DO NOTHING
        RETURNING topic
    )
    SELECT topic, count(*) AS stored FROM fresh GROUP BY topic"""

STEPS: Final = """
    WITH steps AS (
        SELECT event_id, (envelope #>> '{payload,workflow_id}')::uuid AS workflow_id,
            envelope #>> '{payload,step_name}' AS step_name,
            (envelope #>> '{payload,step_order}')::integer AS step_order,
            envelope #>> '{payload,status}' AS status,
            (envelope #>> '{payload,execution_time_ms}')::double precision AS execution_time_ms,
            coalesce(envelope #> '{payload,step_data}', '{}') AS step_data,
            envelope #>> '{payload,error_message}' AS error_message
        FROM incoming WHERE route = 'STEP_COMPLETED'
    ), placed AS (
        INSERT INTO workflow_steps (event_id, workflow_id, step_name, step_order, status, execution_time_ms,
            step_data, error_message)
        SELECT * FROM steps WHERE EXISTS (SELECT FROM workflow_executions WHERE id = workflow_id)
        ON CONFLICT DO NOTHING
    )
    INSERT INTO workflow_steps_waiting (event_id, workflow_id, step_name, step_order, status, execution_time_ms,
        step_data, error_message)
    SELECT * FROM steps WHERE NOT EXISTS (SELECT FROM workflow_executions WHERE id = workflow_id)
    ON CONFLICT DO NOTHING"""

ADOPT: Final = """
    WITH adopted AS (
        DELETE FROM workflow_steps_waiting AS waiting USING workflow_executions AS workflow
        WHERE workflow.id = waiting.workflow_id
        RETURNING waiting.*
    ), placed AS (
        INSERT INTO workflow_steps (event_id, workflow_id, step_name, step_order, status, execution_time_ms,
            step_data, error_message, created_at)
        SELECT event_id, workflow_id, step_name, step_order, status, execution_time_ms, step_data, error_message,
            created_at
        FROM adopted
        ON CONFLICT DO NOTHING
    )
    SELECT (SELECT count(*) FROM adopted) AS adopted, (SELECT count(*) FROM workflow_steps_waiting) AS waited"""

_TRANSITIONS: Final = """
    INSERT INTO fsm_transitions (event_id, entity_id, entity_type, from_state, to_state, transition_event,
        transition_data, occurred_at)
    SELECT event_id, envelope #>> '{payload,entity_id}', envelope #>> '{payload,entity_type}',
        envelope #>> '{payload,from_state}', envelope #>> '{payload,to_state}',
        envelope #>> '{payload,transition_event}', coalesce(envelope #> '{payload,transition_data}', '{}'),
        timestamp
    FROM incoming WHERE route IN ('STATE_TRANSITION', 'REDUCER_STATE_TRANSITION')
    ON CONFLICT DO NOTHING"""

_STAMPS: Final = """
    INSERT INTO metadata_stamps (id, file_hash, file_path, file_size, content_type, stamp_data, protocol_version,
        intelligence_data, version, op_id, namespace, metadata_version, created_at)
    SELECT stamp.stamp_id, stamp.file_hash, stamp.file_path, stamp.file_size_bytes, stamp.content_type,
        coalesce(stamp.stamp_data, '{}'), coalesce(stamp.protocol_version, '1.0'),
        stamp.intelligence_data, coalesce(stamp.version, 1), stamp.op_id,
        coalesce(stamp.namespace, 'omninode.services.metadata'), coalesce(stamp.metadata_version, '0.1'),
        stamp.created_at
    FROM incoming, jsonb_to_record(envelope -> 'payload') AS stamp (stamp_id uuid, file_hash text, file_path text,
        file_size_bytes bigint, content_type text, stamp_data jsonb, protocol_version text,
        intelligence_data jsonb, version integer, op_id uuid, namespace text, metadata_version text,
        created_at timestamptz)
    WHERE route = 'METADATA_STAMPED'
    ON CONFLICT DO NOTHING"""

# What a node says of itself holds until it says something newer, in whatever order its records are read. Rows are
# locked in the order of their ids, so that two adapters do not wait for each other.
_INTROSPECTIONS: Final = """
    INSERT INTO node_registrations AS known (node_id, node_type, node_version, capabilities, endpoints, metadata,
        introspected_at)
    SELECT DISTINCT ON (node.node_id) node.node_id, node.node_type, node.node_version,
        coalesce(node.capabilities, '{}'), coalesce(node.endpoints, '{}'), coalesce(node.metadata, '{}'), timestamp
    FROM incoming, jsonb_to_record(envelope -> 'payload') AS node (node_id text, node_type text, node_version text,
        capabilities jsonb, endpoints jsonb, metadata jsonb)
    WHERE route = 'NODE_INTROSPECTION'
    ORDER BY node.node_id, timestamp DESC
    ON CONFLICT (node_id) DO UPDATE SET node_type = excluded.node_type, node_version = excluded.node_version,
        capabilities = excluded.capabilities, endpoints = excluded.endpoints, metadata = excluded.metadata,
        introspected_at = excluded.introspected_at
    WHERE known.introspected_at IS NULL OR known.introspected_at <= excluded.introspected_at"""

_HEARTBEATS: Final = """
    INSERT INTO node_registrations AS known (node_id, health_status, last_heartbeat)
    SELECT DISTINCT ON (node.node_id) node.node_id, node.health_status, node.sent_at
    FROM incoming, jsonb_to_record(envelope -> 'payload') AS node (node_id text, health_status text,
        sent_at timestamptz)
    WHERE route = 'NODE_HEARTBEAT'
    ORDER BY node.node_id, node.sent_at DESC
    ON CONFLICT (node_id) DO UPDATE SET health_status = excluded.health_status,
        last_heartbeat = excluded.last_heartbeat
    WHERE known.last_heartbeat IS NULL OR known.last_heartbeat <= excluded.last_heartbeat"""

PLACES: Final[Mapping[Route, str]] = {
    Route.STEP_COMPLETED: STEPS,
    Route.STATE_TRANSITION: _TRANSITIONS,
    Route.REDUCER_STATE_TRANSITION: _TRANSITIONS,
    Route.METADATA_STAMPED: _STAMPS,
    Route.NODE_INTROSPECTION: _INTROSPECTIONS,
    Route.NODE_HEARTBEAT: _HEARTBEATS,
}
"""Where else the events of a route belong, beside the log of all events."""
