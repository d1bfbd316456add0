"""Machines that have a database: it is a service of theirs, and it shares their power."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psutil
import psycopg
import pytest
from cluster_support import (
    AT_ONCE,
    SOON,
    DatacentreUnderTest,
    DeploymentUnderTest,
    NodeUnderTest,
    Said,
    expect_gone,
)
from testyard.core.deadline import Deadline, wait_until

READY = timedelta(seconds=60)


@pytest.fixture(scope="module")
def deployment() -> Iterator[DeploymentUnderTest]:
    with DatacentreUnderTest("--prepare-database") as datacentre:
        yield datacentre.deploy("n11", "n12", "n13", database=True)


@pytest.fixture
def complete(deployment: DeploymentUnderTest) -> DeploymentUnderTest:
    """The deployment with all its members in place."""
    for node in deployment.nodes.values():
        node.act("boot")
        node.run("sudo systemctl start database")
    wait_until(lambda: members(deployment), all_in_place, Deadline(READY), "a complete database")
    return deployment


def members(deployment: DeploymentUnderTest) -> dict[str, Any]:
    status: dict[str, Any] = deployment.get()["database"]
    return status


def all_in_place(status: dict[str, Any]) -> bool:
    streaming = [name for name, each in status["members"].items() if each["streaming"]]
    return status["primary"] is not None and len(streaming) == 2


def connect(node: NodeUnderTest) -> psycopg.Connection[Any]:
    login = node.deployment.answer["database"]
    return psycopg.connect(
        host="127.0.0.1",
        port=node.facts["database_port"],
        user=login["user"],
        password=login["password"],
        dbname=login["name"],
        connect_timeout=5,
        autocommit=True,
    )


def processes_of(node: NodeUnderTest) -> list[psutil.Process]:
    return psutil.Process(node.state["pid"]).children(recursive=True)


def test_the_database_is_ready_when_the_deployment_is(complete: DeploymentUnderTest) -> None:
    primary = members(complete)["primary"]
    with connect(complete[primary]) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (2,)
    for node in complete.nodes.values():
        assert node.run("systemctl is-active database") == Said("active\n")


def test_the_power_goes_for_the_database_too(complete: DeploymentUnderTest) -> None:
    node = complete[members(complete)["primary"]]
    processes = [each for each in processes_of(node) if "postgres" in each.name()]
    assert len(processes) > 3
    node.act("power-off")
    expect_gone(processes, AT_ONCE)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(node)
    assert node.act("boot")["state"] == "running"


def test_the_database_is_a_service_that_stops_and_starts(complete: DeploymentUnderTest) -> None:
    primary = members(complete)["primary"]
    node = next(each for name, each in complete.nodes.items() if name != primary)
    before = node.boot_id()
    assert node.run("sudo systemctl stop database") == Said("")
    assert node.run("systemctl is-active database") == Said("inactive\n", status=3)
    with pytest.raises(psycopg.OperationalError):
        connect(node)
    assert node.run("sudo systemctl start database") == Said("")
    assert node.run("systemctl is-active database") == Said("active\n")
    assert node.boot_id() == before


def test_services_stop_is_for_the_database_too(complete: DeploymentUnderTest) -> None:
    node = complete[members(complete)["primary"]]
    node.act("services-stop")
    assert node.run("systemctl is-active database").stdout == "inactive\n"
    assert not [each for each in processes_of(node) if "postgres" in each.name()]


def test_a_reboot_brings_the_database_back(complete: DeploymentUnderTest) -> None:
    node = complete["n13"]
    before = node.boot_id()
    node.run("sudo reboot")
    node.until_back(before)
    wait_until(
        lambda: node.run("systemctl is-active database").stdout,
        lambda said: said == "active\n",
        Deadline(SOON),
        "the database",
    )


def test_nothing_of_the_database_is_left_when_the_datacentre_is_killed() -> None:
    with DatacentreUnderTest() as datacentre:
        datacentre.deploy("n11", "n12", "n13", database=True)
        processes = datacentre.descendants()
        assert len([each for each in processes if "postgres" in each.name()]) > 9
        datacentre.process.kill()
        expect_gone(processes)


def test_nothing_of_the_database_is_left_when_everybody_is_killed_at_once() -> None:
    with DatacentreUnderTest() as datacentre:
        deployment = datacentre.deploy("n11", database=True)
        processes = datacentre.descendants()
        node = psutil.Process(deployment["n11"].state["pid"])
        for process in (datacentre.process, node):
            process.kill()
        expect_gone(processes)
