"""What the local endpoints of the providers' APIs and the lab's machines know of each other.

The lab's cluster implements :class:`Machines`; each endpoint ("double") in this package is a module with

    def create(machines: Machines, account: CloudAccount) -> CloudDouble

which :func:`testyard.lab.clouds.open_double` imports when it is first asked for. The datacentre

1. gives each machine the identifier, region and provider of :func:`instance_identifier` and :data:`REGIONS`,
2. opens one double for a deployment and serves its ``application`` under ``/clouds/<provider>/<deployment>``
   (a Starlette ``Mount``: what is in front stays in the scope's ``root_path``), on the loop of the machines,
3. hands ``settings(base_url)`` to the deployment, ``base_url`` being the mount's address, no slash at its end,
4. switches ``account.expired`` and ``account.delay`` as the tests ask it to, and
5. calls ``close()`` when the deployment is destroyed.

A double shows every machine of its provider, also those of other deployments, as a real account does: keeping to
its own is the duty of the client under test. It does each power action on the real machine and has no power state
of its own: :class:`ShownMachines` shows the machine's, only later by ``account.delay``.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# Where the embedded machines are said to be: a region, or a zone for Google.
REGIONS: Mapping[str, str] = {
    "aws": "eu-central-1",
    "azure": "germanywestcentral",
    "gcp": "europe-west3-a",
    "digitalocean": "fra1",
    "hetzner": "fsn1",
    "libvirt": "local",
}
# Long enough that a client which asks at once sees it; short enough for a suite with many power actions.
DELAY = timedelta(milliseconds=100)
# How often a request that waits for a machine looks at it.
LOOK_SECONDS = 0.02


class MachineState(StrEnum):
    """The power state of a machine; RUNNING when its SSH server answers."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


LASTING = frozenset({MachineState.RUNNING, MachineState.STOPPED})


@dataclass(frozen=True)
class MachineView:
    """A machine as it is at one moment.

    Args:
        deployment: Id of the deployment it belongs to; the value of its tag ``deployment``.
        node: Its name there, such as ``n11``.
        instance_id: What its provider calls it; see :func:`instance_identifier`.
        region: Region or zone.
        state: Power state.
        host: Address its ports are bound to.
        ssh_port: TCP port of its SSH server.
    """

    deployment: str
    node: str
    instance_id: str
    region: str
    state: MachineState
    host: str = "127.0.0.1"
    ssh_port: int = 22


class Machines(Protocol):
    """The machines of the lab, of every deployment. Used on the loop that runs them."""

    def of_provider(self, provider: str) -> list[MachineView]:
        """Every machine of a provider (``aws``, ``azure``...), of every deployment."""

    def view(self, instance_id: str) -> MachineView | None:
        """The machine, or None when there is none of this identifier."""

    async def power_on(self, instance_id: str) -> None:
        """Begin to start a machine that is stopped: STARTING, then RUNNING. Returns at once."""

    async def power_off(self, instance_id: str) -> None:
        """Take the power away: every process of the node is killed; STOPPED when this returns."""

    async def press(self, instance_id: str) -> None:
        """Press the power button: STOPPING, the system shuts itself down, STOPPED. Returns at once."""


def instance_identifier(provider: str, deployment: str, node: str) -> str:
    """What a provider would call this machine: the same each time it is asked.

    Returns:
        ``i-0123456789abcdef0`` at AWS, a number at DigitalOcean and Hetzner, a UUID at libvirt, and a name at
        Azure and GCP, where names identify machines.
    """
    digest = hashlib.sha256(f"{provider}/{deployment}/{node}".encode()).hexdigest()
    match provider:
        case "aws":
            return f"i-{digest[:17]}"
        case "digitalocean" | "hetzner":
            return str(100_000_000 + int(digest[:12], 16) % 900_000_000)
        case "libvirt":
            return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
        case _:
            return f"{node}-{digest[:12]}"


@dataclass
class CloudAccount:
    """The account a deployment has at its provider: credentials made for this lab, good nowhere else.

    Args:
        deployment: Id of the deployment.
        identity: The part of the credentials that is no secret, such as an access key's or a client's id.
        secret: The part that is: a secret key or a bearer token.
        token: A second secret, where the provider has one: AWS's session token.
        expired: Whether the provider refuses these credentials as expired, from now on.
        delay: How long each power action shows its intermediate state, at least; may be changed while it does.
    """

    deployment: str
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    secret: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    expired: bool = False
    delay: timedelta = DELAY


class CloudDouble(Protocol):
    """The local endpoint of one provider's API for one deployment's account."""

    @property
    def application(self) -> ASGIApp | None:
        """Answers the provider's requests; None where the SDK needs no HTTP endpoint."""

    def settings(self, base_url: str) -> dict[str, str]:
        """What makes the provider's SDK talk to this endpoint, by the names of the SDK's environment variables.

        Args:
            base_url: Where the application is mounted, without a slash at its end.
        """

    def close(self) -> None:
        """Release what the double holds. Safe to call again."""


class ShownMachines:
    """The machines of a provider as its API shows them: an action shows its intermediate state for a while.

    Args:
        provider: ``aws``, ``azure``...
        machines: The machines themselves.
        account: Says how long an intermediate state lasts at least.
    """

    def __init__(self, provider: str, machines: Machines, account: CloudAccount) -> None:
        self._provider = provider
        self._machines = machines
        self._account = account
        # Since when (monotonic seconds) a machine is shown in this state whatever it does meanwhile.
        self._holding: dict[str, tuple[MachineState, float]] = {}

    def all(self) -> list[MachineView]:
        """Every machine of the provider, of every deployment."""
        return [self._shown(machine) for machine in self._machines.of_provider(self._provider)]

    def find(self, instance_id: str) -> MachineView | None:
        """The machine, when this provider has it."""
        return next((machine for machine in self.all() if machine.instance_id == instance_id), None)

    async def come_to_rest(self, instance_id: str) -> MachineState | None:
        """Wait until the machine is shown in a state that lasts, which is returned; None when it is deleted."""
        while (machine := self.find(instance_id)) is not None and machine.state not in LASTING:
            await asyncio.sleep(LOOK_SECONDS)
        return machine.state if machine is not None else None

    async def start(self, instance_id: str) -> None:
        """Switch the machine on."""
        self._hold(instance_id, MachineState.STARTING)
        await self._machines.power_on(instance_id)

    async def stop(self, instance_id: str) -> None:
        """Ask the machine's system to shut down."""
        self._hold(instance_id, MachineState.STOPPING)
        await self._machines.press(instance_id)

    async def crash(self, instance_id: str) -> None:
        """Take the machine's power away."""
        self._hold(instance_id, MachineState.STOPPING)
        await self._machines.power_off(instance_id)

    def _hold(self, instance_id: str, state: MachineState) -> None:
        self._holding[instance_id] = state, time.monotonic()

    def _shown(self, machine: MachineView) -> MachineView:
        state, since = self._holding.get(machine.instance_id, (machine.state, -math.inf))
        if time.monotonic() - since < self._account.delay.total_seconds():
            return replace(machine, state=state)
        self._holding.pop(machine.instance_id, None)
        return machine
