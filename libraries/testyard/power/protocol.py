"""What a provider of machines must be able to do, and the words everyone uses for it.

One provider module per cloud (`testyard.power.providers.<name>`) offers
`open_provider(deployment_id, settings) -> PowerProvider`; the SDK is imported inside it, so
that nobody waits for, or needs, the SDK of a cloud he does not use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ProviderName(StrEnum):
    """The providers the power control document (003) names."""

    AWS = "aws"
    AZURE = "azure"
    GCP = "gcp"
    DIGITALOCEAN = "digitalocean"
    HETZNER = "hetzner"
    LIBVIRT = "libvirt"


class PowerState(StrEnum):
    """A machine's state of power, in one vocabulary for all providers."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Instance:
    """One machine of the deployment, as the provider knows it.

    Attributes:
        identifier: The provider's own identifier, for example `i-0abc`.
        node: The node's name in the deployment, from the tag `Name` or the label `node`.
        region: Region or zone, empty where the provider has none.
        provider: Whose machine it is.
    """

    identifier: str
    node: str
    region: str
    provider: ProviderName


class PowerProvider(Protocol):
    """What the engine asks of a provider's API.

    Every method raises `testyard.core.errors.UserError` for what the user can put right (an
    expired credential, a missing region, an instance that no longer carries the deployment's
    tag); `start`, `stop` and `crash` return when the API has accepted the call, not when the
    machine has reached the state: the engine waits. They act only on an instance whose tag
    they have just read again.
    """

    @property
    def name(self) -> ProviderName:
        """Whose API this is."""

    @property
    def calls(self) -> Mapping[str, str]:
        """The API call behind `start`, `stop` and `crash`, for dry runs and logs.

        Example: `{"start": "ec2.start_instances", "stop": "ec2.stop_instances",
        "crash": "ec2.stop_instances(Force=True)"}`.
        """

    def instances(self) -> Sequence[Instance]:
        """Return the instances that carry the deployment's tag, and no others."""

    def state(self, instance: Instance) -> PowerState:
        """Return the instance's state as the API tells it now."""

    def start(self, instance: Instance) -> None:
        """Start the instance."""

    def stop(self, instance: Instance) -> None:
        """Stop the instance in an orderly way."""

    def crash(self, instance: Instance) -> None:
        """Take the instance's power away."""

    def close(self) -> None:
        """Give back connections."""
