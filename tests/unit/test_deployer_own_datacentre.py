"""A deployment's own datacentre: it is there when the environment names none, and ends when it should."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import psutil
import pytest
from deployer_support import ADDRESS_VARIABLE, TOKEN_VARIABLE, DeployerCalls, deployer_process
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.cluster.deployer.lock import is_running

WITHIN = timedelta(seconds=20)
NONE_NAMED = dict.fromkeys([ADDRESS_VARIABLE, TOKEN_VARIABLE], "")


@pytest.fixture
def deployer(tmp_path, capsys, monkeypatch) -> Iterator[DeployerCalls]:
    """The deployer, with a deployment of one node that is initialised; no datacentre is named."""
    for name in NONE_NAMED:
        monkeypatch.delenv(name, raising=False)
    deployer = DeployerCalls(tmp_path / "deployment", capsys)
    deployer.done("init", "--cloud-provider", "gcp", "--database", "false")
    yield deployer
    if deployer.state["status"] != "destroyed":
        deployer.done("destroy", "--auto-approve")


def datacentre_of(deployer: DeployerCalls) -> tuple[int, str]:
    content = json.loads((deployer.directory / ".datacentre.json").read_text(encoding="utf-8"))
    return content["pid"], content["birth"]


def deploy_for(deployer: DeployerCalls, owner: int) -> str:
    """Deploy without a datacentre being named, in a process of its own; gives what it complains of."""
    directory = str(deployer.directory)
    arguments = ("deploy", "--owner-pid", str(owner), "--deployment-dir", directory)
    with deployer_process(*arguments, **NONE_NAMED) as process:
        _, errors = process.communicate()
    assert bool(process.returncode) is bool(errors)
    return errors


def test_without_one_given_a_deployment_has_a_datacentre_of_its_own_until_it_is_destroyed(deployer):
    assert deploy_for(deployer, os.getpid()) == ""
    process = datacentre_of(deployer)
    assert is_running(*process)
    assert deployer.done("health").json["status"] == "healthy"
    deployer.done("destroy", "--auto-approve")
    assert not is_running(*process)


def test_a_datacentre_of_its_own_ends_with_its_owner(deployer):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        assert deploy_for(deployer, owner.pid) == ""
        process = datacentre_of(deployer)
        assert is_running(*process)
        owner.kill()
    wait_until(lambda: is_running(*process), lambda runs: not runs, Deadline(WITHIN), "the datacentre's end")
    answer = deployer.done("destroy", "--auto-approve")
    assert "is not there any more, and neither are its nodes" in answer.reason
    assert deployer.state["status"] == "destroyed"


def test_the_owner_is_the_process_that_calls_the_deployer(deployer):
    script = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'testyard.lab.cluster', 'deploy', '--deployment-dir', sys.argv[1]],"
        " check=True, stdout=subprocess.DEVNULL)\n"
        "print('deployed', flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(deployer.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as caller:
        assert caller.stdout.readline() == "deployed\n"
        process = datacentre_of(deployer)
        assert is_running(*process)
        command = psutil.Process(process[0]).cmdline()
        assert command[command.index("--owner-pid") + 1] == str(caller.pid)
        caller.send_signal(signal.SIGKILL)
    wait_until(lambda: is_running(*process), lambda runs: not runs, Deadline(WITHIN), "the datacentre's end")


def test_a_deploy_that_fails_leaves_no_datacentre_of_its_own(deployer):
    content = deployer.state
    content["parameters"]["timings"] = {"boot": -1}
    (deployer.directory / ".exasol.json").write_text(json.dumps(content), encoding="utf-8")
    assert "timings.boot" in deploy_for(deployer, os.getpid())
    assert not is_running(*datacentre_of(deployer))


def test_what_deploy_leaves_running_does_not_keep_its_output_open(deployer):
    directory = str(deployer.directory)
    owner = str(os.getpid())
    with deployer_process("deploy", "--owner-pid", owner, "--deployment-dir", directory, **NONE_NAMED) as process:
        process.wait()
        assert process.stdout is not None
        assert process.returncode == 0, process.stderr.read()
        readable, _, _ = select.select([process.stdout], [], [], WITHIN.total_seconds())
        assert readable
        assert process.stdout.read().endswith("database_ready\n")
