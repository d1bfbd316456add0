"""Machines and their power, over real SSH: each transition is proven by the boot id."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from cluster_support import (
    AT_ONCE,
    BOOT_ID,
    CRASH,
    SOON,
    DatacentreUnderTest,
    DeploymentUnderTest,
    NodeUnderTest,
    Said,
    expect_gone,
)
from testyard.core.deadline import Deadline, wait_until
from testyard.core.json_client import UnexpectedAnswerError


@pytest.fixture(scope="module")
def datacentre() -> Iterator[DatacentreUnderTest]:
    with DatacentreUnderTest() as datacentre:
        yield datacentre


@pytest.fixture
def deployment(datacentre: DatacentreUnderTest) -> Iterator[DeploymentUnderTest]:
    deployment = datacentre.deploy("n11", "n12")
    yield deployment
    deployment.destroy()


@pytest.fixture
def node(deployment: DeploymentUnderTest) -> NodeUnderTest:
    return deployment["n11"]


def host_boot_id() -> str:
    return Path(BOOT_ID.removeprefix("cat ")).read_text(encoding="ascii").strip()


def test_each_node_has_a_boot_id_of_its_own_that_is_not_the_computers(deployment: DeploymentUnderTest) -> None:
    boot_ids = {each.boot_id() for each in deployment.nodes.values()}
    assert len(boot_ids) == 2
    assert host_boot_id() not in boot_ids
    assert boot_ids == {each.state["boot_id"] for each in deployment.nodes.values()}
    assert [each.run("hostname").stdout for each in deployment.nodes.values()] == ["n11\n", "n12\n"]


def test_the_uptime_is_the_boots(node: NodeUnderTest) -> None:
    first = float(node.run("cat /proc/uptime").stdout.split()[0])
    assert 0 < first < SOON.total_seconds()
    assert float(node.run("cat /proc/uptime").stdout.split()[0]) >= first


def test_a_reboot_is_orderly_and_comes_back_with_another_boot_id(node: NodeUnderTest) -> None:
    before, pid = node.boot_id(), node.state["pid"]
    node.run("printf %s kept > x")
    assert node.run("sudo reboot") == Said("")
    node.until_back(before)
    assert node.boot_id() not in {before, host_boot_id()}
    assert node.state["pid"] != pid
    assert node.run("cat x").stdout == "kept"


def test_a_reboot_does_not_change_the_power(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", timings={"boot": 0.3})
    node = deployment["n11"]
    before = node.boot_id()
    node.run("sudo reboot")
    states = []
    wait_until(
        lambda: states.append(node.state) or node.state["boot_id"],
        lambda seen: seen not in {None, before},
        Deadline(SOON),
        "the reboot",
    )
    assert {each["state"] for each in states} == {"running"}
    assert None in {each["boot_id"] for each in states}
    deployment.destroy()


def test_a_shutdown_is_orderly_and_stays_down_until_somebody_boots_it(node: NodeUnderTest) -> None:
    before = node.boot_id()
    node.run("printf %s kept > x")
    assert node.run("sudo shutdown -h now") == Said("")
    node.until("stopped")
    assert not node.answers()
    answer = node.act("boot")
    assert answer == {"state": "running", "boot_id": node.boot_id()}
    assert answer["boot_id"] != before
    assert node.run("cat x").stdout == "kept"


def test_the_power_button_shuts_down_in_an_orderly_way(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", timings={"shutdown": 0.3})
    node = deployment["n11"]
    node.run("printf %s kept > x")
    assert node.act("press") == {"state": "stopping"}
    with pytest.raises(UnexpectedAnswerError, match="n11 is stopping"):
        node.act("power-on")
    assert node.state["state"] == "stopping"
    node.until("stopped")
    assert node.act("press") == {"state": "stopped"}
    assert node.act("power-on") == {"state": "starting"}
    node.until("running")
    assert node.run("cat x").stdout == "kept"
    deployment.destroy()


def test_boot_waits_for_a_node_that_is_still_stopping(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", timings={"shutdown": 0.3})
    node = deployment["n11"]
    before = node.boot_id()
    node.act("press")
    assert node.act("boot")["boot_id"] != before
    deployment.destroy()


@pytest.mark.parametrize("how", ["power-off", "sudo poweroff -f"])
def test_without_power_a_node_is_gone_at_once_and_what_was_not_synced_is_lost(
    node: NodeUnderTest, how: str
) -> None:
    before, process = node.boot_id(), psutil.Process(node.state["pid"])
    node.run("printf %s old > x")
    node.run("sync")
    node.run("printf %s new > x")
    node.run("printf %s lost > y")
    assert node.run("cat x").stdout == "new"
    if how == "power-off":
        assert node.act("power-off") == {"state": "stopped"}
        expect_gone([process], AT_ONCE)
    else:
        assert node.run(how).status == -1
        node.until("stopped")
    assert node.state == {"state": "stopped", "boot_id": None, "pid": None}
    assert not node.answers()
    node.act("boot")
    assert node.boot_id() != before
    assert node.run("cat x").stdout == "old"
    assert node.run("ls").stdout == "x\n"


def test_a_crash_answers_then_comes_back_with_another_boot_id_and_loses_what_was_not_synced(
    node: NodeUnderTest,
) -> None:
    before = node.boot_id()
    node.run("printf %s lost > x")
    started = time.monotonic()
    assert node.run(CRASH) == Said("")
    assert node.boot_id() == before
    node.until_back(before)
    assert time.monotonic() - started >= 0.5
    assert node.run("ls").stdout == ""
    assert node.boot_id() != before


def test_a_crash_without_sysrq_stays_down(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", sysrq=False, timings={"crash": 0.1})
    node = deployment["n11"]
    node.run("printf %s lost > x")
    assert node.run(CRASH) == Said("")
    node.until("stopped")
    node.act("boot")
    assert node.run("ls").stdout == ""
    deployment.destroy()


def test_a_node_whose_process_dies_has_lost_its_power(node: NodeUnderTest) -> None:
    psutil.Process(node.state["pid"]).kill()
    node.until("stopped")
    node.act("boot")
    assert node.answers()


def test_power_on_of_a_node_that_is_on_does_nothing(node: NodeUnderTest) -> None:
    before = node.boot_id()
    assert node.act("power-on") == {"state": "running"}
    assert node.act("boot") == {"state": "running", "boot_id": before}


def test_power_off_of_a_node_that_is_off_does_nothing(node: NodeUnderTest) -> None:
    node.act("power-off")
    assert node.act("power-off") == {"state": "stopped"}


def test_a_node_that_starts_can_be_switched_off(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", timings={"boot": 0.2})
    node = deployment["n11"]
    node.act("power-off")
    assert node.act("power-on") == {"state": "starting"}
    assert node.act("power-off") == {"state": "stopped"}
    assert node.act("power-on") == {"state": "starting"}
    node.until("running")
    deployment.destroy()


def test_other_nodes_notice_nothing(deployment: DeploymentUnderTest) -> None:
    before = deployment["n12"].boot_id()
    deployment["n11"].act("power-off")
    deployment["n11"].act("boot")
    assert deployment["n12"].boot_id() == before


def test_the_ports_of_a_node_stay_its_own_while_it_is_off(node: NodeUnderTest) -> None:
    node.act("power-off")
    for name in ("ssh_port", "admin_ui_port", "database_port"):
        address = ("127.0.0.1", node.facts[name])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 1)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
    node.act("boot")
    assert node.answers()


def test_a_connection_that_was_open_ends_with_the_power(node: NodeUnderTest) -> None:
    with node.connect() as client:
        node.act("power-off")
        transport = client.get_transport()
        assert transport is not None
        wait_until(transport.is_active, lambda active: not active, Deadline(timedelta(seconds=5)), "the end")


def test_the_host_key_stays_over_reboots_and_can_be_replaced(node: NodeUnderTest) -> None:
    node.act("power-off")
    node.act("boot")
    before = node.boot_id()
    old = node.host_key
    node.host_key = node.act("new-host-key")["host_key"]
    assert node.host_key != old
    assert node.boot_id() == before
    node.act("power-off")
    node.act("boot")
    assert node.answers()
    node.host_key = old
    assert not node.answers()


def test_services_stop_cleanly_while_the_node_runs_on(node: NodeUnderTest) -> None:
    before = node.boot_id()
    assert node.act("services-stop") == {"state": "running"}
    assert node.run("systemctl is-active admin-ui") == Said("inactive\n", status=3)
    assert node.boot_id() == before
    node.act("power-off")
    with pytest.raises(UnexpectedAnswerError, match="n11 is not running"):
        node.act("services-stop")
