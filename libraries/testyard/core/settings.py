"""Settings with a scope: what a test or a suite sets is undone at its end."""

from __future__ import annotations

from enum import Enum
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Scope(Enum):
    """How long a setting lasts."""

    GLOBAL = "global"
    SUITE = "suite"
    TEST = "test"


class ScopedSetting(Generic[Value]):
    """One setting whose value follows the nesting of suites and tests.

    Example:
        >>> timeout = ScopedSetting(10)
        >>> timeout.enter(); timeout.set(5, Scope.TEST)
        10
        >>> timeout.value
        5
        >>> timeout.leave(); timeout.value
        10
    """

    def __init__(self, default: Value) -> None:
        self._levels: list[Value] = [default]

    @property
    def value(self) -> Value:
        """The value in force."""
        return self._levels[-1]

    def enter(self) -> None:
        """A suite or test starts: it inherits the value in force."""
        self._levels.append(self.value)

    def leave(self) -> None:
        """A suite or test ends: what it set is undone."""
        if len(self._levels) > 1:
            self._levels.pop()

    def set(self, value: Value, scope: Scope) -> Value:
        """Set the value for a scope.

        ``TEST`` lasts until the innermost level ends, ``SUITE`` until the level around it ends when a test
        runs, ``GLOBAL`` until the end of the run.

        Returns:
            The value that was in force, for restoring.
        """
        previous = self.value
        match scope:
            case Scope.GLOBAL:
                first = 0
            case Scope.SUITE:
                first = max(len(self._levels) - 2, 0)
            case Scope.TEST:
                first = len(self._levels) - 1
        for level in range(first, len(self._levels)):
            self._levels[level] = value
        return previous
