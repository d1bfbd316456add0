"""``testyard workflow run`` beside itself, interrupted and killed: nothing is left; with a fake deployer."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from testyard.core.deadline import Deadline, wait_until
from workflow_command_support import FAILS, PASSES, WITHIN, Desk, command


@pytest.mark.parametrize("parallel", ["2", "0"])
def test_workflows_beside_each_other_have_all_their_results(desk: Desk, parallel: str) -> None:
    desk.settings(delay_scale=0)
    others = {f"aws_n{number}": [PASSES] for number in range(3)}
    file = desk.write("many", **others, aws_bad=[FAILS])
    running = desk.start("run", file, "--parallel", parallel, "--results-dir", "results")
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 1, said
    summary = desk.summary()
    assert sorted(it["test"] for it in summary["results"] if it["success"]) == [
        f"aws-workflow-n{number}" for number in range(3)
    ]
    assert (summary["passed"], summary["failed"]) == (3, 1)
    assert sorted(desk.calls) == ["deploy"] * 4 + ["destroy"] * 4 + ["init"] * 4


def test_workflows_beside_each_other_really_are(desk: Desk) -> None:
    def meets(name: str, other: str) -> dict[str, Any]:
        script = f"touch {name}; until test -e {other}; do sleep 0.02; done"
        return command("timeout", "30", "sh", "-c", f"cd {desk.directory}; {script}")

    file = desk.write("many", aws_a=[meets("a", "b")], aws_b=[meets("b", "a")])
    running = desk.start("run", file, "--parallel", "2", "--results-dir", "results")
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said


def wait_for_file(path: Path, running: subprocess.Popen[str]) -> None:
    """Wait until the workflow has come that far."""

    def look() -> str:
        if path.exists():
            return "there"
        return "" if running.poll() is None else f"ended: {running.communicate()[0]}"

    assert wait_until(look, bool, Deadline(WITHIN), path.name) == "there"


def waits(desk: Desk, name: str) -> dict[str, Any]:
    """A step that says that it has begun, and goes on until whoever runs the workflow is gone."""
    return command("sh", "-c", f"touch {desk.directory / name}; while kill -0 $$PPID; do sleep 0.1; done 2>&-")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_deployment_and_writes_what_was_done(desk: Desk, number: signal.Signals) -> None:
    file = desk.write("one", aws_long=[waits(desk, "begun")], aws_next=[PASSES])
    running = desk.start("run", file, "--results-dir", "results")
    wait_for_file(desk.directory / "begun", running)
    running.send_signal(number)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert desk.calls == ["init", "deploy", "destroy"]
    summary = desk.summary()
    assert [(it["test"], it["success"]) for it in summary["results"]] == [("aws-workflow-long", False)]
    assert summary["not_run"] == ["aws-workflow-next"]
    assert "Aborted" in summary["results"][0]["error"]
    steps = json.loads((desk.runs[0] / "aws-workflow-long.json").read_text())["workflow_steps"]
    assert [step["status"] for step in steps] == ["completed", "completed", "failed"]


def test_ctrl_c_while_the_deployer_works_ends_it_and_then_the_deployment(desk: Desk) -> None:
    desk.set("FAKE_DEPLOYER_HANGS", "deploy")
    running = desk.start("run", desk.write("one", aws_long=[PASSES]), "--results-dir", "results")
    wait_for_file(desk.directory / "hangs", running)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert desk.calls == ["init", "deploy", "destroy"]


def test_ctrl_c_ends_workflows_beside_each_other(desk: Desk) -> None:
    file = desk.write("two", aws_a=[waits(desk, "a")], aws_b=[waits(desk, "b")], aws_c=[PASSES])
    running = desk.start("run", file, "--parallel", "2", "--results-dir", "results")
    wait_for_file(desk.directory / "a", running)
    wait_for_file(desk.directory / "b", running)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert sorted(desk.calls) == ["deploy", "deploy", "destroy", "destroy", "init", "init"]
    summary = desk.summary()
    assert sorted(it["test"] for it in summary["results"]) == ["aws-workflow-a", "aws-workflow-b"]
    assert summary["not_run"] == ["aws-workflow-c"]


def test_the_next_run_ends_what_a_killed_one_left(desk: Desk) -> None:
    running = desk.start("run", desk.write("one", aws_long=[waits(desk, "begun")]), "--results-dir", "results")
    wait_for_file(desk.directory / "begun", running)
    running.kill()
    running.communicate(timeout=60)
    assert desk.calls == ["init", "deploy"]
    status, said = desk.run("run", desk.write("two", aws_next=[PASSES]), "--results-dir", "results")
    assert status == 0
    assert "An earlier run has left aws-workflow-long-" in said
    assert desk.calls == ["init", "deploy", "destroy", "init", "deploy", "destroy"]
    assert not (desk.runs[0] / "deployments").exists()
    assert "An earlier run" not in desk.run("run", str(desk.directory / "two.json"), "--results-dir", "results")[1]


def test_what_a_killed_run_was_to_keep_is_kept(desk: Desk) -> None:
    file = desk.write("one", aws_long=[waits(desk, "begun")])
    running = desk.start("run", file, "--results-dir", "results", "--retain", "always")
    wait_for_file(desk.directory / "begun", running)
    running.kill()
    running.communicate(timeout=60)
    said = desk.run("run", desk.write("two", aws_next=[PASSES]), "--results-dir", "results")[1]
    assert "its faults are undone" in said
    assert desk.calls == ["init", "deploy", "init", "deploy", "destroy"]
    (kept,) = (desk.runs[0] / "retained-deployments").iterdir()
    assert (kept / ".exasol.json").is_file()
    assert "An earlier run" not in desk.run("run", str(desk.directory / "two.json"), "--results-dir", "results")[1]


def test_a_workflow_whose_own_process_is_killed_has_failed(desk: Desk) -> None:
    kills = command("sh", "-c", "kill -9 $$PPID")
    file = desk.write("two", aws_killed=[kills], aws_good=[PASSES])
    running = desk.start("run", file, "--parallel", "2", "--results-dir", "results")
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 1, said
    assert "aws-workflow-killed: FAILED in 0.0 s: its process ended without a verdict (exit status -9)" in said
    assert desk.summary()["passed"] == 1
    said = desk.run("run", file, "--run-test", "aws_good", "--results-dir", "results")[1]
    assert "An earlier run has left aws-workflow-killed-" in said


def test_the_deployment_of_a_run_that_lives_is_left_alone(desk: Desk) -> None:
    running = desk.start("run", desk.write("one", aws_long=[waits(desk, "begun")]), "--results-dir", "results")
    wait_for_file(desk.directory / "begun", running)
    try:
        assert desk.run("run", desk.write("two", aws_next=[PASSES]), "--results-dir", "results")[0] == 0
        assert desk.calls == ["init", "deploy", "init", "deploy", "destroy"]
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
