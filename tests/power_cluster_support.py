"""A cluster of the embedded lab's real nodes, for the tests of the power backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from testyard.power.deadlines import Deadlines
from testyard.power.deployment import Deployment
from testyard.power.engine import PowerControl
from testyard.power.planning import Instruction
from testyard.power.ssh import NodeShell

# Enough on a busy machine; a wait that succeeds takes a fraction of it.
EMBEDDED = Deadlines(
    stop=timedelta(seconds=20),
    boot=timedelta(seconds=20),
    crash=timedelta(seconds=20),
    reboot=timedelta(seconds=20),
    ssh=timedelta(seconds=5),
    command=timedelta(seconds=5),
    stays_down=timedelta(seconds=0.2),
    graceful_pause=timedelta(),
    poll=timedelta(milliseconds=50),
)


@dataclass
class RealCluster:
    """A deployment, and the control of the datacentre that it is in.

    Attributes:
        directory: The deployment directory.
    """

    directory: Path

    def power(self, **options: Any) -> PowerControl:
        """The engine on this cluster, with an operator who boots what he is told to."""
        options = {"deadlines": EMBEDDED, "operator": self.play_operator, "environment": {}, **options}
        return PowerControl(Deployment.read(self.directory), **options)

    def shell(self, node: str) -> NodeShell:
        """A node's shell."""
        deployment = Deployment.read(self.directory)
        return NodeShell(
            deployment.node(node),
            deployment.known_hosts,
            connect_timeout=EMBEDDED.ssh,
            command_timeout=EMBEDDED.command,
        )

    def play_operator(self, instruction: Instruction) -> None:
        """Do what an operator does where a start is manual."""
        for node in instruction.nodes:
            self.node(node, "boot")

    def node(self, node: str, action: str) -> Any:
        """Have the datacentre do something to a node."""
        return self._post(f"nodes/{node}/{action}")

    def cloud(self, **values: object) -> None:
        """Switch the provider's behaviour: ``expired``, ``delay``."""
        self._post("cloud", values)

    def _post(self, path: str, body: object = None) -> Any:
        datacentre = json.loads((self.directory / ".datacentre.json").read_text(encoding="utf-8"))
        deployment = json.loads((self.directory / ".exasol.json").read_text(encoding="utf-8"))["deployment_id"]
        answer = httpx.post(
            f"{datacentre['address']}/deployments/{deployment}/{path}",
            json=body or {},
            headers={"Authorization": f"Bearer {datacentre['token']}"},
            timeout=20,
        )
        answer.raise_for_status()
        return answer.json()


@contextmanager
def real_cluster(directory: Path, provider: str, *options: str) -> Iterator[RealCluster]:
    """A cluster of three nodes without a database, in a datacentre of its own."""
    owner = ("--owner-pid", str(os.getpid()))
    _deployer(
        directory,
        "init",
        "--cloud-provider",
        provider,
        "--cluster-size",
        "3",
        "--database",
        "false",
        *options,
        *owner,
    )
    try:
        _deployer(directory, "deploy")
        yield RealCluster(directory)
    finally:
        _deployer(directory, "destroy", "--auto-approve")


def _deployer(directory: Path, verb: str, *options: str) -> None:
    command = [sys.executable, "-m", "testyard.lab.cluster", verb, "--deployment-dir", str(directory), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
