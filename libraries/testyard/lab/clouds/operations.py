"""Operations that a provider's API begins and its clients ask for until they are done (Azure, Google)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from starlette.requests import Request

from testyard.lab.clouds.machines import LASTING, MachineState, ShownMachines


class Progress(StrEnum):
    """How far an operation has come."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Operation:
    """A power action that was accepted.

    Attributes:
        identifier: A UUID.
        kind: The provider's word for it, such as ``start``.
        instance_id: Whose power.
        target: The state it leads to.
        begun: When it was accepted (UTC).
    """

    identifier: str
    kind: str
    instance_id: str
    target: MachineState
    begun: datetime


@dataclass(frozen=True)
class Standing:
    """Where an operation stands; ``ended`` (UTC) is when that was first seen."""

    progress: Progress
    ended: datetime | None = None


class Operations:
    """The operations of one account. An operation is done when its machine has arrived in a lasting state.

    Args:
        shown: The machines, as the API shows them.
    """

    def __init__(self, shown: ShownMachines) -> None:
        self._shown = shown
        self._operations: dict[str, Operation] = {}
        self._ended: dict[str, Standing] = {}

    def begin(self, kind: str, instance_id: str, target: MachineState) -> Operation:
        """Note an operation; one of the same machine that is still running has failed: this one replaces it."""
        for other in self._operations.values():
            if other.instance_id == instance_id and self.standing(other).progress is Progress.RUNNING:
                self._end(other, Progress.FAILED)
        operation = Operation(str(uuid.uuid4()), kind, instance_id, target, datetime.now(UTC))
        self._operations[operation.identifier] = operation
        return operation

    def find(self, identifier: str) -> Operation | None:
        """The operation of this identifier."""
        return self._operations.get(identifier)

    def standing(self, operation: Operation) -> Standing:
        """Where the operation stands now."""
        if operation.identifier not in self._ended:
            machine = self._shown.find(operation.instance_id)
            if machine is None:
                self._end(operation, Progress.FAILED)
            elif machine.state in LASTING:
                arrived = machine.state is operation.target
                self._end(operation, Progress.SUCCEEDED if arrived else Progress.FAILED)
        return self._ended.get(operation.identifier, Standing(Progress.RUNNING))

    def _end(self, operation: Operation, progress: Progress) -> None:
        self._ended[operation.identifier] = Standing(progress, datetime.now(UTC))


def mount_address(request: Request) -> str:
    """Where the API is mounted, as the client sees it, for links to operations; no slash at its end."""
    # Not base_url, which is the address of the outermost application.
    return f"{request.url.scheme}://{request.url.netloc}{request.scope['root_path']}"
