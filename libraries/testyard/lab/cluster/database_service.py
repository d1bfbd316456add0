"""The service ``database`` of a node: the agent of the replicated database, as the node's shell knows services."""

from __future__ import annotations

import asyncio
from typing import Final

from testyard.lab.cluster.database.agent import Agent
from testyard.lab.cluster.database.plan import MemberPlan, Role
from testyard.lab.cluster.shell import ServiceState

_STATES: Final = {
    Role.STOPPED: ServiceState.INACTIVE,
    Role.STARTING: ServiceState.ACTIVATING,
    Role.STANDBY: ServiceState.ACTIVE,
    Role.PRIMARY: ServiceState.ACTIVE,
    Role.REJOINING: ServiceState.ACTIVATING,
}


class DatabaseService:
    """The service.

    Args:
        plan: What the member of the database knows.
        lifeline: The descriptor that every process of the node holds open.
    """

    def __init__(self, plan: MemberPlan, lifeline: int) -> None:
        self._agent = Agent(plan, inherited=(lifeline,))
        self._is_open = False
        # One change after the other: somebody may ask for one while the machine boots.
        self._changing = asyncio.Lock()
        # What it is while PostgreSQL does not run.
        self._rest = ServiceState.INACTIVE

    @property
    def state(self) -> ServiceState:
        """Whether it runs."""
        state = _STATES[self._agent.role]
        return self._rest if state is ServiceState.INACTIVE else state

    async def start(self) -> None:
        """Start it, at a boot its agent too; nothing when it runs.

        Raises:
            UserError: PostgreSQL did not start.
            OSError: The agent's port is taken.
        """
        async with self._changing:
            self._rest = ServiceState.ACTIVATING
            try:
                if not self._is_open:
                    await self._agent.open()
                    self._is_open = True
                await self._agent.start()
            except BaseException:
                self._rest = ServiceState.FAILED
                raise
            self._rest = ServiceState.INACTIVE

    async def stop(self) -> None:
        """Stop it in an orderly way; its agent still answers. Nothing when it does not run."""
        async with self._changing:
            await self._agent.stop()
            self._rest = ServiceState.INACTIVE

    async def close(self) -> None:
        """Stop it and its agent: the machine shuts down."""
        await self._agent.close()
