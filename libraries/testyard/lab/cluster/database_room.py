"""The replicated database of a deployment, as the datacentre sees it: its members' beginning and their manager."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError
from testyard.lab.cluster.addresses import PeerAddresses
from testyard.lab.cluster.database.manager import DatabaseManager
from testyard.lab.cluster.database.plan import Accounts, Endpoint, MemberPlan, Software, new_accounts
from testyard.lab.cluster.database.template import Template, find_software
from testyard.lab.cluster.database.timing import Timings
from testyard.lab.cluster.links import MANAGER, Links

READY_WITHIN = timedelta(seconds=30)


class DatabaseSupply:
    """What all databases of a datacentre are copies of: made once, as it takes longer than everything else.

    So all of them have the same accounts, made for this datacentre.

    Args:
        directory: The datacentre's, through which every account may pass.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._making = asyncio.Lock()
        self._made: Template | None = None
        self.accounts: Accounts = new_accounts()
        self.software: Software

    async def template(self) -> Template:
        """The database cluster that members begin with.

        Raises:
            UserError: PostgreSQL is not installed, or its tools failed.
        """
        async with self._making:
            if self._made is None:
                self.software = await asyncio.to_thread(find_software, self._directory)
                template = Template(self._directory / "template", self.software, self.accounts)
                await template.make()
                self._made = template
            return self._made


class DatabaseRoom:
    """The database of one deployment.

    Args:
        supply: What its members are copies of.
        nodes: Where each node's database and agent really are.
        links: What its members and its manager reach each other through.
        timings: How long things may take.
        synchronous: Whether a commit waits for a standby.
    """

    def __init__(
        self,
        supply: DatabaseSupply,
        nodes: Mapping[str, PeerAddresses],
        links: Links,
        timings: Timings,
        *,
        synchronous: bool,
    ) -> None:
        self._supply = supply
        self._nodes = dict(nodes)
        self._links = links
        self._timings = timings
        self._synchronous = synchronous
        self._token = token_hex(16)
        self._manager: DatabaseManager | None = None
        self._managing: asyncio.Task[None] | None = None
        secrets_in_use.add(self._token)

    @property
    def login(self) -> dict[str, str]:
        """How users of the cluster log in."""
        accounts = self._supply.accounts
        return {"user": accounts.user, "password": accounts.password, "name": accounts.database}

    async def fill(self, directories: Mapping[str, Path]) -> dict[str, MemberPlan]:
        """Give each node's disk its copy of the template.

        Args:
            directories: Of each member, not made yet.

        Returns:
            What each member is told when its node boots.
        """
        template = await self._supply.template()
        plans = {
            name: MemberPlan(
                name=name,
                members=tuple(self._nodes),
                directory=directory,
                host=self._nodes[name].database.host,
                port=self._nodes[name].database.port,
                agent_port=self._nodes[name].agent.port,
                token=self._token,
                peers={
                    peer: Endpoint(addresses.database.host, addresses.database.port)
                    for peer, addresses in self._links.from_peer(name).items()
                },
                accounts=self._supply.accounts,
                software=self._supply.software,
                timings=self._timings,
                synchronous=self._synchronous,
            )
            for name, directory in directories.items()
        }
        await asyncio.gather(*(template.copy_to(plan) for plan in plans.values()))
        return plans

    async def start(self) -> None:
        """Begin to manage the members, and wait until they are a cluster.

        Raises:
            LabError: They are not, in time.
        """
        agents = {
            name: Endpoint(addresses.agent.host, addresses.agent.port)
            for name, addresses in self._links.from_peer(MANAGER).items()
        }
        self._manager = DatabaseManager(agents, self._token, self._timings)
        self._managing = asyncio.create_task(self._manager.run())
        try:
            await self._manager.until_ready(READY_WITHIN)
        except TimeoutError:
            message = f"The database was not ready after {READY_WITHIN.total_seconds():.0f} s: {self.status()}"
            raise LabError(message) from None

    def status(self) -> dict[str, Any]:
        """The primary and the members, as the manager knows them."""
        if self._manager is None:
            return {"primary": None, "term": 0, "members": {}}
        health = self._manager.health
        return {
            "primary": health.primary,
            "term": health.term,
            "members": {name: member._asdict() for name, member in health.members.items()},
        }

    async def stop(self) -> None:
        """Manage no more; safe to call again."""
        managing, self._managing = self._managing, None
        if managing is not None:
            managing.cancel()
            with suppress(asyncio.CancelledError):
                await managing
