"""Whoever wants to see a workflow run: Robot Framework's log with one keyword per step, a terminal, a test."""

from __future__ import annotations

from collections.abc import Callable

from testyard.workflow.model import Step, Suite
from testyard.workflow.results import CheckResult, StepResult, SuiteResult


class Observer:
    """Told about each step and check; override what is of interest.

    All calls come from the thread that runs the workflow, properly nested: the branches of a ``parallel`` step
    are told one after the other, each when it has ended. ``around_*`` hold the work itself and must call
    ``proceed`` exactly once: that is how a library runs it inside a keyword of its own. ``proceed`` does not
    raise when a step fails, as the result says it; what is raised from an observer aborts the run.

    Example:
        >>> class Titles(Observer):
        ...     def before_step(self, step, result):
        ...         print(step.title)
    """

    def before_suite(self, suite: Suite, result: SuiteResult) -> None:
        """The run begins."""

    def after_suite(self, suite: Suite, result: SuiteResult) -> None:
        """The run has ended by itself; of one that is aborted, the caller knows."""

    def around_step(self, step: Step, result: StepResult, proceed: Callable[[], None]) -> None:
        """Run the step by calling ``proceed``; for a skipped step that does nothing but tell."""
        proceed()

    def before_step(self, step: Step, result: StepResult) -> None:
        """A step begins; its result is filled in later."""

    def after_step(self, step: Step, result: StepResult) -> None:
        """A step has ended."""

    def around_check(self, step: Step, result: CheckResult, proceed: Callable[[], None]) -> None:
        """Run the check by calling ``proceed``."""
        proceed()

    def before_check(self, step: Step, result: CheckResult) -> None:
        """A check begins."""

    def after_check(self, step: Step, result: CheckResult) -> None:
        """A check has its verdict."""


class Recording(Observer):
    """Keeps what it is told, nested as it came, to tell another observer later: the observer of one branch."""

    def __init__(self) -> None:
        self._calls: list[Callable[[Observer], None]] = []

    def replay(self, observer: Observer) -> None:
        """Tell all of it."""
        for call in self._calls:
            call(observer)

    def say(self, line: str, log: Callable[[str], None]) -> None:
        """Keep a line that belongs into a log, between what happens before and after it."""
        self._calls.append(lambda _: log(line))

    def around_step(self, step: Step, result: StepResult, proceed: Callable[[], None]) -> None:
        """Keep what happens inside the step as its own."""
        inner = self._inside(proceed)
        self._calls.append(lambda observer: observer.around_step(step, result, lambda: _tell(inner, observer)))

    def before_step(self, step: Step, result: StepResult) -> None:
        """Keep it."""
        self._calls.append(lambda observer: observer.before_step(step, result))

    def after_step(self, step: Step, result: StepResult) -> None:
        """Keep it."""
        self._calls.append(lambda observer: observer.after_step(step, result))

    def around_check(self, step: Step, result: CheckResult, proceed: Callable[[], None]) -> None:
        """Keep what happens inside the check as its own."""
        inner = self._inside(proceed)
        self._calls.append(lambda observer: observer.around_check(step, result, lambda: _tell(inner, observer)))

    def before_check(self, step: Step, result: CheckResult) -> None:
        """Keep it."""
        self._calls.append(lambda observer: observer.before_check(step, result))

    def after_check(self, step: Step, result: CheckResult) -> None:
        """Keep it."""
        self._calls.append(lambda observer: observer.after_check(step, result))

    def _inside(self, proceed: Callable[[], None]) -> list[Callable[[Observer], None]]:
        outer, self._calls = self._calls, []
        try:
            proceed()
            return self._calls
        finally:
            self._calls = outer


def _tell(calls: list[Callable[[Observer], None]], observer: Observer) -> None:
    for call in calls:
        call(observer)
