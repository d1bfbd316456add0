"""The states of a deployment and what may be done in which (contract 2.7)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The states of a deployment, by the names of the state file."""

    INITIALIZED = "initialized"
    DEPLOY_IN_PROGRESS = "deploy_in_progress"
    DEPLOYMENT_FAILED = "deployment_failed"
    DATABASE_CONNECTION_FAILED = "database_connection_failed"
    DATABASE_READY = "database_ready"
    DESTROY_IN_PROGRESS = "destroy_in_progress"
    DESTROY_FAILED = "destroy_failed"
    DESTROYED = "destroyed"
    STOPPED = "stopped"
    STARTED = "started"
    START_IN_PROGRESS = "start_in_progress"
    START_FAILED = "start_failed"
    STOP_IN_PROGRESS = "stop_in_progress"
    STOP_FAILED = "stop_failed"


class Operation(StrEnum):
    """What changes a deployment; each holds the lock while it runs."""

    DEPLOY = "deploy"
    STOP = "stop"
    START = "start"
    DESTROY = "destroy"

    @property
    def in_progress(self) -> Status:
        """The state while it runs."""
        return Status(f"{self}_in_progress")

    @property
    def failed(self) -> Status:
        """The state after it has failed."""
        return Status.DEPLOYMENT_FAILED if self is Operation.DEPLOY else Status(f"{self}_failed")


IN_PROGRESS: Final = {operation.in_progress: operation for operation in Operation}
FAILED: Final = frozenset({*(operation.failed for operation in Operation), Status.DATABASE_CONNECTION_FAILED})

# A stop that leaves power to its caller is in progress without anybody holding the lock.
_SAYS_NOTHING_ABOUT: Final = {*IN_PROGRESS, Status.INITIALIZED, Status.DESTROYED} - {Status.STOP_IN_PROGRESS}

ALLOWED_FROM: Final[Mapping[Operation, frozenset[Status]]] = {
    Operation.DEPLOY: frozenset({Status.INITIALIZED, Status.DEPLOYMENT_FAILED}),
    Operation.STOP: frozenset(
        {Status.DATABASE_READY, Status.DATABASE_CONNECTION_FAILED, Status.STOP_FAILED, Status.STARTED}
    ),
    Operation.START: frozenset({Status.STOPPED, Status.START_FAILED}),
    Operation.DESTROY: frozenset(Status) - {*IN_PROGRESS, Status.DESTROYED},
}

_ADVICE: Final[Mapping[Operation, Mapping[Status, str]]] = {
    Operation.DEPLOY: dict.fromkeys(
        [
            Status.DATABASE_CONNECTION_FAILED,
            Status.DATABASE_READY,
            Status.STOPPED,
            Status.STARTED,
            Status.START_FAILED,
            Status.STOP_FAILED,
        ],
        "it is already deployed; destroy it first",
    )
    | {Status.DESTROY_FAILED: "a part of it may still be there; destroy it again"},
    Operation.STOP: {
        Status.INITIALIZED: "it is not deployed yet",
        Status.STOPPED: "it is already stopped",
        Status.START_FAILED: "its start did not finish; start it again, or ask 'health --update' what runs",
        Status.DEPLOYMENT_FAILED: "its deployment did not finish; destroy it",
        Status.DESTROY_FAILED: "a part of it may be gone; destroy it again",
    },
    Operation.START: {
        Status.INITIALIZED: "it is not deployed yet",
        Status.DATABASE_READY: "it is already started",
        Status.DATABASE_CONNECTION_FAILED: "it is already started, though its database cannot be reached",
        Status.STARTED: "it is already started; ask 'health --update' whether it is ready",
        Status.STOP_FAILED: "its stop did not finish; stop it again, or ask 'health --update' what runs",
        Status.DEPLOYMENT_FAILED: "its deployment did not finish; destroy it",
        Status.DESTROY_FAILED: "a part of it may be gone; destroy it again",
    },
    Operation.DESTROY: {Status.DESTROYED: "it is already destroyed"},
}


def refusal(operation: Operation, status: Status) -> str | None:
    """Why an operation is refused in a state; None when it is allowed.

    Example:
        >>> refusal(Operation.START, Status.DATABASE_READY)
        "start is refused in state 'database_ready': it is already started"
    """
    if status in ALLOWED_FROM[operation]:
        return None
    if status in IN_PROGRESS:
        reason = f"{IN_PROGRESS[status]} is in progress"
    elif status is Status.DESTROYED and operation is not Operation.DESTROY:
        reason = "it is destroyed; init a new deployment"
    else:
        reason = _ADVICE[operation][status]
    return f"{operation} is refused in state '{status}': {reason}"


def derived_status(status: Status, *, ssh_answers: bool, issues: bool, stage_d: bool) -> Status:
    """The state of a deployment by what was measured (contract 2.7).

    Args:
        status: What the state file says.
        ssh_answers: Whether any node answers over SSH.
        issues: Whether the measurement found anything wrong.
        stage_d: Whether the cluster is complete: the database answers and takes writes.

    Returns:
        The state it has in truth; the given one where a measurement says nothing about it.
    """
    if status in _SAYS_NOTHING_ABOUT:
        return status
    if not ssh_answers:
        return Status.STOPPED
    if not issues and stage_d and status in {*FAILED, Status.STOPPED, Status.STARTED}:
        return Status.DATABASE_READY
    if status is Status.DATABASE_READY and not stage_d:
        return Status.DATABASE_CONNECTION_FAILED
    if status is Status.STOPPED:
        return Status.STOP_FAILED
    return status
