"""Asks the nodes themselves, all at once: over SSH, HTTPS and the database's protocol.

Nothing is believed without proof: SSH counts when the node's key is the known one, our key logs in and the node
gives its boot id; the admin UI when its certificate is the deployment's and it answers a request; the database
when the deployment's user logs in and reads.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import asyncssh

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import UserError
from testyard.lab.cluster.deployer.files import (
    ADMIN_UI_CERTIFICATE,
    KNOWN_HOSTS,
    PRIVATE_KEY,
    DatabaseLogin,
    Node,
)
from testyard.lab.cluster.deployer.health import HostMeasurement

BOOT_ID: Final = "cat /proc/sys/kernel/random/boot_id"
IS_ACTIVE: Final = "systemctl is-active {service}"
SHUT_DOWN: Final = "sudo shutdown -h now"
DATABASE_SERVICE: Final = "database"
ADMIN_UI_SERVICE: Final = "admin-ui"
OWN_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_LOOK_AGAIN_AFTER: Final = timedelta(milliseconds=100)


class _NobodyThereError(Exception):
    """Nobody listens at a node's SSH port."""


class _SshProblem(NamedTuple):
    """Why a node cannot be used over SSH, and whether somebody answers there nevertheless."""

    reason: str
    answers: bool


# What a node that is off, starting or ending may make of a connection.
_SSH_PROBLEMS: Final = (_NobodyThereError, OSError, asyncssh.Error, ValueError, EOFError)


class Nodes:
    """The nodes of one deployment.

    Args:
        directory: The deployment's, with the keys and certificates.
        nodes: From its inventory.
        login: For the database; None when the deployment has none.
        within: What one check of one node may take.
    """

    def __init__(
        self, directory: Path, nodes: Sequence[Node], login: DatabaseLogin | None, within: timedelta
    ) -> None:
        self._directory = directory
        self._nodes = nodes
        self._login = login
        self._within = within
        self._services = (DATABASE_SERVICE, ADMIN_UI_SERVICE) if login else (ADMIN_UI_SERVICE,)

    async def measure(self) -> dict[str, HostMeasurement]:
        """What is to be seen of each node now, by its name."""
        certificates = self._certificates()
        async with asyncio.TaskGroup() as group:
            running = {
                node.name: group.create_task(self._measure_node(node, certificates)) for node in self._nodes
            }
        return {name: task.result() for name, task in running.items()}

    async def shut_down(self, deadline: Deadline) -> None:
        """Have every node that answers shut itself down, and wait until none answers over SSH.

        Args:
            deadline: Give up after this.

        Raises:
            UserError: A node is the computer that this runs on, or some still answer when the time is up.
        """
        own = await asyncio.to_thread(_own_boot_id)
        async with asyncio.TaskGroup() as group:
            boots = {node.name: group.create_task(self._boot_id(node)) for node in self._nodes}
        up = [node for node in self._nodes if _answers(boots[node.name].result())]
        for node in up:
            boot = boots[node.name].result()
            if isinstance(boot, _SshProblem):
                message = f"{node.name} answers over SSH, but cannot be shut down: {boot.reason}"
                raise UserError(message)
            if boot == own:
                message = f"{node.name} is this computer (the boot id is the same): it is not shut down"
                raise UserError(message)
        async with asyncio.TaskGroup() as group:
            for node in up:
                group.create_task(self._ask_to_shut_down(node))
        await self._wait_until_dead(up, deadline)

    async def _wait_until_dead(self, nodes: Sequence[Node], deadline: Deadline) -> None:
        answering = list(nodes)
        while answering:
            async with asyncio.TaskGroup() as group:
                boots = [group.create_task(self._boot_id(node)) for node in answering]
            answering = [node for node, boot in zip(answering, boots, strict=True) if _answers(boot.result())]
            if not answering:
                return
            if deadline.expired:
                names = ", ".join(node.name for node in answering)
                message = f"{names} still answered over SSH {seconds(deadline.elapsed)} after the shutdown"
                raise UserError(message)
            await asyncio.to_thread(deadline.pause, _LOOK_AGAIN_AFTER)

    async def _ask_to_shut_down(self, node: Node) -> None:
        try:
            async with asyncio.timeout(self._within.total_seconds()), self._connect(node) as connection:
                await connection.run(SHUT_DOWN)
        except _SSH_PROBLEMS:
            # A node may be gone before it has answered; whether it went is looked at afterwards.
            return

    async def _boot_id(self, node: Node) -> UUID | _SshProblem:
        """A node's boot id, or why it does not give it."""
        try:
            await self._knock(node)
            async with asyncio.timeout(self._within.total_seconds()), self._connect(node) as connection:
                return await _read_boot_id(connection)
        except _SSH_PROBLEMS as problem:
            return self._ssh_problem(problem)

    async def _measure_node(self, node: Node, certificates: ssl.SSLContext) -> HostMeasurement:
        async with asyncio.TaskGroup() as group:
            over_ssh = group.create_task(self._look_inside(node))
            admin_ui = group.create_task(self._problem(self._ask_admin_ui(node, certificates)))
            database = group.create_task(self._ask_database(node, self._login)) if self._login else None
        problem, services = over_ssh.result()
        no_answer, takes_writes = database.result() if database else ("", False)
        return HostMeasurement(
            ssh=problem.reason if problem else "",
            ssh_is_dead=problem is not None and not problem.answers,
            admin_ui=admin_ui.result(),
            database=no_answer,
            services=services,
            takes_writes=takes_writes,
        )

    async def _look_inside(self, node: Node) -> tuple[_SshProblem | None, Mapping[str, str]]:
        """Why a node cannot be used over SSH, and the state of its services."""
        try:
            await self._knock(node)
            async with asyncio.timeout(self._within.total_seconds()), self._connect(node) as connection:
                await _read_boot_id(connection)
                async with asyncio.TaskGroup() as group:
                    asked = {
                        service: group.create_task(connection.run(IS_ACTIVE.format(service=service)))
                        for service in self._services
                    }
                return None, {
                    service: str(task.result().stdout).strip() or "unknown" for service, task in asked.items()
                }
        except BaseExceptionGroup as problems:
            _, others = problems.split(_SSH_PROBLEMS)
            if others:
                raise
            return self._ssh_problem(problems.exceptions[0]), {}
        except _SSH_PROBLEMS as problem:
            return self._ssh_problem(problem), {}

    def _ssh_problem(self, problem: BaseException) -> _SshProblem:
        match problem:
            case _NobodyThereError() | asyncssh.ConnectionLost():
                # A connection that is lost in its beginning is the last that is heard of a node that goes down.
                answers = False
            case TimeoutError() | asyncssh.Error() | ValueError():
                answers = True
            case _:
                answers = False
        return _SshProblem(_reason(problem, self._within), answers)

    async def _knock(self, node: Node) -> None:
        """See whether anybody listens at all: who does and then is slow, or refuses us, is not off.

        Raises:
            _NobodyThereError: Nobody does.
        """
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                _, writer = await asyncio.open_connection(node.host, node.ssh_port)
            writer.transport.abort()
        except OSError as problem:
            raise _NobodyThereError(_reason(problem, self._within)) from None

    async def _problem(self, check: Awaitable[None]) -> str:
        """Why a check fails; empty when it does not."""
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                await check
        except (OSError, TimeoutError, ValueError, EOFError) as problem:
            return _reason(problem, self._within)
        return ""

    async def _ask_admin_ui(self, node: Node, certificates: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection(node.host, node.admin_ui_port, ssl=certificates)
        try:
            writer.write(f"GET / HTTP/1.1\r\nHost: {node.host}\r\nConnection: close\r\n\r\n".encode())
            status_line = (await reader.readline()).decode(errors="replace").split(maxsplit=2)
            if len(status_line) < 2 or not status_line[0].startswith("HTTP/1."):
                raise ValueError("it does not answer a request")
            if not status_line[1].startswith(("2", "3")):
                message = f"it answers {' '.join(status_line[1:]).strip()}"
                raise ValueError(message)
        finally:
            writer.transport.abort()

    async def _ask_database(self, node: Node, login: DatabaseLogin) -> tuple[str, bool]:
        """Why a node's database does not answer, and whether it takes writes."""
        takes_writes = False

        async def ask() -> None:
            nonlocal takes_writes
            _, writer = await asyncio.open_connection(node.host, node.database_port)
            writer.transport.abort()
            # Only now: importing it takes as long as everything else, and a node that is off needs none of it.
            takes_writes = await _database_takes_writes(node, login)

        return await self._problem(ask()), takes_writes

    def _connect(self, node: Node) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        return asyncssh.connect(
            node.host,
            node.ssh_port,
            username=node.user,
            client_keys=[str(self._directory / PRIVATE_KEY)],
            known_hosts=str(self._directory / KNOWN_HOSTS),
            agent_path=None,
            config=None,
        )

    def _certificates(self) -> ssl.SSLContext:
        path = self._directory / ADMIN_UI_CERTIFICATE
        try:
            return ssl.create_default_context(cafile=str(path))
        except (OSError, ssl.SSLError) as problem:
            message = f"{path} is no certificate: {problem}"
            raise UserError(message) from None


async def _database_takes_writes(node: Node, login: DatabaseLogin) -> bool:
    import psycopg

    try:
        async with await psycopg.AsyncConnection.connect(
            host=node.host,
            port=node.database_port,
            user=login.user,
            password=login.password,
            dbname=login.name,
            autocommit=True,
        ) as connection:
            cursor = await connection.execute("SHOW transaction_read_only")
            row = await cursor.fetchone()
    except psycopg.Error as problem:
        raise ValueError(" ".join(str(problem).split())) from None
    return row == ("off",)


async def _read_boot_id(connection: asyncssh.SSHClientConnection) -> UUID:
    answer = await connection.run(BOOT_ID)
    try:
        return UUID(str(answer.stdout).strip())
    except ValueError:
        message = f"it gives no boot id: {str(answer.stdout or answer.stderr).strip()!r}"
        raise ValueError(message) from None


def _answers(boot: UUID | _SshProblem) -> bool:
    return not isinstance(boot, _SshProblem) or boot.answers


def _own_boot_id() -> UUID | None:
    """The boot id of this computer; None where the system has none."""
    try:
        return UUID(OWN_BOOT_ID.read_text(encoding="ascii").strip())
    except OSError:
        return None


def _reason(problem: BaseException, within: timedelta) -> str:
    match problem:
        case TimeoutError():
            return f"no answer within {seconds(within)}"
        case asyncssh.HostKeyNotVerifiable():
            return f"its host key is not the one in {KNOWN_HOSTS}"
        case asyncssh.PermissionDenied():
            return f"it does not accept the key {PRIVATE_KEY}"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not signed by {ADMIN_UI_CERTIFICATE}: {problem.verify_message}"
        case OSError() if problem.errno:
            return os.strerror(problem.errno)
    return " ".join(str(problem).split()) or type(problem).__name__
