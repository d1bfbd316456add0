"""The exactly-once checker: whether a pipeline service's history is one it may have.

The rows are what the service wrote down of every change of state (``run_transitions``) and what the executor wrote
down of every execution. Nothing is taken from the service's code: the states and the table of transitions are
written here once more, so that a mistake there does not excuse itself here.

Sources: issue 4 (states, retry, "no run lost, none executed twice after it reported success", completion window);
contract page "pipelines", 1.5.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeVar

COMPLETION_WINDOW: Final = timedelta(milliseconds=50)
"""How long a worker may keep a success to itself, to store several at once."""


class RunState(StrEnum):
    """Where a run is on its way."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


_STEPS: Final[Mapping[RunState | None, frozenset[RunState]]] = MappingProxyType(
    {
        None: frozenset({RunState.SCHEDULED}),
        RunState.SCHEDULED: frozenset({RunState.PENDING, RunState.SKIPPED}),
        RunState.PENDING: frozenset({RunState.RUNNING, RunState.FAILED, RunState.SKIPPED}),
        RunState.RUNNING: frozenset({RunState.COMPLETED, RunState.FAILED}),
        RunState.FAILED: frozenset({RunState.PENDING}),
        RunState.COMPLETED: frozenset(),
        RunState.SKIPPED: frozenset(),
    }
)
Row = TypeVar("Row", "Transition", "Execution")
ENDS: Final = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.SKIPPED})


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a run's state, as the service wrote it down.

    Args:
        run_id: The run.
        sequence: Ascending in the order of the changes; gaps are no matter.
        from_state: The state before; None for the row that creates the run.
        to_state: The state after.
        at: When, on the service's clock.
        attempt: How often the run had been retried, after this change.
        worker: Who holds the run; None if nobody does.
        not_before: The earliest start of a run that waits, on the service's clock.
    """

    run_id: str
    sequence: int
    from_state: RunState | None
    to_state: RunState
    at: datetime
    attempt: int
    worker: str | None
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a run, as the executor wrote it down.

    Args:
        run_id: The run.
        attempt: How often the run had been retried.
        worker: Who executed it.
        started_ns: When it started, in nanoseconds of one clock for all workers.
        reported_ns: When it reported success, on the same clock; None if it failed, hangs or was killed.

    Raises:
        ValueError: It reported before it started.
    """

    run_id: str
    attempt: int
    worker: str
    started_ns: int
    reported_ns: int | None

    def __post_init__(self) -> None:
        """Refuse a record that no clock can have made."""
        if self.reported_ns is not None and self.reported_ns < self.started_ns:
            raise ValueError(f"the execution of {self.run_id} reported before it started: {self}")


class ViolationKind(StrEnum):
    """What is wrong with a history."""

    ILLEGAL_TRANSITION = "illegal transition"
    BROKEN_CHAIN = "broken chain"
    LOST = "lost run"
    COMPLETED_TWICE = "completed twice"
    EXECUTED_AFTER_SUCCESS = "executed after success"
    OVERLAPPING_EXECUTIONS = "overlapping executions"
    EXECUTED_WITHOUT_CLAIM = "executed without claim"
    COMPLETED_WITHOUT_EXECUTION = "completed without execution"
    RETRY_NOT_COUNTED = "retry not counted"
    STARTED_TOO_EARLY = "started too early"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be in a history.

    Args:
        kind: What it is.
        run_id: The run.
        explanation: A sentence with what was found and what was expected.
    """

    kind: ViolationKind
    run_id: str
    explanation: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """A run that was executed again because its worker ended before it had stored a success: allowed, but counted.

    Args:
        run_id: The run.
        lost: The execution whose success was never stored.
        again: The execution after it.
    """

    run_id: str
    lost: Execution
    again: Execution


def check_histories(
    transitions: Iterable[Transition],
    executions: Iterable[Execution] | None,
    *,
    drained: bool,
    completion_window: timedelta = COMPLETION_WINDOW,
) -> list[Violation]:
    """Find everything in a history that must not be there, in time linear in the number of rows.

    Args:
        transitions: Changes of state, of any number of runs, in any order; all of those of each run.
        executions: Executions of these runs, in any order; all of them, or None if nobody wrote them down.
        drained: The service has had the time to end every run: one that has not ended is lost.
        completion_window: How long a worker may keep a success to itself. A run executed again because its worker
            ended inside that time is not a violation; ``repetitions`` counts it.

    Returns:
        The violations; empty for a history the service may have.

    Example:
        >>> created = Transition("run_1", 1, None, RunState.SCHEDULED, datetime(2026, 1, 1), 0, None)
        >>> [violation.explanation for violation in check_histories([created], [], drained=True)]
        ['run_1 is SCHEDULED after everything was drained, expected COMPLETED, FAILED or SKIPPED']
    """
    histories = _by_run(sorted(transitions, key=lambda row: row.sequence))
    violations = [
        violation
        for run_id, rows in histories.items()
        for violation in _check_transitions(run_id, rows, drained=drained)
    ]
    if executions is None:
        return violations
    records = list(executions)
    by_run = _by_run(sorted(records, key=lambda row: row.started_ns))
    alive_until = _last_signs(records)
    for run_id, rows in histories.items():
        violations += _check_completion_was_executed(run_id, rows, by_run.get(run_id, []))
    for run_id, executed in by_run.items():
        rows = histories.get(run_id, [])
        violations += _check_claims(rows, executed)
        violations += _check_overlaps(run_id, executed)
        violations += [
            Violation(
                ViolationKind.EXECUTED_AFTER_SUCCESS,
                run_id,
                f"{run_id} was executed by {again.worker} (attempt {again.attempt}) at {again.started_ns} ns, "
                f"after {first.worker} (attempt {first.attempt}) had reported success at {first.reported_ns} ns",
            )
            for first, again, excused in _executed_again(rows, executed, alive_until, completion_window)
            if not excused
        ]
    return violations


def repetitions(
    transitions: Iterable[Transition],
    executions: Iterable[Execution],
    *,
    completion_window: timedelta = COMPLETION_WINDOW,
) -> list[Repeated]:
    """Count what ``check_histories`` excuses: executions after a success that a worker took with it when it ended.

    A success is excused if no row says that it was stored and its worker gave no sign of life (no start, no
    report) after the completion window.

    Args:
        transitions: As for ``check_histories``.
        executions: As for ``check_histories``.
        completion_window: As for ``check_histories``.

    Returns:
        One entry for each execution that came after such a success.
    """
    histories = _by_run(transitions)
    records = list(executions)
    alive_until = _last_signs(records)
    return [
        Repeated(run_id, first, again)
        for run_id, executed in _by_run(sorted(records, key=lambda row: row.started_ns)).items()
        for first, again, excused in _executed_again(
            histories.get(run_id, []), executed, alive_until, completion_window
        )
        if excused
    ]


def _by_run(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each run."""
    runs: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        runs[row.run_id].append(row)
    return runs


def _last_signs(executions: Iterable[Execution]) -> dict[str, int]:
    """When each worker was last known to live."""
    alive: dict[str, int] = defaultdict(int)
    for execution in executions:
        alive[execution.worker] = max(alive[execution.worker], execution.started_ns, execution.reported_ns or 0)
    return alive


def _check_transitions(run_id: str, rows: list[Transition], *, drained: bool) -> Iterator[Violation]:
    """The rows of one run, in their order."""
    for row in rows:
        if row.to_state not in _STEPS[row.from_state]:
            yield Violation(
                ViolationKind.ILLEGAL_TRANSITION,
                run_id,
                f"{run_id} {_step(row)} (row {row.sequence}), expected "
                f"{' or '.join(sorted(_STEPS[row.from_state])) or 'no further row'}",
            )
    yield from _check_chain(run_id, rows)
    completions = [row for row in rows if row.to_state is RunState.COMPLETED]
    if len(completions) > 1:
        sequences = ", ".join(str(row.sequence) for row in completions)
        yield Violation(
            ViolationKind.COMPLETED_TWICE,
            run_id,
            f"{run_id} was completed {len(completions)} times (rows {sequences}), expected once",
        )
    yield from _check_starts(run_id, rows)
    if drained and rows[-1].to_state not in ENDS:
        yield Violation(
            ViolationKind.LOST,
            run_id,
            f"{run_id} is {rows[-1].to_state} after everything was drained, expected COMPLETED, FAILED or SKIPPED",
        )


def _check_chain(run_id: str, rows: list[Transition]) -> Iterator[Violation]:
    """Each row begins where the one before ended, and counts the retries."""
    if rows[0].from_state is not None:
        yield Violation(
            ViolationKind.BROKEN_CHAIN,
            run_id,
            f"the first row of {run_id} (row {rows[0].sequence}) {_step(rows[0])}, expected its creation",
        )
    if rows[0].attempt != 0:
        yield Violation(
            ViolationKind.RETRY_NOT_COUNTED,
            run_id,
            f"{run_id} begins with attempt {rows[0].attempt} (row {rows[0].sequence}), expected 0",
        )
    for before, row in pairwise(rows):
        if row.from_state is not before.to_state or row.sequence == before.sequence:
            yield Violation(
                ViolationKind.BROKEN_CHAIN,
                run_id,
                f"{run_id} {_step(row)} (row {row.sequence}), but row {before.sequence} left it {before.to_state}",
            )
        retried = row.from_state is RunState.FAILED and row.to_state is RunState.PENDING
        if row.attempt != before.attempt + retried:
            yield Violation(
                ViolationKind.RETRY_NOT_COUNTED,
                run_id,
                f"{run_id} {_step(row)} with attempt {row.attempt} (row {row.sequence}), "
                f"expected {before.attempt + retried} after attempt {before.attempt}",
            )


def _check_starts(run_id: str, rows: list[Transition]) -> Iterator[Violation]:
    """No run starts before the time that the row which made it wait names."""
    not_before: datetime | None = None
    for row in rows:
        if row.to_state is RunState.PENDING:
            not_before = row.not_before
        elif row.to_state is RunState.RUNNING and not_before is not None and row.at < not_before:
            yield Violation(
                ViolationKind.STARTED_TOO_EARLY,
                run_id,
                f"{run_id} was started at {row.at.isoformat()} (row {row.sequence}), "
                f"expected not before {not_before.isoformat()}",
            )


def _check_completion_was_executed(
    run_id: str, rows: list[Transition], executed: list[Execution]
) -> Iterator[Violation]:
    """A run that is completed has an execution that reported success."""
    reported = {execution.attempt for execution in executed if execution.reported_ns is not None}
    for row in rows:
        if row.to_state is RunState.COMPLETED and row.attempt not in reported:
            yield Violation(
                ViolationKind.COMPLETED_WITHOUT_EXECUTION,
                run_id,
                f"{run_id} was completed in attempt {row.attempt} (row {row.sequence}), but no execution of that "
                "attempt reported success",
            )


def _check_claims(rows: list[Transition], executed: list[Execution]) -> Iterator[Violation]:
    """An execution belongs to a claim of its worker."""
    claims = {(row.attempt, row.worker) for row in rows if row.to_state is RunState.RUNNING}
    for execution in executed:
        if (execution.attempt, execution.worker) not in claims:
            yield Violation(
                ViolationKind.EXECUTED_WITHOUT_CLAIM,
                execution.run_id,
                f"{execution.run_id} was executed by {execution.worker} in attempt {execution.attempt}, "
                "but no row gives it the run",
            )


def _check_overlaps(run_id: str, executed: list[Execution]) -> Iterator[Violation]:
    """One execution at a time. The end of one that never reported is not known: of those, one in each attempt."""
    latest: Execution | None = None
    latest_end = 0
    silent: dict[int, Execution] = {}
    for execution in executed:
        first = latest if execution.started_ns < latest_end else silent.get(execution.attempt)
        if first is not None:
            yield Violation(
                ViolationKind.OVERLAPPING_EXECUTIONS,
                run_id,
                f"{run_id} was started by {execution.worker} (attempt {execution.attempt}) at "
                f"{execution.started_ns} ns while {first.worker} (attempt {first.attempt}) had it since "
                f"{first.started_ns} ns",
            )
        if execution.reported_ns is None:
            silent.setdefault(execution.attempt, execution)
        elif latest is None or execution.reported_ns > latest_end:
            latest, latest_end = execution, execution.reported_ns


def _executed_again(
    rows: list[Transition], executed: list[Execution], alive_until: Mapping[str, int], window: timedelta
) -> Iterator[tuple[Execution, Execution, bool]]:
    """Each execution that started after a success: that success, the execution, whether it is excused.

    A success that cannot be excused goes before one that can.
    """
    stored = {(row.attempt, row.worker) for row in rows if row.to_state is RunState.COMPLETED}
    window_ns = window // timedelta(microseconds=1) * 1000
    lost: Execution | None = None
    kept: Execution | None = None
    for execution in executed:
        if kept is not None and _reported_by(kept, execution.started_ns):
            yield kept, execution, False
        elif lost is not None and _reported_by(lost, execution.started_ns):
            # One claim allows one execution, whatever became of its success.
            yield lost, execution, execution.attempt != lost.attempt
        if execution.reported_ns is None:
            continue
        was_stored = not stored.isdisjoint({(execution.attempt, execution.worker), (execution.attempt, None)})
        if was_stored or alive_until[execution.worker] > execution.reported_ns + window_ns:
            kept = execution if kept is None or _reported_by(execution, kept.reported_ns) else kept
        else:
            lost = execution if lost is None or _reported_by(execution, lost.reported_ns) else lost


def _reported_by(execution: Execution, moment_ns: int | None) -> bool:
    """Whether an execution had reported its success at a moment."""
    return execution.reported_ns is not None and moment_ns is not None and execution.reported_ns <= moment_ns


def _step(row: Transition) -> str:
    """What a row says, in words."""
    return (
        f"was created {row.to_state}"
        if row.from_state is None
        else f"went from {row.from_state} to {row.to_state}"
    )
