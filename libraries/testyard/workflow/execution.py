"""One run of a workflow's steps: conditions, attempts, checks, and what each of them leaves in the result.

Contract 2.3: steps run one after the other until one fails that may not. A step that raises has failed; a check
that raises has failed an attempt. ``NotImplementedError`` is a refusal: it is not tried again, and as nothing
was done, nothing is undone. What is no ``Exception`` (Ctrl-C, Robot Framework's timeout) aborts the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from testyard.core.deadline import Deadline
from testyard.core.errors import NotMetError, UserError
from testyard.core.redact import secrets_in_use
from testyard.workflow.context import Context
from testyard.workflow.model import Retry, Step, ValidateFields, When
from testyard.workflow.observer import Observer
from testyard.workflow.recorder import Recorder
from testyard.workflow.registry import CheckRegistry, Measurement, RegisteredCheck, StepRegistry, StepType
from testyard.workflow.results import CheckResult, Status, StepResult, now

logger = logging.getLogger("testyard.workflow")

ENDED = (Status.COMPLETED, Status.FAILED, Status.SKIPPED)


class AbortedError(BaseException):
    """A branch ends because the run is being aborted."""


class BrokenRunError(BaseException):
    """An observer failed, or the result cannot be written: no step's fault, so none is told to have failed by it.

    Attributes:
        problem: What was raised.
    """

    def __init__(self, problem: Exception) -> None:
        super().__init__(str(problem))
        self.problem = problem


@contextmanager
def no_step_s_fault() -> Iterator[None]:
    """Around what runs or tells of steps, and itself handles what they raise.

    Raises:
        BrokenRunError: Something was raised nevertheless.
    """
    try:
        yield
    except Exception as problem:
        raise BrokenRunError(problem) from problem


@dataclass(frozen=True)
class Scope:
    """What a step runs in.

    Attributes:
        results: Where its result goes.
        context: What its function is given.
        observer: Who is told.
        undo: The steps begun so far that have a rollback, of the group around; None outside groups.
    """

    results: list[StepResult]
    context: Context
    observer: Observer
    undo: list[Step] | None = None


Composite = Callable[["Execution", Step, StepResult, Scope], Mapping[str, Any] | None]


class Execution:
    """Runs steps and keeps their results.

    Args:
        steps: The step types.
        checks: The checks.
        recorder: Told of each change.
        composites: What the engine itself does, by step type.
        delay_scale: Factor on the pauses between attempts.
    """

    def __init__(
        self,
        steps: StepRegistry,
        checks: CheckRegistry,
        recorder: Recorder,
        *,
        composites: Mapping[str, Composite],
        delay_scale: float = 1.0,
    ) -> None:
        self._steps = steps
        self._checks = checks
        self.recorder = recorder
        self._composites = composites
        self._delay_scale = delay_scale
        self._by_id: dict[str, StepResult] = {}

    def run_all(self, steps: Sequence[Step], scope: Scope) -> bool:
        """Run steps one after the other, until one fails that may not; whether none did."""
        return all(not self.carry_out(step, self.begin(step, scope), scope).stops for step in steps)

    def begin(self, step: Step, scope: Scope) -> StepResult:
        """Make a place for the step's result."""
        result = StepResult(
            step_type=step.step,
            description=step.description,
            target_node=getattr(step, "target_node", None),
            method=getattr(step, "method", None),
            id=step.id,
            allow_failure=step.allow_failure or self._type(step).allow_failure,
        )
        scope.results.append(result)
        if step.id is not None:
            self._by_id[step.id] = result
        return result

    def carry_out(self, step: Step, result: StepResult, scope: Scope) -> StepResult:
        """Run a step that has begun, or skip it."""
        if scope.context.cancelled.is_set():
            raise AbortedError("the run is being aborted")
        result.timestamp = now()
        reason = self._unmet(step.when) if step.when is not None else ""
        if reason:
            result.status, result.result = Status.SKIPPED, {"skipped": reason}
            with no_step_s_fault():
                scope.observer.around_step(step, result, lambda: None)
                self.recorder.step_finished(result)
            return result
        # Before it acts: also a step that fails half way is undone. A group undoes itself.
        if scope.undo is not None and step.rollback and step.step != "group":
            scope.undo.append(step)
        with no_step_s_fault():
            scope.observer.around_step(step, result, lambda: self._observed(step, result, scope))
            if result.status not in ENDED:
                message = f"The observer {type(scope.observer).__name__} did not run the step {step.title!r}."
                raise RuntimeError(message)
        return result

    def _observed(self, step: Step, result: StepResult, scope: Scope) -> None:
        result.status = Status.RUNNING
        self.recorder.step_started(result)
        scope.observer.before_step(step, result)
        started = time.monotonic()
        try:
            self._attempts(step, result, scope)
        except BaseException as problem:
            result.status, result.error = Status.FAILED, f"Aborted: {described(problem)}"
            raise
        finally:
            result.duration = time.monotonic() - started
            self.recorder.step_finished(result)
        scope.observer.after_step(step, result)

    def _attempts(self, step: Step, result: StepResult, scope: Scope) -> None:
        retry = Retry() if step.step == "validate" else self._retry(step.retry, self._type(step).retry)
        while True:
            result.attempts += 1
            try:
                result.result = self._work(step, result, scope)
            except NotImplementedError as problem:
                self._failed(step, result, problem)
                if scope.undo is not None:
                    scope.undo[:] = [begun for begun in scope.undo if begun is not step]
                return
            except Exception as problem:
                self._failed(step, result, problem)
                if result.attempts >= retry.max_attempts:
                    return
                scope.context.log(
                    f"{step.title}: attempt {result.attempts} of {retry.max_attempts}: {result.error}"
                )
                result.status = Status.RUNNING
                self.recorder.changed()
                self._pause(retry, scope)
            else:
                result.status, result.error = Status.COMPLETED, None
                return

    def _failed(self, step: Step, result: StepResult, problem: Exception) -> None:
        result.status, result.error = Status.FAILED, described(problem)
        logger.debug("Step %s failed", step.title, exc_info=problem)

    def _work(self, step: Step, result: StepResult, scope: Scope) -> dict[str, Any] | None:
        function = self._type(step).function
        if function is None:
            value = self._composites[step.step](self, step, result, scope)
        else:
            value = function(scope.context, step)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            message = (
                f"A step returns a mapping or None, and raises when it fails; {step.step!r} returned {value!r}."
            )
            raise TypeError(message)
        return dict(secrets_in_use.mask_value(dict(value)))

    def _type(self, step: Step) -> StepType:
        entry = self._steps.find(step.step)
        if entry is None:
            message = f"The step type {step.step!r} of a validated workflow is not registered here."
            raise UserError(message)
        return entry

    def _unmet(self, when: When) -> str:
        """Why a condition does not hold; empty when it does."""
        known = self._by_id.get(when.step)
        status = known.status if known is not None else Status.SKIPPED
        if when.check is None:
            return "" if status == when.status else f"step {when.step!r} is {status}, not {when.status}"
        verdicts = {check.check: check.passed for check in known.validation_results} if known is not None else {}
        if when.check not in verdicts:
            return f"step {when.step!r} has no verdict of {when.check!r}"
        wanted = "passed" if when.passed else "failed"
        return (
            "" if verdicts[when.check] is when.passed else f"{when.check!r} of step {when.step!r} has not {wanted}"
        )

    # ---- checks

    def validate(self, step: Step, result: StepResult, scope: Scope) -> None:
        """Run a step's checks in order, until one fails that may not.

        Raises:
            NotMetError: Names that check and what was seen.
        """
        fields = step.own(ValidateFields)
        for text in fields.checks:
            check, arguments = self._checks.split(text)
            verdict = CheckResult(text, allow_failure=text in fields.allow_failures or check.allow_failure)
            result.validation_results.append(verdict)

            def proceed(
                check: RegisteredCheck = check, arguments: list[str] = arguments, verdict: CheckResult = verdict
            ) -> None:
                scope.observer.before_check(step, verdict)
                self._verdict(check, arguments, verdict, self._retry(step.retry, check.retry), scope)
                self.recorder.check_finished(result, verdict)
                scope.observer.after_check(step, verdict)

            with no_step_s_fault():
                scope.observer.around_check(step, verdict, proceed)
                if not verdict.attempts:
                    message = f"The observer {type(scope.observer).__name__} did not run the check {text!r}."
                    raise RuntimeError(message)
            if not verdict.passed and not verdict.allow_failure:
                raise NotMetError(f"{text}: {verdict.error}")

    def _verdict(
        self, check: RegisteredCheck, arguments: list[str], verdict: CheckResult, retry: Retry, scope: Scope
    ) -> None:
        while True:
            verdict.attempts += 1
            try:
                found = check.function(scope.context, *arguments)
                verdict.passed, verdict.measured = judged(verdict.check, found)
                verdict.error = None if verdict.passed else (verdict.measured or "the check returned False")
            except Exception as problem:
                verdict.passed, verdict.error = False, described(problem)
                logger.debug("Check %s failed", verdict.check, exc_info=problem)
            except BaseException as problem:
                verdict.passed, verdict.error = False, f"Aborted: {described(problem)}"
                raise
            if verdict.passed or verdict.attempts >= retry.max_attempts:
                return
            scope.context.log(
                f"{verdict.check}: attempt {verdict.attempts} of {retry.max_attempts}: {verdict.error}"
            )
            self._pause(retry, scope)

    # ---- attempts

    def _retry(self, own: Retry | None, registered: Retry | None) -> Retry:
        """A step's own attempts; what it leaves out, and those of steps without, as registered."""
        if own is None or registered is None or "delay_seconds" in own.model_fields_set:
            return own or registered or Retry()
        return Retry(max_attempts=own.max_attempts, delay_seconds=registered.delay_seconds)

    def _pause(self, retry: Retry, scope: Scope) -> None:
        deadline = Deadline(timedelta(seconds=retry.delay_seconds * self._delay_scale))
        while not deadline.expired:
            if scope.context.cancelled.is_set():
                raise AbortedError("the run is being aborted")
            deadline.pause()


def judged(check: str, found: object) -> tuple[bool, str | None]:
    """A check's verdict and what it measured.

    Raises:
        TypeError: It returned neither: a check that forgets to return must not pass.
    """
    if isinstance(found, Measurement) and isinstance(found.passed, bool):
        return found.passed, secrets_in_use.mask(str(found.measured))
    if isinstance(found, bool):
        return found, None
    message = f"a check returns True, False or a Measurement; {check!r} returned {found!r}"
    raise TypeError(message)


def described(problem: BaseException) -> str:
    """An exception for people, without secrets; errors written for users carry no class name."""
    text = str(problem)
    if not isinstance(problem, UserError | NotMetError):
        name = type(problem).__name__
        text = f"{name}: {text}" if text else name
    return secrets_in_use.mask(text)
