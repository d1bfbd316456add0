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
        >>> timeout.enter(Scope.TEST); timeout.set(5, Scope.TEST)
        10
        >>> timeout.value
        5
        >>> timeout.leave(); timeout.value
        10
    """

    def __init__(self, default: Value) -> None:
        self._levels: list[tuple[Scope, Value]] = [(Scope.GLOBAL, default)]

    @property
    def value(self) -> Value:
        """The value in force."""
        return self._levels[-1][1]

    def enter(self, level: Scope) -> None:
        """A suite or test starts: it inherits the value in force.

        Args:
            level: ``SUITE`` or ``TEST``.
        """
        self._levels.append((level, self.value))

    def leave(self) -> None:
        """A suite or test ends: what it set is undone."""
        if len(self._levels) > 1:
            self._levels.pop()

    def set(self, value: Value, scope: Scope) -> Value:
        """Set the value for a scope.

        ``TEST`` lasts until the innermost test or suite ends, ``SUITE`` until the innermost suite ends, ``GLOBAL``
        until the end of the run.

        Returns:
            The value that was in force, for restoring.
        """
        previous = self.value
        first = 0
        if scope is not Scope.GLOBAL:
            first = len(self._levels) - 1
            while scope is Scope.SUITE and self._levels[first][0] is Scope.TEST:
                first -= 1
        self._levels[first:] = [(level, value) for level, _ in self._levels[first:]]
        return previous
