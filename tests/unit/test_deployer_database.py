"""The deployer on real nodes with a replicated database: health with each of its faults, and the derived state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from deployer_support import (
    Answer,
    DeployerCalls,
    Lab,
    deployer_process,
    running_datacentre,
)
from testyard.lab.cluster.deployer.control import Control

WITHIN = timedelta(seconds=30)
READY = ("--update", "--wait-for", "database_ready,30s")


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Iterator[DeployerCalls]:
    """The directory of a deployment of three nodes with a database, for the tests of this module."""
    directory = tmp_path_factory.mktemp("cluster") / "deployment"
    place = ("--deployment-dir", str(directory))
    with running_datacentre() as variables:
        for arguments in (["init", "--cloud-provider", "gcp", "--cluster-size", "3"], ["deploy"]):
            with deployer_process(*arguments, *place, **variables) as process:
                _, errors = process.communicate()
            assert (process.returncode, errors) == (0, "")
        yield directory


@pytest.fixture
def lab(directory, capsys) -> Iterator[Lab]:
    """The deployment, whose database is ready before and after each test."""
    deployer = DeployerCalls(directory, capsys)
    datacentre = json.loads((directory / ".datacentre.json").read_text(encoding="utf-8"))
    lab = Lab(deployer, Control(datacentre["address"], datacentre["token"], WITHIN))
    deployer.done("health", *READY)
    yield lab
    for node in lab.nodes:
        lab.act(node, "boot")
    deployer.done("health", *READY)


def issues(answer: Answer) -> list[tuple[str, str, str]]:
    return [(each["type"], each["host"], each["severity"]) for each in answer.json["issues"]]


def primary(lab: Lab) -> str:
    return lab.control.call("GET", lab.path)["database"]["primary"]


def test_a_healthy_cluster_is_complete(lab):
    answer = lab.deployer("health")
    assert (answer.status, answer.errors) == (0, "")
    assert answer.json["checks"] == {
        "ssh": {"passed": 3, "failed": 0},
        "adminui": {"passed": 3, "failed": 0},
        "database": {"passed": 3, "failed": 0},
        "cos_ssh": {"passed": 3, "failed": 0},
        "services": {"active": 6, "failed": 0},
    }
    assert [host["cluster_status"] for host in answer.json["hosts"].values()] == ["d", "d", "d"]


def test_a_database_that_is_stopped_on_one_node(lab):
    standby = next(node for node in lab.nodes if node != primary(lab))
    lab.ssh(standby, "sudo systemctl stop database")
    answer = lab.deployer("health", "--update")
    assert answer.status == 1
    assert issues(answer) == [
        ("service_failed", standby, "critical"),
        ("cos_ssh_unreachable", standby, "warning"),
        ("db_port_unreachable", standby, "warning"),
    ]
    assert answer.json["hosts"][standby]["services"] == {"database": "inactive", "admin-ui": "active"}
    assert lab.deployer.state["status"] == "database_ready"
    lab.ssh(standby, "sudo systemctl start database")


def test_a_password_that_is_wrong(lab):
    path = lab.deployer.directory / ".credentials.json"
    before = path.read_text(encoding="utf-8")
    content = json.loads(before)
    content["database"]["password"] = "not-the-password"
    path.write_text(json.dumps(content), encoding="utf-8")
    answer = lab.deployer("health", "--update")
    path.write_text(before, encoding="utf-8")
    assert answer.status == 1
    assert issues(answer) == [("db_port_unreachable", node, "warning") for node in lab.nodes]
    assert answer.errors.count("password authentication failed") == 3
    assert "not-the-password" not in answer.errors + answer.output
    assert [host["cluster_status"] for host in answer.json["hosts"].values()] == ["c", "c", "c"]
    assert lab.deployer.state["status"] == "database_connection_failed"
    assert lab.deployer("health", "--update").status == 0
    assert lab.deployer.state["status"] == "database_ready"


def test_without_credentials_the_database_cannot_be_asked(lab):
    path = lab.deployer.directory / ".credentials.json"
    kept = path.rename(path.with_name("kept"))
    answer = lab.deployer("health")
    kept.rename(path)
    assert answer.status == 1
    assert "has no .credentials.json" in answer.reason


def test_without_a_majority_the_database_takes_no_writes(lab):
    survivor = next(node for node in lab.nodes if node != primary(lab))
    lab.power_off(*(node for node in lab.nodes if node != survivor))
    answer = lab.deployer("health", "--update", "--wait-for", "database_connection_failed,30s")
    assert answer.status == 0
    assert lab.deployer.state["status"] == "database_connection_failed"
    assert answer.json["hosts"][survivor]["ssh_ok"] is True


def test_stop_and_start_bring_the_database_back(lab):
    lab.deployer.done("stop")
    assert lab.deployer.state["status"] == "stopped"
    lab.deployer.done("start")
    assert lab.deployer.state["status"] == "database_ready"
    assert lab.deployer("health").status == 0
