"""What the checker of histories is given: read from rows and from what workers wrote down."""

import pytest
from pipeline_library_support import LINE, ROW, START
from testyard.core.errors import UserError
from testyard.pipelines.evidence import executions_in, transitions_in
from testyard.pipelines.history import Execution, RunState, Transition

NEXT_ROW = ROW | {"sequence": 2, "from_state": "SCHEDULED", "to_state": "PENDING", "not_before": START}


def test_rows_are_read_as_transitions():
    assert transitions_in([ROW, NEXT_ROW]) == [
        Transition("run-1", 1, None, RunState.SCHEDULED, START, 0, None, None),
        Transition("run-1", 2, RunState.SCHEDULED, RunState.PENDING, START, 0, None, START),
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"to_state": "DONE"}, "'DONE' is not a valid RunState"),
        ({"from_state": "?"}, "'?' is not a valid RunState"),
    ],
)
def test_a_row_with_another_state_is_told(change, told):
    with pytest.raises(UserError) as refused:
        transitions_in([ROW | change])
    assert str(refused.value) == f"A row is none of run_transitions: {told}."


@pytest.mark.parametrize("column", ROW)
def test_a_row_without_a_column_is_told(column):
    with pytest.raises(UserError, match=f"A row is none of run_transitions: '{column}'"):
        transitions_in([{name: value for name, value in ROW.items() if name != column}])


def test_an_execution_has_the_success_of_its_own_claim_only():
    lines = [
        LINE,
        LINE | {"claim_number": 2, "monotonic_ns": 7, "worker": "v"},
        LINE | {"event": "succeeded", "claim_number": 2, "monotonic_ns": 9, "worker": "v"},
        LINE | {"event": "reported", "claim_number": 2, "monotonic_ns": 11, "worker": "v"},
    ]
    assert executions_in(iter(lines)) == [
        Execution("run-1", 0, "w", 5, None),
        Execution("run-1", 0, "v", 7, 9),
    ]
