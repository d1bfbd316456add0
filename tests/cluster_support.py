"""A datacentre in a process of its own, and real SSH to its nodes."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import paramiko
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from testyard.core.deadline import Deadline, wait_until
from testyard.core.json_client import JsonClient

TOKEN = "0123456789abcdef-datacentre"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
CRASH = """sudo sh -c 'nohup sh -c "sleep 0.5; echo b > /proc/sysrq-trigger || poweroff -f" >/dev/null 2>&1 &'"""
SOON = timedelta(seconds=20)
AT_ONCE = timedelta(seconds=1)
MODULE = "testyard.lab.cluster.datacentre"


@dataclass(frozen=True)
class Said:
    """What a command gave."""

    stdout: str
    stderr: str = ""
    status: int = 0


class LoginKey:
    """A key pair of somebody who logs in."""

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        self.public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        self.private = paramiko.Ed25519Key.from_private_key(io.StringIO(text))


@dataclass
class NodeUnderTest:
    """One node as its deployment's owner knows it."""

    name: str
    deployment: DeploymentUnderTest
    facts: Mapping[str, Any]
    host_key: str = field(init=False)

    def __post_init__(self) -> None:
        self.host_key = self.facts["host_key"]

    @property
    def port(self) -> int:
        return int(self.facts["ssh_port"])

    def connect(self, user: str = "admin", key: LoginKey | None = None) -> paramiko.SSHClient:
        """Log in, with the host key that was told and no other."""
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        kind, text = self.host_key.split()
        known = paramiko.Ed25519Key(data=base64.b64decode(text))
        client.get_host_keys().add(f"[127.0.0.1]:{self.port}", kind, known)
        try:
            client.connect(
                "127.0.0.1",
                self.port,
                username=user,
                pkey=(key or self.deployment.key).private,
                timeout=5,
                banner_timeout=5,
                auth_timeout=5,
                allow_agent=False,
                look_for_keys=False,
            )
        except BaseException:
            client.close()
            raise
        return client

    def run(self, line: str) -> Said:
        """Say one command line and hear the answer; the status is -1 when the connection ends before."""
        with self.connect() as client:
            _, output, errors = client.exec_command(line, timeout=10)
            text = output.read().decode(), errors.read().decode()
            return Said(*text, output.channel.recv_exit_status())

    def boot_id(self) -> str:
        """The boot id that the node shows."""
        return self.run(BOOT_ID).stdout.strip()

    def answers(self) -> bool:
        """Whether somebody listens at its SSH port."""
        try:
            self.connect().close()
        except (OSError, paramiko.SSHException, EOFError):
            return False
        return True

    def act(self, action: str) -> Any:
        """Have the datacentre do something with it."""
        return self.deployment.post(f"/nodes/{self.name}/{action}")

    @property
    def state(self) -> Any:
        """What the datacentre says of it."""
        return self.deployment.get()["nodes"][self.name]

    def until(self, state: str) -> None:
        """Wait until the datacentre says so; a node that runs also has a boot id."""
        wait_until(
            lambda: self.state,
            lambda seen: seen["state"] == state and bool(seen["boot_id"]) == (state == "running"),
            Deadline(SOON),
            f"{self.name} to be {state}",
        )

    def until_back(self, before: str) -> None:
        """Wait until it runs with another boot id than before."""
        wait_until(
            lambda: self.state["boot_id"],
            lambda seen: seen not in {None, before},
            Deadline(SOON),
            f"{self.name} to come back",
        )


class DeploymentUnderTest:
    """One deployment of a datacentre."""

    def __init__(self, client: JsonClient, wish: dict[str, Any], key: LoginKey) -> None:
        self._client = client
        self.key = key
        self.identifier = wish["id"]
        self.answer = client.post("/deployments", {"authorized_key": key.public, **wish})
        self.nodes = {name: NodeUnderTest(name, self, facts) for name, facts in self.answer["nodes"].items()}

    def __getitem__(self, name: str) -> NodeUnderTest:
        return self.nodes[name]

    def get(self, path: str = "") -> Any:
        return self._client.get(f"/deployments/{self.identifier}{path}")

    def post(self, path: str, body: object | None = None) -> Any:
        return self._client.call("POST", f"/deployments/{self.identifier}{path}", body=body)

    def destroy(self) -> None:
        self._client.call("DELETE", f"/deployments/{self.identifier}")


class DatacentreUnderTest:
    """A datacentre that ends with the ``with`` statement, or with the test process."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._stack = ExitStack()
        self._count = 0
        self.key = LoginKey()
        self.process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", MODULE, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "TESTYARD_DATACENTRE_TOKEN": TOKEN, **(environment or {})},
                start_new_session=True,
            )
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stack.callback(self.process.stdin.close)
        self.url = self.process.stdout.readline().decode().strip()
        self.client = JsonClient(
            self.url, headers={"Authorization": f"Bearer {TOKEN}"}, secret=TOKEN, name="datacentre"
        )
        self._stack.callback(self.client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def deploy(self, *nodes: str, **wish: Any) -> DeploymentUnderTest:
        """A new deployment, without a database unless told."""
        self._count += 1
        content = {
            "id": f"test-{self._count}",
            "provider": "hetzner",
            "nodes": nodes or ("n11",),
            "database": False,
        }
        return DeploymentUnderTest(self.client, content | wish, self.key)

    def descendants(self) -> list[psutil.Process]:
        """Every process that it has started by now."""
        return psutil.Process(self.process.pid).children(recursive=True)


def are_gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them lives; one that nobody has waited for is dead."""
    return not [each for each in processes if _lives(each)]


def expect_gone(processes: list[psutil.Process], within: timedelta = SOON) -> None:
    """They die, though not at once: the system has closed all files of a killed process a moment earlier."""
    wait_until(lambda: are_gone(processes), bool, Deadline(within), "the end of its processes")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
