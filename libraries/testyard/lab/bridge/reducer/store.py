"""How the reducer persists: rows, totals and how far it has read, all in one transaction.

As the offsets are written with what was made of the records, a crash between two batches neither loses a batch nor
counts it twice, and a workflow is counted once, when its row becomes final.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from psycopg.types.json import Jsonb

from testyard.lab.bridge.events import WorkflowState
from testyard.lab.bridge.reducer.aggregation import FINAL, Execution
from testyard.lab.database import Connection, Pool, fetch, in_transaction

Offsets = Mapping[tuple[str, int], int]

WRITE_EXECUTIONS: Final = """
    INSERT INTO workflow_executions AS stored (
        id, correlation_id, workflow_type, current_state, namespace, started_at, completed_at, execution_time_ms,
        error_message, metadata)
    SELECT * FROM unnest(
        %(ids)s::uuid[], %(correlation_ids)s::uuid[], %(types)s::text[], %(states)s::text[],
        %(namespaces)s::text[], %(started)s::timestamptz[], %(completed)s::timestamptz[], %(took)s::float8[],
        %(errors)s::text[], %(metadata)s::jsonb[])
    ON CONFLICT (correlation_id) DO UPDATE SET
        current_state = CASE WHEN excluded.current_state = 'PENDING' THEN stored.current_state
            ELSE excluded.current_state END,
        completed_at = excluded.completed_at,
        execution_time_ms = excluded.execution_time_ms,
        error_message = excluded.error_message,
        metadata = stored.metadata || excluded.metadata,
        updated_at = clock_timestamp()
    WHERE stored.current_state NOT IN ('COMPLETED', 'FAILED')
    RETURNING correlation_id, current_state"""

WRITE_TOTALS: Final = """
    INSERT INTO bridge_states AS stored (
        bridge_id, namespace, total_workflows_processed, total_items_aggregated, current_fsm_state,
        last_aggregation_timestamp)
    SELECT bridge_id, namespace, workflows, items, 'ACTIVE', clock_timestamp()
    FROM unnest(%(ids)s::uuid[], %(namespaces)s::text[], %(workflows)s::bigint[], %(items)s::bigint[])
        AS batch (bridge_id, namespace, workflows, items)
    ON CONFLICT (bridge_id) DO UPDATE SET
        total_workflows_processed = stored.total_workflows_processed + excluded.total_workflows_processed,
        total_items_aggregated = stored.total_items_aggregated + excluded.total_items_aggregated,
        last_aggregation_timestamp = excluded.last_aggregation_timestamp
    RETURNING bridge_id, namespace, total_workflows_processed, total_items_aggregated, xmax = 0 AS is_new"""

WRITE_OFFSETS: Final = """
    INSERT INTO reducer_offsets AS stored (topic, partition, next_offset)
    SELECT * FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[])
    ON CONFLICT (topic, partition) DO UPDATE
    SET next_offset = greatest(stored.next_offset, excluded.next_offset)"""

READ_OFFSETS: Final = "SELECT topic, partition, next_offset FROM reducer_offsets WHERE topic = ANY(%(topics)s)"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a batch has added to a namespace.

    Attributes:
        bridge_id: The namespace's row.
        namespace: Which one.
        workflows: How many workflows ended in this batch.
        items: How many files they were about.
        total_workflows: How many workflows altogether.
        total_items: How many files altogether.
        is_new: Whether the row was not there before.
    """

    bridge_id: UUID
    namespace: str
    workflows: int
    items: int
    total_workflows: int
    total_items: int
    is_new: bool


def bridge_id_of(environment: str, namespace: str) -> UUID:
    """The row of a namespace in an environment."""
    return uuid5(NAMESPACE_URL, f"{environment}/{namespace}")


async def persist(pool: Pool, environment: str, executions: Sequence[Execution], offsets: Offsets) -> list[Totals]:
    """Write what a batch says, and that it was read.

    Args:
        pool: The tables.
        environment: Part of a namespace's id.
        executions: From ``aggregate``.
        offsets: For each topic and partition the offset after the last record of the batch.

    Returns:
        The totals of each namespace in which workflows have ended.

    Raises:
        DatabaseUnavailableError: The database is away; nothing is written.
    """
    by_correlation = {it.correlation_id: it for it in executions}

    async def work(connection: Connection) -> list[Totals]:
        ended: list[Execution] = []
        if executions:
            cursor = await connection.execute(WRITE_EXECUTIONS, _columns(executions))
            for row in await cursor.fetchall():
                if WorkflowState(row["current_state"]) in FINAL:
                    ended.append(by_correlation[row["correlation_id"]])
        totals = await _add(connection, environment, ended) if ended else []
        topics, partitions = zip(*offsets, strict=True)
        await connection.execute(
            WRITE_OFFSETS,
            {"topics": list(topics), "partitions": list(partitions), "offsets": list(offsets.values())},
        )
        return totals

    return await in_transaction(pool, work)


async def _add(connection: Connection, environment: str, ended: Sequence[Execution]) -> list[Totals]:
    workflows = Counter(it.namespace for it in ended)
    items: Counter[str] = Counter()
    for it in ended:
        items[it.namespace] += it.items
    namespaces = sorted(workflows)
    cursor = await connection.execute(
        WRITE_TOTALS,
        {
            "ids": [bridge_id_of(environment, name) for name in namespaces],
            "namespaces": namespaces,
            "workflows": [workflows[name] for name in namespaces],
            "items": [items[name] for name in namespaces],
        },
    )
    return [
        Totals(
            row["bridge_id"],
            row["namespace"],
            workflows[row["namespace"]],
            items[row["namespace"]],
            row["total_workflows_processed"],
            row["total_items_aggregated"],
            row["is_new"],
        )
        for row in await cursor.fetchall()
    ]


async def read_offsets(pool: Pool, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    """How far the reducer has read.

    Args:
        pool: The tables.
        topics: Which topics.

    Raises:
        DatabaseUnavailableError: The database is away.
    """
    rows = await fetch(pool, READ_OFFSETS, {"topics": list(topics)})
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


def _columns(executions: Sequence[Execution]) -> dict[str, list[Any]]:
    # In one order, so that two transactions cannot wait for each other.
    ordered = sorted(executions, key=lambda it: it.correlation_id)
    return {
        "ids": [it.workflow_id for it in ordered],
        "correlation_ids": [it.correlation_id for it in ordered],
        "types": [it.workflow_type for it in ordered],
        "states": [it.state.value for it in ordered],
        "namespaces": [it.namespace for it in ordered],
        "started": [it.started_at for it in ordered],
        "completed": [it.completed_at for it in ordered],
        "took": [it.execution_time_ms for it in ordered],
        "errors": [it.error_message for it in ordered],
        "metadata": [Jsonb(it.metadata) for it in ordered],
    }
