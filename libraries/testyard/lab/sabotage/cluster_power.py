"""Defects of power control (FLOW-S4 to S9, M1 to M30, V6 to V8), put in place in Robot Framework's process.

Most of them report what was asked for and do something else: what is believed without proof.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from testyard.lab.sabotage.defect import Defect, defect, wrap

# Longer than the next look at a node takes.
STOPPING_SECONDS = 1


def cells(row: int, rows: Iterable[int] = range(6)) -> tuple[str, ...]:
    """A row of the provider matrix: 1 cluster, 2 node, 3 crash by SSH, 4 crash by API, 5 reboot.

    Args:
        row: Which.
        rows: The providers, in the matrix' order from 0: AWS, Azure, GCP, DigitalOcean, Hetzner, libvirt.
    """
    return tuple(f"FLOW-M{5 * provider + row}" for provider in rows)


CLOUDS, MANUAL = range(3), range(3, 6)


# Crashes.


@defect("crash-does-nothing", "a crash by SSH does nothing and is reported", "FLOW-S9", *cells(3))
def crash_does_nothing() -> None:
    from testyard.power.attempt import Attempt
    from testyard.power.results import Outcome

    wrap(Attempt, "_crash", lambda _, self: (Outcome.CAME_BACK, self._look(), "Crashed and came back."))


@defect("crash-is-a-reboot", "a crash by SSH is an orderly reboot", "FLOW-S9", *cells(3))
def crash_is_a_reboot() -> None:
    from testyard.power import attempt
    from testyard.power.shell import REBOOT

    setattr(attempt, "CRASH", REBOOT)  # noqa: B010 to its readers it is a constant


@defect("crash-is-a-stop", "a crash by the provider's API is an orderly stop", *cells(4, CLOUDS), "FLOW-F5")
def crash_is_a_stop() -> None:
    from testyard.power.readings import Api

    wrap(Api, "crash", lambda _, self, instance: Api.stop(self, instance))


@defect("stays-down-unseen", "a node that stayed down is said to have come back", "FLOW-S9")
def stays_down_unseen() -> None:
    from testyard.power.attempt import Attempt
    from testyard.power.results import Outcome

    wrap(Attempt, "_crash", lambda original, self: (Outcome.CAME_BACK, *original(self)[1:]))


# Restarts and stops.


@defect("reboot-unproven", "a reboot is reported though the boot id is unchanged", "FLOW-S8", *cells(5))
def reboot_unproven() -> None:
    from testyard.power.attempt import Attempt
    from testyard.power.results import Outcome

    wrap(Attempt, "_reboot", lambda _, self: (Outcome.CAME_BACK, self._look(), "It has booted."))


@defect(
    "power-cycle-is-a-reboot",
    "a graceful restart is a reboot by SSH: the node is never off",
    *("FLOW-S8", *cells(2, CLOUDS), "FLOW-F5"),
)
def power_cycle_is_a_reboot() -> None:
    from testyard.power.attempt import Attempt

    wrap(Attempt, "_stop_and_start", lambda _, self: self._reboot())


@defect(
    "stop-not-awaited",
    "at Azure stop_node is over when the node has begun to stop",
    *("FLOW-S6", "FLOW-S7", "FLOW-M7", "FLOW-E2"),
)
def stop_not_awaited() -> None:
    from testyard.power.attempt import Attempt
    from testyard.power.protocol import ProviderName
    from testyard.power.results import Outcome
    from testyard.power.transitions import Operation

    def stop(original: Any, self: Any, act: Any) -> Any:
        if (self._row.operation, self._row.provider) != (Operation.STOP_NODE, ProviderName.AZURE):
            return original(self, act)
        _let_machines_stop_slowly(self._circumstances.deployment.identifier)
        act()
        return Outcome.STOPPED, self._look(), "It was told to stop."

    wrap(Attempt, "_stop", stop)


def _let_machines_stop_slowly(deployment: str) -> None:
    from testyard.core.json_client import JsonClient
    from testyard.lab.supervisor.clusters import ADDRESS_VARIABLE, TOKEN_VARIABLE

    token = os.environ[TOKEN_VARIABLE]
    client = JsonClient(
        os.environ[ADDRESS_VARIABLE],
        headers={"Authorization": f"Bearer {token}"},
        secret=token,
        name="the datacentre of the lab",
    )
    try:
        client.post(f"/deployments/{deployment}/cloud", {"delay": STOPPING_SECONDS})
    finally:
        client.close()


# Of two, as a larger cluster is one with a database here: half stopped, it would take every later test with it.
@defect("stop-leaves-a-node", "stop_cluster leaves the first of two nodes running", *cells(1))
def stop_leaves_a_node() -> None:
    from testyard.power.engine import PowerControl
    from testyard.power.transitions import Operation

    def attempts(original: Any, self: Any, row: Any, nodes: Any) -> Any:
        leaves = row.operation is Operation.STOP_CLUSTER and len(nodes) == 2
        return original(self, row, nodes[1:] if leaves else nodes)

    wrap(PowerControl, "_attempts", attempts)


@defect("boots-untold", "the result of a stop does not say which boot it ended", "FLOW-E1")
def boots_untold() -> None:
    from testyard.power.results import PowerResult
    from testyard.power.transitions import Operation

    def as_json(original: Any, self: Any) -> dict[str, Any]:
        told: dict[str, Any] = original(self)
        return {**told, "boot_id_before": None} if self.operation is Operation.STOP_CLUSTER else told

    wrap(PowerResult, "as_json", as_json)


# Whose machine.


@defect(
    "azure-crashes-another",
    "at Azure the power of the deployment's first machine is taken, whichever is meant",
    # The machine that was hit is no fault of anybody, so that nobody starts it again before the next cell.
    *("FLOW-M9", "FLOW-M10"),
)
def azure_crashes_another() -> None:
    from testyard.power.providers.azure import AzureProvider

    wrap(AzureProvider, "crash", lambda original, self, _: original(self, self.instances()[0]))


@defect("hetzner-stops-another", "at Hetzner the first machine is stopped, whichever is meant", "FLOW-F5")
def hetzner_stops_another() -> None:
    from testyard.power.providers.hetzner import HetznerProvider

    wrap(HetznerProvider, "stop", lambda original, self, _: original(self, self.instances()[0]))


@defect("unknown-node-is-the-first", "a step for an unknown node is done to the first one", "FLOW-V8")
def unknown_node_is_the_first() -> None:
    from testyard.power.deployment import Deployment

    wrap(Deployment, "node", lambda original, self, name: original(self, name if name in self.names else "n11"))


# Refusals.


@defect(
    "refusal-swallowed",
    "what the table refuses is not done, and reported as done",
    *(*cells(2, MANUAL), *cells(4, MANUAL)),
)
def refusal_swallowed() -> None:
    from testyard.power.engine import PowerControl
    from testyard.power.results import Outcome, PowerResult

    def do(original: Any, self: Any, operation: Any, node: str) -> Any:
        try:
            return original(self, operation, node)
        except NotImplementedError:
            provider = self.deployment.provider
            return PowerResult(
                provider, operation, node, "", Outcome.UNCHANGED, (), None, None, "Nothing to do.", timedelta()
            )

    wrap(PowerControl, "do", do)


@defect(
    "guard-removed",
    "the machine that runs the tests is no more protected than any other",
    # V7 still sees that the machine of V6 has booted.
    *("FLOW-V6", "FLOW-V7"),
)
def guard_removed() -> None:
    from testyard.power.attempt import Attempt

    wrap(Attempt, "_guard", lambda *_: None)


@defect(
    "host-key-unchecked",
    "a machine with any host key is the right one",
    # V8 still sees that the machine of V7 has booted.
    *("FLOW-V7", "FLOW-V8"),
)
def host_key_unchecked() -> None:
    import paramiko

    from testyard.power import ssh

    wrap(paramiko.SSHClient, "load_system_host_keys", lambda *_: None)
    wrap(ssh._Strict, "missing_host_key", lambda *_: None)


POWER_DEFECTS: tuple[Defect, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Defect))
