"""The states of a run and the only ways between them.

Source: issue 4 (states, enforced transition table), contract page "pipelines", 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class RunState(StrEnum):
    """Where a run is on its way."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


TRANSITIONS: Final[Mapping[RunState, frozenset[RunState]]] = MappingProxyType(
    {
        RunState.SCHEDULED: frozenset({RunState.PENDING, RunState.SKIPPED}),
        RunState.PENDING: frozenset({RunState.RUNNING, RunState.FAILED, RunState.SKIPPED}),
        RunState.RUNNING: frozenset({RunState.COMPLETED, RunState.FAILED}),
        # A retry is the same run, waiting again.
        RunState.FAILED: frozenset({RunState.PENDING}),
        RunState.COMPLETED: frozenset(),
        RunState.SKIPPED: frozenset(),
    }
)
"""From each state, the states a run may go to."""


class IllegalTransitionError(ValueError):
    """A run was to make a step that the transition table does not have.

    Args:
        source: The state the run is in.
        target: The state it was to go to.
    """

    def __init__(self, source: RunState, target: RunState) -> None:
        """Say which step, and which ones there are."""
        ways = ", ".join(state for state in RunState if state in TRANSITIONS[source]) or "nothing, it has ended"
        super().__init__(f"a run cannot go from {source} to {target}; from {source} it can go to: {ways}")
        self.source = source
        self.target = target

    def __reduce__(self) -> tuple[type[IllegalTransitionError], tuple[RunState, RunState]]:
        """Survive being sent between processes: the message is not the argument."""
        return type(self), (self.source, self.target)


def allowed(source: RunState, target: RunState) -> bool:
    """Whether a run may go from one state to another.

    Args:
        source: The state the run is in.
        target: The state it would go to.

    Returns:
        True if the transition table has this step.
    """
    return target in TRANSITIONS[source]


def check(source: RunState, target: RunState) -> None:
    """Refuse a step that the transition table does not have.

    Args:
        source: The state the run is in.
        target: The state it would go to.

    Raises:
        IllegalTransitionError: There is no such step.
    """
    if not allowed(source, target):
        raise IllegalTransitionError(source, target)
