"""The result JSON has the document's keys, and is on disk after each step and check, whatever happens then."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from testyard.core.errors import UserError
from testyard.workflow import replacing
from testyard.workflow.observer import Observer
from testyard.workflow.results import NOT_ENDED, new_deployment_id, workflow_test_id
from workflow_engine_support import World

INIT, DEPLOY, DESTROY = {"step": "init"}, {"step": "deploy"}, {"step": "destroy"}
LOOK = {"step": "validate", "checks": ["cluster_status", "database_running"]}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_the_result_has_the_document_s_keys(world):
    world.steps.register("say", "Say", lambda context, step: {"said": "hello"})
    world.run(
        {"step": "say", "description": "Speak"},
        {"step": "crash_node", "target_node": "n11", "method": "destroy"},
        {"step": "validate", "description": "Look", "checks": ["cluster_status", "database_down"]},
    )
    written = world.written()
    assert {
        *(
            "deployment_id",
            "suite",
            "provider",
            "test_type",
            "success",
            "duration",
            "error",
            "logs",
            "workflow_steps",
        ),
        *("log_file", "log_directory", "config_path", "deployment_dir", "parameters", "retained_deployment_dir"),
        *("emergency_summary", "timestamp"),
    } == set(written)
    assert (written["suite"], written["provider"], written["test_type"]) == ("basic", "libvirt", "workflow")
    assert (written["success"], written["error"], written["logs"]) == (True, None, [])
    assert written["parameters"] == {"cluster_size": 3}
    assert written["deployment_dir"] == str(world.directory)
    assert isinstance(written["duration"], float)
    say, crash, look = written["workflow_steps"]
    document = {
        "step_type",
        "description",
        "status",
        "duration",
        "error",
        "result",
        "validation_results",
        "target_node",
    }
    assert all(document | {"method"} <= set(step) for step in written["workflow_steps"])
    assert (say["step_type"], say["description"], say["status"]) == ("say", "Speak", "completed")
    assert (say["result"], say["error"], say["validation_results"]) == ({"said": "hello"}, None, [])
    assert (crash["target_node"], crash["method"]) == ("n11", "destroy")
    assert [(it["check"], it["passed"], it["attempts"]) for it in look["validation_results"]] == [
        ("cluster_status", True, 1),
        ("database_down", True, 1),
    ]


def test_the_step_that_failed_is_in_the_result_and_those_never_reached_are_not(world):
    world.fail("deploy")
    world.run(INIT, DEPLOY, DESTROY)
    written = world.written()
    assert [(step["step_type"], step["status"]) for step in written["workflow_steps"]] == [
        ("init", "completed"),
        ("deploy", "failed"),
    ]
    assert (written["success"], written["error"]) == (False, "1 workflow step(s) failed")
    assert written["workflow_steps"][1]["error"] == "RuntimeError: it broke"


def test_the_result_is_written_before_and_after_each_step_and_check(world):
    seen = []

    def note(moment):
        steps = world.written()["workflow_steps"]
        checks = [check["passed"] for check in steps[-1]["validation_results"]]
        seen.append((moment, [step["status"] for step in steps], checks))

    class Noting(Observer):
        def before_step(self, step, result):
            note("before")

        def after_check(self, step, result):
            note("check")

        def after_step(self, step, result):
            note("after")

    world.run(INIT, LOOK, observer=Noting())
    assert seen == [
        ("before", ["running"], []),
        ("after", ["completed"], []),
        ("before", ["completed", "running"], []),
        ("check", ["completed", "running"], [True]),
        ("check", ["completed", "running"], [True, True]),
        ("after", ["completed", "completed"], [True, True]),
    ]


def test_a_step_that_failed_is_on_disk_as_soon_as_it_has_ended(world):
    seen = []

    class Noting(Observer):
        def after_step(self, step, result):
            seen.extend((it["step_type"], it["status"], it["error"]) for it in world.written()["workflow_steps"])

    world.fail("init")
    world.run(INIT, observer=Noting())
    assert seen == [("init", "failed", "RuntimeError: it broke")]


def test_the_result_of_a_run_that_goes_on_is_no_success(world):
    seen = []
    world.steps.register("look", "Look", lambda context, step: seen.append(world.written()))
    world.run(INIT, {"step": "look"})
    assert (seen[0]["success"], seen[0]["error"]) == (False, NOT_ENDED)
    assert world.written()["success"] is True


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from workflow_engine_support import World
from testyard.workflow import replacing
from testyard.workflow.observer import Observer

class Killer(Observer):
    def after_step(self, step, result):
        if step.step == "validate":
            os.kill(os.getpid(), signal.SIGKILL)

world = World(Path(sys.argv[1]))
check = {"step": "validate", "checks": ["cluster_status"]}
world.run({"step": "init"}, {"step": "deploy"}, check, {"step": "destroy"}, observer=Killer())
"""


def test_a_run_that_is_killed_between_two_steps_loses_nothing(world):
    support = str(Path(__file__).parents[1])
    killed = subprocess.run([sys.executable, "-c", KILLED, str(world.directory), support], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    written = world.written()
    assert [(step["step_type"], step["status"]) for step in written["workflow_steps"]] == [
        ("init", "completed"),
        ("deploy", "completed"),
        ("validate", "completed"),
    ]
    assert written["workflow_steps"][2]["validation_results"][0]["passed"] is True
    assert (written["success"], written["error"]) == (False, NOT_ENDED)


@pytest.fixture(params=["exchanged", "renamed"])
def replaced(request, monkeypatch):
    """Files are replaced as this system can, and as every system can."""
    if request.param == "renamed":
        monkeypatch.setattr(replacing, "_exchanger", lambda: lambda one, other: False)
    return request.param


def test_this_system_exchanges_files(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    assert replacing._exchanger()(one, other) is True
    assert (one.read_text(), other.read_text()) == ("2", "1")
    assert replacing._exchanger()(one, tmp_path / "missing") is False


@pytest.mark.usefixtures("replaced")
def test_a_reader_never_sees_half_a_file(world):
    """Each change replaces the file: what was opened before stays as it was."""
    held = []

    class Holding(Observer):
        def before_step(self, step, result):
            held.append((world.directory / "result.json").open(encoding="utf-8"))

    world.run(INIT, DEPLOY, LOOK, observer=Holding())
    contents = [json.load(file) for file in held]
    for file in held:
        file.close()
    assert [len(content["workflow_steps"]) for content in contents] == [1, 2, 3]
    assert [path.name for path in world.directory.iterdir()] == ["result.json"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), SystemExit(3)])
def test_an_aborted_run_is_written_too(world, problem):
    world.fail("deploy", problem)
    executor = world.executor()
    with pytest.raises(type(problem)):
        executor.run(world.parse(INIT, DEPLOY, DESTROY).suite())
    name = type(problem).__name__
    written = world.written()
    assert written["error"].startswith(f"Aborted: {name}")
    assert written["success"] is False
    assert [step["status"] for step in written["workflow_steps"]] == ["completed", "failed"]
    assert written["workflow_steps"][1]["error"].startswith(f"Aborted: {name}")
    assert executor.result.error == written["error"]


@pytest.mark.usefixtures("replaced")
def test_a_result_that_cannot_be_written_ends_the_run(world):
    (world.directory / "file").write_text("")
    with pytest.raises(UserError, match=r"The directory for results .* cannot be made"):
        world.run(INIT, results_path=world.directory / "file" / "result.json")
    (world.directory / "result.json").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        world.run(INIT)
    assert world.acted == []


def test_what_is_no_json_is_written_as_text(world):
    world.steps.register("odd", "Odd", lambda context, step: {"path": Path("x")})
    world.run({"step": "odd"})
    assert world.written()["workflow_steps"][0]["result"] == {"path": "x"}


def test_the_summary_names_what_failed_first(world):
    assert re.fullmatch(r"basic: passed, 1 steps in 0\.\d s", world.run(INIT).summary())
    world.fail("init")
    assert world.run(INIT).summary().endswith("1 workflow step(s) failed: init: RuntimeError: it broke")


@pytest.mark.parametrize(
    ("provider", "suite", "expected"),
    [
        ("libvirt", "libvirt_failsafety_basic", "libvirt-workflow-failsafety_basic"),
        ("libvirt", "failsafety_basic", "libvirt-workflow-failsafety_basic"),
        ("aws", "libvirt_x", "aws-workflow-libvirt_x"),
    ],
)
def test_a_suite_is_listed_as_the_document_lists_it(provider, suite, expected):
    assert workflow_test_id(provider, suite) == expected


def test_each_run_has_a_name_of_its_own_that_clouds_accept(world):
    names = {new_deployment_id("gcp", "My Suite!") for _ in range(20)}
    assert len(names) > 1
    assert all(re.fullmatch(r"gcp-workflow-my-suite--\d{8}-\d{6}-[0-9a-f]{4}", name) for name in names)
    assert world.run(INIT).deployment_id.startswith("libvirt-workflow-basic-")
    assert world.executor().run(world.parse(INIT).suite(), deployment_id="mine").deployment_id == "mine"
