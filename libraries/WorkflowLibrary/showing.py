"""How a workflow looks in Robot Framework's log: one keyword for each step, with its checks in a table."""

from __future__ import annotations

import json
from collections.abc import Callable

from robot.api import logger
from robot.errors import RobotError, TimeoutExceeded
from robot.libraries.BuiltIn import BuiltIn
from testyard.core.errors import NotMetError
from testyard.core.tables import html_table
from testyard.workflow.model import Step
from testyard.workflow.observer import Observer
from testyard.workflow.results import CheckResult, Status, StepResult

STEP_KEYWORD = "WorkflowLibrary.Workflow Step"
CHECK_COLUMNS = ("check", "verdict", "attempts", "measured")


class StepFailedError(NotMetError):
    """A step failed; what it was about is in the result."""


class StepKeywords(Observer):
    """Runs each step inside a keyword, so that the log shows it with its time and its status.

    Attributes:
        waiting: What the keyword that is called next has to do.
    """

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def around_step(self, step: Step, result: StepResult, proceed: Callable[[], None]) -> None:
        """Call the keyword of a step; that it fails is for the log, the engine knows it from the result."""
        ran = False

        def carry_out() -> None:
            nonlocal ran
            ran = True
            proceed()
            show_step(result)

        self.waiting.append(carry_out)
        try:
            BuiltIn().run_keyword(STEP_KEYWORD, step.step, step.title)
        except TimeoutExceeded:
            raise
        except RobotError as problem:
            if not ran or getattr(problem, "exit", False):
                raise

    def next(self) -> Callable[[], None]:
        """What the keyword has to do that was just called."""
        return self.waiting.pop()


def show_step(result: StepResult) -> None:
    """Log what became of a step, and fail when it has failed."""
    if result.validation_results:
        title = f"{len(result.validation_results)} checks"
        logger.info(html_table(title, CHECK_COLUMNS, map(check_row, result.validation_results)), html=True)
    if result.result:
        logger.info(json.dumps(result.result, indent=2, default=str))
    if result.status is Status.SKIPPED:
        logger.info(f"Skipped: {result.error or 'its condition does not hold'}")
    if result.status is Status.FAILED:
        raise StepFailedError(result.error or "The step failed.")


def check_row(check: CheckResult) -> tuple[str, str, int, str]:
    """A check's line in a table."""
    verdict = "passed" if check.passed else "failed, as is allowed" if check.allow_failure else "failed"
    return check.check, verdict, check.attempts, check.measured or check.error or ""
