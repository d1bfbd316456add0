"""What a person has to do where the deployer cannot power nodes on (contract 2.6, document 003's table)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from testyard.lab.cluster.deployer.files import Node

_INTERFACES: Final[Mapping[str, str]] = {
    "digitalocean": "DigitalOcean control panel: Droplets > {id} > Power > Turn on (or: doctl compute "
    "droplet-action power-on {id})",
    "hetzner": "Hetzner Cloud console: Servers > {id} > Power on (or: hcloud server poweron {id})",
    "libvirt": "virt-manager: Run on the machine {id} (or: virsh start {id})",
}


def power_on_instructions(provider: str, nodes: Iterable[Node]) -> Iterator[str]:
    """One line for each node: where it is powered on, and what it is called there."""
    yield f"Power on these nodes by hand; {provider} offers the deployer no way to do it:"
    for node in nodes:
        where = _INTERFACES[provider].format(id=node.instance_id)
        yield f"  {node.name} (instance {node.instance_id}, region {node.region}): {where}"
