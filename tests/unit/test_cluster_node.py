"""A node as its users see it: SSH with a key and nothing else, an admin UI over HTTPS, no way to the computer."""

from __future__ import annotations

import ast
import ssl
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import httpx
import paramiko
import psutil
import pytest
from cluster_support import BOOT_ID, DatacentreUnderTest, DeploymentUnderTest, LoginKey, NodeUnderTest, Said
from testyard.core.deadline import Deadline, wait_until

WITHIN = timedelta(seconds=5)


@pytest.fixture(scope="module")
def deployment() -> Iterator[DeploymentUnderTest]:
    with DatacentreUnderTest() as datacentre:
        yield datacentre.deploy("n11")


@pytest.fixture
def node(deployment: DeploymentUnderTest) -> NodeUnderTest:
    return deployment["n11"]


@pytest.fixture
def browser(deployment: DeploymentUnderTest) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cadata=deployment.answer["admin_ui_certificate"])
    port = deployment["n11"].facts["admin_ui_port"]
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=5) as browser:
        yield browser


def test_a_wrong_key_is_refused(node: NodeUnderTest) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        node.connect(key=LoginKey())


def test_another_user_is_refused(node: NodeUnderTest) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        node.connect(user="root")


def test_only_keys_are_offered(node: NodeUnderTest) -> None:
    with paramiko.Transport(("127.0.0.1", node.port)) as transport:
        transport.start_client(timeout=5)
        with pytest.raises(paramiko.BadAuthenticationType) as refusal:
            transport.auth_none("admin")
        assert refusal.value.allowed_types == ["publickey"]
    with paramiko.Transport(("127.0.0.1", node.port)) as transport:
        transport.start_client(timeout=5)
        with pytest.raises(paramiko.BadAuthenticationType):
            transport.auth_password("admin", "admin")


def test_the_host_key_is_the_one_that_was_told(node: NodeUnderTest) -> None:
    with paramiko.Transport(("127.0.0.1", node.port)) as transport:
        transport.start_client(timeout=5)
        key = transport.get_remote_server_key()
        assert f"{key.get_name()} {key.get_base64()}" == node.host_key


def test_a_command_that_is_not_in_the_table_is_not_found(node: NodeUnderTest, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for line in (
        f"touch {trace}",
        f"true; touch {trace}",
        f"printf %s $(touch {trace}) > x",
        f"cat `touch {trace}`",
    ):
        word = line.split()[0]
        assert node.run(line) == Said("", f"sh: 1: {word}: command not found\n", 127)
    assert not trace.exists()
    assert node.run("ls").stdout == ""


def test_a_node_starts_no_process(node: NodeUnderTest) -> None:
    node.run("hostname")
    node.run("touch x")
    assert psutil.Process(node.state["pid"]).children(recursive=True) == []


@pytest.mark.parametrize("module", ["node", "shell", "ssh_server", "files", "admin_ui", "plan", "http_listener"])
def test_what_a_node_runs_without_a_database_cannot_start_processes(module: str) -> None:
    spec = find_spec(f"testyard.lab.cluster.{module}")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    imported = {alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names}
    imported |= {each.module or "" for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert not imported & {"subprocess", "pty", "multiprocessing", "ctypes"}
    used = {
        each.attr
        for each in ast.walk(tree)
        if isinstance(each, ast.Attribute)
        and isinstance(each.value, ast.Name)
        and each.value.id in {"os", "asyncio"}
    }
    forbidden = ("system", "popen", "exec", "spawn", "posix_spawn", "fork", "create_subprocess", "reboot")
    assert not [name for name in used if name.startswith(forbidden)]


def test_several_commands_share_a_connection(node: NodeUnderTest) -> None:
    with node.connect() as client:
        answers = [client.exec_command(line, timeout=5)[1] for line in (BOOT_ID, "hostname", BOOT_ID)]
        first, name, second = (answer.read().decode() for answer in answers)
    assert first == second == f"{node.state['boot_id']}\n"
    assert name == "n11\n"


def test_somebody_who_types_gets_a_prompt_and_answers(node: NodeUnderTest) -> None:
    with node.connect() as client:
        shell = client.invoke_shell()
        seen = ""

        def screen() -> str:
            nonlocal seen
            while shell.recv_ready():
                seen += shell.recv(4096).decode()
            return seen

        wait_until(screen, lambda text: text.endswith("admin@n11:~$ "), Deadline(WITHIN), "the prompt")
        shell.sendall(b"hostname\n")
        wait_until(screen, lambda text: text.endswith("n11\r\nadmin@n11:~$ "), Deadline(WITHIN), "the answer")
        shell.sendall(b"nonsense\r")
        wait_until(screen, lambda text: "command not found" in text, Deadline(WITHIN), "the complaint")
        shell.sendall(b"ex")
        wait_until(screen, lambda text: text.endswith("ex"), Deadline(WITHIN), "the echo")
        shell.sendall(b"it\n")
        assert shell.recv_exit_status() == 127


def test_files_and_ports_are_not_forwarded(node: NodeUnderTest) -> None:
    with node.connect() as client:
        with pytest.raises((paramiko.SSHException, EOFError)):
            client.open_sftp()
        transport = client.get_transport()
        assert transport is not None
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel("direct-tcpip", ("127.0.0.1", 1), ("127.0.0.1", 1), timeout=5)
        with pytest.raises(paramiko.SSHException):
            transport.request_port_forward("127.0.0.1", 0)


def test_the_admin_ui_shows_the_node_and_its_health(node: NodeUnderTest, browser: httpx.Client) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    assert "<h1>n11</h1>" in page.text
    health = browser.get("/health").json()
    assert health.pop("uptime") > 0
    assert health == {
        "status": "ok",
        "deployment": node.deployment.identifier,
        "node": "n11",
        "boot_id": node.boot_id(),
        "services": {"admin-ui": "active"},
    }


def test_the_admin_uis_certificate_is_the_deployments_own(node: NodeUnderTest) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://127.0.0.1:{node.facts['admin_ui_port']}/")


def test_the_admin_ui_is_a_service(node: NodeUnderTest, browser: httpx.Client) -> None:
    assert node.run("sudo systemctl stop admin-ui") == Said("")
    assert node.run("systemctl is-active admin-ui") == Said("inactive\n", status=3)
    with pytest.raises(httpx.ConnectError):
        browser.get("/health")
    assert node.run("sudo systemctl start admin-ui") == Said("")
    assert node.run("sudo systemctl start admin-ui") == Said("")
    assert node.run("systemctl is-active admin-ui") == Said("active\n")
    assert browser.get("/health").status_code == 200
    assert node.run("sudo systemctl restart admin-ui") == Said("")
    assert browser.get("/health").status_code == 200


def test_a_node_without_a_database_has_no_such_service(node: NodeUnderTest) -> None:
    assert node.run("systemctl is-active database") == Said("inactive\n", status=3)
    assert node.run("sudo systemctl start database").status == 5
