"""One deployment: its machines, the links between them, its database and its account at a provider."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.lab.clouds import MODULES, open_double
from testyard.lab.clouds.machines import (
    REGIONS,
    CloudAccount,
    CloudDouble,
    Machines,
    MachineView,
    instance_identifier,
)
from testyard.lab.cluster.addresses import Address, PeerAddresses
from testyard.lab.cluster.keys import Certificate, HostKey
from testyard.lab.cluster.links import Links
from testyard.lab.cluster.machines import Forks, Machine
from testyard.lab.cluster.plan import HOST, USER, Command, NodePlan, Timings

if TYPE_CHECKING:
    from testyard.lab.cluster.database.plan import MemberPlan
    from testyard.lab.cluster.database_room import DatabaseRoom, DatabaseSupply


@dataclass(frozen=True)
class Wish:
    """What a deployment shall be.

    Args:
        identifier: Its id.
        provider: Whose machines it has.
        nodes: Their names.
        database: Whether they have a database.
        sysrq: Whether their kernels obey SysRq.
        synchronous: Whether a commit waits for a standby; without, a cluster loses writes, to test tests.
        authorized_key: The public key that may log in.
        timings: How long things take.
    """

    identifier: str
    provider: str
    nodes: tuple[str, ...]
    database: bool
    sysrq: bool
    synchronous: bool
    authorized_key: str
    timings: Timings


class Ports:
    """The TCP ports of a node, which are its own from its creation on, also while it is off.

    A socket that is bound and never listens keeps a port: who connects to it is refused, and nobody else gets it.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        try:
            self.ssh, self.admin_ui, self.database, self.agent = (self._reserve() for _ in range(4))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Give the ports back."""
        for each in self._sockets:
            each.close()

    def _reserve(self) -> int:
        reserved = socket.socket(proto=socket.IPPROTO_TCP)
        self._sockets.append(reserved)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((HOST, 0))
        port: int = reserved.getsockname()[1]
        return port


class Node:
    """What the datacentre knows of one node.

    Args:
        name: Its name.
        wish: What its deployment shall be.
        directory: Its disk.
        plan: What its process is told at a boot, given the descriptor of its lifeline.
        forks: Starts its processes.
    """

    def __init__(
        self, name: str, wish: Wish, directory: Path, plan: Callable[[Node, int], NodePlan], forks: Forks
    ) -> None:
        self.name = name
        self.directory = directory
        self.instance_id = instance_identifier(wish.provider, wish.identifier, name)
        self.region = REGIONS[wish.provider]
        self.ports = Ports()
        self.first_host_key = self.host_key = HostKey.new()
        self.machine = Machine(name, partial(plan, self), forks, directory.with_suffix(".log"))

    @property
    def addresses(self) -> PeerAddresses:
        """Where its database and its agent really are."""
        return PeerAddresses(Address(HOST, self.ports.database), Address(HOST, self.ports.agent))


class Deployment:
    """One deployment, from its creation to its end.

    Args:
        wish: What it shall be.
        directory: A directory of its own, which exists.
        forks: Starts the machines' processes.
        supply: What its database is a copy of; None for a deployment without one.
    """

    def __init__(self, wish: Wish, directory: Path, forks: Forks, supply: DatabaseSupply | None) -> None:
        self.wish = wish
        self.account = CloudAccount(wish.identifier)
        self._directory = directory
        self._forks = forks
        self._certificate = Certificate.new(wish.identifier, HOST, list(wish.nodes))
        self._pem = directory / "admin_ui.pem"
        self._double: CloudDouble | None = None
        self._supply = supply
        self._room: DatabaseRoom | None = None
        self._members: dict[str, MemberPlan] = {}
        self.nodes: dict[str, Node] = {}
        self.links = Links({})
        secrets_in_use.add(self.account.secret)

    @property
    def double(self) -> CloudDouble | None:
        """The local endpoint of its provider."""
        return self._double

    async def create(self, machines: Machines, url: str) -> dict[str, Any]:
        """Make everything, switch the machines on, and wait until the database is ready.

        Args:
            machines: The lab's machines, for the provider's endpoint.
            url: Where the datacentre is.

        Returns:
            What the deployment's owner needs to know, see ``control_api``.

        Raises:
            UserError: Something cannot be made or does not start; nothing is left.
        """
        try:
            await self._create(machines)
        except BaseException:
            await self.destroy()
            raise
        assert self._double is not None
        return {
            "nodes": {
                name: {
                    "host": HOST,
                    "ssh_port": node.ports.ssh,
                    "admin_ui_port": node.ports.admin_ui,
                    "database_port": node.ports.database,
                    "instance_id": node.instance_id,
                    "region": node.region,
                    "user": USER,
                    "host_key": node.host_key.public,
                }
                for name, node in self.nodes.items()
            },
            "cloud": self._double.settings(f"{url}/clouds/{self.wish.provider}/{self.wish.identifier}"),
            "database": self._room.login if self._room else None,
            "admin_ui_certificate": self._certificate.certificate,
        }

    async def _create(self, machines: Machines) -> None:
        wish = self.wish
        self._pem.touch(mode=0o600)
        self._pem.write_text(self._certificate.key + self._certificate.certificate, encoding="ascii")
        for name in wish.nodes:
            directory = self._directory / name
            # Others may pass through: PostgreSQL does not run as root.
            directory.mkdir(mode=0o711)
            self.nodes[name] = Node(name, wish, directory, self._plan, self._forks)
        self.links = Links({name: node.addresses for name, node in self.nodes.items()})
        self.links.start()
        if self._supply:
            await self._fill_disks(self._supply)
        for node in self.nodes.values():
            node.machine.power_on()
        await asyncio.gather(
            # In a thread: some doubles take a second to import.
            asyncio.to_thread(import_module, MODULES[wish.provider]),
            *(node.machine.until_running() for node in self.nodes.values()),
        )
        self._double = open_double(wish.provider, machines, self.account)
        if self._room:
            await self._room.start()

    async def _fill_disks(self, supply: DatabaseSupply) -> None:
        # Here, as a deployment without a database does not need it.
        from testyard.lab.cluster.database_room import DatabaseRoom

        addresses = {name: node.addresses for name, node in self.nodes.items()}
        timings, synchronous = self.wish.timings.database, self.wish.synchronous
        self._room = DatabaseRoom(supply, addresses, self.links, timings, synchronous=synchronous)
        self._members = await self._room.fill(
            {name: node.directory / "database" for name, node in self.nodes.items()}
        )

    def _plan(self, node: Node, lifeline: int) -> NodePlan:
        wish = self.wish
        return NodePlan(
            deployment=wish.identifier,
            node=node.name,
            directory=node.directory,
            ssh_port=node.ports.ssh,
            admin_ui_port=node.ports.admin_ui,
            host_key=node.host_key.private,
            authorized_key=wish.authorized_key,
            admin_ui_file=self._pem,
            sysrq=wish.sysrq,
            lifeline=lifeline,
            timings=wish.timings,
            database=self._members.get(node.name),
        )

    def node(self, name: str) -> Node:
        """The node of a name.

        Raises:
            UserError: There is none.
        """
        if name not in self.nodes:
            message = f"There is no node {name!r} in {self.wish.identifier}; there are {', '.join(self.nodes)}."
            raise UserError(message)
        return self.nodes[name]

    async def renew_host_key(self, name: str) -> str:
        """Have a node show another host key from now on; gives the public one."""
        return await self._show_host_key(self.node(name), HostKey.new())

    async def restore_host_key(self, name: str) -> str:
        """Have a node show the host key again that it was deployed with; gives the public one."""
        node = self.node(name)
        return await self._show_host_key(node, node.first_host_key)

    @staticmethod
    async def _show_host_key(node: Node, key: HostKey) -> str:
        node.host_key = key
        if node.machine.boot_id:
            await node.machine.ask(Command.NEW_HOST_KEY, host_key=key.private)
        return key.public

    async def claim_boot_id(self, name: str, boot_id: str | None) -> None:
        """Have a node tell a boot id that is not its own, until it boots; None: its own again."""
        node = self.node(name)
        if node.machine.boot_id:
            await node.machine.ask(Command.CLAIM_BOOT_ID, boot_id=boot_id)

    def views(self) -> list[MachineView]:
        """Its machines as they are now."""
        return [
            MachineView(
                self.wish.identifier,
                node.name,
                node.instance_id,
                node.region,
                node.machine.state,
                HOST,
                node.ports.ssh,
            )
            for node in self.nodes.values()
        ]

    def state(self) -> dict[str, Any]:
        """What is to be seen of it now."""
        return {
            "id": self.wish.identifier,
            "provider": self.wish.provider,
            "nodes": {
                name: {
                    "state": node.machine.state.value,
                    "boot_id": node.machine.boot_id,
                    "pid": node.machine.pid,
                }
                for name, node in self.nodes.items()
            },
            "database": self._room.status() if self._room else None,
            "links": self.link_states(),
        }

    def link_states(self) -> list[dict[str, Any]]:
        """Each direction of each link."""
        return [
            {
                "from": link.source,
                "to": link.target,
                "silent": link.silent,
                "database_port": link.addresses.database.port if link.addresses else None,
                "agent_port": link.addresses.agent.port if link.addresses else None,
            }
            for link in self.links.states()
        ]

    async def destroy(self) -> None:
        """Switch everything off and remove it; safe to call again."""
        if self._double:
            self._double.close()
        if self._room:
            await self._room.stop()
        await asyncio.gather(*(node.machine.power_off() for node in self.nodes.values()))
        self.links.stop()
        for node in self.nodes.values():
            node.ports.close()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
