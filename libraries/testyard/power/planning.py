"""What an operation would do, in words, without doing any of it: for dry runs and for operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from testyard.core.deadline import seconds
from testyard.power.deadlines import Deadlines
from testyard.power.protocol import ProviderName
from testyard.power.shell import CRASH, REBOOT, SHUTDOWN
from testyard.power.transitions import Method, Operation, PowerApi, Support, Transition, refusal, transition

# What the provider modules call; a test compares. A dry run opens no API and needs no SDK, so they are here too.
API_CALLS: Mapping[ProviderName, Mapping[str, str]] = {
    ProviderName.AWS: {
        "start": "ec2.start_instances",
        "stop": "ec2.stop_instances",
        "crash": "ec2.stop_instances(Force=True, SkipOsShutdown=True)",
    },
    ProviderName.AZURE: {
        "start": "virtual_machines.begin_start",
        "stop": "virtual_machines.begin_deallocate",
        "crash": "virtual_machines.begin_power_off(skip_shutdown=True)",
    },
    ProviderName.GCP: {
        "start": "instances.start",
        "stop": "instances.stop",
        "crash": "instances.stop(no_graceful_shutdown=True)",
    },
    ProviderName.DIGITALOCEAN: {
        "start": "droplet_actions.post(type=power_on)",
        "stop": "droplet_actions.post(type=shutdown)",
        "crash": "droplet_actions.post(type=power_off)",
    },
    ProviderName.HETZNER: {
        "start": "servers.power_on",
        "stop": "servers.shutdown",
        "crash": "servers.power_off",
    },
    ProviderName.LIBVIRT: {
        "start": "virDomain.create",
        "stop": "virDomain.shutdown",
        "crash": "virDomain.destroy",
    },
}

# How an operator starts a machine by hand.
BY_HAND: Mapping[ProviderName, str] = {
    ProviderName.AWS: "aws ec2 start-instances --instance-ids {machine}",
    ProviderName.AZURE: "az vm start --name {machine}",
    ProviderName.GCP: "gcloud compute instances start {machine}",
    ProviderName.DIGITALOCEAN: "doctl compute droplet-action power-on {machine}",
    ProviderName.HETZNER: "hcloud server poweron {machine}",
    ProviderName.LIBVIRT: "virsh start {machine}",
}


@dataclass(frozen=True)
class Target:
    """A node that a plan is about.

    Attributes:
        node: Its name.
        address: Where SSH reaches it, when that is known.
        machine: The provider's identifier, when that is known.
    """

    node: str
    address: str = ""
    machine: str = ""


@dataclass(frozen=True)
class PlannedCall:
    """One call that an operation would make.

    Attributes:
        step: The workflow step, with its method where it has one.
        target: The node, with its machine or address where they are known.
        call: The API's call, the SSH command, or why it is refused.
        within: How long it may take; None when it is refused.
        proof: What would have to be seen.
    """

    step: str
    target: str
    call: str
    within: timedelta | None
    proof: str

    def __str__(self) -> str:
        """The sentence for a dry run."""
        end = f"; within {seconds(self.within)}: {self.proof}" if self.within is not None else ""
        return f"{self.step} on {self.target}: {self.call}{end}"


@dataclass(frozen=True)
class Instruction:
    """What an operator is asked to do where a start is manual.

    Attributes:
        provider: Whose machines.
        deployment: The deployment's id or directory.
        targets: The nodes to start.
    """

    provider: ProviderName
    deployment: str
    targets: tuple[Target, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes' names."""
        return tuple(target.node for target in self.targets)

    def __str__(self) -> str:
        """The text for the operator."""
        where = f"at the interface of {self.provider.value}"
        by_hand = BY_HAND[self.provider]
        steps = (f"{it.node}: {by_hand.format(machine=it.machine or it.node)}" for it in self.targets)
        return f"Power on the machines of {self.deployment} {where}. {'; '.join(steps)}"


# Tells an operator; may also be a test that plays one. Returns when it was told, not when the machines are on.
Operator = Callable[[Instruction], None]


def call_of(row: Transition, calls: Mapping[str, str]) -> str:
    """What a row of the table calls or sends.

    Args:
        row: The row.
        calls: The provider's calls.
    """
    if row.method is Method.NONE:
        return f"refused: {refusal(row)}"
    return {
        Method.API_STOP: calls["stop"],
        Method.API_START: calls["start"],
        Method.API_CRASH: calls["crash"],
        Method.API_STOP_AND_START: f"{calls['stop']}, then {calls['start']}",
        Method.SSH_SHUTDOWN: SHUTDOWN,
        Method.SSH_REBOOT: REBOOT,
        Method.SSH_CRASH: CRASH,
        Method.OPERATOR: "an operator starts it at the provider's interface",
    }[row.method]


def plan(
    provider: ProviderName,
    operation: Operation,
    targets: Sequence[Target],
    *,
    power_api: PowerApi = PowerApi.DOCUMENT,
    deadlines: Deadlines | None = None,
) -> list[PlannedCall]:
    """What an operation would do; no call is made, and nothing needs to exist yet.

    Args:
        provider: Whose machines.
        operation: What would be done.
        targets: The nodes it would be done to.
        power_api: The column of the table.
        deadlines: By default the documented ones.

    Returns:
        One call per node.

    Example:
        >>> print(plan(ProviderName.AWS, Operation.STOP_NODE, [Target("n12")])[0])
        stop_node on n12: ec2.stop_instances; within 600 s: SSH is dead, and the provider's API, ...
    """
    row = transition(provider, operation, power_api)
    call = call_of(row, API_CALLS[provider])
    within = None if row.support is Support.NO else (deadlines or Deadlines()).named(row.deadline)
    return [
        PlannedCall(operation.value, _described(target, row), call, within, row.proof.value) for target in targets
    ]


def _described(target: Target, row: Transition) -> str:
    detail = target.machine if row.method.by_api or row.method is Method.OPERATOR else target.address
    return f"{target.node} ({detail})" if detail else target.node
