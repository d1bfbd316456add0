"""The command ``python -m testyard.lab.cluster.node``: one machine of the cluster, from power on to power off.

It is a process that stands in for a computer: an SSH server, an admin UI and a database agent with its PostgreSQL.
Reboots and crashes end this process and nothing else; the datacentre, which has started it, starts the next boot.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from testyard.core.errors import UserError
from testyard.lab.cluster.admin_ui import AdminUi
from testyard.lab.cluster.database_service import DatabaseService
from testyard.lab.cluster.files import NodeFiles
from testyard.lab.cluster.plan import LONGEST_LINE, Command, NodePlan
from testyard.lab.cluster.shell import PowerChange, Service, Shell
from testyard.lab.cluster.ssh_server import SshServer
from testyard.lab.servers.postgresql_launcher import holders_of

STANDARD_INPUT, STANDARD_OUTPUT = 0, 1


class Node:
    """One boot of a node.

    Args:
        plan: What the datacentre told it.
    """

    def __init__(self, plan: NodePlan) -> None:
        self._plan = plan
        self._booted = time.monotonic()
        self._boot_id = str(uuid4())
        self._claimed_boot_id: str | None = None
        self._files = NodeFiles(plan.directory / "files")
        self._ssh = SshServer(Shell(self), plan.node, plan.authorized_key, self._change_power)
        self._database = DatabaseService(plan.database, plan.lifeline) if plan.database else None
        admin_ui = AdminUi(self, plan.deployment, plan.admin_ui_port, plan.admin_ui_file)
        self._services: dict[str, Service] = {"admin-ui": admin_ui}
        if self._database:
            self._services["database"] = self._database
        self._going_down: asyncio.Task[None] | None = None

    @property
    def hostname(self) -> str:
        """The node's name."""
        return self._plan.node

    @property
    def boot_id(self) -> str:
        """A UUID of this boot, or the one that it has been told to claim."""
        return self._claimed_boot_id or self._boot_id

    @property
    def uptime_seconds(self) -> float:
        """Time since this boot."""
        return time.monotonic() - self._booted

    @property
    def files(self) -> NodeFiles:
        """The node's own directory."""
        return self._files

    @property
    def services(self) -> Mapping[str, Service]:
        """Its services by name."""
        return self._services

    async def boot(self) -> None:
        """Start what the node has; it is up when SSH answers, though its services may still be starting."""
        await _pass(self._plan.timings.boot)
        async with asyncio.TaskGroup() as group:
            for name, service in self._services.items():
                group.create_task(_start(name, service))
            await self._ssh.open(self._plan.ssh_port, self._plan.host_key)
            tell(event="ready", boot_id=self._boot_id, pid=os.getpid())

    async def obey(self, command: Command, content: Mapping[str, Any]) -> None:
        """Do what the datacentre asks.

        Args:
            command: What is asked.
            content: What belongs to it.
        """
        match command:
            case Command.PRESS:
                self._shut_down(returns=False)
            case Command.STOP_SERVICES:
                for service in self._services.values():
                    await service.stop()
            case Command.NEW_HOST_KEY:
                self._ssh.present(content["host_key"])
            case Command.CLAIM_BOOT_ID:
                self._claimed_boot_id = content["boot_id"]

    def lose_power(self, *, returns: bool) -> None:
        """End as a crash does: at once. The datacentre ends the node's other processes.

        Args:
            returns: Whether the datacentre boots the node again.
        """
        tell(event="end", returns=returns)
        os.kill(os.getpid(), signal.SIGKILL)

    def lose_datacentre(self) -> None:
        """End with every other process of the node: nobody needs it any more, and nobody would end them."""
        for process in holders_of(self._plan.lifeline):
            if process != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def _change_power(self, change: PowerChange) -> None:
        match change:
            case PowerChange.REBOOT | PowerChange.SHUTDOWN:
                self._shut_down(returns=change is PowerChange.REBOOT)
            case PowerChange.POWER_OFF:
                self.lose_power(returns=False)
            case PowerChange.CRASH:
                loop = asyncio.get_running_loop()
                loop.call_later(self._plan.timings.crash, lambda: self.lose_power(returns=self._plan.sysrq))

    def _shut_down(self, *, returns: bool) -> None:
        if self._going_down is None:
            self._going_down = asyncio.create_task(self._end(returns=returns))

    async def _end(self, *, returns: bool) -> None:
        tell(event="stopping", returns=returns)
        self._ssh.refuse()
        await _pass(self._plan.timings.shutdown)
        for service in self._services.values():
            # A service that cannot be stopped does not keep a machine from shutting down.
            with suppress(Exception):
                await service.stop()
        if self._database:
            with suppress(Exception):
                await self._database.close()
        self._files.sync()
        tell(event="end", returns=returns)
        # What the kernel has taken over, such as the answer to this very command, still reaches its reader.
        os._exit(0)


async def _start(name: str, service: Service) -> None:
    """Start a service at the boot; a machine whose service fails is up all the same."""
    try:
        await service.start()
    except (OSError, UserError) as problem:
        sys.stderr.write(f"testyard.lab.cluster.node: {name} did not start: {problem}\n")


def tell(**content: object) -> None:
    """Say something to the datacentre, which may have gone."""
    with suppress(BrokenPipeError):
        os.write(STANDARD_OUTPUT, json.dumps(content).encode() + b"\n")


async def _pass(seconds: float) -> None:
    """Let the time pass that a real machine would take."""
    if seconds:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), seconds)


async def _said_by_datacentre() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _run() -> None:
    said = await _said_by_datacentre()
    line = await said.readline()
    if not line:
        return
    node = Node(NodePlan.model_validate_json(line))
    async with asyncio.TaskGroup() as group:
        group.create_task(node.boot())
        while line := await said.readline():
            group.create_task(_do(node, json.loads(line)))
        node.lose_datacentre()


async def _do(node: Node, asked: Mapping[str, Any]) -> None:
    try:
        await node.obey(Command(asked["command"]), asked)
    except Exception as problem:  # the datacentre's caller reads it
        tell(id=asked["id"], error=str(problem) or type(problem).__name__)
    else:
        tell(id=asked["id"], error=None)


def main() -> int:
    """Run until the power goes; gives the exit status of a boot that failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    try:
        asyncio.run(_run())
    except* Exception as problems:
        reasons = "; ".join(f"{type(each).__name__}: {each}" for each in problems.exceptions)
        sys.stderr.write(f"testyard.lab.cluster.node: {reasons}\n")
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
