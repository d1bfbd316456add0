"""What an operation did, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from testyard.power.protocol import PowerState, ProviderName
from testyard.power.transitions import Operation

# The document's word for every crash (contract "cluster" 2.1).
CRASH_TYPE = "hard_shutdown"


class Outcome(Enum):
    """How a node ended."""

    STOPPED = "stopped"
    STARTED = "started"
    CAME_BACK = "came back"
    STAYED_DOWN = "stayed down"
    UNCHANGED = "was there already"


@dataclass(frozen=True)
class StateSeen:
    """A state of the node and when it was first seen.

    Attributes:
        time: When (UTC).
        state: The state.
        detail: What SSH and the API said.
    """

    time: datetime
    state: PowerState
    detail: str


@dataclass(frozen=True)
class PowerResult:
    """One operation on one node.

    Attributes:
        provider: Whose machine.
        operation: What was done.
        node: The node's name.
        command: The SSH command or the API's calls.
        outcome: How it ended.
        states: The states that were seen, in order; the first is the one before.
        boot_id_before: The boot's id before, when it could be read.
        boot_id_after: The boot's id after, when the node answers.
        proof: How it is known, in a sentence.
        duration: From the first look to the proof.
    """

    provider: ProviderName
    operation: Operation
    node: str
    command: str
    outcome: Outcome
    states: tuple[StateSeen, ...]
    boot_id_before: str | None
    boot_id_after: str | None
    proof: str
    duration: timedelta

    def as_json(self) -> dict[str, Any]:
        """The result as it goes into a workflow's result file.

        A crash and a restart have the documented keys `method`, `node`, `command`, a crash also `crash_type`.
        """
        result: dict[str, Any] = {"node": self.node, "command": self.command}
        if self.operation.method:
            result["method"] = self.operation.method
        if self.operation.step == "crash_node":
            result["crash_type"] = CRASH_TYPE
        return {
            **result,
            "provider": self.provider.value,
            "operation": self.operation.step,
            "outcome": self.outcome.value,
            "states": [
                {"time": seen.time.isoformat(), "state": seen.state.value, "detail": seen.detail}
                for seen in self.states
            ],
            "boot_id_before": self.boot_id_before,
            "boot_id_after": self.boot_id_after,
            "proof": self.proof,
            "duration": round(self.duration.total_seconds(), 3),
        }
