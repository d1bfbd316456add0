"""The datacentre of the lab: the machines that clusters are deployed on, and what can go wrong there."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import timedelta
from typing import IO, Any

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import UserError
from testyard.core.json_client import JsonClient
from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError, last_line, wait_for_the_end
from testyard.lab.lifetime import Startable
from testyard.lab.servers.webhooks import WebhookReceiver

MODULE = "testyard.lab.cluster.datacentre"
# What the deployer and the datacentre read.
ADDRESS_VARIABLE = "TESTYARD_DATACENTRE"
TOKEN_VARIABLE = "TESTYARD_DATACENTRE_TOKEN"
START_TIMEOUT = timedelta(seconds=20)
MANAGER = "manager"


class ClusterLab(Startable):
    """One datacentre, which ends with this process.

    While it runs, the deployers that this process starts use it: the environment names it.

    Attributes:
        module: What runs it; negative controls run another one.
    """

    def __init__(self) -> None:
        self.module = MODULE
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._client: JsonClient | None = None
        self._webhooks: WebhookReceiver | None = None

    @property
    def webhooks(self) -> WebhookReceiver:
        """Who is told by hooks; it starts when it is asked for first."""
        if self._webhooks is None:
            self._webhooks = WebhookReceiver()
            self._webhooks.start()
        return self._webhooks

    @property
    def pid(self) -> int:
        """The datacentre's process id.

        Raises:
            LabError: It is not running.
        """
        if self._process is None:
            message = "The datacentre is not running."
            raise LabError(message)
        return self._process.pid

    @property
    def client(self) -> JsonClient:
        """Its control API.

        Raises:
            LabError: It is not running.
        """
        if self._client is None:
            message = "The datacentre is not running."
            raise LabError(message)
        return self._client

    def start(self, within: timedelta = START_TIMEOUT) -> None:
        """Start it and wait until it answers.

        Args:
            within: Give up after this time.

        Raises:
            LabError: It ended instead, or did not answer in time; nothing is left running.
        """
        token = secrets.token_urlsafe(24)
        secrets_in_use.add(token)
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, "--prepare-database"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, TOKEN_VARIABLE: token},
            start_new_session=True,
        )
        address = self._first_line(Deadline(within))
        self._client = JsonClient(
            address,
            headers={"Authorization": f"Bearer {token}"},
            secret=token,
            name="the datacentre of the lab",
        )
        os.environ[ADDRESS_VARIABLE], os.environ[TOKEN_VARIABLE] = address, token

    def _first_line(self, deadline: Deadline) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], deadline.remaining.total_seconds())
        address = self._process.stdout.readline().decode().strip() if ready else ""
        if not address:
            reason = f"it said nothing for {seconds(deadline.elapsed)}"
            if self._process.poll() is not None and self._complaints is not None:
                self._complaints.seek(0)
                reason = last_line(self._complaints.read())
            self.stop()
            message = f"The datacentre of the lab did not start: {reason}."
            raise LabError(message)
        return address

    def stop(self) -> None:
        """End it, and every machine in it; safe to call again."""
        if self._webhooks is not None:
            self._webhooks.stop()
            self._webhooks = None
        process, self._process = self._process, None
        if process is None:
            return
        if self._client is not None:
            self._client.close()
            self._client = None
            os.environ.pop(ADDRESS_VARIABLE, None)
            os.environ.pop(TOKEN_VARIABLE, None)
        assert process.stdin is not None
        process.stdin.close()
        wait_for_the_end(process)
        if self._complaints is not None:
            self._complaints.close()

    def lives(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def renew(self) -> None:
        """Remove every deployment.

        Raises:
            UserError: It does not answer any more.
        """
        for deployment in self.deployments():
            self.client.call("DELETE", f"/deployments/{deployment}")
        if self._webhooks is not None:
            self._webhooks.clear()

    def deployments(self) -> list[str]:
        """The ids of what is deployed now."""
        deployments: list[str] = self.client.get("/health")["deployments"]
        return deployments

    def state(self, deployment: str) -> dict[str, Any]:
        """What the datacentre itself knows of a deployment: its nodes, its database, its links."""
        state: dict[str, Any] = self.client.get(f"/deployments/{deployment}")
        return state

    def act(self, deployment: str, node: str, action: str) -> dict[str, Any]:
        """Do something to a node, such as ``boot`` or ``press``.

        Raises:
            UserError: There is no such node or action, or it is not possible now.
        """
        answer: dict[str, Any] = self.client.post(f"/deployments/{deployment}/nodes/{node}/{action}")
        return answer

    def set_link(self, deployment: str, source: str, target: str, *, silent: bool) -> None:
        """Let what one peer sends to another arrive, or not."""
        self.client.post(f"/deployments/{deployment}/links", {"from": source, "to": target, "silent": silent})

    def isolate(self, deployment: str, node: str, *, silent: bool) -> None:
        """Cut a node off from every other and from the manager, in both directions, or heal that."""
        for peer in self.peers_of(deployment, node):
            self.set_link(deployment, node, peer, silent=silent)
            self.set_link(deployment, peer, node, silent=silent)

    def peers_of(self, deployment: str, node: str) -> list[str]:
        """Whom a node talks to.

        Raises:
            UserError: There is no such node.
        """
        nodes = list(self.state(deployment)["nodes"])
        if node not in nodes:
            message = f"The deployment {deployment} has no node {node!r}; it has {', '.join(nodes)}."
            raise UserError(message)
        return [*(each for each in nodes if each != node), MANAGER]

    def silent_links(self, deployment: str) -> list[str]:
        """The directions in which nothing arrives, such as ``n11 -> n12``."""
        links: Iterable[dict[str, Any]] = self.client.get(f"/deployments/{deployment}/links")["links"]
        return [f"{link['from']} -> {link['to']}" for link in links if link["silent"]]

    def set_cloud(self, deployment: str, **change: object) -> None:
        """Change how the provider's endpoint behaves: ``expired``, ``delay`` in seconds."""
        self.client.post(f"/deployments/{deployment}/cloud", change)
