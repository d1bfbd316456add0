"""libvirt for ``libvirt-python``: a private libvirtd whose test driver's domains are the lab's machines.

The machines and their domains are looked at every few milliseconds and kept alike; see
:mod:`testyard.lab.clouds.libvirt_domains`. Clients need no credential that could expire: the daemon's socket can
be reached by this account only. Where libvirt-python or libvirtd is missing, the machines run all the same, and
the settings have the reason instead of an address.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from testyard.core.errors import UserError
from testyard.lab.children import LabError
from testyard.lab.clouds.libvirt_domains import START_TIMEOUT, LibvirtDomains, missing_part
from testyard.lab.clouds.machines import CloudAccount, CloudDouble, Machines, MachineState, MachineView

PROVIDER = "libvirt"
URI = "LIBVIRT_DEFAULT_URI"
UNAVAILABLE = "TESTYARD_LIBVIRT_UNAVAILABLE"
LOOK_SECONDS = 0.02

_log = logging.getLogger(__name__)


class LibvirtDouble:
    """libvirt of the lab, for one deployment. Made on the loop of the machines.

    Args:
        machines: The lab's machines.
        account: Says how long a domain runs at least after it was asked to shut down.
    """

    application = None

    def __init__(self, machines: Machines, account: CloudAccount) -> None:
        self._machines = machines
        self._account = account
        self._unavailable = missing_part()
        self._loop = asyncio.get_running_loop()
        self._calls: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        # Whether a domain is on, as far as is known here; None when it is not known.
        self._on: dict[str, bool | None] = {}
        # Machines that are switched on again as soon as they are off.
        self._restarting: set[str] = set()
        # When (loop time) a domain was asked to shut down.
        self._asked: dict[str, float] = {}
        self._domains = LibvirtDomains(self._called)
        # libvirt's calls block: they are made in this one thread.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="libvirt")
        self._opened: Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        if not self._unavailable:
            self._opened = self._thread.submit(self._domains.open)
            self._task = self._loop.create_task(self._serve(self._opened))
            self._task.add_done_callback(_say_why_it_ended)

    def settings(self, base_url: str) -> dict[str, str]:
        """The address that libvirt-python opens, once each machine has its domain; else why there is none.

        See :class:`testyard.lab.clouds.machines.CloudDouble`.
        """
        if self._opened is not None and not self._unavailable:
            machines = self._machines.of_provider(PROVIDER)
            try:
                self._opened.result(START_TIMEOUT.total_seconds())
                self._thread.submit(self._domains.define, machines).result(START_TIMEOUT.total_seconds())
            except (LabError, TimeoutError) as problem:
                self._unavailable = str(problem) or "The lab's libvirtd did not start in time."
        return {UNAVAILABLE: self._unavailable} if self._unavailable else {URI: self._domains.uri}

    def close(self) -> None:
        """End the daemon; safe to call again."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            # In its thread, so that a daemon that is just starting is ended too.
            self._thread.submit(self._domains.close).result()
        self._thread.shutdown()

    async def _serve(self, opened: Future[None]) -> None:
        await asyncio.shield(asyncio.wrap_future(opened))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mirror())
            tasks.create_task(self._obey())

    async def _mirror(self) -> None:
        """Have each domain on while its machine is, and off while that is off."""
        while True:
            machines = self._machines.of_provider(PROVIDER)
            identifiers = {machine.instance_id for machine in machines}
            if identifiers != self._on.keys():
                await self._in_thread(partial(self._domains.define, machines))
                self._on = {uuid: self._on.get(uuid) for uuid in identifiers}
            for machine in machines:
                await self._follow(machine)
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self, machine: MachineView) -> None:
        uuid, on = machine.instance_id, machine.state is not MachineState.STOPPED
        if self._on[uuid] is on:
            return
        if not on and uuid in self._restarting:
            self._restarting.discard(uuid)
            await self._machines.power_on(uuid)
            return
        asked = self._asked.get(uuid, -math.inf)
        if not on and self._loop.time() - asked < self._account.delay.total_seconds():
            return
        await self._in_thread(partial(self._domains.switch, uuid, on=on))
        self._on[uuid] = on

    async def _obey(self) -> None:
        """Do to the machines what clients do to their domains."""
        while True:
            call, uuid = await self._calls.get()
            # A call on a domain that is no machine, or one that libvirt refuses.
            if self._machines.view(uuid) is None or self._on.get(uuid) is (call == "Create"):
                continue
            if call == "Shutdown":
                self._asked[uuid] = self._loop.time()
            try:
                await self._act_of(call)(uuid)
            except UserError as problem:
                _log.warning("virDomain%s was not done to machine %s: %s", call, uuid, problem)
            self._note_restart(call, uuid)
            if call in {"Create", "Destroy"}:
                # The domain is so already, also when its machine has been switched again meanwhile.
                self._on[uuid] = call == "Create"

    def _note_restart(self, call: str, uuid: str) -> None:
        machine = self._machines.view(uuid)
        # One that runs on has not noticed its power button, and must not start again after a later shutdown.
        goes_down = machine is not None and machine.state in {MachineState.STOPPING, MachineState.STOPPED}
        if call in {"Reboot", "Reset"} and goes_down:
            self._restarting.add(uuid)
        else:
            self._restarting.discard(uuid)

    def _act_of(self, call: str) -> Callable[[str], Awaitable[None]]:
        match call:
            case "Create":
                return self._machines.power_on
            case "Destroy" | "Reset":
                return self._machines.power_off
            case _:
                return self._machines.press

    async def _in_thread(self, act: Callable[[], None]) -> None:
        await self._loop.run_in_executor(self._thread, act)

    def _called(self, call: str, uuid: str) -> None:
        self._loop.call_soon_threadsafe(self._calls.put_nowait, (call, uuid))


def create(machines: Machines, account: CloudAccount) -> CloudDouble:
    """The double of this provider; see :mod:`testyard.lab.clouds.machines`."""
    return LibvirtDouble(machines, account)


def _say_why_it_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        _log.error("The lab's libvirt no longer follows its machines: %s", problem)
