"""Steps that refer to others: ids, conditions, rollbacks, candidates. What can never hold is refused."""

import pytest
from testyard.workflow.model import ChaosFields, GroupFields, NodeFields
from workflow_engine_support import World

INIT = {"step": "init"}
CHECK = {
    "step": "validate",
    "id": "look",
    "checks": ["cluster_status", "database_down"],
    "allow_failures": ["database_down"],
}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize(
    "when",
    [
        {"step": "look", "status": "completed"},
        {"step": "look", "status": "skipped"},
        {"step": "look", "check": "cluster_status"},
        {"step": "look", "check": "database_down", "passed": False},
    ],
)
def test_a_condition_on_an_earlier_step_is_accepted(world, when):
    assert world.parse(CHECK, {**INIT, "when": when}).suite().workflow[1].when.step == "look"


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ({"step": "look"}, "workflow[1].when: give either 'status', or 'check' with 'passed'"),
        (
            {"step": "look", "status": "failed", "check": "cluster_status"},
            "workflow[1].when: give either 'status', or 'check' with 'passed'",
        ),
        (
            {"step": "look", "status": "completed", "passed": True},
            "workflow[1].when: 'passed' belongs to 'check', not to 'status'",
        ),
        ({"step": "look", "status": "broken"}, 'workflow[1].when.status: unknown value "broken"; known:'),
        (
            {"step": "lok", "status": "failed"},
            "workflow[1].when.step: \"lok\" is no earlier step: unknown id; did you mean 'look'?",
        ),
        (
            {"step": "later", "status": "failed"},
            'workflow[1].when.step: "later" is no earlier step: test_suites.basic.workflow[2] has not ended',
        ),
        (
            {"step": "self", "status": "completed"},
            'workflow[1].when.step: "self" is no earlier step: test_suites.basic.workflow[1] has not ended',
        ),
        (
            {"step": "look", "check": "database_running"},
            'workflow[1].when.check: no check of step "look", which has cluster_status, database_down',
        ),
        (
            {"step": "look", "check": "cluster_status", "passed": False},
            'workflow[1].when.passed: can never be: the workflow ends when step "look" fails',
        ),
        (
            {"step": "look", "status": "failed"},
            'workflow[1].when.status: can never be: the workflow ends when step "look" fails',
        ),
    ],
)
def test_a_condition_that_cannot_be_is_told(world, when, problem):
    problems = world.problems(CHECK, {**INIT, "id": "self", "when": when}, {**INIT, "id": "later"})
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_a_condition_without_any_id_in_the_suite_says_so(world):
    assert world.problems({**INIT, "when": {"step": "a", "status": "failed"}}) == [
        "workflow[0].when.step: \"a\" is no earlier step: no step has an 'id'"
    ]


def test_a_step_that_may_fail_can_have_failed(world):
    may_fail = {**INIT, "id": "a", "allow_failure": True}
    assert world.parse(may_fail, {**INIT, "when": {"step": "a", "status": "failed"}})


def test_a_step_type_that_may_fail_can_have_failed(world):
    world.steps.register("try", "May fail", lambda context, step: None, allow_failure=True)
    assert world.parse({"step": "try", "id": "a"}, {**INIT, "when": {"step": "a", "status": "failed"}})


def test_a_step_of_a_group_that_may_fail_can_have_failed_for_those_after_the_group_only(world):
    group = {"step": "group", "allow_failure": True, "steps": [{**INIT, "id": "a"}]}
    failed = {**INIT, "when": {"step": "a", "status": "failed"}}
    assert world.parse(group, failed)
    inside = {**group, "steps": [{**INIT, "id": "a"}, failed]}
    assert [problem.split(": ")[0] for problem in world.problems(inside)] == ["workflow[0].steps[1].when.status"]


def test_an_id_is_used_once(world):
    assert world.problems({**INIT, "id": "a"}, {"step": "parallel", "steps": [{**INIT, "id": "a"}]}) == [
        'workflow[1].steps[0].id: "a" is the id of test_suites.basic.workflow[0] already'
    ]


def test_steps_at_the_same_time_do_not_know_of_each_other_but_are_known_after(world):
    one, two = {**INIT, "id": "a"}, {**INIT, "when": {"step": "a", "status": "completed"}}
    assert world.parse({"step": "parallel", "steps": [one]}, two)
    problems = world.problems({"step": "parallel", "steps": [one, two]})
    assert [problem.split(": ")[0] for problem in problems] == ["workflow[0].steps[1].when.step"]


def test_a_rollback_needs_a_group(world):
    undone = {
        "step": "stop_node",
        "target_node": "n12",
        "rollback": [{"step": "start_node", "target_node": "n12"}],
    }
    why = "only a group, or a step inside a group or of chaos' candidates, can be undone"
    assert world.problems(undone) == [f"workflow[0].rollback: {why}"]
    assert world.problems({"step": "parallel", "steps": [undone]}) == [f"workflow[0].steps[0].rollback: {why}"]
    assert world.parse({"step": "group", "steps": [undone], "rollback": [INIT]})
    assert world.parse({"step": "group", "steps": [{"step": "parallel", "steps": [undone]}]})


def test_a_rollback_step_without_a_node_means_the_node_of_the_step_that_it_undoes(world):
    stop = {"step": "stop_node", "target_node": "n12", "rollback": [{"step": "start_node"}]}
    group = world.parse({"step": "group", "steps": [stop]}).suite().workflow[0]
    undo = group.own(GroupFields).steps[0].rollback[0]
    assert undo.own(NodeFields).target_node == "n12"


def test_a_rollback_step_of_a_step_without_a_node_must_name_one(world):
    group = {"step": "group", "steps": [{**INIT, "rollback": [{"step": "start_node"}]}]}
    assert world.problems(group) == ["workflow[0].steps[0].rollback[0].target_node: is missing"]


def test_what_is_run_again_or_undoes_has_no_id(world):
    named = {**INIT, "id": "a"}
    problems = world.problems(
        {"step": "group", "steps": [{**INIT, "rollback": [named]}]},
        {"step": "chaos", "candidates": [INIT], "during": [named]},
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "workflow[0].steps[0].rollback[0].id",
        "workflow[1].during[0].id",
    ]


def test_a_rollback_may_depend_on_what_has_failed_before(world):
    may_fail = {**INIT, "id": "a"}
    undone = {**INIT, "rollback": [{**INIT, "when": {"step": "a", "status": "failed"}}]}
    assert world.parse({"step": "group", "steps": [may_fail, undone]})


def test_candidates_without_a_node_stand_for_one_on_each_node(world):
    step = {
        "step": "chaos",
        "nodes": ["n11", "n13"],
        "candidates": [
            {"step": "crash_node", "rollback": [{"step": "start_node"}]},
            {"step": "restart_node", "target_node": "n12"},
            {"step": "stop_cluster", "rollback": [{"step": "start_cluster"}]},
        ],
    }
    candidates = world.parse(step).suite().workflow[0].own(ChaosFields).candidates
    assert [(it.step, getattr(it, "target_node", None)) for it in candidates] == [
        ("crash_node", "n11"),
        ("crash_node", "n13"),
        ("restart_node", "n12"),
        ("stop_cluster", None),
    ]
    assert [it.rollback[0].target_node for it in candidates[:2]] == ["n11", "n13"]


@pytest.mark.parametrize(
    ("chaos", "problems"),
    [
        ({"candidates": [{"step": "crash_node"}]}, ["candidates[0].target_node: is missing"]),
        ({"candidates": []}, ["candidates: must not be empty"]),
        ({}, ["candidates: is missing"]),
        ({"candidates": [INIT], "rounds": 0}, ["rounds: must be at least 1, got 0"]),
        ({"candidates": [INIT], "seed": "x"}, ['seed: expected a whole number, got "x"']),
        (
            {"candidates": [INIT], "nodes": ["n11", "n14"]},
            ['nodes[1]: unknown node "n14": a cluster of 3 has n11, n12, n13'],
        ),
        (
            {"nodes": ["n11", "n12"], "candidates": [{"step": "crash_node", "method": "x"}]},
            ['candidates[0].method: unknown value "x"; known: destroy, ssh'],
        ),
    ],
)
def test_wrong_chaos_is_told_once(world, chaos, problems):
    assert world.problems({"step": "chaos", **chaos}) == [f"workflow[0].{problem}" for problem in problems]
