"""Local endpoints for the SDKs of the cloud providers: what the lab's deployments have for a provider's API.

A stand-in exists because no provider lets anybody crash machines without an account. Only what the power keywords
and their checks use is answered; see :mod:`testyard.lab.clouds.machines` for the convention all of them follow.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from testyard.core.errors import UserError
from testyard.lab.clouds.machines import CloudAccount, CloudDouble, Machines

# Imported when a deployment first asks for the provider: moto alone takes half a second.
MODULES = {
    "aws": "testyard.lab.clouds.ec2",
    "azure": "testyard.lab.clouds.azure",
    "gcp": "testyard.lab.clouds.gcp",
    "digitalocean": "testyard.lab.clouds.digitalocean",
    "hetzner": "testyard.lab.clouds.hetzner",
    "libvirt": "testyard.lab.clouds.libvirt",
}


def open_double(provider: str, machines: Machines, account: CloudAccount) -> CloudDouble:
    """The local endpoint of a provider for one deployment's account.

    Args:
        provider: ``aws``, ``azure``, ``gcp``, ``digitalocean``, ``hetzner`` or ``libvirt``.
        machines: The lab's machines; used on the loop that serves the double's application.
        account: The deployment's account.

    Raises:
        UserError: There is no such provider.
    """
    if provider not in MODULES:
        message = f"There is no provider {provider!r}; there are {', '.join(MODULES)}."
        raise UserError(message)
    return cast(CloudDouble, import_module(MODULES[provider]).create(machines, account))
