"""The states of a deployment, what may be done in which, and what a measurement makes of them."""

from __future__ import annotations

import pytest
from testyard.lab.cluster.deployer.states import Operation, Status, derived_status, refusal

# Contract 2.7, word for word.
CONTRACT_STATES = [
    *("initialized", "deploy_in_progress", "deployment_failed", "database_connection_failed", "database_ready"),
    *("destroy_in_progress", "destroy_failed", "destroyed", "stopped", "started", "start_in_progress"),
    *("start_failed", "stop_in_progress", "stop_failed"),
]
IN_PROGRESS = [state for state in CONTRACT_STATES if state.endswith("_in_progress")]
ALLOWED = {
    "deploy": ["initialized", "deployment_failed"],
    "start": ["stopped", "start_failed"],
    "stop": ["database_ready", "database_connection_failed", "stop_failed", "started"],
    "destroy": [state for state in CONTRACT_STATES if state not in {*IN_PROGRESS, "destroyed"}],
}
EVERY_CASE = [(operation, state) for operation in ALLOWED for state in CONTRACT_STATES]


def test_the_states_are_the_contracts():
    assert list(Status) == CONTRACT_STATES


def test_the_operations_are_the_ones_of_the_table():
    assert {*Operation} == {*ALLOWED}


@pytest.mark.parametrize(("operation", "state"), EVERY_CASE)
def test_an_operation_is_allowed_or_refused_with_a_reason(operation, state):
    reason = refusal(Operation(operation), Status(state))
    if state in ALLOWED[operation]:
        assert reason is None
    else:
        start, _, why = (reason or "").partition(": ")
        assert start == f"{operation} is refused in state '{state}'"
        assert why


@pytest.mark.parametrize("operation", ALLOWED)
@pytest.mark.parametrize("state", IN_PROGRESS)
def test_the_reason_names_the_operation_in_progress(operation, state):
    assert (refusal(Operation(operation), Status(state)) or "").endswith(
        f"{state.removesuffix('_in_progress')} is in progress"
    )


@pytest.mark.parametrize(
    ("operation", "state", "reason"),
    [
        ("deploy", "database_ready", "already deployed"),
        ("deploy", "destroyed", "it is destroyed"),
        ("start", "database_ready", "already started"),
        ("start", "started", "already started"),
        ("start", "destroyed", "it is destroyed"),
        ("start", "initialized", "not deployed yet"),
        ("start", "stop_failed", "stop did not finish"),
        ("stop", "stopped", "already stopped"),
        ("stop", "destroyed", "it is destroyed"),
        ("stop", "initialized", "not deployed yet"),
        ("destroy", "destroyed", "already destroyed"),
    ],
)
def test_the_reason_says_why(operation, state, reason):
    assert reason in (refusal(Operation(operation), Status(state)) or "")


@pytest.mark.parametrize(
    ("operation", "running", "failed"),
    [
        ("deploy", "deploy_in_progress", "deployment_failed"),
        ("stop", "stop_in_progress", "stop_failed"),
        ("start", "start_in_progress", "start_failed"),
        ("destroy", "destroy_in_progress", "destroy_failed"),
    ],
)
def test_an_operation_has_its_states(operation, running, failed):
    assert (Operation(operation).in_progress, Operation(operation).failed) == (running, failed)


HEALTHY = {"ssh_answers": True, "issues": False, "stage_d": True}
ALL_DEAD = {"ssh_answers": False, "issues": True, "stage_d": False}
ONE_NODE_DOWN = {"ssh_answers": True, "issues": True, "stage_d": True}
NO_DATABASE = {"ssh_answers": True, "issues": True, "stage_d": False}
NO_PRIMARY = {"ssh_answers": True, "issues": False, "stage_d": False}
NOT_MEASURED = ["initialized", "destroyed", "deploy_in_progress", "start_in_progress", "destroy_in_progress"]


@pytest.mark.parametrize("state", [each for each in CONTRACT_STATES if each not in NOT_MEASURED])
def test_when_no_node_answers_it_is_stopped(state):
    assert derived_status(Status(state), **ALL_DEAD) is Status.STOPPED


@pytest.mark.parametrize("state", NOT_MEASURED)
@pytest.mark.parametrize("seen", [HEALTHY, ALL_DEAD, ONE_NODE_DOWN, NO_DATABASE])
def test_nothing_is_concluded_of_what_is_not_there_or_at_work(state, seen):
    assert derived_status(Status(state), **seen) == state


@pytest.mark.parametrize(
    ("state", "seen", "derived"),
    [
        ("deployment_failed", HEALTHY, "database_ready"),
        ("database_connection_failed", HEALTHY, "database_ready"),
        ("destroy_failed", HEALTHY, "database_ready"),
        ("start_failed", HEALTHY, "database_ready"),
        ("stop_failed", HEALTHY, "database_ready"),
        ("stopped", HEALTHY, "database_ready"),
        ("started", HEALTHY, "database_ready"),
        ("database_ready", HEALTHY, "database_ready"),
        ("stop_in_progress", HEALTHY, "stop_in_progress"),
        ("database_ready", NO_DATABASE, "database_connection_failed"),
        ("database_ready", NO_PRIMARY, "database_connection_failed"),
        ("database_ready", ONE_NODE_DOWN, "database_ready"),
        ("database_connection_failed", ONE_NODE_DOWN, "database_connection_failed"),
        ("started", NO_DATABASE, "started"),
        ("started", ONE_NODE_DOWN, "started"),
        ("start_failed", NO_PRIMARY, "start_failed"),
        ("stopped", NO_DATABASE, "stop_failed"),
        ("stopped", ONE_NODE_DOWN, "stop_failed"),
        ("stop_failed", NO_DATABASE, "stop_failed"),
        ("stop_in_progress", NO_DATABASE, "stop_in_progress"),
    ],
)
def test_the_state_follows_the_measurement(state, seen, derived):
    assert derived_status(Status(state), **seen) == derived
