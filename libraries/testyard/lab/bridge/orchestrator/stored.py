"""Workflows as the tables have them: those of earlier processes, of which some are unfinished."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from testyard.lab.bridge.breaker import CircuitOpenError
from testyard.lab.bridge.events import WorkflowState
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.database import DATABASE_TROUBLE, fetch

COLUMNS: Final = """
    id, correlation_id, current_state, namespace, started_at, completed_at, execution_time_ms, error_message,
    metadata -> 'result' AS result,
    CASE WHEN current_state IN ('PENDING', 'PROCESSING') THEN metadata -> 'request' END AS request"""

BY_ID: Final = f"SELECT {COLUMNS} FROM workflow_executions WHERE id = %(id)s"

BY_CORRELATION: Final = (
    f"SELECT {COLUMNS} FROM workflow_executions WHERE correlation_id = ANY(%(correlation_ids)s)"
)

UNFINISHED: Final = f"""
    SELECT {COLUMNS} FROM workflow_executions
    WHERE current_state IN ('PENDING', 'PROCESSING')
        AND started_at < greatest(%(start)s, clock_timestamp() - %(old)s)
        AND metadata ->> 'environment' = %(environment)s
        AND metadata ->> 'instance' <> %(instance)s AND metadata ? 'request'
        AND (started_at, id) > (%(after)s, %(after_id)s)
    ORDER BY started_at, id LIMIT %(limit)s"""

MOST_AT_ONCE: Final = 1000

CLOCKS_DIFFER_BY: Final = timedelta(seconds=5)
"""How much later than its own start an instance may think that an earlier one has taken a workflow on."""
OLD: Final = timedelta(minutes=1)
"""From this age on workflows are looked at whoever's they seem to be: a clock may have been set back."""

_AWAY: Final = (*DATABASE_TROUBLE, CircuitOpenError)
_FIRST: Final = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))

_log = logging.getLogger(__name__)


async def read_stored(node: Node, workflow_id: UUID) -> Workflow | None:
    """A workflow as the tables have it; None when they do not.

    Raises:
        DatabaseUnavailableError: The database is away.
        CircuitOpenError: It has been for a while.
    """
    with node.database_breaker.call():
        rows = await fetch(node.pool, BY_ID, {"id": workflow_id})
    return _workflow(rows[0]) if rows else None


async def find_stored(node: Node, correlation_ids: Sequence[UUID]) -> list[Workflow]:
    """Those of some workflows that the tables know; while the database is away: none.

    One that is unfinished and cannot be resumed, as nobody knows what was asked of it, is left out.
    """
    try:
        with node.database_breaker.call():
            rows = await fetch(node.pool, BY_CORRELATION, {"correlation_ids": list(correlation_ids)})
    except _AWAY:
        return []
    found = ((_workflow(row), _request(row)) for row in rows)
    return [workflow for workflow, request in found if workflow.has_ended or request is not None]


class Unfinished:
    """Finds workflows that an earlier process has left unfinished.

    There is one orchestrator in an environment; a workflow that another instance has taken on belongs to one that
    has ended. Those that were taken on after this one's start are its own, and there may be thousands in flight:
    they are not even looked at.

    Args:
        node: The orchestrator's.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._start = datetime.now(UTC) + CLOCKS_DIFFER_BY
        self._not_understood = 0

    async def find(self) -> list[Workflow]:
        """All of them, the oldest first; while the database is away: those that were found until then."""
        found: list[Workflow] = []
        not_understood = 0
        after = _FIRST
        while rows := await self._next(after):
            for row in rows:
                if _request(row) is None:
                    not_understood += 1
                else:
                    found.append(_workflow(row))
            after = (rows[-1]["started_at"], rows[-1]["id"])
        if not_understood > self._not_understood:
            _log.warning("%s unfinished workflows cannot be resumed: nobody knows what was asked", not_understood)
        self._not_understood = not_understood
        return found

    async def _next(self, after: tuple[datetime, UUID]) -> list[dict[str, Any]]:
        wanted = {
            "environment": self._node.settings.environment,
            "instance": self._node.instance,
            "start": self._start,
            "old": OLD,
            "after": after[0],
            "after_id": after[1],
            "limit": MOST_AT_ONCE,
        }
        try:
            with self._node.database_breaker.call():
                return await fetch(self._node.pool, UNFINISHED, wanted)
        except _AWAY:
            return []


def _request(row: Mapping[str, Any]) -> WorkflowRequest | None:
    try:
        return WorkflowRequest.model_validate(row["request"])
    except ValidationError:
        return None


def _workflow(row: Mapping[str, Any]) -> Workflow:
    # What has ended needs no request; what somebody else has published may have no valid one.
    request = _request(row) or WorkflowRequest.model_construct(
        content="", file_path="", namespace=row["namespace"], metadata={}
    )
    return Workflow.as_stored(
        request,
        row["correlation_id"],
        row["started_at"],
        state=WorkflowState(row["current_state"]),
        completed_at=row["completed_at"],
        execution_time_ms=row["execution_time_ms"],
        error=row["error_message"],
        result=row["result"] or {},
    )
