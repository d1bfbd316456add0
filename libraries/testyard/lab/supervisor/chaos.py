"""Services that fail at random: which, how and in which order follows from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from testyard.lab.supervisor.bridge_service import BridgeService

if TYPE_CHECKING:
    from testyard.lab.supervisor.event_bus import EventBusLab


class Failure(Enum):
    """How a service fails."""

    KILLED = "killed"
    PAUSED = "paused"


@dataclass(frozen=True)
class PlannedFailure:
    """One failure.

    Attributes:
        service: Whose.
        failure: How it fails.
    """

    service: BridgeService
    failure: Failure

    def happen(self, lab: EventBusLab) -> None:
        """Let it happen, and be over."""
        if self.failure is Failure.KILLED:
            lab.kill(self.service)
            lab.start_again(self.service)
        else:
            lab.pause(self.service)
            lab.resume(self.service)


def planned_failures(seed: int, times: int) -> Iterator[PlannedFailure]:
    """Failures by chance, the same ones for the same seed; no service twice in a row.

    Args:
        seed: Says which.
        times: How many.
    """
    chance = random.Random(seed)
    services = list(BridgeService)
    last: BridgeService | None = None
    for _ in range(times):
        last = chance.choice([service for service in services if service is not last])
        yield PlannedFailure(last, chance.choice(list(Failure)))
