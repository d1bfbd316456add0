"""The shipped JSON Schema is what the models make, and says of files what ``load_workflow`` says."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from testyard.workflow.loading import default_checks, default_steps, load_workflow, parse_workflow
from testyard.workflow.problems import WorkflowInvalidError
from testyard.workflow.registry import CheckRegistry, StepRegistry
from testyard.workflow.schema import SCHEMA_FILE, rendered, workflow_schema

PROJECT = Path(__file__).parents[2]
SUITES = sorted((PROJECT / "suites" / "cluster" / "workflows").glob("*.json"))
INIT = {"step": "init"}

# The document's examples, as they are written there (003, "Example Workflows").
EXAMPLES = {
    "start_stop": """
{
  "workflow": [
    {"step": "init", "description": "Initialize"},
    {"step": "deploy", "description": "Deploy cluster"},
    {"step": "validate", "checks": ["cluster_status", "database_running"]},
    {"step": "stop_cluster", "description": "Stop cluster"},
    {"step": "validate", "checks": ["cluster_status_stopped"]},
    {"step": "start_cluster", "description": "Start cluster"},
    {"step": "validate", "checks": ["cluster_status", "database_running"]}
  ]
}""",
    "node_failure": """
{
  "workflow": [
    {"step": "init"},
    {"step": "deploy"},
    {"step": "validate", "checks": ["all_nodes_running"]},
    {"step": "stop_node", "target_node": "n12"},
    {"step": "validate", "checks": [
      "cluster_degraded",
      "node_status:n11:running",
      "node_status:n12:stopped",
      "node_status:n13:running"
    ]},
    {"step": "start_node", "target_node": "n12"},
    {"step": "validate", "checks": ["all_nodes_running"]}
  ]
}""",
    "crash_recovery": """
{
  "workflow": [
    {"step": "init"},
    {"step": "deploy"},
    {"step": "crash_node", "target_node": "n11", "method": "destroy"},
    {"step": "crash_node", "target_node": "n12", "method": "destroy"},
    {"step": "validate", "checks": ["cluster_critical"], "allow_failures": ["database_down"]},
    {"step": "start_node", "target_node": "n11"},
    {"step": "start_node", "target_node": "n12"},
    {"step": "validate", "checks": ["cluster_status"], "retry": {"max_attempts": 5, "delay_seconds": 30}}
  ]
}""",
}
# Our additions, one of each.
ADDITIONS = {
    "$schema": "workflow.schema.json",
    "test_suites": {
        "additions": {
            "provider": "aws",
            "parameters": {"cluster_size": 3, "power_api": "extended", "anything": "else"},
            "requirements": {"min_memory_gb": 32.5, "libvirt_available": False},
            "hooks": [
                {"webhook": "https://hooks.example.org/x", "events": ["suite_finished"]},
                {"file": "events.jsonl"},
            ],
            "workflow": [
                {"step": "validate", "id": "look", "checks": ["node_status:n11"], "allow_failure": True},
                {"step": "destroy", "when": {"step": "look", "status": "failed"}},
                {
                    "step": "parallel",
                    "steps": [INIT, {"step": "custom_command", "custom_command": ["./x", "$provider"]}],
                },
                {
                    "step": "group",
                    "steps": [{"step": "stop_node", "target_node": "n12", "rollback": [{"step": "start_node"}]}],
                    "rollback": [INIT],
                },
                {
                    "step": "chaos",
                    "seed": 7,
                    "rounds": 3,
                    "nodes": ["n11", "n12"],
                    "candidates": [{"step": "crash_node", "rollback": [{"step": "start_node"}]}],
                    "during": [{"step": "validate", "checks": ["database_running"]}],
                    "after": [{"step": "validate", "checks": ["all_nodes_running"], "retry": {"max_attempts": 5}}],
                },
            ],
        }
    },
}


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_shipped_schema_is_what_the_models_make():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == rendered(workflow_schema()), (
        "run: python -m testyard.workflow.schema"
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_document_s_examples_are_right_unedited(validator, name):
    document = json.loads(EXAMPLES[name])
    validator.validate(document)
    assert len(parse_workflow(document, provider="aws").suite().workflow) == len(document["workflow"])


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_shipped_suites_are_right(validator, path):
    validator.validate(json.loads(path.read_text(encoding="utf-8")))
    assert load_workflow(path, provider="libvirt").suites


def test_there_are_shipped_suites():
    assert SUITES


def test_our_additions_are_right(validator):
    validator.validate(ADDITIONS)
    assert len(parse_workflow(ADDITIONS).suite().workflow) == 5


@pytest.mark.parametrize(
    "step",
    [
        {"step": "inti"},
        {},
        {"step": "stop_node"},
        {"step": "stop_node", "target_node": 12},
        {"step": "init", "descripton": "x"},
        {"step": "crash_node", "target_node": "n11", "method": "destory"},
        {"step": "restart_node", "target_node": "n11", "method": "destroy"},
        {"step": "validate", "checks": []},
        {"step": "validate", "checks": ["cluster_state"]},
        {"step": "validate", "checks": ["node_status"]},
        {"step": "validate", "checks": ["node_status:n11:stoped"]},
        {"step": "validate", "checks": ["cluster_status"], "allow_failures": ["optional_check"]},
        {"step": "validate", "checks": ["cluster_status"], "retry": {"max_attempts": "5"}},
        {"step": "custom_command", "custom_command": "ls"},
        {"step": "parallel", "steps": [{"step": "nope"}]},
        {"step": "group", "steps": [{"step": "validate", "checks": ["nope"]}]},
        {"step": "group", "steps": [{**INIT, "rollback": [{"step": "nope"}]}]},
        {"step": "chaos", "candidates": [{"step": "crash_node", "method": "x"}]},
    ],
)
def test_what_the_loader_refuses_of_a_step_the_schema_refuses_too(validator, step):
    document = {"workflow": [step]}
    assert not validator.is_valid(document)
    with pytest.raises(WorkflowInvalidError):
        parse_workflow(document, provider="aws")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"test_suites": {}},
        {"test_suites": {"a": {"workflow": [INIT]}}},
        {"test_suites": {"a": {"provider": "cloud", "workflow": [INIT]}}},
        {"test_suites": {"a": {"provider": "aws", "workflow": []}}},
        {"test_suites": {"a": {"provider": "aws", "workflow": [INIT], "parameters": {"cluster_size": "3"}}}},
        {"test_suites": {"a": {"provider": "aws", "workflow": [INIT], "requirements": {"memory": 3}}}},
        {"workflow": [INIT], "test_suites": {}},
    ],
)
def test_what_the_loader_refuses_of_a_file_the_schema_refuses_too(validator, document):
    assert not validator.is_valid(document)
    with pytest.raises(WorkflowInvalidError):
        parse_workflow(document, provider="aws")


def test_editors_are_told_what_each_step_and_key_is():
    schema = workflow_schema()
    for name in default_steps().names():
        definition = schema["$defs"][f"{name}_step"]
        assert definition["description"]
        assert all(key.get("description") for key in definition["properties"].values())
    assert all(check["description"] for check in schema["$defs"]["check"]["anyOf"])
    assert len(schema["$defs"]["check"]["anyOf"]) == len(default_checks().names())


def test_every_reference_leads_somewhere():
    schema = workflow_schema()
    names = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    assert names <= set(schema["$defs"])


def test_custom_steps_and_checks_get_a_schema_of_their_own():
    steps, checks = StepRegistry(), CheckRegistry()
    steps.register("greet", "Say hello", lambda context, step: None)
    checks.register("mine", "Mine", lambda context: True)
    validator = Draft202012Validator(workflow_schema(steps, checks))
    look = {"step": "validate", "checks": ["mine"]}
    assert validator.is_valid({"workflow": [{"step": "greet"}, look]})
    assert not validator.is_valid({"workflow": [INIT]})
