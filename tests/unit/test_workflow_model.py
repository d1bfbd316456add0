"""Workflow files: what is right is loaded, and all that is wrong is told at once, with file and JSON path."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.errors import UserError
from testyard.power.protocol import ProviderName
from testyard.workflow.loading import load_workflow, parse_workflow
from testyard.workflow.model import (
    CrashNodeFields,
    NodeFields,
    NoFields,
    RestartNodeFields,
    ValidateFields,
    node_names,
)
from testyard.workflow.problems import WorkflowInvalidError, below
from workflow_engine_support import CHECKS, STEP_FIELDS, World

INIT = {"step": "init"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# ---- what is right


def test_a_suite_is_loaded_with_the_document_s_keys(world):
    suite = world.parse(
        {"step": "init", "description": "Initialize deployment"},
        {
            "step": "validate",
            "checks": ["cluster_status", "node_status:n12:stopped"],
            "allow_failures": ["database_down"],
            "retry": {"max_attempts": 5, "delay_seconds": 30},
        },
        test_type="workflow",
        description="A suite",
        requirements={"libvirt_available": True, "min_memory_gb": 32},
    ).suite()
    assert (suite.name, suite.provider, suite.test_type) == ("basic", ProviderName.LIBVIRT, "workflow")
    assert suite.parameters == {"cluster_size": 3}
    assert suite.requirements.min_memory_gb == 32
    assert suite.workflow[0].description == "Initialize deployment"
    step = suite.workflow[1]
    assert step.own(ValidateFields).checks == ["cluster_status", "node_status:n12:stopped"]
    assert step.retry.max_attempts == 5
    assert step.retry.delay_seconds == 30


@pytest.mark.parametrize("name", sorted(STEP_FIELDS))
def test_each_step_type_of_the_document_is_known(world, name):
    fields = STEP_FIELDS[name] or NoFields
    target = {"target_node": "n12"} if issubclass(fields, NodeFields) else {}
    step = world.parse({"step": name, **target}).suite().workflow[0]
    assert step.step == name
    assert isinstance(step, fields)


def test_restart_and_crash_go_over_ssh_unless_said_otherwise(world):
    restart, crash, hard = (
        world.parse(
            {"step": "restart_node", "target_node": "n12"},
            {"step": "crash_node", "target_node": "n11"},
            {"step": "crash_node", "target_node": "n11", "method": "destroy"},
        )
        .suite()
        .workflow
    )
    assert restart.own(RestartNodeFields).method == "ssh"
    assert crash.own(CrashNodeFields).method == "ssh"
    assert hard.own(CrashNodeFields).method == "destroy"


def test_a_bare_workflow_gets_its_provider_name_and_parameters_from_outside(world):
    file = parse_workflow(
        {"workflow": [INIT]},
        world.steps,
        world.checks,
        provider="aws",
        suite="mine",
        parameters={"cluster_size": 2},
    )
    suite = file.suite("mine")
    assert (suite.provider, suite.parameters) == (ProviderName.AWS, {"cluster_size": 2})


def test_what_a_bare_workflow_says_itself_counts(world):
    document = {
        "$schema": "workflow.schema.json",
        "provider": "gcp",
        "parameters": {"cluster_size": 1},
        "workflow": [INIT],
    }
    suite = parse_workflow(document, world.steps, world.checks, provider="aws").suite()
    assert (suite.provider, suite.parameters) == (ProviderName.GCP, {"cluster_size": 1})


def test_a_bare_workflow_without_a_provider_is_refused(world):
    with pytest.raises(WorkflowInvalidError, match="provider: is missing: a bare workflow"):
        parse_workflow({"workflow": [INIT]}, world.steps, world.checks)


def test_the_only_suite_needs_no_name_and_an_unknown_one_is_told(world):
    suite = {"provider": "aws", "workflow": [INIT]}
    file = parse_workflow({"test_suites": {"one": suite, "other": suite}}, world.steps, world.checks)
    assert file.suite("other").name == "other"
    with pytest.raises(UserError, match="holds 2 suites, name one: one, other"):
        file.suite()
    with pytest.raises(UserError, match="no suite 'othr'; did you mean 'other'"):
        file.suite("othr")


def test_nodes_are_named_from_n11():
    assert node_names(3) == ["n11", "n12", "n13"]


# ---- what is wrong


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"step": "inti"}, "workflow[0].step: unknown step \"inti\"; did you mean 'init'?"),
        ({}, "workflow[0].step: is missing: the step's type"),
        ({"step": 3}, "workflow[0].step: expected a text, got 3"),
        ("init", 'workflow[0]: expected an object, got "init"'),
        ({"step": "stop_node"}, "workflow[0].target_node: is missing"),
        ({"step": "stop_node", "target_node": 12}, "workflow[0].target_node: expected a text, got 12"),
        (
            {"step": "stop_node", "target_node": "n14"},
            'workflow[0].target_node: unknown node "n14": a cluster of 3 has n11, n12, n13',
        ),
        (
            {"step": "crash_node", "target_node": "n11", "method": "destory"},
            "workflow[0].method: unknown value \"destory\"; did you mean 'destroy'?",
        ),
        (
            {"step": "restart_node", "target_node": "n11", "method": "destroy"},
            'workflow[0].method: unknown value "destroy"; known: graceful, ssh',
        ),
        (
            {"step": "stop_node", "target_nod": "n11", "target_node": "n11"},
            "workflow[0].target_nod: unknown key \"target_nod\"; did you mean 'target_node'?",
        ),
        (
            {"step": "init", "retry": {"max_attempt": 2}},
            "workflow[0].retry.max_attempt: unknown key \"max_attempt\"; did you mean 'max_attempts'?",
        ),
        (
            {"step": "init", "retry": {"max_attempts": 0}},
            "workflow[0].retry.max_attempts: must be at least 1, got 0",
        ),
        (
            {"step": "init", "retry": {"max_attempts": "5"}},
            'workflow[0].retry.max_attempts: expected a whole number, got "5"',
        ),
        (
            {"step": "init", "retry": {"delay_seconds": -1}},
            "workflow[0].retry.delay_seconds: must be at least 0, got -1",
        ),
        ({"step": "init", "description": None}, "workflow[0].description: expected a text, got null"),
        ({"step": "init", "allow_failure": "yes"}, 'workflow[0].allow_failure: expected true or false, got "yes"'),
        ({"step": "validate"}, "workflow[0].checks: is missing"),
        ({"step": "validate", "checks": []}, "workflow[0].checks: must not be empty"),
        (
            {"step": "validate", "checks": "cluster_status"},
            'workflow[0].checks: expected a list, got "cluster_status"',
        ),
        ({"step": "validate", "checks": [True]}, "workflow[0].checks[0]: expected a text, got true"),
        (
            {"step": "validate", "checks": ["cluster_state"]},
            "workflow[0].checks[0]: unknown check \"cluster_state\"; did you mean 'cluster_status'?",
        ),
        (
            {"step": "validate", "checks": ["node_status"]},
            'workflow[0].checks[0]: "node_status" is not written as node_status:<node>[:<state>]',
        ),
        (
            {"step": "validate", "checks": ["node_status:"]},
            'workflow[0].checks[0]: "node_status:" is not written as node_status:<node>[:<state>]',
        ),
        (
            {"step": "validate", "checks": ["node_status:n11:running:now"]},
            'workflow[0].checks[0]: "node_status:n11:running:now" is not written as node_status:<node>[:<state>]',
        ),
        (
            {"step": "validate", "checks": ["cluster_status:n11"]},
            'workflow[0].checks[0]: "cluster_status:n11" is not written as cluster_status',
        ),
        (
            {"step": "validate", "checks": ["node_status:n11:stoped"]},
            "workflow[0].checks[0]: unknown state \"stoped\"; did you mean 'stopped'?",
        ),
        (
            {"step": "validate", "checks": ["node_status:n19"]},
            'workflow[0].checks[0]: unknown node "n19": a cluster of 3 has n11, n12, n13',
        ),
        (
            {"step": "validate", "checks": ["cluster_status"], "allow_failures": ["optional_check"]},
            'workflow[0].allow_failures[0]: unknown check "optional_check"; known: '
            + ", ".join(sorted([*CHECKS, "node_status"])),
        ),
        ({"step": "custom_command"}, "workflow[0].custom_command: is missing"),
        ({"step": "custom_command", "custom_command": []}, "workflow[0].custom_command: must not be empty"),
        (
            {"step": "custom_command", "custom_command": "ls -l"},
            'workflow[0].custom_command: expected a list, got "ls -l"',
        ),
        (
            {"step": "custom_command", "custom_command": ["ls", "$HOME"]},
            "workflow[0].custom_command[1]: unknown variable $HOME: known are",
        ),
        ({"step": "parallel", "steps": []}, "workflow[0].steps: must not be empty"),
        ({"step": "group"}, "workflow[0].steps: is missing"),
        (
            {"step": "parallel", "steps": [INIT, {"step": "stop_node"}]},
            "workflow[0].steps[1].target_node: is missing",
        ),
        (
            {"step": "group", "steps": [{"step": "group", "steps": [{"step": "nope"}]}]},
            'workflow[0].steps[0].steps[0].step: unknown step "nope"',
        ),
    ],
)
def test_a_wrong_step_is_told_with_its_place(world, step, problem):
    problems = world.problems(step)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("suite", "problem"),
    [
        ({"provider": "awz"}, "provider: unknown value \"awz\"; did you mean 'aws'?"),
        ({"provider": None}, "provider: unknown value null; known:"),
        ({"test_type": "unit"}, 'test_type: unknown value "unit"; known: workflow'),
        (
            {"requirements": {"min_memory": 32}},
            "requirements.min_memory: unknown key \"min_memory\"; did you mean 'min_memory_gb'?",
        ),
        ({"requirements": {"min_memory_gb": "32"}}, 'requirements.min_memory_gb: expected a number, got "32"'),
        ({"parameters": {"cluster_size": "3"}}, 'parameters.cluster_size: expected a whole number, got "3"'),
        (
            {"parameters": {"cluster_sise": 3}},
            "parameters.cluster_sise: unknown key \"cluster_sise\"; did you mean 'cluster_size'?",
        ),
        (
            {"parameters": {"power_api": "all"}},
            'parameters.power_api: unknown value "all"; known: document, extended',
        ),
        ({"parameters": []}, "parameters: expected an object, got []"),
        ({"workflow": []}, "workflow: must not be empty"),
        ({"workflow": None}, "workflow: expected a list, got null"),
        ({"work_flow": []}, "work_flow: unknown key \"work_flow\"; did you mean 'workflow'?"),
        ({"name": "x"}, "name: unknown key: a suite's name is its key in 'test_suites'"),
        ({"hooks": [{}]}, "hooks[0]: give either 'webhook' or 'file'"),
        ({"hooks": [{"webhook": "ftp://x"}]}, 'hooks[0].webhook: "ftp://x" does not match'),
        (
            {"hooks": [{"file": "e", "events": ["step_stopped"]}]},
            'hooks[0].events[0]: unknown value "step_stopped"; did you mean',
        ),
    ],
)
def test_a_wrong_suite_is_told_with_its_place(world, suite, problem):
    problems = world.problems(INIT, **suite)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_all_problems_are_told_at_once_and_nothing_is_started(world):
    with pytest.raises(WorkflowInvalidError) as invalid:
        world.parse(
            {"step": "nope"},
            {"step": "stop_node", "methd": "ssh"},
            {"step": "validate", "checks": ["nope", "cluster_status", "node_status:n99"], "retry": 3},
            provider="cloud",
        )
    assert [problem.path.removeprefix("test_suites.basic.") for problem in invalid.value.problems] == [
        "workflow[0].step",
        "workflow[1].target_node",
        "workflow[1].methd",
        "workflow[2].checks[0]",
        "workflow[2].checks[2]",
        "workflow[2].retry",
        "provider",
    ]
    assert "suites/x.json: test_suites.basic.workflow[1].target_node: is missing" in str(invalid.value)
    assert "has 7 problems, nothing was started" in str(invalid.value)
    assert world.acted == []


def test_each_suite_s_problems_are_told(world):
    bad = {"provider": "aws", "workflow": [{"step": "nope"}]}
    with pytest.raises(WorkflowInvalidError) as invalid:
        parse_workflow(
            {"test_suites": {"a": bad, "b c": bad, "good": {**bad, "workflow": [INIT]}}}, world.steps, world.checks
        )
    assert [problem.path for problem in invalid.value.problems] == [
        "test_suites.a.workflow[0].step",
        'test_suites["b c"].workflow[0].step',
    ]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "expected an object with 'test_suites', got []"),
        ({}, "test_suites: is missing"),
        ({"test_suites": {}}, "test_suites: expected an object of suites, got {}"),
        ({"test_suites": []}, "test_suites: expected an object of suites, got []"),
        ({"test_suites": {"a": 3}}, "test_suites.a: expected an object, got 3"),
        ({"test_suite": {}}, "test_suite: unknown key \"test_suite\"; did you mean 'test_suites'?"),
    ],
)
def test_a_wrong_document_is_told(world, document, problem):
    with pytest.raises(WorkflowInvalidError) as invalid:
        parse_workflow(document, world.steps, world.checks)
    assert str(invalid.value.problems[0]) == problem


def test_nodes_are_not_judged_when_the_size_is_not_known(world):
    step = world.parse({"step": "stop_node", "target_node": "n42"}, parameters={}).suite().workflow[0]
    assert step.own(NodeFields).target_node == "n42"


# ---- files


def load(world: World, path: Path) -> str:
    with pytest.raises(WorkflowInvalidError) as invalid:
        load_workflow(path, world.steps, world.checks, provider="aws")
    assert len(invalid.value.problems) == 1
    assert invalid.value.problems[0].file == str(path)
    return f"{invalid.value.problems[0].path}: {invalid.value.problems[0].message}"


def test_a_file_is_loaded_and_a_bare_one_is_named_after_it(world, tmp_path):
    path = tmp_path / "my flow.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"workflow": [INIT]}).encode())
    file = load_workflow(path, world.steps, world.checks, provider="aws")
    assert file.path == path
    assert file.suite().name == "my flow"


def test_a_key_that_is_written_twice_is_told_with_its_place(world, tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"workflow": [{"step": "init"}, {"step": "init", "step": "deploy"}]}')
    assert load(world, path) == "workflow[1].step: is written twice in one object"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"workflow": [\n  {"step": "init"},\n]}', "line 3, column 1: is not JSON: "),
        (b"", "line 1, column 1: is not JSON: "),
        (b'{"workflow": NaN}', ": is not JSON: NaN is no JSON number"),
        (b'{"workflow": "\xff"}', ": is not UTF-8 text: byte 14 cannot be decoded"),
        (b"[" * 100_000, ": is nested too deeply"),
    ],
)
def test_a_file_that_is_no_json_is_told_with_line_and_column(world, tmp_path, content, problem):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert load(world, path).startswith(problem)


def test_steps_that_are_nested_too_deeply_are_told(world):
    step: dict[str, object] = INIT
    for _ in range(2000):
        step = {"step": "group", "steps": [step]}
    with pytest.raises(WorkflowInvalidError, match="is nested too deeply"):
        parse_workflow({"workflow": [step]}, world.steps, world.checks, provider="aws")


@pytest.mark.parametrize(("name", "problem"), [("no.json", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_told(world, tmp_path, name, problem):
    assert f"cannot be read: {problem}" in load(world, tmp_path / name)


# ---- whatever is written

# Nothing is run in it.
SHARED = World(Path("unused"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["step", "steps", "checks", "target_node", "when", "id", "rollback", "nodes", "candidates"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
STEPS = st.fixed_dictionaries(
    {"step": st.sampled_from(["init", "validate", "group", "parallel", "chaos", "stop_node", "custom_command"])},
    optional=dict.fromkeys(
        ("steps", "checks", "target_node", "when", "id", "rollback", "nodes", "candidates", "retry", "seed"),
        JSON_VALUES,
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(STEPS | JSON_VALUES, max_size=4),
    suite=st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=2),
)
def test_whatever_is_written_is_loaded_or_told(steps, suite):
    world = SHARED
    try:
        file = parse_workflow(
            {"test_suites": {"a": {"provider": "aws", "workflow": steps, **suite}}}, world.steps, world.checks
        )
        told = ()
        assert [step.step for step in file.suite().workflow] == [step["step"] for step in steps]
    except WorkflowInvalidError as invalid:
        told = invalid.problems
    assert all(problem.path.startswith("test_suites.a") and problem.message for problem in told)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(step=WORDS, check=WORDS, key=WORDS)
def test_no_unknown_name_is_skipped(step, check, key):
    world = SHARED
    document = {"workflow": [{"step": step}, {"step": "validate", "checks": [check]}, {"step": "init", key: 1}]}
    expected = [f"workflow[2].{key}"]
    if step not in world.steps.names():
        expected.append("workflow[0].step")
    if check not in world.checks.names():
        expected.append("workflow[1].checks[0]")
    with pytest.raises(WorkflowInvalidError) as invalid:
        parse_workflow(document, world.steps, world.checks, provider="aws")
    assert set(expected) <= {problem.path for problem in invalid.value.problems}


def test_paths_quote_what_is_no_word():
    assert below("a", 'b"c', 0, "d-e") == 'a["b\\"c"][0].d-e'
