"""The table of power transitions, as data (document 003, "Power Control Support by Provider").

One row per provider, operation and vintage of `power_api`: what the document allows (``document``, the default) or
what the providers' APIs can do today (``extended``). The engine does every row the same way. Cells that the
document calls "planned" or "not yet implemented" (API crash and node stop / start on AWS, Azure and GCP) are
implemented here, hence YES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from testyard.power.deadlines import DeadlineName
from testyard.power.problems import UnknownMethodError
from testyard.power.protocol import PowerState, ProviderName


class PowerApi(StrEnum):
    """Which column of the table counts: a suite's parameter ``power_api``."""

    DOCUMENT = "document"
    EXTENDED = "extended"


class CrashMethod(StrEnum):
    """How a node is crashed (document 003, step 9)."""

    SSH = "ssh"
    DESTROY = "destroy"


class RestartMethod(StrEnum):
    """How a node is restarted (document 003, step 8)."""

    SSH = "ssh"
    GRACEFUL = "graceful"


class Operation(StrEnum):
    """What can be done: a workflow step, with its method where it has one."""

    STOP_CLUSTER = "stop_cluster"
    START_CLUSTER = "start_cluster"
    STOP_NODE = "stop_node"
    START_NODE = "start_node"
    CRASH_SSH = "crash_node ssh"
    CRASH_DESTROY = "crash_node destroy"
    RESTART_SSH = "restart_node ssh"
    RESTART_GRACEFUL = "restart_node graceful"

    @property
    def step(self) -> str:
        """The workflow step, for example ``crash_node``."""
        return self.value.partition(" ")[0]

    @property
    def method(self) -> str | None:
        """The step's method, for example ``destroy``."""
        return self.value.partition(" ")[2] or None

    @property
    def of_cluster(self) -> bool:
        """Whether it is done to all nodes at once."""
        return self in {Operation.STOP_CLUSTER, Operation.START_CLUSTER}

    @classmethod
    def of_step(cls, step: str, method: str | None = None) -> Operation:
        """The operation of a workflow step; ``ssh`` is the default method of a step that has methods.

        Raises:
            UnknownMethodError: There is no such power step, or the step has no such method.

        Example:
            >>> Operation.of_step("crash_node", "destroy")
            <Operation.CRASH_DESTROY: 'crash_node destroy'>
        """
        of_that_step = [operation for operation in cls if operation.step == step]
        if not of_that_step:
            message = (
                f"There is no power step {step!r}; there are {', '.join(dict.fromkeys(it.step for it in cls))}."
            )
            raise UnknownMethodError(message)
        methods = [operation.method for operation in of_that_step if operation.method]
        wanted = method or (CrashMethod.SSH.value if methods else None)
        for operation in of_that_step:
            if operation.method == wanted:
                return operation
        known = " or ".join(repr(it) for it in methods) if methods else "no method"
        message = f"The step {step!r} has {known}, not method {method!r}."
        raise UnknownMethodError(message)


class Support(Enum):
    """What a cell of the table says."""

    YES = "yes"
    MANUAL = "manual"
    NO = "no"


class Method(Enum):
    """How a transition is made."""

    API_STOP = "orderly stop by the provider's API"
    API_START = "start by the provider's API"
    API_CRASH = "hard stop by the provider's API"
    API_STOP_AND_START = "orderly stop, pause and start by the provider's API"
    SSH_SHUTDOWN = "in-guest shutdown over SSH"
    SSH_REBOOT = "reboot over SSH"
    SSH_CRASH = "SysRq b over SSH, or poweroff -f where the kernel refuses it"
    OPERATOR = "an operator starts the machines at the provider's interface"
    NONE = "refused"

    @property
    def by_api(self) -> bool:
        """Whether the provider's API makes it, so that the API's word for the state counts."""
        return self in {Method.API_STOP, Method.API_START, Method.API_CRASH, Method.API_STOP_AND_START}


class Proof(Enum):
    """What has to be seen before a transition counts as made."""

    OFF = "SSH is dead, and the provider's API, where it can be asked, says stopped"
    ON = "SSH answers with a boot id, and the provider's API, where it can be asked, says running"
    REBOOTED = "SSH answers with a boot id that is not the one from before"
    CRASHED = "a new boot id (came back), or SSH stays dead (stayed down): never the boot id from before"
    REFUSAL = "NotImplementedError, and nothing has been touched"


@dataclass(frozen=True)
class Way:
    """How an operation is done where it is supported in a certain way.

    Attributes:
        start: The states from which it starts.
        method: How it is made.
        end: The states in which it ends.
        deadline: The name of the time that it may take.
        proof: What has to be seen.
    """

    start: frozenset[PowerState]
    method: Method
    end: frozenset[PowerState]
    deadline: DeadlineName
    proof: Proof


@dataclass(frozen=True)
class Transition(Way):
    """One row of the table.

    Attributes:
        provider: Whose machines.
        operation: What is done.
        power_api: The column that this row belongs to.
        support: What the table says.
    """

    provider: ProviderName
    operation: Operation
    power_api: PowerApi
    support: Support


RUNNING = frozenset({PowerState.RUNNING})
STOPPED = frozenset({PowerState.STOPPED})
EITHER = RUNNING | STOPPED
NOWHERE: frozenset[PowerState] = frozenset()

# Some nodes of a cluster may be where the whole is to go: they are left alone.
WAYS: Mapping[tuple[Operation, Support], Way] = {
    (Operation.STOP_CLUSTER, Support.YES): Way(EITHER, Method.API_STOP, STOPPED, DeadlineName.STOP, Proof.OFF),
    (Operation.STOP_CLUSTER, Support.MANUAL): Way(
        EITHER, Method.SSH_SHUTDOWN, STOPPED, DeadlineName.STOP, Proof.OFF
    ),
    (Operation.START_CLUSTER, Support.YES): Way(EITHER, Method.API_START, RUNNING, DeadlineName.BOOT, Proof.ON),
    (Operation.START_CLUSTER, Support.MANUAL): Way(EITHER, Method.OPERATOR, RUNNING, DeadlineName.BOOT, Proof.ON),
    (Operation.STOP_NODE, Support.YES): Way(RUNNING, Method.API_STOP, STOPPED, DeadlineName.STOP, Proof.OFF),
    (Operation.START_NODE, Support.YES): Way(STOPPED, Method.API_START, RUNNING, DeadlineName.BOOT, Proof.ON),
    (Operation.CRASH_SSH, Support.YES): Way(RUNNING, Method.SSH_CRASH, EITHER, DeadlineName.CRASH, Proof.CRASHED),
    (Operation.CRASH_DESTROY, Support.YES): Way(RUNNING, Method.API_CRASH, STOPPED, DeadlineName.CRASH, Proof.OFF),
    (Operation.RESTART_SSH, Support.YES): Way(
        RUNNING, Method.SSH_REBOOT, RUNNING, DeadlineName.REBOOT, Proof.REBOOTED
    ),
    (Operation.RESTART_GRACEFUL, Support.YES): Way(
        RUNNING, Method.API_STOP_AND_START, RUNNING, DeadlineName.STOP, Proof.REBOOTED
    ),
}
REFUSED = Way(NOWHERE, Method.NONE, NOWHERE, DeadlineName.STOP, Proof.REFUSAL)

# The document's rows, in the order of `Operation`; "graceful" is in its text, not in its table.
ALL = dict.fromkeys(Operation, Support.YES)
BY_SSH = {
    Operation.STOP_CLUSTER: Support.MANUAL,
    Operation.START_CLUSTER: Support.MANUAL,
    Operation.STOP_NODE: Support.NO,
    Operation.START_NODE: Support.NO,
    Operation.CRASH_SSH: Support.YES,
    Operation.CRASH_DESTROY: Support.NO,
    Operation.RESTART_SSH: Support.YES,
    Operation.RESTART_GRACEFUL: Support.NO,
}
SUPPORT: Mapping[PowerApi, Mapping[ProviderName, Mapping[Operation, Support]]] = {
    PowerApi.DOCUMENT: {
        ProviderName.AWS: ALL,
        ProviderName.AZURE: ALL,
        ProviderName.GCP: ALL,
        ProviderName.DIGITALOCEAN: BY_SSH,
        ProviderName.HETZNER: BY_SSH,
        ProviderName.LIBVIRT: BY_SSH,
    },
    PowerApi.EXTENDED: dict.fromkeys(ProviderName, ALL),
}


def _row(provider: ProviderName, operation: Operation, power_api: PowerApi) -> Transition:
    support = SUPPORT[power_api][provider][operation]
    way = REFUSED if support is Support.NO else WAYS[operation, support]
    return Transition(
        way.start, way.method, way.end, way.deadline, way.proof, provider, operation, power_api, support
    )


TRANSITIONS: Mapping[tuple[ProviderName, Operation, PowerApi], Transition] = {
    (provider, operation, power_api): _row(provider, operation, power_api)
    for provider in ProviderName
    for operation in Operation
    for power_api in PowerApi
}


def transition(
    provider: ProviderName, operation: Operation, power_api: PowerApi = PowerApi.DOCUMENT
) -> Transition:
    """The table's row for a provider and an operation."""
    return TRANSITIONS[provider, operation, power_api]


def refusal(row: Transition) -> str:
    """What an operation that the table refuses says: provider, operation, who can, and the way out."""
    supporting = [it.value for it in ProviderName if _supported(it, row.operation)]
    what = repr(row.operation.step)
    if row.operation.method:
        what += f" with method {row.operation.method!r}"
    return (
        f"NotImplementedError: provider {row.provider.value!r} does not support {what} (document 003: only "
        f"{', '.join(supporting)} do); the parameter power_api: extended opts in to what its API can do."
    )


def _supported(provider: ProviderName, operation: Operation) -> bool:
    return transition(provider, operation).support is not Support.NO
