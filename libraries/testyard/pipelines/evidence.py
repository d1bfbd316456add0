"""Reads what the checker of histories needs from the service's rows and the workers' own logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from testyard.core.errors import UserError
from testyard.pipelines.history import Execution, RunState, Transition


def transitions_in(rows: Iterable[Mapping[str, Any]]) -> list[Transition]:
    """The changes of state in rows of the table ``run_transitions``.

    Raises:
        UserError: A row has not all the columns that are needed.
    """
    try:
        return [
            Transition(
                run_id=row["run_id"],
                sequence=row["sequence"],
                from_state=None if row["from_state"] is None else RunState(row["from_state"]),
                to_state=RunState(row["to_state"]),
                at=row["at"],
                attempt=row["retry_attempt"],
                worker=row["worker_id"],
                not_before=row["not_before"],
            )
            for row in rows
        ]
    except (KeyError, ValueError) as problem:
        message = f"A row is none of run_transitions: {problem}."
        raise UserError(message) from None


def executions_in(lines: Iterable[Mapping[str, Any]]) -> list[Execution]:
    """The executions in what workers wrote down: one line for a start, one for the success they then had."""
    events = list(lines)
    succeeded = {_claim(line): line["monotonic_ns"] for line in events if line["event"] == "succeeded"}
    return [
        Execution(
            run_id=line["run_id"],
            attempt=line["retry_attempt"],
            worker=line["worker"],
            started_ns=line["monotonic_ns"],
            reported_ns=succeeded.get(_claim(line)),
        )
        for line in events
        if line["event"] == "started"
    ]


def _claim(line: Mapping[str, Any]) -> tuple[str, int]:
    return line["run_id"], line["claim_number"]
