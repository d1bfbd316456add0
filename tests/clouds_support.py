"""Machines in memory and a cloud double served over a real socket, for tests with the providers' own SDKs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from testyard.lab.clouds import open_double
from testyard.lab.clouds.machines import (
    REGIONS,
    CloudAccount,
    CloudDouble,
    MachineState,
    MachineView,
    instance_identifier,
)
from testyard.lab.servers.loop_thread import LOOPBACK, LoopThread, loopback_listener

OWN = "d-own"
FOREIGN = "d-foreign"
NODES = ("n11", "n12", "n13")


class ScriptedMachines:
    """Machines that stay in an intermediate state until the test says that they have arrived.

    Attributes:
        actions: What was done, in order: ``("power_off", "n11")``; a foreign machine's node is ``d-foreign/n11``.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._machines: dict[str, MachineView] = {}
        self.actions: list[tuple[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Every machine is there, belongs where it belonged and runs; nothing was done to any."""
        self.actions.clear()
        self._machines.clear()
        for deployment in (OWN, FOREIGN):
            for node in NODES:
                identifier = instance_identifier(self._provider, deployment, node)
                self._machines[identifier] = MachineView(
                    deployment, node, identifier, REGIONS[self._provider], MachineState.RUNNING
                )

    def of_provider(self, provider: str) -> list[MachineView]:
        """See :class:`testyard.lab.clouds.machines.Machines`."""
        return list(self._machines.values()) if provider == self._provider else []

    def view(self, instance_id: str) -> MachineView | None:
        """See :class:`testyard.lab.clouds.machines.Machines`."""
        return self._machines.get(instance_id)

    async def power_on(self, instance_id: str) -> None:
        """See :class:`testyard.lab.clouds.machines.Machines`."""
        self._act("power_on", instance_id, MachineState.STARTING)

    async def power_off(self, instance_id: str) -> None:
        """See :class:`testyard.lab.clouds.machines.Machines`."""
        self._act("power_off", instance_id, MachineState.STOPPED)

    async def press(self, instance_id: str) -> None:
        """See :class:`testyard.lab.clouds.machines.Machines`."""
        self._act("press", instance_id, MachineState.STOPPING)

    def put(self, node: str, state: MachineState, deployment: str = OWN) -> None:
        """Say what state a machine is in from now on."""
        identifier = instance_identifier(self._provider, deployment, node)
        self._machines[identifier] = replace(self._machines[identifier], state=state)

    def relabel(self, node: str, *, deployment: str) -> None:
        """Give a machine of the own deployment to another one; its identifier stays."""
        identifier = instance_identifier(self._provider, OWN, node)
        self._machines[identifier] = replace(self._machines[identifier], deployment=deployment)

    def remove(self, node: str) -> None:
        """Delete a machine of the own deployment."""
        del self._machines[instance_identifier(self._provider, OWN, node)]

    def _act(self, action: str, identifier: str, state: MachineState) -> None:
        machine = self._machines[identifier]
        name = machine.node if machine.deployment == OWN else f"{machine.deployment}/{machine.node}"
        self.actions.append((action, name))
        self._machines[identifier] = replace(machine, state=state)


class ServedCloud(LoopThread):
    """A provider's double on a loopback port, as the datacentre serves it.

    Attributes:
        machines: The machines it shows.
        account: The own deployment's account there.
        port: TCP port it is served on.
        arrived: Method and path (with its query) of each request, below the mount, when it arrives.
        requests: The same with its body, when it is answered.
    """

    def __init__(self, provider: str) -> None:
        super().__init__(f"{provider} double")
        self.machines = ScriptedMachines(provider)
        self.account = CloudAccount(OWN)
        self.arrived: list[str] = []
        self.requests: list[str] = []
        self._path = f"/clouds/{provider}/{OWN}"
        self._provider = provider
        self.port = 0
        self._double: CloudDouble | None = None

    @property
    def base_url(self) -> str:
        """Where the double is mounted."""
        return f"http://{LOOPBACK}:{self.port}{self._path}"

    @property
    def settings(self) -> dict[str, str]:
        """What the SDK needs to talk to it."""
        assert self._double is not None, "start it first"
        return self._double.settings(self.base_url)

    def reset(self) -> None:
        """Let everything be as at the start, and let no state last longer than the machine's own."""
        self.machines.reset()
        self.arrived.clear()
        self.requests.clear()
        self.account.expired = False
        self.account.delay = timedelta()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        listener = loopback_listener()
        self.port = listener.getsockname()[1]
        double = self._double = open_double(self._provider, self.machines, self.account)
        application = double.application
        assert application is not None, "this double has no endpoint"

        async def note_and_answer(scope, receive, send) -> None:
            query = scope["query_string"].decode()
            path = scope["path"].removeprefix(self._path)
            request = f"{scope['method']} {path}" + (f"?{query}" if query else "")
            self.arrived.append(request)
            body = b""

            async def receive_and_note():
                nonlocal body
                message = await receive()
                body += message.get("body", b"")
                return message

            async def note_and_send(message) -> None:
                # Before the client has its answer and may look at what was noted.
                if message["type"] == "http.response.start":
                    self.requests.append(f"{request} {body.decode()}".rstrip())
                await send(message)

            await application(scope, receive_and_note, note_and_send)

        config = uvicorn.Config(
            Starlette(routes=[Mount(self._path, note_and_answer)]),
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(server.serve, sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True
        double.close()
