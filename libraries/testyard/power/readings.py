"""What a node looks like at one moment, from both sides: its SSH server, and its provider's API."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from testyard.power.deployment import Node
from testyard.power.problems import DeploymentError
from testyard.power.protocol import Instance, PowerProvider, PowerState
from testyard.power.shell import Reach, Shell, SshAnswer


@dataclass(frozen=True, repr=False)
class Reading:
    """One look at a node.

    Attributes:
        ssh: What its SSH server did.
        api: What its provider's API says; None where the API cannot be asked.
    """

    ssh: SshAnswer
    api: PowerState | None

    @property
    def boot_id(self) -> str | None:
        """The present boot's id, when the node answers."""
        return self.ssh.boot_id

    @property
    def is_on(self) -> bool:
        """It answers, and the API, where it can be asked, says running."""
        return self.ssh.reach is Reach.ANSWERS and self.api in {None, PowerState.RUNNING}

    @property
    def is_off(self) -> bool:
        """SSH is dead, and the API, where it can be asked, says stopped."""
        return self.ssh.reach is Reach.DEAD and self.api in {None, PowerState.STOPPED}

    @property
    def state(self) -> PowerState:
        """The node's state; UNKNOWN when the two sides disagree."""
        if self.is_on:
            return PowerState.RUNNING
        if self.is_off:
            return PowerState.STOPPED
        if self.api in {PowerState.STARTING, PowerState.STOPPING}:
            return self.api
        return PowerState.UNKNOWN

    def __str__(self) -> str:
        """Both sides, for people: `SSH dead (...), API says stopping`."""
        return f"{self.ssh}, API {'not asked' if self.api is None else f'says {self.api.value}'}"

    __repr__ = __str__


class Api:
    """A provider's API as the engine uses it: one call at a time, instances found by node.

    Args:
        provider: The API.
    """

    def __init__(self, provider: PowerProvider) -> None:
        self._provider = provider
        # The SDKs do not promise that their clients can be shared by threads.
        self._lock = threading.Lock()

    @property
    def calls(self) -> Mapping[str, str]:
        """The calls' names."""
        return self._provider.calls

    def instances(self) -> dict[str, Instance]:
        """The deployment's instances by node."""
        with self._lock:
            return {instance.node: instance for instance in self._provider.instances()}

    def state(self, instance: Instance) -> PowerState:
        """The instance's state."""
        with self._lock:
            return self._provider.state(instance)

    def start(self, instance: Instance) -> None:
        """Start the instance."""
        with self._lock:
            self._provider.start(instance)

    def stop(self, instance: Instance) -> None:
        """Stop the instance in an orderly way."""
        with self._lock:
            self._provider.stop(instance)

    def crash(self, instance: Instance) -> None:
        """Take the instance's power away."""
        with self._lock:
            self._provider.crash(instance)

    def close(self) -> None:
        """Give back connections."""
        with self._lock:
            self._provider.close()


class Machine:
    """A node of the inventory, its shell, and its instance where the API can be asked.

    Args:
        node: The node.
        shell: Its shell; closed with the machine.
        api: The provider's API, or None where it cannot be asked.
        instances: The deployment's instances by node.

    Raises:
        DeploymentError: The API has no instance for the node, or another one than the inventory says.
    """

    def __init__(self, node: Node, shell: Shell, api: Api | None, instances: Mapping[str, Instance]) -> None:
        self.node = node
        self.shell = shell
        self.api = api
        self.instance = _instance(node, instances) if api else None

    @property
    def name(self) -> str:
        """The node, and its instance where there is one: `n12 (i-0abc)`."""
        return f"{self.node.name} ({self.instance.identifier})" if self.instance else self.node.name

    def look(self) -> Reading:
        """Look at both sides now."""
        api = self.api.state(self.instance) if self.api and self.instance else None
        return Reading(self.shell.answer(), api)


def _instance(node: Node, instances: Mapping[str, Instance]) -> Instance:
    instance = instances.get(node.name)
    if instance is None or instance.node != node.name:
        message = (
            f"The provider has no instance with the deployment's tag for node {node.name}; it has "
            f"{', '.join(sorted(instances)) or 'none'}."
        )
        raise DeploymentError(message)
    if node.instance_id and instance.identifier != node.instance_id:
        message = (
            f"Node {node.name} is {node.instance_id} in the inventory, but the provider's instance tagged as it "
            f"is {instance.identifier}: none of them is touched."
        )
        raise DeploymentError(message)
    return instance
