"""Dry runs: every step, its target and the calls that it would make, without making one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.workflow.context import Context
from testyard.workflow.loading import default_checks, default_steps
from testyard.workflow.model import ChaosFields, Retry, Step, Suite, ValidateFields
from testyard.workflow.registry import CheckRegistry, StepRegistry
from testyard.workflow.validation import nested_fields


@dataclass(frozen=True)
class PlannedStep:
    """One step of a dry run.

    Attributes:
        number: Where it stands, such as ``4`` or ``4.rollback.1``.
        step: The step.
        calls: What it would call, a line each; a refusal begins with ``refused:``.
    """

    number: str
    step: Step
    calls: tuple[str, ...]

    def __str__(self) -> str:
        target = " ".join(filter(None, (getattr(self.step, name, None) for name in ("target_node", "method"))))
        title = f"{self.number}. {self.step.step}" + (f" {target}" if target else "")
        title += f": {self.step.description}" if self.step.description else ""
        return "\n".join([title, *(f"     {call}" for call in self.calls)])


def plan_suite(
    suite: Suite, context: Context, steps: StepRegistry | None = None, checks: CheckRegistry | None = None
) -> list[PlannedStep]:
    """What a run of the suite would do, in order; steps inside steps follow theirs.

    Args:
        suite: From ``load_workflow``.
        context: What the steps' ``plan`` functions are given.
        steps: The step types; without it, the built-in ones.
        checks: The checks; without it, the built-in ones.
    """
    planner = _Planner(context, steps or default_steps(), checks or default_checks())
    return list(planner.steps(suite.workflow, ""))


class _Planner:
    def __init__(self, context: Context, steps: StepRegistry, checks: CheckRegistry) -> None:
        self._context = context
        self._steps = steps
        self._checks = checks

    def steps(self, steps: Sequence[Step], prefix: str) -> Iterator[PlannedStep]:
        for number, step in enumerate(steps, start=1):
            place = f"{prefix}{number}"
            yield PlannedStep(place, step, tuple(map(secrets_in_use.mask, self._calls(step))))
            for name in nested_fields(type(step)):
                inner = place if name == "steps" else f"{place}.{name}"
                yield from self.steps(getattr(step, name), f"{inner}.")

    def _calls(self, step: Step) -> Iterator[str]:
        if step.when is not None:
            what = step.when.status or f"check {step.when.check} {'passed' if step.when.passed else 'failed'}"
            yield f"only if step {step.when.step!r}: {what}"
        if isinstance(step, ValidateFields):
            for text in step.checks:
                yield self._check(text, step)
        elif isinstance(step, ChaosFields):
            seed = "a seed that is drawn" if step.seed is None else f"seed {step.seed}"
            yield f"{step.rounds} of these {len(step.candidates)} candidates, picked by {seed}"
        else:
            yield from self._own_calls(step)

    def _check(self, text: str, step: Step) -> str:
        check, _ = self._checks.split(text)
        retry = step.retry or check.retry or Retry()
        often = (
            f", {retry.max_attempts} attempts, {retry.delay_seconds:g} s apart" if retry.max_attempts > 1 else ""
        )
        allowed = isinstance(step, ValidateFields) and text in step.allow_failures
        return f"check {text}{often}{', may fail' if allowed or check.allow_failure else ''}"

    def _own_calls(self, step: Step) -> Iterator[str]:
        entry = self._steps.find(step.step)
        if entry is None or entry.function is None:
            return
        if entry.plan is None:
            function = entry.function
            yield f"call {getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
            return
        try:
            planned = entry.plan(self._context, step)
        except (NotImplementedError, UserError) as problem:
            name = "" if isinstance(problem, UserError) else f"{type(problem).__name__}: "
            yield f"refused: {name}{problem}"
            return
        yield from [planned] if isinstance(planned, str) else planned
