"""The deployer's command line without any nodes: parameters, states, locks, and mistakes told in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from deployer_support import COMMAND, DeployerCalls, SilentDatacentre, deployer_process
from testyard.core.errors import UserError
from testyard.lab.cluster.deployer.lock import LOCK_FILE, birth_of
from testyard.lab.cluster.deployer.settings import Settings, duration, read_settings

# Contract 2.7, and what design and results need besides.
STATE_KEYS = ["version", "status", "db_version", "architecture", "cloud_provider", "created_at", "updated_at"]
OWN_STATE_KEYS = ["deployment_id", "parameters"]


@pytest.fixture
def deployer(tmp_path, capsys) -> DeployerCalls:
    """The deployer, with a directory that is not there yet."""
    return DeployerCalls(tmp_path / "deployment", capsys)


@pytest.fixture
def initialized(deployer) -> DeployerCalls:
    """The deployer, with a deployment of three nodes that is initialised."""
    deployer.done("init", "--cloud-provider", "aws", "--cluster-size", "3")
    return deployer


def lock(deployer: DeployerCalls, pid: int, operation: str) -> None:
    content = {"pid": pid, "operation": operation, "since": "2026-01-01T00:00:00Z", "birth": birth_of(pid)}
    (deployer.directory / LOCK_FILE).write_text(json.dumps(content), encoding="utf-8")


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# ---- init


def test_init_writes_the_state_file(deployer):
    answer = deployer.done(
        "init", "--cloud-provider", "libvirt", "--cluster-size", "3", "--libvirt-memory-gb", "8"
    )
    state = deployer.state
    assert list(state) == STATE_KEYS + OWN_STATE_KEYS
    assert state["version"] == "1.0"
    assert state["status"] == "initialized"
    assert state["cloud_provider"] == "libvirt"
    assert state["parameters"] == {"cluster_size": 3, "libvirt_memory_gb": 8}
    assert state["created_at"] == state["updated_at"]
    assert answer.output == f"initialized {state['deployment_id']}: libvirt, nodes n11, n12, n13\n"


def test_two_deployments_have_two_ids(deployer, tmp_path, capsys):
    other = DeployerCalls(tmp_path / "other", capsys)
    for each in (deployer, other):
        each.done("init", "--cloud-provider", "aws")
    assert deployer.state["deployment_id"] != other.state["deployment_id"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--database", "false"], {"database": False}),
        (["--sysrq=false"], {"sysrq": False}),
        (["--db-version", "8.1"], {"db_version": "8.1"}),
        (["--db-version", "2025.10"], {"db_version": "2025.10"}),
        (["--disk", "007"], {"disk": "007"}),
        (["--nothing", "null"], {"nothing": "null"}),
        (["--most", "NaN"], {"most": "NaN"}),
        (["--owner", "qa team"], {"owner": "qa team"}),
        (["--data-volumes", "[100, 200]"], {"data_volumes": [100, 200]}),
        (["--anything_else", "1.5"], {"anything_else": 1.5}),
        (["--offset", "-5"], {"offset": -5}),
        (["--cluster-size=2"], {"cluster_size": 2}),
    ],
)
def test_any_option_is_a_parameter(deployer, options, expected):
    deployer.done("init", "--cloud-provider", "aws", *options)
    assert deployer.state["parameters"] == {"cluster_size": 1} | expected


def test_the_version_of_the_database_is_the_one_asked_for(deployer):
    deployer.done("init", "--cloud-provider", "aws", "--db-version", "8.1")
    assert deployer.state["db_version"] == "8.1"


@pytest.mark.parametrize("option", ["--db-password", "--hetzner-token", "--aws-secret", "--api-key"])
def test_a_credential_is_not_kept(deployer, option):
    answer = deployer.done("init", "--cloud-provider", "aws", option, "very-secret-4711")
    assert "not kept" in answer.reason
    assert (
        "very-secret-4711" not in (deployer.directory / ".exasol.json").read_text(encoding="utf-8") + answer.errors
    )


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ([], 2, "init needs --cloud-provider: one of aws, azure, gcp, digitalocean, hetzner, libvirt"),
        (["--cloud-provider"], 1, "--cloud-provider has no value"),
        (["--cloud-provider", ""], 1, "--cloud-provider has no value"),
        (["--cloud-provider="], 1, "--cloud-provider has no value"),
        (
            ["--cloud-provider", "oci"],
            1,
            "expected one of aws, azure, gcp, digitalocean, hetzner, libvirt, got 'oci'",
        ),
        (["--cloud-provider", "aws", "--cluster-size"], 1, "--cluster-size has no value"),
        (["--cloud-provider", "aws", "--cluster-size", "--database", "false"], 1, "--cluster-size has no value"),
        (["--cloud-provider", "aws", "--cluster-size", "many"], 1, "a number from 1 to 32, got 'many'"),
        (["--cloud-provider", "aws", "--cluster-size", "0"], 1, "a number from 1 to 32, got 0"),
        (["--cloud-provider", "aws", "--cluster-size", "33"], 1, "a number from 1 to 32, got 33"),
        (["--cloud-provider", "aws", "--cluster-size", "true"], 1, "a number from 1 to 32, got True"),
        (["--cloud-provider", "aws", "--database", "no"], 1, "--database: expected true or false, got 'no'"),
        (["--cloud-provider", "aws", "--sysrq", "0"], 1, "--sysrq: expected true or false, got 0"),
        (["--cloud-provider", "aws", "--timings", "5"], 1, "--timings: expected a JSON object, got 5"),
        (["--cloud-provider", "aws", "--cluster-sise", "3"], 2, "did you mean --cluster-size?"),
        (["--cloud-providers", "aws"], 2, "did you mean --cloud-provider?"),
        (["--cloud-provider", "aws", "3"], 2, "expected an option such as --cluster-size, got '3'"),
        (["--cloud-provider", "aws", "-v"], 2, "got '-v'"),
        (["--cloud-provider", "aws", "--cloud-provider", "gcp"], 1, "--cloud-provider is given twice"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(deployer, options, status, reason):
    answer = deployer("init", *options)
    assert answer.status == status
    assert reason in answer.reason
    assert not deployer.directory.exists()


def test_a_deployment_is_not_overwritten(initialized):
    before = initialized.state
    answer = initialized("init", "--cloud-provider", "gcp")
    assert answer.status == 1
    assert "already has a deployment, in state 'initialized'; destroy it first" in answer.reason
    assert initialized.state == before


def test_a_destroyed_deployment_makes_room_for_another(initialized):
    before = initialized.state["deployment_id"]
    initialized.done("destroy", "--auto-approve")
    initialized.done("init", "--cloud-provider", "gcp")
    assert initialized.state["status"] == "initialized"
    assert initialized.state["deployment_id"] != before


def test_a_file_is_no_directory(deployer):
    deployer.directory.write_text("", encoding="utf-8")
    answer = deployer("init", "--cloud-provider", "aws")
    assert answer.status == 1
    assert "cannot be a deployment's directory: File exists" in answer.reason


# ---- mistakes in the call


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        ([], 2, "expected a verb"),
        (["frobnicate"], 2, "invalid choice: 'frobnicate'"),
        (["status"], 2, "the following arguments are required: --deployment-dir"),
        (["status", "--deployment-dir"], 1, "--deployment-dir has no value"),
        (["status", "--deployment-dir", ""], 1, "--deployment-dir has no value"),
        (["status", "--deployment-dir", "/no/such/place"], 1, "there is no directory /no/such/place"),
        (["deploy", "--deployment-dir", "/no/such/place"], 1, "there is no directory /no/such/place"),
        (["health", "--deployment-dir", "/no/such/place"], 1, "there is no directory /no/such/place"),
        (["stop", "--deployment-dir", "/no/such/place"], 1, "there is no directory /no/such/place"),
        (["start", "--deployment-dir", "/no/such/place"], 1, "there is no directory /no/such/place"),
        (["destroy", "--auto-approve", "--deployment-dir", "/no/such/place"], 1, "there is no directory"),
        (["status", "--deployment-dir", ".", "--verbose"], 2, "status does not know '--verbose'"),
        (["stop", "--deployment-dir", ".", "--services"], 2, "stop does not know '--services'"),
        (["stop", "--deployment-dir", ".", "n11"], 2, "stop does not know 'n11'"),
        (["deploy", "--deployment-dir", ".", "--owner-pid", "me"], 1, "expected a process id, got 'me'"),
        (["deploy", "--deployment-dir", ".", "--owner-pid"], 1, "expected a process id, got ''"),
        (["health", "--deployment-dir", ".", "--wait-for"], 1, "expected STATUS,DURATION"),
        (["health", "--deployment-dir", ".", "--wait-for", "database_ready"], 1, "expected STATUS,DURATION"),
        (["health", "--deployment-dir", ".", "--wait-for", "databse_ready,1m"], 1, "got 'databse_ready'"),
        (
            ["health", "--deployment-dir", ".", "--wait-for", "stopped,15min"],
            1,
            "such as 30s, 15m or 1h, got '15min'",
        ),
        (["health", "--deployment-dir", ".", "--wait-for", "stopped,15"], 1, "such as 30s, 15m or 1h, got '15'"),
        (["health", "--deployment-dir", ".", "--timeout", "soon"], 1, "--timeout: expected a number and ms"),
        (["health", "--deployment-dir", ".", "--timeout", "0"], 1, "--timeout: expected more than nothing"),
        (["health", "--deployment-dir", ".", "--timeout"], 1, "--timeout: expected a number"),
    ],
)
def test_a_mistake_is_told_in_one_line(deployer, arguments, status, reason):
    answer = deployer.raw(*arguments)
    assert answer.status == status
    assert reason in answer.reason
    assert answer.output == ""
    assert ("see python -m testyard.lab.cluster --help" in answer.reason) is (status == 2)


@pytest.mark.parametrize("verb", ["deploy", "status", "health", "stop", "start"])
def test_a_directory_without_a_deployment_is_told(tmp_path, capsys, verb):
    answer = DeployerCalls(tmp_path, capsys)(verb)
    assert answer.status == 1
    assert "it has no .exasol.json; run init first" in answer.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is no state file: Expecting value"),
        ("[]", "is no state file"),
        ("{}", "it has no 'version'"),
        ('{"version": "1.0"}', "it has no 'status'"),
    ],
)
def test_a_broken_state_file_is_told(initialized, content, reason):
    (initialized.directory / ".exasol.json").write_text(content, encoding="utf-8")
    answer = initialized("status")
    assert answer.status == 1
    assert reason in answer.reason


def test_a_disk_that_is_full_is_told(initialized, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = initialized("destroy", "--auto-approve")
    assert answer.status == 1
    assert answer.reason == "the system: No space left on device"


def test_an_unknown_state_is_told(initialized):
    initialized.set_status("deploy_failed")
    answer = initialized("status")
    assert answer.status == 1
    assert "'deploy_failed' is not a valid Status" in answer.reason


def test_the_process_says_a_mistake_without_a_traceback():
    done = subprocess.run(
        [*COMMAND, "status", "--deployment-dir", "/no"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "testyard.lab.cluster: there is no directory /no\n"


def test_help_names_every_verb():
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    for verb in ("init", "deploy", "status", "health", "stop", "start", "destroy"):
        assert f"\n    {verb} " in done.stdout


# ---- status and the lock


def test_status_is_the_state_file(initialized):
    assert initialized.done("status").json == initialized.state


@pytest.mark.parametrize("operation", ["deploy", "stop", "start", "destroy"])
def test_while_an_operation_runs_status_says_so(initialized, operation):
    lock(initialized, os.getpid(), operation)
    answer = initialized.done("status")
    assert answer.json == initialized.state | {"status": f"{operation}_in_progress"}
    assert initialized.state["status"] == "initialized"


def test_while_a_measured_status_is_written_status_is_the_state_file(initialized):
    lock(initialized, os.getpid(), "health")
    assert initialized.done("status").json["status"] == "initialized"


def test_status_names_a_stale_lock_and_leaves_it(initialized):
    initialized.set_status("deploy_in_progress")
    lock(initialized, ended_process(), "deploy")
    answer = initialized.done("status")
    assert answer.json["status"] == "deploy_in_progress"
    assert "the lock is stale" in answer.reason
    assert (initialized.directory / LOCK_FILE).exists()


@pytest.mark.parametrize("verb", ["deploy", "stop", "start", "destroy"])
def test_an_operation_is_refused_while_another_runs(initialized, verb):
    lock(initialized, os.getpid(), "deploy")
    answer = initialized(verb, *(["--auto-approve"] if verb == "destroy" else []))
    assert answer.status == 1
    assert f"{verb} is refused: deploy is in progress" in answer.reason
    assert initialized.state["status"] == "initialized"
    assert (initialized.directory / LOCK_FILE).exists()


@pytest.mark.parametrize(
    ("verb", "status"), [("stop", "initialized"), ("start", "database_ready"), ("deploy", "stopped")]
)
def test_a_refused_operation_changes_nothing(initialized, verb, status):
    initialized.set_status(status)
    before = initialized.state
    answer = initialized(verb)
    assert answer.status == 1
    assert f"{verb} is refused in state '{status}': " in answer.reason
    assert initialized.state == before
    assert not (initialized.directory / LOCK_FILE).exists()


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        ("deploy_in_progress", "deployment_failed"),
        ("stop_in_progress", "stop_failed"),
        ("start_in_progress", "start_failed"),
    ],
)
def test_an_operation_that_did_not_finish_has_failed(initialized, monkeypatch, status, failed):
    monkeypatch.setenv("TESTYARD_DEPLOYER_LOCK_INTERVAL", "1ms")
    initialized.set_status(status)
    lock(initialized, ended_process(), status.removesuffix("_in_progress"))
    answer = initialized("start" if status != "start_in_progress" else "stop")
    assert answer.status == 1
    removed, ended, refused = answer.errors.splitlines()
    assert "removed the stale lock" in removed
    assert f"did not finish: the state is now '{failed}'" in ended
    assert f"is refused in state '{failed}'" in refused
    assert initialized.state["status"] == failed


@pytest.mark.parametrize("status", ["initialized", "destroyed"])
def test_there_is_nothing_to_measure_without_nodes(initialized, status):
    initialized.set_status(status)
    answer = initialized("health")
    assert answer.status == 1
    assert f"there is nothing to measure: the deployment is in state '{status}'" in answer.reason


def test_a_deployment_whose_nodes_never_were_cannot_be_measured(initialized):
    initialized.set_status("deployment_failed")
    answer = initialized("health", "--update")
    assert answer.status == 1
    assert "has no inventory.ini" in answer.reason
    assert initialized.state["status"] == "deployment_failed"


def test_destroy_asks_for_approval(initialized):
    answer = initialized("destroy")
    assert answer.status == 1
    assert "--auto-approve" in answer.reason
    assert initialized.state["status"] == "initialized"


# ---- a deploy that fails, is interrupted or killed


def test_a_datacentre_that_is_not_there_fails_the_deployment(initialized, monkeypatch):
    with SilentDatacentre() as gone:
        variables = gone.variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    answer = initialized("deploy")
    assert answer.status == 1
    assert "is not there any more" in answer.reason
    assert initialized.state["status"] == "deployment_failed"
    assert not (initialized.directory / LOCK_FILE).exists()


def test_an_address_without_a_token_fails_the_deployment(initialized, monkeypatch):
    monkeypatch.setenv("TESTYARD_DATACENTRE", "http://127.0.0.1:1")
    monkeypatch.delenv("TESTYARD_DATACENTRE_TOKEN", raising=False)
    answer = initialized("deploy")
    assert answer.status == 1
    assert "TESTYARD_DATACENTRE is set, but TESTYARD_DATACENTRE_TOKEN is not" in answer.reason
    assert initialized.state["status"] == "deployment_failed"


def test_an_owner_that_is_not_there_fails_the_deployment(initialized, monkeypatch):
    monkeypatch.delenv("TESTYARD_DATACENTRE", raising=False)
    pid = ended_process()
    answer = initialized("deploy", "--owner-pid", str(pid))
    assert answer.status == 1
    assert f"--owner-pid: there is no process {pid}" in answer.reason


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_deploy_has_failed(initialized, number, status):
    directory = str(initialized.directory)
    with (
        SilentDatacentre() as datacentre,
        deployer_process("deploy", "--deployment-dir", directory, **datacentre.variables) as process,
    ):
        assert datacentre.wait_for_request() == "POST /deployments HTTP/1.1"
        assert initialized.done("status").json["status"] == "deploy_in_progress"
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in errors
    assert initialized.state["status"] == "deployment_failed"
    assert not (initialized.directory / LOCK_FILE).exists()


def test_a_killed_deploy_leaves_its_lock_and_can_be_destroyed(initialized, monkeypatch):
    monkeypatch.setenv("TESTYARD_DEPLOYER_LOCK_INTERVAL", "1ms")
    directory = str(initialized.directory)
    with (
        SilentDatacentre() as datacentre,
        deployer_process("deploy", "--deployment-dir", directory, **datacentre.variables) as process,
    ):
        datacentre.wait_for_request()
        process.kill()
        process.wait()
    assert initialized.state["status"] == "deploy_in_progress"
    assert (initialized.directory / LOCK_FILE).exists()
    answer = initialized.done("destroy", "--auto-approve")
    assert f"removed the stale lock of a process that is no more (deploy, process {process.pid}" in answer.errors
    assert "the state is now 'deployment_failed'" in answer.errors
    assert initialized.state["status"] == "destroyed"
    assert [path.name for path in initialized.directory.iterdir()] == [".exasol.json"]


# ---- durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", timedelta(minutes=15)),
        ("30s", timedelta(seconds=30)),
        ("1h", timedelta(hours=1)),
        ("250ms", timedelta(milliseconds=250)),
        ("1.5s", timedelta(seconds=1.5)),
    ],
)
def test_a_duration_is_understood(text, expected):
    assert duration(text, "--wait-for") == expected


@pytest.mark.parametrize("text", ["", "15", "m", "15 m", "15M", "15min", "-5s", "0s", "1e3s", "8000h", "1h30m"])
def test_a_wrong_duration_says_what_is_expected(text):
    with pytest.raises(UserError, match=r"^--wait-for: expected .*got '"):
        duration(text, "--wait-for")


def test_the_documented_durations_are_the_defaults():
    assert read_settings({}) == Settings(
        lock_interval=timedelta(seconds=1),
        check=timedelta(seconds=10),
        ready=timedelta(minutes=15),
        stop=timedelta(seconds=600),
        control=timedelta(seconds=60),
    )


def test_the_environment_sets_other_durations():
    settings = read_settings({"TESTYARD_DEPLOYER_READY": "20s", "TESTYARD_DEPLOYER_LOCK_INTERVAL": "10ms"})
    assert settings == Settings(ready=timedelta(seconds=20), lock_interval=timedelta(milliseconds=10))


def test_a_wrong_duration_in_the_environment_is_told(initialized, monkeypatch):
    monkeypatch.setenv("TESTYARD_DEPLOYER_CHECK", "quick")
    answer = initialized("status")
    assert answer.status == 1
    assert "TESTYARD_DEPLOYER_CHECK: expected a number" in answer.reason
