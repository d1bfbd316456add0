"""Runs a suite's workflow from its first step to its result (document 003; contract 2.3 and 2.4).

Example:
    >>> suite = load_workflow("failsafety.json").suite("failsafety_basic")
    >>> context = Context(deploy_dir=directory, parameters=suite.parameters, provider=suite.provider, cluster=it)
    >>> result = run_suite(suite, context, results_path=directory / "result.json")
    >>> result.success
    True
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from testyard.core.redact import secrets_in_use
from testyard.workflow.composites import COMPOSITES
from testyard.workflow.context import Context
from testyard.workflow.execution import BrokenRunError, Execution, Scope, described
from testyard.workflow.hooks import Hook, open_hooks
from testyard.workflow.loading import default_checks, default_steps
from testyard.workflow.model import Step, Suite
from testyard.workflow.observer import Observer
from testyard.workflow.recorder import Recorder
from testyard.workflow.registry import CheckRegistry, StepFunction, StepRegistry
from testyard.workflow.results import ResultFile, SuiteResult, new_deployment_id, now

OWN_STEP = "_execute_"


def run_suite(
    suite: Suite,
    context: Context,
    steps: StepRegistry | None = None,
    checks: CheckRegistry | None = None,
    *,
    observer: Observer | None = None,
    hooks: Sequence[Hook] = (),
    results_path: Path | None = None,
    deployment_id: str | None = None,
    config_path: Path | None = None,
    delay_scale: float = 1.0,
) -> SuiteResult:
    """Run one suite.

    Args:
        suite: From ``load_workflow``.
        context: What steps and checks are given.
        steps: The step types; without it, the built-in ones.
        checks: The checks; without it, the built-in ones.
        observer: Sees each step and check.
        hooks: Told of each step and check, besides those that the suite names; closed at the end.
        results_path: The result JSON, written after each step and check.
        deployment_id: The run's name; without it, a new one.
        config_path: The workflow file, for the result.
        delay_scale: Factor on the pauses between attempts; their number stays.

    Returns:
        The result, also when steps failed.

    Raises:
        UserError: The result cannot be written.
        BaseException: The run was aborted by it (Ctrl-C, Robot Framework's timeout): groups have been rolled
            back, and the result is written.
    """
    executor = WorkflowExecutor(
        context, steps, checks, observer=observer, hooks=hooks, results_path=results_path, delay_scale=delay_scale
    )
    return executor.run(suite, deployment_id=deployment_id, config_path=config_path)


class WorkflowExecutor:
    """Runs suites; extended as the document says (003, "Adding Custom Step Types").

    A method ``_execute_<type>(self, step)`` of a subclass, or a function assigned to an instance under such a
    name, does what steps of that type do. A function that takes two arguments is given the executor and the
    step, one that takes one the step. ``executor.steps`` knows these types: give it to ``load_workflow``.

    Args:
        context: What steps and checks are given.
        steps: The step types; the executor has a copy of its own. Without it, the built-in ones.
        checks: The checks. Without it, the built-in ones.
        observer: Sees each step and check.
        hooks: Told of each step and check; closed at the end of a run.
        results_path: The result JSON, written after each step and check.
        delay_scale: Factor on the pauses between attempts.

    Attributes:
        result: Of the last run, also of one that was aborted.

    Example:
        >>> executor = WorkflowExecutor(context)
        >>> executor._execute_greet = lambda step: {"said": "hello"}
        >>> suite = parse_workflow({"workflow": [{"step": "greet"}]}, executor.steps, provider="aws").suite()
        >>> executor.run(suite).workflow_steps[0].result
        {'said': 'hello'}
    """

    def __init__(
        self,
        context: Context,
        steps: StepRegistry | None = None,
        checks: CheckRegistry | None = None,
        *,
        observer: Observer | None = None,
        hooks: Sequence[Hook] = (),
        results_path: Path | None = None,
        delay_scale: float = 1.0,
    ) -> None:
        self.context = context
        self.steps = steps.copy() if steps is not None else default_steps()
        self.checks = checks if checks is not None else default_checks()
        self.result: SuiteResult | None = None
        self._observer = observer or Observer()
        self._hooks = tuple(hooks)
        self._results_path = results_path
        self._delay_scale = delay_scale
        for name in dir(type(self)):
            if name.startswith(OWN_STEP):
                self._own(name, getattr(self, name))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name.startswith(OWN_STEP):
            self._own(name, value)

    def run(
        self, suite: Suite, *, deployment_id: str | None = None, config_path: Path | None = None
    ) -> SuiteResult:
        """Run one suite; see :func:`run_suite`."""
        result = self.result = SuiteResult(
            deployment_id=deployment_id or new_deployment_id(suite.provider, suite.name),
            suite=suite.name,
            provider=suite.provider,
            test_type=suite.test_type,
            timestamp=now(),
            parameters=dict(suite.parameters),
            config_path=str(config_path) if config_path is not None else None,
            deployment_dir=str(self.context.deploy_dir),
            log_directory=str(self._results_path.parent) if self._results_path is not None else None,
        )
        file = ResultFile(self._results_path)
        hooks = open_hooks(
            suite.hooks, self._results_path.parent if self._results_path else self.context.deploy_dir
        )
        recorder = Recorder(result, file, [*self._hooks, *hooks])
        execution = Execution(
            self.steps, self.checks, recorder, composites=COMPOSITES, delay_scale=self._delay_scale
        )
        spoken = self.context.log
        self.context.log = _logged(result, spoken)
        self.context.results = result.workflow_steps
        started = time.monotonic()
        try:
            recorder.suite_started()
            self._observer.before_suite(suite, result)
            result.success = execution.run_all(
                suite.workflow, Scope(result.workflow_steps, self.context, self._observer)
            )
            failed = len(result.failed_steps)
            result.error = f"{failed} workflow step(s) failed" if failed else None
        except BaseException as aborted:
            problem = aborted.problem if isinstance(aborted, BrokenRunError) else aborted
            result.error = f"Aborted: {described(problem)}"
            raise problem from None
        finally:
            result.duration = time.monotonic() - started
            self.context.log = spoken
            recorder.suite_finished()
        self._observer.after_suite(suite, result)
        return result

    def _own(self, name: str, function: Callable[..., Any]) -> None:
        takes_executor = len(inspect.signature(function).parameters) > 1

        def call(context: Context, step: Step) -> Any:
            return function(self, step) if takes_executor else function(step)

        own: StepFunction = call
        call.__doc__ = inspect.getdoc(function)
        call.__qualname__ = getattr(function, "__qualname__", name)
        self.steps.override(name.removeprefix(OWN_STEP), own)


def _logged(result: SuiteResult, spoken: Callable[[str], None]) -> Callable[[str], None]:
    """A log that also goes into the result; without secrets in either."""

    def log(line: str) -> None:
        masked = secrets_in_use.mask(line)
        result.logs.append(masked)
        spoken(masked)

    return log
