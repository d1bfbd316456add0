"""How the reducer persists: rows, totals and how far it has read, all in one transaction.

As the offsets are written with what was made of the records, a crash between two batches neither loses a batch nor
counts it twice, and a workflow is counted once, when its row becomes final. What is read again, or late, changes
nothing but what is missing from a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from psycopg.types.json import Jsonb

from testyard.lab.bridge.reducer.aggregation import REQUEST, Execution
from testyard.lab.database import Connection, Pool, fetch, in_transaction

Offsets = Mapping[tuple[str, int], int]

ACTIVE: Final = "ACTIVE"
"""The state of a namespace's row: there are workflows in it."""

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

# What was said of workflows whose row was final already: the start that was read after the end, and an end that
# was told after the first one and read before it. None of it is counted again.
COMPLETE_FINAL_ROWS: Final = """
    UPDATE workflow_executions AS stored SET
        current_state = CASE WHEN late.is_first_end THEN late.state ELSE stored.current_state END,
        completed_at = CASE WHEN late.is_first_end THEN late.completed ELSE stored.completed_at END,
        execution_time_ms = CASE WHEN late.is_first_end THEN late.took ELSE stored.execution_time_ms END,
        error_message = CASE WHEN late.is_first_end THEN late.error ELSE stored.error_message END,
        metadata = CASE WHEN late.is_first_end THEN stored.metadata || late.metadata
            ELSE late.metadata || stored.metadata END,
        updated_at = clock_timestamp()
    FROM (
        SELECT told.*, state IN ('COMPLETED', 'FAILED')
            AND (completed, state) < (known.completed_at, known.current_state) AS is_first_end
        FROM unnest(%(correlation_ids)s::uuid[], %(states)s::text[], %(completed)s::timestamptz[],
                %(took)s::float8[], %(errors)s::text[], %(metadata)s::jsonb[])
            AS told (correlation_id, state, completed, took, error, metadata)
        JOIN workflow_executions AS known USING (correlation_id)
        WHERE known.current_state IN ('COMPLETED', 'FAILED')
        ORDER BY correlation_id FOR UPDATE OF known
    ) AS late
    WHERE late.correlation_id = stored.correlation_id
        AND (late.is_first_end OR late.metadata ? 'request' AND NOT stored.metadata ? 'request')"""

WRITE_TOTALS: Final = """
    INSERT INTO bridge_states AS stored (
        bridge_id, namespace, total_workflows_processed, total_items_aggregated, aggregation_metadata,
        current_fsm_state, last_aggregation_timestamp)
    SELECT bridge_id, namespace, workflows, items, jsonb_build_object('workflows', workflows, 'items', items),
        %(state)s, clock_timestamp()
    FROM unnest(%(ids)s::uuid[], %(namespaces)s::text[], %(workflows)s::bigint[], %(items)s::bigint[])
        AS batch (bridge_id, namespace, workflows, items)
    ON CONFLICT (bridge_id) DO UPDATE SET
        total_workflows_processed = stored.total_workflows_processed + excluded.total_workflows_processed,
        total_items_aggregated = stored.total_items_aggregated + excluded.total_items_aggregated,
        aggregation_metadata = excluded.aggregation_metadata,
        last_aggregation_timestamp = excluded.last_aggregation_timestamp
    RETURNING *, xmax = 0 AS is_new"""

READ_TOTALS: Final = (
    "SELECT *, true AS is_new FROM bridge_states WHERE current_fsm_state = %(state)s ORDER BY bridge_id"
)

# A partition that was made anew begins at 0 again: the later offset is the right one, also when it is smaller. Two
# members that have had a partition one after the other may write in the wrong order; what is then read again is
# not counted again.
WRITE_OFFSETS: Final = """
    INSERT INTO reducer_offsets (topic, partition, next_offset)
    SELECT * FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[])
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset"""

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
        is_new: Whether it is still to be told that there is such a row.
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
        psycopg.Error: The tables refuse one of the executions; nothing is written.
    """

    async def work(connection: Connection) -> list[Totals]:
        ended = await _write(connection, executions) if executions else []
        totals = await _add(connection, environment, ended) if ended else []
        if offsets:
            topics, partitions = zip(*offsets, strict=True)
            await connection.execute(
                WRITE_OFFSETS,
                {"topics": list(topics), "partitions": list(partitions), "offsets": list(offsets.values())},
            )
        return totals

    return await in_transaction(pool, work)


async def _write(connection: Connection, executions: Sequence[Execution]) -> list[Execution]:
    """Write rows; gives the workflows that were not final before and are now."""
    # In one order, so that two transactions cannot wait for each other.
    unwritten = {it.correlation_id: it for it in sorted(executions, key=lambda it: it.correlation_id)}
    cursor = await connection.execute(WRITE_EXECUTIONS, _columns(list(unwritten.values())))
    written = [unwritten.pop(row["correlation_id"]) for row in await cursor.fetchall()]
    late = [it for it in unwritten.values() if it.is_final or REQUEST in it.metadata]
    if late:
        await connection.execute(COMPLETE_FINAL_ROWS, _columns(late))
    return [it for it in written if it.is_final]


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
            "state": ACTIVE,
        },
    )
    return [_totals(row) for row in await cursor.fetchall()]


def _totals(row: Mapping[str, Any]) -> Totals:
    last = row["aggregation_metadata"]
    return Totals(
        row["bridge_id"],
        row["namespace"],
        last["workflows"],
        last["items"],
        row["total_workflows_processed"],
        row["total_items_aggregated"],
        row["is_new"],
    )


async def read_totals(pool: Pool, environment: str) -> list[Totals]:
    """The totals of each namespace of an environment, with what the last batch has added to them.

    Args:
        pool: The tables.
        environment: Which one.

    Raises:
        DatabaseUnavailableError: The database is away.
    """
    rows = await fetch(pool, READ_TOTALS, {"state": ACTIVE})
    return [_totals(row) for row in rows if row["bridge_id"] == bridge_id_of(environment, row["namespace"])]


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
    return {
        "ids": [it.workflow_id for it in executions],
        "correlation_ids": [it.correlation_id for it in executions],
        "types": [it.workflow_type for it in executions],
        "states": [it.state.value for it in executions],
        "namespaces": [it.namespace for it in executions],
        "started": [it.started_at for it in executions],
        "completed": [it.completed_at for it in executions],
        "took": [it.execution_time_ms for it in executions],
        "errors": [it.error_message for it in executions],
        "metadata": [Jsonb(it.metadata) for it in executions],
    }
