"""The datacentre: its control API, and that nothing of it is left however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cluster_support import AT_ONCE, MODULE, SOON, TOKEN, DatacentreUnderTest, expect_gone
from testyard.core.deadline import Deadline
from testyard.core.json_client import JsonClient, UnexpectedAnswerError

OWNER = "import sys; sys.stdin.read()"


@pytest.fixture(scope="module")
def datacentre() -> Iterator[DatacentreUnderTest]:
    with DatacentreUnderTest() as datacentre:
        yield datacentre


def directories(process: int) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"testyard-{process}-*"))


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory of one's own, where nobody else tidies up."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        yield Path(place)


def refused(
    datacentre: DatacentreUnderTest, method: str, path: str, body: object | None = None
) -> tuple[int, str]:
    """The status of a refusal and its reason."""
    with pytest.raises(UnexpectedAnswerError) as refusal:
        datacentre.client.call(method, path, body=body)
    return refusal.value.status, refusal.value.body


def wish(datacentre: DatacentreUnderTest, **changes: Any) -> dict[str, Any]:
    content = {
        "id": "refused",
        "provider": "hetzner",
        "nodes": ["n11"],
        "database": False,
        "authorized_key": datacentre.key.public,
    }
    return content | changes


def test_only_who_has_the_token_is_answered(datacentre: DatacentreUnderTest) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        answer = httpx.get(f"{datacentre.url}/health", headers=headers)
        assert answer.status_code == 401
        assert "token" in answer.json()["error"]
    assert datacentre.client.get("/health")["status"] == "ok"


def test_a_deployment_is_told_and_is_running_when_it_is_created(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", "n12", "n13")
    assert set(deployment.answer) == {"nodes", "cloud", "database", "admin_ui_certificate"}
    assert deployment.answer["database"] is None
    assert deployment.answer["cloud"]
    for node in deployment.nodes.values():
        assert node.facts["user"] == "admin"
        assert node.facts["host"] == "127.0.0.1"
        assert node.facts["region"] == "fsn1"
        assert node.state["boot_id"] == node.boot_id()
    assert len({node.facts["instance_id"] for node in deployment.nodes.values()}) == 3
    assert len({node.facts["host_key"] for node in deployment.nodes.values()}) == 3
    shown = deployment.get()
    assert shown["id"] == deployment.identifier
    assert {each["state"] for each in shown["nodes"].values()} == {"running"}
    assert shown["database"] is None
    assert deployment.identifier in datacentre.client.get("/health")["deployments"]
    deployment.destroy()


def test_a_deployment_that_is_destroyed_leaves_nothing(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", "n12")
    deployment["n12"].act("power-off")
    processes = [psutil.Process(deployment["n11"].state["pid"])]
    deployment.destroy()
    expect_gone(processes, AT_ONCE)
    assert not deployment["n11"].answers()
    for node in deployment.nodes.values():
        with socket.socket() as other:
            other.bind(("127.0.0.1", node.facts["database_port"]))
    for directory in directories(datacentre.process.pid):
        assert not (directory / deployment.identifier).exists()
    assert refused(datacentre, "GET", f"/deployments/{deployment.identifier}")[0] == 404
    assert refused(datacentre, "DELETE", f"/deployments/{deployment.identifier}")[0] == 404


def test_two_deployments_are_kept_apart(datacentre: DatacentreUnderTest) -> None:
    one, other = datacentre.deploy("n11"), datacentre.deploy("n11")
    assert one["n11"].facts["instance_id"] != other["n11"].facts["instance_id"]
    one.destroy()
    assert other["n11"].answers()
    other.destroy()


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"provider": "metal"}, 400, "There is no provider 'metal'; there are aws"),
        ({"nodes": []}, 400, "nodes"),
        ({"nodes": ["n11", "n11"]}, 400, "Two nodes have the same name"),
        ({"nodes": ["../n11"]}, 400, "nodes.0"),
        ({"id": "../up"}, 400, "id"),
        ({"authorized_key": "ssh-rsa AAAA"}, 400, "authorized_key"),
        ({"typo": 1}, 400, "typo"),
        ({"timings": {"boot": -1}}, 400, "timings.boot"),
    ],
)
def test_a_wrong_wish_is_refused(
    datacentre: DatacentreUnderTest, changes: dict[str, Any], status: int, reason: str
) -> None:
    seen, said = refused(datacentre, "POST", "/deployments", wish(datacentre, **changes))
    assert seen == status
    assert reason in said
    assert "refused" not in datacentre.client.get("/health")["deployments"]


def test_an_identifier_is_used_once(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11")
    body = wish(datacentre, id=deployment.identifier)
    status, said = refused(datacentre, "POST", "/deployments", body)
    assert (status, deployment.identifier in said) == (409, True)
    assert deployment["n11"].answers()
    deployment.destroy()


def test_a_deployment_that_does_not_come_to_life_leaves_nothing(datacentre: DatacentreUnderTest) -> None:
    body = wish(datacentre, authorized_key="ssh-ed25519 nonsense")
    status, said = refused(datacentre, "POST", "/deployments", body)
    assert status == 409
    assert "n11 stopped instead of starting" in said
    assert "KeyImportError" in said
    assert "refused" not in datacentre.client.get("/health")["deployments"]
    assert not [directory for directory in directories(datacentre.process.pid) if (directory / "refused").exists()]


def test_unknown_nodes_and_actions_are_named(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", "n12")
    place = f"/deployments/{deployment.identifier}/nodes"
    status, said = refused(datacentre, "POST", f"{place}/n14/press")
    assert (status, "There is no node 'n14'; there are n11, n12" in said) == (404, True)
    status, said = refused(datacentre, "POST", f"{place}/n11/explode")
    assert (status, "There is no action 'explode'; there are power-on" in said) == (404, True)
    deployment.destroy()


def test_links_are_shown_and_changed(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", "n12")
    links = deployment.get("/links")["links"]
    assert {(link["from"], link["to"]) for link in links} == {
        ("n11", "n12"),
        ("n12", "n11"),
        ("manager", "n11"),
        ("n11", "manager"),
        ("manager", "n12"),
        ("n12", "manager"),
    }
    assert not [link for link in links if link["silent"]]
    changed = deployment.post("/links", {"from": "n11", "to": "n12", "silent": True})["links"]
    assert [(link["from"], link["to"]) for link in changed if link["silent"]] == [("n11", "n12")]
    assert deployment.get()["links"] == changed
    assert deployment.post("/links", {"from": "n11", "to": "n12", "silent": False})["links"] == links
    place = f"/deployments/{deployment.identifier}/links"
    status, said = refused(datacentre, "POST", place, {"from": "n11", "to": "n99", "silent": True})
    assert (status, "no peer 'n99'" in said) == (409, True)
    deployment.destroy()


def test_what_cannot_be_measured_is_refused(datacentre: DatacentreUnderTest, tmp_path: Path) -> None:
    deployment = datacentre.deploy("n11")
    place = f"/deployments/{deployment.identifier}/measurements"
    question = {"directory": str(tmp_path), "database": False, "within": 1}
    status, said = refused(datacentre, "POST", place, question)
    assert (status, "The nodes could not be measured" in said) == (409, True)
    status, said = refused(datacentre, "POST", place, question | {"within": 0})
    assert (status, "within" in said) == (400, True)
    deployment.destroy()


def test_the_provider_answers_for_the_machines(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", "n12")
    settings = deployment.answer["cloud"]
    headers = {"Authorization": f"Bearer {settings['HCLOUD_TOKEN']}"}
    url = f"{settings['HCLOUD_ENDPOINT']}/servers"
    deployment["n12"].act("power-off")
    servers = httpx.get(url, headers=headers).json()["servers"]
    own = {
        str(each["id"]): each["status"]
        for each in servers
        if each["labels"]["deployment"] == deployment.identifier
    }
    assert own == {
        deployment["n11"].facts["instance_id"]: "running",
        deployment["n12"].facts["instance_id"]: "off",
    }
    assert deployment.post("/cloud", {"expired": True, "delay": 0.25}) == {"expired": True, "delay": 0.25}
    assert httpx.get(url, headers=headers).status_code == 401
    assert deployment.post("/cloud", {"expired": False})["delay"] == 0.25
    assert httpx.get(url, headers=headers).status_code == 200
    deployment.destroy()
    assert httpx.get(url, headers=headers).status_code == 404


def test_three_nodes_are_there_in_less_than_a_second(datacentre: DatacentreUnderTest) -> None:
    datacentre.deploy("n11").destroy()  # the first one waits until the nodes' modules are imported
    deadline = Deadline(timedelta(seconds=1))
    deployment = datacentre.deploy("n11", "n12", "n13")
    assert not deadline.expired
    deployment.destroy()


def end_by_closing(datacentre: DatacentreUnderTest) -> None:
    assert datacentre.process.stdin is not None
    datacentre.process.stdin.close()


def end_by_asking(datacentre: DatacentreUnderTest) -> None:
    datacentre.process.terminate()


def end_by_killing(datacentre: DatacentreUnderTest) -> None:
    datacentre.process.kill()


@pytest.mark.parametrize("end", [end_by_closing, end_by_asking, end_by_killing])
def test_nothing_is_left_however_it_ends(end: Callable[[DatacentreUnderTest], None], place: Path) -> None:
    with DatacentreUnderTest(environment={"TMPDIR": str(place)}) as datacentre:
        deployment = datacentre.deploy("n11", "n12")
        deployment["n12"].act("power-off")
        processes = datacentre.descendants()
        assert len(processes) >= 3, "the fork server, the janitor and a node"
        assert list(place.glob("testyard-*"))
        end(datacentre)
        datacentre.process.wait(SOON.total_seconds())
        expect_gone(processes)
        assert list(place.iterdir()) == []


def test_it_ends_with_its_owner(place: Path) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE) as owner,
        DatacentreUnderTest("--owner-pid", str(owner.pid), environment={"TMPDIR": str(place)}) as datacentre,
    ):
        datacentre.deploy("n11")
        processes = [psutil.Process(datacentre.process.pid), *datacentre.descendants()]
        assert datacentre.process.stdin is not None
        datacentre.process.stdin.close()
        assert datacentre.client.get("/health")["status"] == "ok"
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        expect_gone(processes)
        assert list(place.iterdir()) == []


def test_it_does_not_start_without_a_token() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TESTYARD_DATACENTRE_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-m", MODULE], input=b"", capture_output=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert b"TESTYARD_DATACENTRE_TOKEN is not set" in done.stderr


def test_the_token_is_not_inherited(datacentre: DatacentreUnderTest) -> None:
    datacentre.deploy("n11").destroy()
    for process in datacentre.descendants():
        assert TOKEN not in process.environ().values()


def test_a_second_client_may_ask_meanwhile(datacentre: DatacentreUnderTest) -> None:
    deployment = datacentre.deploy("n11", timings={"shutdown": 0.5})
    other = JsonClient(datacentre.url, headers={"Authorization": f"Bearer {TOKEN}"}, secret=TOKEN, name="other")
    deployment["n11"].act("press")
    assert other.get(f"/deployments/{deployment.identifier}")["nodes"]["n11"]["state"] == "stopping"
    other.close()
    deployment.destroy()
