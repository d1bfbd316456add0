"""``testyard workflow``: selecting, running, running again, and what it says; with a fake deployer."""

import json
from pathlib import Path
from typing import Any

import pytest
from testyard.core.errors import UserError
from workflow_command_support import FAILS, PASSES, RUN_KEYS, START, Desk, command


def test_a_workflow_that_passes_leaves_results_and_no_deployment(desk: Desk) -> None:
    status, said = desk.run("run", desk.write("one", aws_basic=[PASSES]), "--results-dir", "results")
    assert status == 0
    assert "aws-workflow-basic: custom_command: completed in" in said
    assert "1 passed, 0 failed, 0 skipped" in said
    assert desk.calls == ["init", "deploy", "destroy"]
    (run,) = desk.runs
    assert sorted(it.name for it in run.iterdir()) == [
        "aws-workflow-basic.json",
        "aws-workflow-basic.log",
        "results.json",
    ]
    result = json.loads((run / "aws-workflow-basic.json").read_text())
    assert result["success"] is True
    assert [step["step_type"] for step in result["workflow_steps"]] == ["init", "deploy", "custom_command"]
    assert result["log_file"] == str(Path("results") / run.name / "aws-workflow-basic.log")


def test_the_summary_has_the_documented_keys(desk: Desk) -> None:
    desk.run("run", desk.write("one", aws_basic=[PASSES], aws_bad=[FAILS]), "--results-dir", "results")
    summary = desk.summary()
    assert summary.keys() >= RUN_KEYS
    assert (summary["total_tests"], summary["passed"], summary["failed"]) == (2, 1, 1)
    assert (summary["provider"], summary["db_version"]) == ("aws", "fake-1")
    assert [(it["test"], it["success"]) for it in summary["results"]] == [
        ("aws-workflow-basic", True),
        ("aws-workflow-bad", False),
    ]
    assert summary["results"][1]["error"].startswith("1 workflow step(s) failed: custom_command: ")
    assert [it["type"] for it in summary["notifications"]] == ["failure"]
    assert summary["resource_plan"]["total_nodes"] == 2


def test_a_failure_is_status_1_and_the_deployment_is_ended_too(desk: Desk) -> None:
    status, said = desk.run("run", desk.write("one", aws_bad=[FAILS, PASSES]), "--results-dir", "results")
    assert status == 1
    assert "aws-workflow-bad: FAILED" in said
    assert desk.calls == ["init", "deploy", "destroy"]
    assert not (desk.runs[0] / "deployments").exists()


def test_a_slow_workflow_is_told(desk: Desk) -> None:
    desk.settings(slow_after=0)
    desk.run("run", desk.write("one", aws_basic=[PASSES]), "--results-dir", "results")
    assert [it["type"] for it in desk.summary()["notifications"]] == ["slow"]


@pytest.mark.parametrize(("stop", "ran"), [([], 2), (["--stop-on-error"], 1)])
def test_the_next_workflow_is_run_after_a_failure_unless_told_otherwise(
    desk: Desk, stop: list[str], ran: int
) -> None:
    file = desk.write("one", aws_bad=[FAILS], aws_good=[PASSES])
    assert desk.run("run", file, "--results-dir", "results", *stop)[0] == 1
    summary = desk.summary()
    assert len(summary["results"]) == ran
    assert summary["not_run"] == ["aws-workflow-good"][ran - 1 :]


def test_a_deployment_that_cannot_be_destroyed_is_a_failure_and_stays(desk: Desk) -> None:
    desk.set("FAKE_DEPLOYER_FAILS", "destroy")
    status, said = desk.run("run", desk.write("one", aws_basic=[PASSES]), "--results-dir", "results")
    assert status == 1
    assert "is not destroyed: The deployer's 'destroy' failed (exit status 1): no quota" in said
    assert "Do it by hand: " in said
    assert len(list((desk.runs[0] / "deployments").iterdir())) == 1
    result = json.loads((desk.runs[0] / "aws-workflow-basic.json").read_text())
    assert "is not destroyed" in result["emergency_summary"][0]
    desk.set("FAKE_DEPLOYER_FAILS", "nothing")
    said = desk.run("run", desk.write("one", aws_basic=[PASSES]), "--results-dir", "results")[1]
    assert "An earlier run has left aws-workflow-basic-" in said
    assert not (desk.runs[0] / "deployments").exists()


def test_a_workflow_that_destroys_its_deployment_itself_has_it_destroyed_once(desk: Desk) -> None:
    assert desk.run("run", desk.write("one", aws_basic=[{"step": "destroy"}]), "--results-dir", "results")[0] == 0
    assert desk.calls == ["init", "deploy", "destroy"]


@pytest.mark.parametrize(
    ("retain", "last", "kept"),
    [
        ([], FAILS, False),
        (["--retain"], FAILS, True),
        (["--retain"], PASSES, False),
        (["--retain", "always"], PASSES, True),
        (["--retain", "never"], FAILS, False),
    ],
)
def test_a_deployment_is_kept_only_when_asked_for(
    desk: Desk, retain: list[str], last: dict[str, Any], kept: bool
) -> None:
    desk.run("run", desk.write("one", aws_basic=[last]), "--results-dir", "results", *retain)
    assert ("destroy" not in desk.calls) is kept
    retained = desk.summary()["results"][0]["retained_deployment_dir"]
    assert (retained is not None) is kept
    if kept:
        assert (Path(retained) / ".exasol.json").is_file()
        desk.run("run", desk.write("two", aws_other=[PASSES]), "--results-dir", "results")
        assert (Path(retained) / ".exasol.json").is_file()


def test_only_what_failed_is_run_again(desk: Desk) -> None:
    mended = desk.directory / "mended"
    file = desk.write("one", aws_good=[PASSES], aws_bad=[command("test", "-e", str(mended))])
    assert desk.run("run", file, "--results-dir", "results")[0] == 1
    mended.touch()
    status, said = desk.run("rerun", "--results-dir", "results")
    assert status == 0
    assert "aws-workflow-bad: PASSED" in said
    assert "aws-workflow-good" not in said
    assert desk.summary()["results"][0]["run_number"] == 2
    newest = desk.runs[-1]
    assert (newest / "aws-workflow-bad-run2.log").is_file()
    assert (newest / "aws-workflow-bad-run2.json").is_file()


def test_one_test_is_run_again_from_a_named_summary(desk: Desk) -> None:
    file = desk.write("one", aws_good=[PASSES], aws_other=[PASSES])
    desk.run("run", file, "--results-dir", "results")
    summary = str(desk.runs[0] / "results.json")
    status, said = desk.run("run", "--rerun", "aws-workflow-other", "--results-file", summary)
    assert status == 0
    assert "aws-workflow-other: PASSED" in said
    assert "aws-workflow-good" not in said


def test_nothing_that_failed_is_nothing_to_run_again(desk: Desk) -> None:
    desk.run("run", desk.write("one", aws_good=[PASSES]), "--results-dir", "results")
    with pytest.raises(UserError, match="Nothing failed"):
        desk.run("rerun", "--results-dir", "results")


def test_a_dry_run_says_every_step_and_call_and_makes_none(desk: Desk) -> None:
    steps = [
        {"step": "stop_cluster"},
        {"step": "start_cluster"},
        {"step": "stop_node", "target_node": "n12"},
        {"step": "restart_node", "target_node": "n12"},
        {"step": "crash_node", "target_node": "n12", "method": "destroy"},
        {"step": "validate", "checks": ["cluster_status"]},
        {"step": "destroy"},
    ]
    suite = {"provider": "hetzner", "parameters": {"cluster_size": 2}, "workflow": [*START, *steps]}
    status, said = desk.run("run", desk.write("one", hetzner_all=suite), "--dry-run", "--results-dir", "results")
    assert status == 0
    assert desk.calls == []
    assert not desk.results.exists()
    for text in (
        "init --deployment-dir '<deployment>' --cloud-provider hetzner --cluster-size 2",
        "stop --deployment-dir '<deployment>' --services-only",
        "stop_cluster on n11: sudo shutdown -h now",
        "stop_cluster on n12: sudo shutdown -h now",
        "start --deployment-dir '<deployment>' --no-wait",
        "start_cluster on n12: an operator starts it",
        "--wait-for database_ready,15m",
        "stop_node on n12: refused: NotImplementedError: provider 'hetzner' does not support 'stop_node'",
        "restart_node ssh on n12: sudo reboot",
        "crash_node destroy on n12: refused",
        "check cluster_status",
        "destroy --deployment-dir '<deployment>' --auto-approve",
    ):
        assert text in said


def test_tests_are_listed_by_provider(desk: Desk) -> None:
    gcp = {"provider": "gcp", "description": "On GCP", "workflow": START}
    file = desk.write("two", aws_basic=[PASSES], gcp_basic=gcp)
    assert desk.run("list", file, "--provider", "gcp") == (0, "gcp-workflow-basic  1 nodes, 2 steps  On GCP\n")
    for option in ("--list-tests", "--list-test"):
        status, said = desk.run("run", file, option)
        assert (status, [line.split()[0] for line in said.splitlines()]) == (
            0,
            ["aws-workflow-basic", "gcp-workflow-basic"],
        )
    assert desk.calls == []


def test_known_steps_and_checks_are_listed(desk: Desk) -> None:
    said = desk.run("list", "--names")[1]
    assert "check  node_status:<node>[:<state>]" in said
    assert "step   crash_node" in said


def test_valid_files_are_told(desk: Desk) -> None:
    desk.write("one", aws_a=[PASSES])
    desk.write("two", aws_b=[PASSES], aws_c=[PASSES])
    assert desk.run("validate", str(desk.directory)) == (0, "3 workflows in 2 files are valid.\n")


def test_everything_that_is_wrong_is_told_before_anything_starts(desk: Desk) -> None:
    desk.write("one", aws_a=[{"step": "explode"}, {"step": "validate", "checks": ["all_fine"]}])
    desk.write("two", aws_b=[{"step": "stop_node"}])
    with pytest.raises(UserError) as wrong:
        desk.run("run", str(desk.directory))
    assert all(text in str(wrong.value) for text in ("explode", "all_fine", "target_node", "one.json", "two.json"))
    assert desk.calls == []


def test_what_differs_from_the_defaults_is_told_at_the_start(desk: Desk) -> None:
    desk.settings(delay_scale=0.02)
    said = desk.run("run", desk.write("one", aws_a=[PASSES]), "--results-dir", "results")[1]
    assert said.index("Setting delay_scale: 0.02 (default 1.0)") < said.index("aws-workflow-a: init")
    assert "Setting deadlines.grace: 2 s (default 10 s)" in said


def test_a_documented_retry_stays_and_its_delay_is_scaled(desk: Desk) -> None:
    desk.settings(delay_scale=0.001)
    retried = {**FAILS, "retry": {"max_attempts": 5, "delay_seconds": 30}}
    assert desk.run("run", desk.write("one", aws_a=[retried]), "--results-dir", "results")[0] == 1
    result = json.loads((desk.runs[0] / "aws-workflow-a.json").read_text())
    assert result["workflow_steps"][2]["attempts"] == 5
    assert result["workflow_steps"][2]["duration"] < 5


@pytest.mark.parametrize(("wanted", "skipped"), [({}, False), ({"min_memory_gb": 9_000_000}, True)])
def test_a_suite_whose_requirements_are_not_met_is_skipped_with_the_reason(
    desk: Desk, wanted: dict[str, Any], skipped: bool
) -> None:
    suite = {"provider": "aws", "requirements": wanted, "workflow": START}
    status, said = desk.run("run", desk.write("one", aws_a=suite), "--results-dir", "results")
    assert status == 0
    assert ("SKIPPED: this machine lacks memory: needs 9e+06 GB, there is" in said) is skipped
    assert (desk.summary()["skipped"], desk.summary()["passed"]) == ((1, 0) if skipped else (0, 1))
    assert (desk.calls == []) is skipped


def test_requirements_are_not_looked_at_when_the_settings_say_so(desk: Desk) -> None:
    desk.settings(check_requirements=False)
    suite = {"provider": "aws", "requirements": {"min_cpus": 100_000}, "workflow": START}
    assert desk.run("run", desk.write("one", aws_a=suite), "--results-dir", "results")[0] == 0
    assert desk.summary()["passed"] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "Name workflow files"),
        (["run", "none.json"], "There is no none.json"),
        (["run", "empty"], "no workflow file"),
        (["run", "one.json", "--provider", ""], "--provider needs a name"),
        (["run", "one.json", "--provider", "aws,,gcp"], "--provider needs a name"),
        (["run", "one.json", "--provider", "asw"], "no provider 'asw'; did you mean 'aws'?"),
        (["run", "one.json", "--provider", "gcp"], "nothing to run: no workflow for gcp among 1"),
        (["run", "one.json", "--run-test", "aws-workflow-bsic"], "did you mean 'aws-workflow-basic'?"),
        (["run", "one.json", "--run-test", " "], "--run-test needs a name"),
        (["run", "one.json", "--parallel", "-1"], "--parallel must not be negative"),
        (["run", "one.json", "--results-file", "x.json"], "say with --rerun"),
        (["run", "one.json", "--rerun", "failed", "--results-file", "x.json"], "x.json: No such file"),
        (["rerun", "--results-file", "one.json"], "one.json is not the summary of a run"),
        (["rerun", "--results-dir", "empty"], "There is no earlier run in empty"),
        (["run", "one.json", "copy.json"], "Two workflows have the id 'aws-workflow-basic'"),
        (["run", "nine.json"], "needs 9 nodes, the limit is 8"),
        (["run", "one.json", "--results-dir", "one.json"], "cannot be made"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_started(desk: Desk, arguments: list[str], told: str) -> None:
    desk.write("one", aws_basic=[PASSES])
    desk.write("copy", aws_basic=[PASSES])
    desk.write("nine", aws_nine={"provider": "aws", "parameters": {"cluster_size": 9}, "workflow": START})
    (desk.directory / "empty").mkdir()
    with pytest.raises(UserError) as mistake:
        desk.run(*arguments)
    assert told in str(mistake.value)
    assert desk.calls == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "are not JSON"),
        ('{"delay_scale": -1, "deadline": {}}', "deadline: Extra inputs are not permitted"),
        ('{"delay_scale": -1}', "delay_scale: Input should be greater than or equal to 0"),
        ('{"power_deadlines": {"boot": "soon"}}', "power_deadlines.boot"),
        ('{"deployer": []}', "deployer"),
    ],
)
def test_settings_that_are_not_valid_are_told(desk: Desk, content: str, told: str) -> None:
    file = desk.directory / "wrong"
    file.write_text(content)
    desk.set("TESTYARD_WORKFLOW_SETTINGS", str(file))
    with pytest.raises(UserError, match=f"The workflow settings .*{told}"):
        desk.run("run", desk.write("one", aws_basic=[PASSES]))


def test_settings_that_are_not_there_are_told(desk: Desk) -> None:
    desk.set("TESTYARD_WORKFLOW_SETTINGS", "/no/such/file")
    with pytest.raises(UserError, match=r"cannot be read \(TESTYARD_WORKFLOW_SETTINGS=/no/such/file\)"):
        desk.run("run", desk.write("one", aws_basic=[PASSES]))


def test_a_power_deadline_that_is_not_known_is_told(desk: Desk) -> None:
    desk.settings(power_deadlines={"boots": 1})
    status, said = desk.run("run", desk.write("one", aws_a=[{"step": "stop_node", "target_node": "n11"}]))
    assert (status, "'boots'" in said) == (1, True)
