"""The deployer on real nodes without a database: deploy, health with each fault, stop, start and destroy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from deployer_support import (
    ADDRESS_VARIABLE,
    TOKEN_VARIABLE,
    DeployerCalls,
    Lab,
    deployer_process,
    running_datacentre,
)
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.cluster.deployer import nodes as nodes_module
from testyard.lab.cluster.deployer.control import Control, DatacentreError
from testyard.lab.cluster.deployer.lock import LOCK_FILE, birth_of

WITHIN = timedelta(seconds=20)
SECRETS = [".cloud.json", ".datacentre.json", "id_ed25519"]


@pytest.fixture(scope="module")
def datacentre() -> Iterator[dict[str, str]]:
    """One datacentre for the tests of this module."""
    with running_datacentre() as variables:
        yield variables


@pytest.fixture
def lab(datacentre, tmp_path, capsys, monkeypatch) -> Iterator[Lab]:
    """A deployment of two nodes that is initialised."""
    for name, value in datacentre.items():
        monkeypatch.setenv(name, value)
    deployer = DeployerCalls(tmp_path / "deployment", capsys)
    deployer.done("init", "--cloud-provider", "gcp", "--cluster-size", "2", "--database", "false")
    lab = Lab(deployer, Control(datacentre[ADDRESS_VARIABLE], datacentre[TOKEN_VARIABLE], WITHIN))
    yield lab
    (deployer.directory / LOCK_FILE).unlink(missing_ok=True)
    if deployer.state["status"] != "destroyed":
        deployer.done("destroy", "--auto-approve")


@pytest.fixture
def deployed(lab) -> Lab:
    """The deployment with its nodes running."""
    lab.deployer.done("deploy")
    return lab


def issues(answer) -> list[tuple[str, str]]:
    return [(each["type"], each["host"]) for each in answer.json["issues"]]


# ---- deploy


def test_deploy_leaves_running_nodes_and_their_files(lab):
    answer = lab.deployer.done("deploy")
    assert lab.deployer.state["status"] == "database_ready"
    assert {name: node["state"] for name, node in lab.nodes.items()} == {"n11": "running", "n12": "running"}
    assert sorted(path.name for path in lab.deployer.directory.iterdir()) == sorted(
        [*SECRETS, ".exasol.json", "admin_ui.crt", "inventory.ini", "known_hosts", "ssh_config"]
    )
    modes = {name: (lab.deployer.directory / name).stat().st_mode & 0o777 for name in SECRETS}
    assert modes == dict.fromkeys(SECRETS, 0o600)
    assert answer.output.splitlines()[-1] == f"{lab.deployer.state['deployment_id']}: database_ready"
    assert lab.ssh("n12", "cat /proc/sys/kernel/random/boot_id") == lab.nodes["n12"]["boot_id"]


def test_a_deployment_is_deployed_once(deployed):
    answer = deployed.deployer("deploy")
    assert answer.status == 1
    assert "deploy is refused in state 'database_ready': it is already deployed" in answer.reason


def test_a_deploy_that_the_datacentre_refuses_has_failed(lab):
    content = lab.deployer.state
    content["parameters"]["timings"] = {"boot": -1}
    (lab.deployer.directory / ".exasol.json").write_text(json.dumps(content), encoding="utf-8")
    answer = lab.deployer("deploy")
    assert answer.status == 1
    assert "the datacentre answered 400 to POST /deployments: timings.boot: " in answer.reason
    assert lab.deployer.state["status"] == "deployment_failed"


def test_a_failed_deployment_is_deployed_anew(deployed):
    before = deployed.nodes["n11"]["boot_id"]
    deployed.deployer.set_status("deployment_failed")
    deployed.deployer.done("deploy")
    assert deployed.deployer.state["status"] == "database_ready"
    assert deployed.nodes["n11"]["boot_id"] not in {None, before}


# ---- health


def test_a_healthy_deployment(deployed):
    answer = deployed.deployer("health")
    assert (answer.status, answer.json["status"], answer.errors) == (0, "healthy", "")
    assert answer.json["checks"]["ssh"] == {"passed": 2, "failed": 0}
    assert answer.json["checks"]["services"] == {"active": 2, "failed": 0}
    assert answer.json["deployment_dir"] == str(deployed.deployer.directory)
    history = (deployed.deployer.directory / ".health_history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in history] == [answer.json]


def test_the_datacentre_measures_where_there_is_one(deployed):
    code = (
        "import sys\nfrom testyard.lab.cluster.deployer.command_line import main\n"
        "status = main(['health', '--deployment-dir', sys.argv[1]])\n"
        "sys.exit(status or 'asyncssh' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, deployed.deployer.directory], capture_output=True, check=True)


def test_without_a_datacentre_the_deployer_measures_itself(deployed):
    healthy = deployed.deployer.done("health").json
    (deployed.deployer.directory / ".datacentre.json").unlink()
    alone = deployed.deployer.done("health").json
    assert {**alone, "timestamp": ""} == {**healthy, "timestamp": ""}


def test_a_node_that_is_off(deployed):
    deployed.power_off("n12")
    answer = deployed.deployer("health", "--update")
    assert answer.status == 1
    assert issues(answer) == [("ssh_unreachable", "n12"), ("adminui_unreachable", "n12")]
    assert "n12: ssh_unreachable (critical): Connection refused" in answer.errors
    assert answer.json["hosts"]["n12"]["ssh_ok"] is False
    assert answer.json["hosts"]["n11"]["ssh_ok"] is True
    assert deployed.deployer.state["status"] == "database_ready"


def test_a_service_that_is_stopped(deployed):
    deployed.ssh("n11", "sudo systemctl stop admin-ui")
    answer = deployed.deployer("health")
    assert answer.status == 1
    assert issues(answer) == [("service_failed", "n11"), ("adminui_unreachable", "n11")]
    assert answer.json["hosts"]["n11"]["services"] == {"admin-ui": "inactive"}
    assert answer.json["checks"]["services"] == {"active": 1, "failed": 1}


def test_a_host_key_that_has_changed(deployed):
    deployed.act("n12", "new-host-key")
    answer = deployed.deployer("health")
    assert issues(answer) == [("ssh_unreachable", "n12")]
    assert "n12: ssh_unreachable (critical): its host key is not the one in known_hosts" in answer.errors


def test_a_key_that_may_not_log_in(deployed):
    from testyard.lab.cluster.deployer.keys import new_key_pair

    (deployed.deployer.directory / "id_ed25519").write_text(new_key_pair("stranger").private, encoding="ascii")
    answer = deployed.deployer("health")
    assert issues(answer) == [("ssh_unreachable", "n11"), ("ssh_unreachable", "n12")]
    assert "it does not accept the key id_ed25519" in answer.errors


def test_a_certificate_that_is_somebody_elses(deployed, tmp_path, capsys):
    other = DeployerCalls(tmp_path / "other", capsys)
    other.done("init", "--cloud-provider", "azure", "--database", "false")
    other.done("deploy")
    certificate = (other.directory / "admin_ui.crt").read_bytes()
    other.done("destroy", "--auto-approve")
    (deployed.deployer.directory / "admin_ui.crt").write_bytes(certificate)
    answer = deployed.deployer("health")
    assert issues(answer) == [("adminui_unreachable", "n11"), ("adminui_unreachable", "n12")]
    assert "its certificate is not signed by admin_ui.crt" in answer.errors


def test_a_node_that_does_not_answer(deployed):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (line,) = [
            line
            for line in (deployed.deployer.directory / "inventory.ini").read_text(encoding="utf-8").splitlines()
            if line.startswith("n12 ")
        ]
        ports = [word.split("=")[1] for word in line.split() if "_port=" in word]
        for port in ports:
            deployed.replace_in("inventory.ini", f"_port={port}", f"_port={silent.getsockname()[1]}")
        answer = deployed.deployer("health", "--timeout", "1")
    assert issues(answer) == [("ssh_unreachable", "n12"), ("adminui_unreachable", "n12")]
    assert answer.errors.count("no answer within 1 s") == 2


def test_nodes_that_hang_are_not_stopped(deployed):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for line in (deployed.deployer.directory / "inventory.ini").read_text(encoding="utf-8").splitlines()[1:]:
            (port,) = [word.split("=")[1] for word in line.split() if word.startswith("ansible_port=")]
            deployed.replace_in("inventory.ini", f"={port} ", f"={silent.getsockname()[1]} ")
        answer = deployed.deployer("health", "--update", "--timeout", "1")
    assert issues(answer) == [("ssh_unreachable", "n11"), ("ssh_unreachable", "n12")]
    assert deployed.deployer.state["status"] != "stopped"


def test_a_node_that_the_inventory_has_lost(deployed):
    deployed.replace_in("inventory.ini", "n12 ", "# n12 ")
    answer = deployed.deployer("health")
    assert issues(answer) == [("cloud_instance_count_mismatch", "cluster")]
    assert "the inventory names 1 nodes, the datacentre has 2" in answer.errors


def test_a_node_that_the_datacentre_does_not_know_is_told(deployed):
    deployed.replace_in("inventory.ini", "n12 ", "n14 ")
    answer = deployed.deployer("stop")
    assert answer.status == 1
    assert "the inventory names n14, of which the datacentre knows nothing" in answer.reason
    assert deployed.deployer.state["status"] == "stop_failed"


def test_a_broken_certificate_file_is_told(deployed):
    (deployed.deployer.directory / "admin_ui.crt").write_text("not one", encoding="utf-8")
    answer = deployed.deployer("health")
    assert answer.status == 1
    assert "admin_ui.crt is no certificate" in answer.reason


# ---- what a measurement makes of the state


def test_health_alone_does_not_change_the_state(deployed):
    deployed.power_off()
    assert deployed.deployer("health").status == 1
    assert deployed.deployer.state["status"] == "database_ready"


def test_when_no_node_answers_the_state_is_stopped_and_then_ready_again(deployed):
    deployed.power_off()
    assert deployed.deployer("health", "--update").status == 1
    assert deployed.deployer.state["status"] == "stopped"
    deployed.act("n11", "boot")
    assert deployed.deployer("health", "--update").status == 1
    assert deployed.deployer.state["status"] == "stop_failed"
    deployed.act("n12", "boot")
    assert deployed.deployer("health", "--update").status == 0
    assert deployed.deployer.state["status"] == "database_ready"


def test_the_state_is_left_alone_while_an_operation_runs(deployed):
    deployed.power_off()
    lock = {"pid": os.getpid(), "operation": "stop", "since": "now", "birth": birth_of(os.getpid())}
    (deployed.deployer.directory / LOCK_FILE).write_text(json.dumps(lock), encoding="utf-8")
    answer = deployed.deployer("health", "--update")
    assert "the status is not updated: stop is in progress" in answer.errors
    assert deployed.deployer.state["status"] == "database_ready"


def test_waiting_for_the_state_that_it_has(deployed):
    answer = deployed.deployer("health", "--wait-for", "database_ready,1m")
    assert (answer.status, answer.json["status"]) == (0, "healthy")


def test_waiting_for_nodes_that_go(deployed):
    with deployer_process(
        *("health", "--update", "--wait-for", "stopped,20s", "--deployment-dir", str(deployed.deployer.directory)),
    ) as process:
        deployed.power_off()
        output, _ = process.communicate()
    assert process.returncode == 0
    assert json.loads(output)["checks"]["ssh"] == {"passed": 0, "failed": 2}
    assert deployed.deployer.state["status"] == "stopped"


def test_waiting_in_vain(deployed):
    deployed.power_off("n12")
    answer = deployed.deployer("health", "--update", "--wait-for", "stopped,100ms")
    assert answer.status == 1
    assert answer.json["status"] == "issues_detected"
    last = answer.errors.splitlines()[-1]
    assert "for status 'stopped'; it is 'database_ready': n12: ssh_unreachable" in last


# ---- stop and start


def test_stop_shuts_the_nodes_down_and_start_brings_them_back(deployed):
    before = {name: node["boot_id"] for name, node in deployed.nodes.items()}
    deployed.deployer.done("stop")
    assert deployed.deployer.state["status"] == "stopped"
    assert deployed.deployer("health").json["checks"]["ssh"] == {"passed": 0, "failed": 2}
    deployed.deployer.done("start")
    assert deployed.deployer.state["status"] == "database_ready"
    after = {name: node["boot_id"] for name, node in deployed.nodes.items()}
    assert all(after.values())
    assert not {*before.values()} & {*after.values()}


def test_a_cluster_with_a_node_down_can_be_stopped(deployed):
    deployed.power_off("n11")
    deployed.deployer.done("stop")
    assert deployed.deployer.state["status"] == "stopped"


def test_a_node_is_not_shut_down_when_it_is_this_computer(deployed, monkeypatch, tmp_path):
    own = tmp_path / "boot_id"
    own.write_text(deployed.nodes["n12"]["boot_id"] + "\n", encoding="ascii")
    monkeypatch.setattr(nodes_module, "OWN_BOOT_ID", own)
    before = deployed.nodes
    answer = deployed.deployer("stop")
    assert answer.status == 1
    assert "n12 is this computer (the boot id is the same): it is not shut down" in answer.reason
    assert deployed.deployer.state["status"] == "stop_failed"
    assert deployed.nodes == before


def test_a_node_with_another_host_key_is_neither_shut_down_nor_taken_for_stopped(deployed):
    for node in deployed.nodes:
        deployed.act(node, "new-host-key")
    answer = deployed.deployer("stop")
    assert answer.status == 1
    assert (
        "n11 answers over SSH, but cannot be shut down: its host key is not the one in known_hosts"
        in answer.reason
    )
    deployed.deployer("health", "--update")
    assert deployed.deployer.state["status"] == "stop_failed"


def test_nodes_that_do_not_go_fail_the_stop(deployed, monkeypatch):
    monkeypatch.setenv("TESTYARD_DEPLOYER_STOP", "200ms")
    monkeypatch.setattr(nodes_module, "SHUT_DOWN", "true")
    answer = deployed.deployer("stop")
    assert answer.status == 1
    assert "n11, n12 still answered over SSH" in answer.reason
    assert deployed.deployer.state["status"] == "stop_failed"


def test_stopping_only_the_services_leaves_power_to_the_caller(deployed):
    deployed.deployer.done("stop", "--services-only")
    assert deployed.deployer.state["status"] == "stop_in_progress"
    assert not (deployed.deployer.directory / LOCK_FILE).exists()
    assert deployed.ssh("n11", "cat /proc/uptime")
    answer = deployed.deployer("health", "--update")
    assert answer.json["hosts"]["n11"]["services"] == {"admin-ui": "inactive"}
    assert deployed.deployer.state["status"] == "stop_in_progress"
    deployed.power_off()
    deployed.deployer("health", "--update")
    assert deployed.deployer.state["status"] == "stopped"


def test_starting_without_waiting_leaves_power_to_the_caller(deployed):
    deployed.power_off()
    deployed.deployer.set_status("stopped")
    answer = deployed.deployer.done("start", "--no-wait")
    assert answer.output == f"{deployed.deployer.state['deployment_id']}: started\n"
    assert {node["state"] for node in deployed.nodes.values()} == {"stopped"}
    for node in deployed.nodes:
        deployed.act(node, "boot")
    deployed.deployer.done("health", "--update", "--wait-for", "database_ready,20s")
    assert deployed.deployer.state["status"] == "database_ready"


def test_a_start_that_does_not_come_to_its_end_has_failed(deployed, monkeypatch):
    deployed.deployer.done("stop")
    monkeypatch.setenv("TESTYARD_DEPLOYER_READY", "300ms")
    deployed.replace_in("known_hosts", "ssh-ed25519 ", "# ")
    answer = deployed.deployer("start")
    assert answer.status == 1
    assert "for a healthy cluster; it is" in answer.reason
    assert deployed.deployer.state["status"] == "start_failed"


@pytest.fixture(params=["digitalocean", "hetzner", "libvirt"])
def by_hand(request, lab) -> Lab:
    """A stopped deployment whose nodes a person powers on."""
    lab.deployer.done("deploy")
    lab.deployer.done("stop")
    # The datacentre need not know: what is asked of it is the same.
    lab.replace_in(".exasol.json", '"gcp"', f'"{request.param}"')
    return lab


def test_a_manual_start_says_what_to_do_for_every_node(by_hand):
    answer = by_hand.deployer.done("start", "--no-wait")
    first, *lines, last = answer.output.splitlines()
    assert f"Power on these nodes by hand; {by_hand.deployer.state['cloud_provider']}" in first
    assert last.endswith(": started")
    inventory = (by_hand.deployer.directory / "inventory.ini").read_text(encoding="utf-8").splitlines()[1:]
    for line, node in zip(lines, inventory, strict=True):
        instance = next(word.split("=")[1] for word in node.split() if word.startswith("instance_id="))
        assert line.strip().startswith(f"{node.split()[0]} (instance {instance}, region ")
        assert line.count(instance) == 3
    assert by_hand.deployer.state["status"] == "started"
    # A node that does not answer any more may still be on its way down.
    assert {node["state"] for node in by_hand.nodes.values()} <= {"stopping", "stopped"}


def test_a_manual_start_waits_for_the_operator(by_hand):
    with deployer_process("start", "--deployment-dir", str(by_hand.deployer.directory)) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        assert said[2].strip().startswith("n12 ")
        wait_until(
            lambda: by_hand.deployer("status").json["status"],
            lambda status: status == "started",
            Deadline(WITHIN),
            "state 'started'",
        )
        for node in by_hand.nodes:
            by_hand.act(node, "boot")
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert output.endswith(": database_ready\n")
    assert by_hand.deployer.state["status"] == "database_ready"


def test_a_manual_start_that_nobody_does_ends_stopped(by_hand, monkeypatch):
    monkeypatch.setenv("TESTYARD_DEPLOYER_READY", "100ms")
    answer = by_hand.deployer("start")
    assert answer.status == 1
    assert "for status 'database_ready'; it is 'stopped': n11: ssh_unreachable" in answer.reason
    assert by_hand.deployer.state["status"] == "stopped"


# ---- destroy, and the datacentre


def test_destroy_ends_the_nodes_and_removes_what_is_secret(deployed):
    path = deployed.path
    deployed.deployer.done("health")
    deployed.deployer.done("destroy", "--auto-approve")
    assert deployed.deployer.state["status"] == "destroyed"
    assert sorted(each.name for each in deployed.deployer.directory.iterdir()) == [
        *(".exasol.json", ".health_history.jsonl"),
    ]
    with pytest.raises(DatacentreError, match="404"):
        deployed.control.call("GET", path)
    answer = deployed.deployer("destroy", "--auto-approve")
    assert answer.status == 1
    assert "it is already destroyed" in answer.reason


def test_a_datacentre_that_has_lost_the_deployment_is_no_obstacle(deployed):
    deployed.control.call("DELETE", deployed.path)
    deployed.deployer.done("destroy", "--auto-approve")
    assert deployed.deployer.state["status"] == "destroyed"


def test_a_datacentre_that_refuses_fails_the_destruction(deployed):
    token = deployed.control._token
    deployed.replace_in(".datacentre.json", token, "another-token")
    answer = deployed.deployer("destroy", "--auto-approve")
    assert answer.status == 1
    assert "answered 401" in answer.reason
    assert deployed.deployer.state["status"] == "destroy_failed"
    deployed.replace_in(".datacentre.json", "another-token", token)
