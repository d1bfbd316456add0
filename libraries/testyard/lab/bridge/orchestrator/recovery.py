"""Workflows that another process has left unfinished: they are found in the tables and run again.

There is one orchestrator in an environment; a workflow that is not its own belongs to one that has ended.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from pydantic import ValidationError

from testyard.lab.bridge.breaker import CircuitOpenError
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.orchestrator.engine import Orchestrator
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.database import DatabaseUnavailableError, fetch
from testyard.lab.waiting import elapse

UNFINISHED: Final = """
    SELECT correlation_id, started_at, metadata -> 'request' AS request FROM workflow_executions
    WHERE current_state IN ('PENDING', 'PROCESSING') AND metadata ->> 'environment' = %(environment)s
        AND metadata ->> 'instance' <> %(instance)s AND metadata -> 'request' IS NOT NULL
    ORDER BY started_at LIMIT %(limit)s"""

MOST_AT_ONCE: Final = 1000


async def resume_unfinished(node: Node, orchestrator: Orchestrator) -> int:
    """Run again what is unfinished and nobody's.

    Returns:
        How many were found.
    """
    wanted = {"environment": node.settings.environment, "instance": node.instance, "limit": MOST_AT_ONCE}
    try:
        with node.database_breaker.call():
            rows = await fetch(node.pool, UNFINISHED, wanted)
    except (DatabaseUnavailableError, CircuitOpenError):
        return 0
    for row in rows:
        with suppress(ValidationError):
            request = WorkflowRequest.model_validate(row["request"])
            orchestrator.resume(Workflow(request, row["correlation_id"], row["started_at"]))
    return len(rows)


async def resume_for_ever(node: Node, orchestrator: Orchestrator) -> None:
    """Look for such workflows again and again: what tells of them may still have been on the bus at the start."""
    while True:
        await resume_unfinished(node, orchestrator)
        await elapse(node.settings.orchestrator.resume_after)
