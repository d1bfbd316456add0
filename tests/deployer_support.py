"""What the tests of the deployer share: its command line in this process, and datacentres that never answer."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import asyncssh
import pytest
from testyard.lab.cluster.deployer.command_line import main
from testyard.lab.cluster.deployer.control import Control
from testyard.lab.cluster.deployer.files import read_nodes

COMMAND = (sys.executable, "-m", "testyard.lab.cluster")
DATACENTRE = (sys.executable, "-m", "testyard.lab.cluster.datacentre")
ADDRESS_VARIABLE = "TESTYARD_DATACENTRE"
TOKEN_VARIABLE = "TESTYARD_DATACENTRE_TOKEN"


class Answer(NamedTuple):
    """What a call of the deployer gave: its exit status, standard output and standard error."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def reason(self) -> str:
        """Its only line on standard error."""
        (line,) = self.errors.splitlines()
        return line.removeprefix("testyard.lab.cluster: ")


class DeployerCalls:
    """Calls the deployer in this process.

    Args:
        directory: The deployment's.
        capture: Catches what it prints.
    """

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capture = capture

    def __call__(self, verb: str, *options: str) -> Answer:
        return self.raw(verb, "--deployment-dir", str(self.directory), *options)

    def raw(self, *arguments: str) -> Answer:
        """Call it with just these arguments."""
        self._capture.readouterr()
        status = main(arguments)
        return Answer(status, *self._capture.readouterr())

    def done(self, verb: str, *options: str) -> Answer:
        """Call it; it must do what it is asked for."""
        answer = self(verb, *options)
        assert answer.status == 0, answer
        return answer

    @property
    def state(self) -> dict[str, Any]:
        """The state file's content."""
        return json.loads((self.directory / ".exasol.json").read_text(encoding="utf-8"))

    def set_status(self, status: str) -> None:
        """Pretend that the deployment is in a state."""
        content = self.state | {"status": status}
        (self.directory / ".exasol.json").write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def deployer_process(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The deployer as a process of its own, killed at the end."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **variables},
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running_datacentre() -> Iterator[dict[str, str]]:
    """A datacentre that ends with the ``with`` statement; gives the variables that name it."""
    token = secrets.token_hex(16)
    with subprocess.Popen(
        DATACENTRE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, TOKEN_VARIABLE: token},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield {ADDRESS_VARIABLE: process.stdout.readline().strip(), TOKEN_VARIABLE: token}
        finally:
            process.stdin.close()
            process.wait()


class SilentDatacentre:
    """Takes requests and never answers; used in a ``with`` statement."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._accepted):
            each.close()

    @property
    def variables(self) -> dict[str, str]:
        """What makes a deployer use it."""
        host, port = self._listener.getsockname()
        return {ADDRESS_VARIABLE: f"http://{host}:{port}", TOKEN_VARIABLE: "a-token-that-nobody-checks"}

    def wait_for_request(self) -> str:
        """The first line of the next request."""
        connection, _ = self._listener.accept()
        self._accepted.append(connection)
        return connection.makefile("rb").readline().decode().strip()


class Lab:
    """A deployment on a real datacentre, and what others may do to it.

    Args:
        deployer: Its deployer.
        control: The datacentre's control API.
    """

    def __init__(self, deployer: DeployerCalls, control: Control) -> None:
        self.deployer = deployer
        self.control = control

    @property
    def path(self) -> str:
        return f"/deployments/{self.deployer.state['deployment_id']}"

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """What the datacentre says of each node."""
        return self.control.call("GET", self.path)["nodes"]

    def act(self, node: str, action: str) -> Any:
        """Have the datacentre do something with a node."""
        return self.control.call("POST", f"{self.path}/nodes/{node}/{action}")

    def power_off(self, *nodes: str) -> None:
        """Take the power of nodes away; of all when none is named."""
        for node in nodes or self.nodes:
            self.act(node, "power-off")

    def ssh(self, node: str, line: str) -> str:
        """Run a command on a node, as any user of the directory's files would."""
        (found,) = [each for each in read_nodes(self.deployer.directory) if each.name == node]

        async def run() -> str:
            async with asyncssh.connect(
                found.host,
                found.ssh_port,
                username=found.user,
                client_keys=[str(self.deployer.directory / "id_ed25519")],
                known_hosts=str(self.deployer.directory / "known_hosts"),
                config=None,
            ) as connection:
                done = await connection.run(line, check=True)
                return str(done.stdout).strip()

        return asyncio.run(run())

    def replace_in(self, name: str, old: str, new: str) -> None:
        """Change a file of the deployment's directory."""
        path = self.deployer.directory / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
