"""The exactly-once checker: a good history gives nothing, each kind of broken one gives its kind."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.pipelines.history import (
    Execution,
    Repeated,
    RunState,
    Transition,
    Violation,
    ViolationKind,
    check_histories,
    repetitions,
)

START = datetime(2026, 1, 1, 7, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND_NS = 1_000_000_000
SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, SKIPPED = RunState
Break = Callable[["History", str], None]


@dataclass
class History:
    """A fabricated history; every row a second after the one before."""

    transitions: list[Transition]
    executions: list[Execution]

    def add(self, run_id: str, to_state: RunState, **values: object) -> None:
        before = next((row for row in reversed(self.transitions) if row.run_id == run_id), None)
        retried = before is not None and before.to_state is FAILED and to_state is PENDING
        row = Transition(
            run_id=run_id,
            sequence=len(self.transitions) + 1,
            from_state=before.to_state if before else None,
            to_state=to_state,
            at=START + timedelta(seconds=len(self.transitions)),
            attempt=before.attempt + retried if before else 0,
            worker=f"worker_{run_id}" if to_state in {RUNNING, COMPLETED} else None,
        )
        self.transitions.append(replace(row, **values))

    def execute(self, run_id: str, *, succeeds: bool) -> None:
        self.add(run_id, RUNNING)
        claim = self.transitions[-1]
        started = claim.sequence * SECOND_NS
        reported = started + SECOND_NS // 10 if succeeds else None
        self.executions.append(Execution(run_id, claim.attempt, str(claim.worker), started, reported))
        self.add(run_id, COMPLETED if succeeds else FAILED)

    def index(self, run_id: str, to_state: RunState) -> int:
        return next(
            place
            for place, row in enumerate(self.transitions)
            if row.run_id == run_id and row.to_state is to_state and row.attempt == 1
        )

    def change(self, run_id: str, to_state: RunState, **values: object) -> None:
        """Change the row of the second attempt that leads to a state."""
        place = self.index(run_id, to_state)
        self.transitions[place] = replace(self.transitions[place], **values)

    def drop(self, run_id: str, to_state: RunState) -> None:
        del self.transitions[self.index(run_id, to_state)]

    def last_execution(self, run_id: str) -> Execution:
        return [execution for execution in self.executions if execution.run_id == run_id][-1]

    def violations(self, *, drained: bool = True) -> list[Violation]:
        return check_histories(self.transitions, self.executions, drained=drained)

    def kinds(self, run_id: str) -> set[ViolationKind]:
        assert {violation.run_id for violation in self.violations()} <= {run_id}
        return {violation.kind for violation in self.violations()}


def good_history(failures: list[int | None]) -> History:
    """One run for each number: None is skipped, a number fails so often and then succeeds, 4 fails for good."""
    history = History([], [])
    for number, count in enumerate(failures):
        run_id = f"run_{number}"
        history.add(run_id, SCHEDULED)
        if count is None:
            history.add(run_id, SKIPPED)
            continue
        history.add(run_id, PENDING)
        for _ in range(min(count, 3)):
            history.execute(run_id, succeeds=False)
            due = START + timedelta(seconds=len(history.transitions) + 1)
            history.add(run_id, PENDING, not_before=due)
        history.execute(run_id, succeeds=count < 4)
    return history


good_histories = st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=6).map(good_history)
broken_ground = st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=4)


@settings(deadline=None, derandomize=True)
@given(good_histories, st.randoms(use_true_random=False))
def test_a_good_history_gives_nothing_in_any_order_of_its_rows(history: History, random: Random):
    random.shuffle(history.transitions)
    random.shuffle(history.executions)
    assert history.violations() == []
    assert repetitions(history.transitions, history.executions) == []


def completed_to_running(history: History, run_id: str) -> None:
    history.add(run_id, RUNNING)
    history.add(run_id, FAILED)


def skipped_the_claim(history: History, run_id: str) -> None:
    history.drop(run_id, RUNNING)
    history.change(run_id, COMPLETED, from_state=PENDING)


def created_pending(history: History, run_id: str) -> None:
    history.transitions = [
        row for row in history.transitions if row.run_id != run_id or row.from_state is not None
    ]
    place = next(place for place, row in enumerate(history.transitions) if row.run_id == run_id)
    history.transitions[place] = replace(history.transitions[place], from_state=None)


def lost_row(history: History, run_id: str) -> None:
    history.drop(run_id, PENDING)


def without_creation(history: History, run_id: str) -> None:
    history.transitions = [
        row for row in history.transitions if row.run_id != run_id or row.from_state is not None
    ]


def same_sequence(history: History, run_id: str) -> None:
    before = history.transitions[history.index(run_id, RUNNING)]
    history.change(run_id, COMPLETED, sequence=before.sequence)


def never_ended(history: History, run_id: str) -> None:
    history.drop(run_id, COMPLETED)


def waits_for_ever(history: History, run_id: str) -> None:
    history.drop(run_id, COMPLETED)
    history.drop(run_id, RUNNING)
    history.executions.remove(history.last_execution(run_id))


def completed_twice(history: History, run_id: str) -> None:
    history.add(run_id, COMPLETED, from_state=RUNNING)


def executed_once_more(history: History, run_id: str) -> None:
    done = history.last_execution(run_id)
    history.executions.append(
        replace(done, started_ns=done.reported_ns + SECOND_NS, reported_ns=done.reported_ns + 2 * SECOND_NS)
    )


def executed_once_more_and_failed(history: History, run_id: str) -> None:
    done = history.last_execution(run_id)
    history.executions.append(replace(done, started_ns=done.reported_ns, reported_ns=None))


def two_at_once(history: History, run_id: str) -> None:
    done = history.last_execution(run_id)
    history.executions.append(replace(done, started_ns=done.started_ns + 1, reported_ns=None))


def one_claim_executed_twice(history: History, run_id: str) -> None:
    done = history.last_execution(run_id)
    history.executions.append(replace(done, started_ns=done.started_ns - 1, reported_ns=None))


def without_claim(history: History, run_id: str) -> None:
    history.executions.remove(done := history.last_execution(run_id))
    history.executions.append(replace(done, worker="stranger"))


def never_executed(history: History, run_id: str) -> None:
    history.executions.remove(history.last_execution(run_id))


def completed_without_a_report(history: History, run_id: str) -> None:
    history.executions.remove(done := history.last_execution(run_id))
    history.executions.append(replace(done, reported_ns=None))


def retry_not_stored(history: History, run_id: str) -> None:
    for place in [history.index(run_id, state) for state in (PENDING, RUNNING, COMPLETED)]:
        history.transitions[place] = replace(history.transitions[place], attempt=0)
    history.executions.remove(done := history.last_execution(run_id))
    history.executions.append(replace(done, attempt=0))


def retry_counted_at_the_claim(history: History, run_id: str) -> None:
    history.change(run_id, PENDING, attempt=0)


def begins_with_a_retry(history: History, run_id: str) -> None:
    place = next(place for place, row in enumerate(history.transitions) if row.run_id == run_id)
    history.transitions[place] = replace(history.transitions[place], attempt=1)


def started_too_early(history: History, run_id: str) -> None:
    row = history.transitions[history.index(run_id, RUNNING)]
    history.change(run_id, PENDING, not_before=row.at + MICROSECOND)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(before=broken_ground, after=broken_ground)
@pytest.mark.parametrize(
    ("broken", "kinds"),
    [
        (completed_to_running, "illegal transition"),
        (skipped_the_claim, "illegal transition, executed without claim"),
        (created_pending, "illegal transition"),
        (lost_row, "broken chain, retry not counted"),
        (without_creation, "broken chain"),
        (same_sequence, "broken chain"),
        (never_ended, "lost run"),
        (waits_for_ever, "lost run"),
        (completed_twice, "broken chain, completed twice"),
        (executed_once_more, "executed after success"),
        (executed_once_more_and_failed, "executed after success"),
        (two_at_once, "overlapping executions"),
        (one_claim_executed_twice, "overlapping executions"),
        (without_claim, "executed without claim"),
        (never_executed, "completed without execution"),
        (completed_without_a_report, "completed without execution"),
        (retry_not_stored, "retry not counted, overlapping executions"),
        (retry_counted_at_the_claim, "retry not counted"),
        (begins_with_a_retry, "retry not counted"),
        (started_too_early, "started too early"),
    ],
)
def test_each_defect_gives_its_kinds_and_no_other_and_only_for_its_run(
    broken: Break, kinds: str, before: list[int | None], after: list[int | None]
):
    history = good_history([*before, 1, *after])
    run_id = f"run_{len(before)}"
    assert history.violations() == []
    broken(history, run_id)
    assert history.kinds(run_id) == {ViolationKind(kind) for kind in kinds.split(", ")}


def test_every_kind_has_a_defect_that_gives_it():
    marks = test_each_defect_gives_its_kinds_and_no_other_and_only_for_its_run.pytestmark
    found = {
        kind
        for mark in marks
        if mark.name == "parametrize"
        for _, kinds in mark.args[1]
        for kind in kinds.split(", ")
    }
    assert found == {kind.value for kind in ViolationKind}


def killed_with_a_success(report_to_death: int) -> History:
    """A worker reports, lives on for some time without storing it, and another one does the run again."""
    history = History([], [])
    for state in (SCHEDULED, PENDING):
        history.add("run_0", state)
    history.add("run_0", RUNNING, worker="first")
    history.add("run_0", FAILED)
    history.add("run_0", PENDING)
    history.add("run_0", RUNNING, worker="second")
    history.add("run_0", COMPLETED, worker="second")
    for state in (SCHEDULED, PENDING):
        history.add("run_1", state)
    history.add("run_1", RUNNING, worker="first")
    history.add("run_1", FAILED)
    history.executions = [
        Execution("run_0", 0, "first", 100, 200),
        Execution("run_1", 0, "first", 200 + report_to_death, None),
        Execution("run_0", 1, "second", 9 * SECOND_NS, 10 * SECOND_NS),
    ]
    return history


def test_a_success_lost_inside_the_completion_window_is_counted_and_no_violation():
    history = killed_with_a_success(50_000_000)
    assert history.violations() == []
    assert repetitions(history.transitions, history.executions) == [
        Repeated("run_0", history.executions[0], history.executions[2])
    ]


def test_a_worker_that_outlived_the_window_should_have_stored_the_success():
    history = killed_with_a_success(50_000_001)
    assert [violation.kind for violation in history.violations()] == [ViolationKind.EXECUTED_AFTER_SUCCESS]
    assert repetitions(history.transitions, history.executions) == []
    longer = timedelta(microseconds=50_001)
    assert check_histories(history.transitions, history.executions, drained=True, completion_window=longer) == []
    assert len(repetitions(history.transitions, history.executions, completion_window=longer)) == 1


def test_a_lost_success_does_not_excuse_a_second_execution_of_the_same_claim():
    history = killed_with_a_success(0)
    history.executions.insert(1, Execution("run_0", 0, "first", 300, None))
    assert ViolationKind.EXECUTED_AFTER_SUCCESS in {violation.kind for violation in history.violations()}


def test_a_lost_success_does_not_excuse_an_execution_after_a_stored_one():
    history = killed_with_a_success(0)
    history.add("run_0", RUNNING, worker="third", attempt=2, from_state=PENDING)
    history.executions.append(Execution("run_0", 2, "third", 11 * SECOND_NS, None))
    kinds = [violation.kind for violation in history.violations(drained=False)]
    assert kinds.count(ViolationKind.EXECUTED_AFTER_SUCCESS) == 1
    assert len(repetitions(history.transitions, history.executions)) == 1


def test_only_a_drained_service_has_lost_a_run_that_has_not_ended():
    history = History([], [])
    history.add("run_0", SCHEDULED)
    assert history.violations(drained=False) == []
    assert [violation.explanation for violation in history.violations()] == [
        "run_0 is SCHEDULED after everything was drained, expected COMPLETED, FAILED or SKIPPED"
    ]


def test_a_run_begins_with_no_retry_made():
    history = History([], [])
    history.add("run_0", SCHEDULED, attempt=1)
    assert [violation.explanation for violation in history.violations(drained=False)] == [
        "run_0 begins with attempt 1 (row 1), expected 0"
    ]


def test_without_records_of_executions_only_the_rows_are_checked():
    history = good_history([1])
    assert check_histories(history.transitions, None, drained=True) == []
    assert len(check_histories(history.transitions, [], drained=True)) == 1


def test_an_execution_of_an_unknown_run_has_no_claim():
    violations = check_histories([], [Execution("run_9", 0, "worker", 1, None)], drained=True)
    assert [(violation.kind, violation.run_id) for violation in violations] == [
        (ViolationKind.EXECUTED_WITHOUT_CLAIM, "run_9")
    ]


def test_the_explanations_are_sentences_with_what_was_found_and_expected():
    history = good_history([0])
    completed_to_running(history, "run_0")
    started = good_history([1])
    started_too_early(started, "run_0")
    at = START + timedelta(seconds=5)
    assert [violation.explanation for violation in history.violations() + started.violations()] == [
        "run_0 went from COMPLETED to RUNNING (row 5), expected no further row",
        f"run_0 was started at {at.isoformat()} (row 6), expected not before {(at + MICROSECOND).isoformat()}",
    ]


def test_a_report_before_the_start_is_refused():
    with pytest.raises(ValueError, match="reported before it started"):
        Execution("run_0", 0, "worker", 2, 1)
