"""The transition table of a run, step by step."""

import pickle

import pytest
from testyard.lab.pipelines.states import TRANSITIONS, IllegalTransitionError, RunState, allowed, check

STEPS = {
    ("SCHEDULED", "PENDING"),
    ("SCHEDULED", "SKIPPED"),
    ("PENDING", "RUNNING"),
    ("PENDING", "FAILED"),
    ("PENDING", "SKIPPED"),
    ("RUNNING", "COMPLETED"),
    ("RUNNING", "FAILED"),
    ("FAILED", "PENDING"),
}


@pytest.mark.parametrize("source", list(RunState))
@pytest.mark.parametrize("target", list(RunState))
def test_exactly_the_eight_steps_are_allowed(source: RunState, target: RunState):
    expected = (source.value, target.value) in STEPS
    assert allowed(source, target) is expected
    if expected:
        check(source, target)
    else:
        with pytest.raises(IllegalTransitionError, match=f"from {source} to {target}") as caught:
            check(source, target)
        assert (caught.value.source, caught.value.target) == (source, target)


def test_the_message_is_one_line_that_names_what_is_allowed():
    assert (
        str(IllegalTransitionError(RunState.PENDING, RunState.COMPLETED))
        == "a run cannot go from PENDING to COMPLETED; from PENDING it can go to: RUNNING, FAILED, SKIPPED"
    )
    assert str(IllegalTransitionError(RunState.COMPLETED, RunState.RUNNING)) == (
        "a run cannot go from COMPLETED to RUNNING; from COMPLETED it can go to: nothing, it has ended"
    )


def test_completed_and_skipped_are_the_only_states_without_a_way_out():
    assert {state for state, targets in TRANSITIONS.items() if not targets} == {
        RunState.COMPLETED,
        RunState.SKIPPED,
    }
    assert set(TRANSITIONS) == set(RunState)


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        TRANSITIONS[RunState.COMPLETED] = frozenset(RunState)


def test_the_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(IllegalTransitionError(RunState.FAILED, RunState.RUNNING)))
    assert str(error) == str(IllegalTransitionError(RunState.FAILED, RunState.RUNNING))
    assert error.target is RunState.RUNNING
