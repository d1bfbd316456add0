"""What the engine itself does with steps inside steps: ``parallel``, ``group``, ``chaos``.

Rollback: a step with a ``rollback`` is kept when it begins. When its group fails or the run is aborted, what
was kept is undone, the last begun first; each ``rollback`` as it is written. A rollback step that fails does
not keep the others from being run; Ctrl-C ends only the one that is running. A group that completes hands on
what it kept to the group around it.
"""

from __future__ import annotations

import queue
import random
import secrets
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

from testyard.core.deadline import POLL_INTERVAL, Deadline
from testyard.core.errors import NotMetError
from testyard.workflow.execution import AbortedError, BrokenRunError, Execution, Scope, no_step_s_fault
from testyard.workflow.model import ChaosFields, GroupFields, ParallelFields, Step
from testyard.workflow.observer import Observer, Recording
from testyard.workflow.results import StepResult

# An aborted run waits so long for what its branches are doing before it undoes things.
BRANCH_GRACE = timedelta(seconds=60)


def validate(execution: Execution, step: Step, result: StepResult, scope: Scope) -> None:
    """``validate``: checks."""
    execution.validate(step, result, scope)


def group(execution: Execution, step: Step, result: StepResult, scope: Scope) -> None:
    """``group``: steps in order, undone when one fails.

    Raises:
        NotMetError: Names the step that failed, and those that could not be undone.
    """
    steps = step.own(GroupFields).steps
    begun = [step] if step.rollback else []
    result.steps.clear()
    inner = replace(scope, results=result.steps, undo=begun)
    try:
        passed = execution.run_all(steps, inner)
    except BaseException:
        roll_back(execution, begun, result.rollback, scope)
        raise
    if not passed:
        failed = roll_back(execution, begun, result.rollback, scope)
        raise NotMetError(f"{_first_failure(result.steps)}{_not_undone(failed)}")
    if scope.undo is not None:
        scope.undo.extend(begun)


def roll_back(
    execution: Execution, begun: list[Step], results: list[StepResult], scope: Scope
) -> list[StepResult]:
    """Undo steps, the last begun first.

    Args:
        execution: Runs the rollback steps.
        begun: What to undo; empty afterwards.
        results: Where the rollback steps' results go.
        scope: What they run in; a run that is being aborted does not stop them.

    Returns:
        Those that failed.
    """
    first = len(results)
    inner = replace(
        scope, results=results, context=scope.context.branch(scope.context.log, follows=False), undo=None
    )
    aborted: BaseException | None = None
    while begun:
        for undo in begun.pop().rollback:
            before = len(results)
            try:
                execution.run_all([undo], inner)
            except BaseException as problem:
                aborted = aborted or problem
                if isinstance(problem, BrokenRunError) and not results[before].attempts:
                    # Whoever wanted to see it cannot; undone it must be.
                    inner = replace(inner, observer=Observer())
                    results.pop()
                    execution.run_all([undo], inner)
    if aborted is not None:
        raise aborted
    return [result for result in results[first:] if result.stops]


def chaos(execution: Execution, step: Step, result: StepResult, scope: Scope) -> dict[str, Any]:
    """``chaos``: rounds of a fault that a seeded generator picks, each undone.

    Returns:
        The seed and what it picked.

    Raises:
        NotMetError: Names the round, the seed, the fault and the step that failed.
    """
    fields = step.own(ChaosFields)
    seed = fields.seed if fields.seed is not None else secrets.randbelow(2**32)
    generator = random.Random(seed)
    picks: list[dict[str, Any]] = []
    result.steps.clear()
    # Known before the first fault, so that a run that is killed can be replayed too.
    result.result = {"seed": seed, "picks": picks}
    scope.context.log(f"{step.title}: seed {seed}, {fields.rounds} rounds")
    for number in range(1, fields.rounds + 1):
        fault = generator.choice(fields.candidates)
        picks.append(
            {
                "round": number,
                "step": fault.step,
                "target_node": getattr(fault, "target_node", None),
                "method": getattr(fault, "method", None),
            }
        )
        before = len(result.steps)
        begun: list[Step] = []
        inner = replace(scope, results=result.steps, undo=begun)
        try:
            passed = execution.run_all([fault, *fields.during], inner)
        finally:
            failed = roll_back(execution, begun, result.steps, scope)
        if passed and not failed:
            passed = execution.run_all(fields.after, replace(inner, undo=None))
        if not passed or failed:
            where = f"round {number} of {fields.rounds} (seed {seed}, {fault.title})"
            raise NotMetError(f"{where}: {_first_failure(result.steps[before:])}")
    return result.result


def parallel(execution: Execution, step: Step, result: StepResult, scope: Scope) -> None:
    """``parallel``: steps at the same time, each in a thread; all run to their end, unless one aborts the run.

    Raises:
        NotMetError: Names all that failed.
    """
    steps = step.own(ParallelFields).steps
    result.steps.clear()
    cancelled = threading.Event()
    ended: queue.SimpleQueue[_Branch] = queue.SimpleQueue()
    branches = [
        _Branch(execution, inner, replace(scope, results=result.steps), cancelled, ended) for inner in steps
    ]
    try:
        for branch in branches:
            branch.start()
        for _ in branches:
            branch = _next_of(ended, scope)
            if branch.problem is not None:
                raise branch.problem
            with no_step_s_fault():
                branch.recording.replay(scope.observer)
    except BaseException:
        cancelled.set()
        _let_end(branches, scope)
        raise
    failures = [inner for inner in result.steps if inner.stops]
    if failures:
        told = "; ".join(f"{_title(inner)}: {inner.error}" for inner in failures)
        raise NotMetError(f"{len(failures)} of {len(steps)} parallel steps failed: {told}")


class _Branch(threading.Thread):
    """One step of a ``parallel`` step; what it has to say is kept until the run's own thread can say it."""

    def __init__(
        self,
        execution: Execution,
        step: Step,
        scope: Scope,
        cancelled: threading.Event,
        ended: queue.SimpleQueue[_Branch],
    ) -> None:
        super().__init__(name=f"testyard-{step.step}", daemon=True)
        self.recording = Recording()
        self.problem: BaseException | None = None
        self.step = step
        say = scope.context.log
        context = scope.context.branch(lambda line: self.recording.say(line, say))
        context.cancelled = cancelled
        self._scope = replace(scope, context=context, observer=self.recording)
        self._execution = execution
        self._result = execution.begin(step, scope)
        self._ended = ended

    def run(self) -> None:
        try:
            self._execution.carry_out(self.step, self._result, self._scope)
        except BaseException as problem:
            self.problem = problem
        finally:
            self._ended.put(self)


def _next_of(ended: queue.SimpleQueue[_Branch], scope: Scope) -> _Branch:
    """The next branch that has ended."""
    while not scope.context.cancelled.is_set():
        try:
            return ended.get(timeout=POLL_INTERVAL.total_seconds())
        except queue.Empty:
            continue
    raise AbortedError("the run is being aborted")


def _let_end(branches: list[_Branch], scope: Scope) -> None:
    """Wait for the branches: nothing may be undone while they are still acting."""
    deadline = Deadline(BRANCH_GRACE)
    for branch in branches:
        if branch.ident is not None:
            branch.join(deadline.remaining.total_seconds())
    still = [branch.step.title for branch in branches if branch.is_alive()]
    if still:
        scope.context.log(f"Still running after {BRANCH_GRACE.total_seconds():.0f} s: {', '.join(still)}")


def _title(result: StepResult) -> str:
    return " ".join(filter(None, (result.step_type, result.target_node)))


def _first_failure(results: list[StepResult]) -> str:
    """The first step that failed and may not."""
    failed = next(result for result in results if result.stops)
    return f"step {results.index(failed) + 1}, {_title(failed)}: {failed.error}"


def _not_undone(failed: list[StepResult]) -> str:
    told = "; ".join(f"{_title(result)}: {result.error}" for result in failed)
    return f" (and the rollback failed: {told})" if failed else ""


COMPOSITES = {"validate": validate, "parallel": parallel, "group": group, "chaos": chaos}
