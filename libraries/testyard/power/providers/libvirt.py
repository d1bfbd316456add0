"""The power of virtual machines under libvirt, by ``libvirt-python``.

A domain of a deployment says so in its metadata, in an element of the namespace ``urn:testyard:instance``::

    virsh metadata DOMAIN urn:testyard:instance --config --live --key testyard \\
        --set '<instance deployment="d-42" node="n11"/>'

Source: libvirt.org/html/libvirt-libvirt-domain.html (virDomainCreate, virDomainShutdown, virDomainDestroy,
virDomainState) and libvirt.org/formatdomain.html ("General metadata").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from xml.etree import ElementTree

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.power.protocol import Instance, PowerProvider, PowerState, ProviderName
from testyard.power.providers.refusals import (
    checked_instances,
    failed_call,
    gone,
    refuse_foreign,
    refused_credential,
    required,
)

Answer = TypeVar("Answer")

URI = "LIBVIRT_DEFAULT_URI"
# What the lab says instead of an address, when it has none: the reason.
UNAVAILABLE = "TESTYARD_LIBVIRT_UNAVAILABLE"
NAMESPACE = "urn:testyard:instance"
INSTALL = "apt install libvirt-dev pkg-config gcc python3-dev && pip install 'robotframework-testyard[libvirt]'"

# virDomainState, whose numbers are part of libvirt's interface.
NO_STATE, RUNNING, BLOCKED, PAUSED, SHUTDOWN, SHUTOFF, CRASHED, SUSPENDED = range(8)
STATES = {
    RUNNING: PowerState.RUNNING,
    BLOCKED: PowerState.RUNNING,
    SHUTDOWN: PowerState.STOPPING,
    SHUTOFF: PowerState.STOPPED,
    CRASHED: PowerState.STOPPED,
}


class LibvirtProvider:
    """Domains of one deployment; see :class:`testyard.power.protocol.PowerProvider`.

    Args:
        deployment: The attribute ``deployment`` of their metadata.
        libvirt: The module ``libvirt``.
        uri: The address of the hypervisor.

    Raises:
        UserError: The hypervisor cannot be reached, or refuses.
    """

    name = ProviderName.LIBVIRT
    calls: Mapping[str, str] = {
        "start": "virDomain.create",
        "stop": "virDomain.shutdown",
        "crash": "virDomain.destroy",
    }

    def __init__(self, deployment: str, libvirt: Any, uri: str) -> None:
        self._deployment = deployment
        self._libvirt = libvirt
        self._connection = self._call(f"open {uri}", lambda: libvirt.open(uri))

    def instances(self) -> Sequence[Instance]:
        """The domains with the deployment's metadata, running or not."""
        domains = self._call("virConnect.listAllDomains", self._connection.listAllDomains)
        host = self._call("virConnect.getHostname", self._connection.getHostname)
        tagged = [(domain.UUIDString(), self._tags(domain)) for domain in domains]
        found = [
            Instance(identifier, tags.get("node", ""), host, self.name)
            for identifier, tags in tagged
            if tags.get("deployment") == self._deployment
        ]
        return checked_instances(self.name, self._deployment, found)

    def state(self, instance: Instance) -> PowerState:
        """The domain's state, as libvirt tells it now; while its system shuts down it still runs."""
        domain = self._read(instance)
        state, _ = self._call(f"virDomain.state for node {instance.node}", domain.state, instance)
        return STATES.get(state, PowerState.UNKNOWN)

    def start(self, instance: Instance) -> None:
        """Start the domain."""
        self._act("start", instance, lambda domain: domain.create())

    def stop(self, instance: Instance) -> None:
        """Ask the domain's system to shut down (ACPI or agent)."""
        self._act("stop", instance, lambda domain: domain.shutdown())

    def crash(self, instance: Instance) -> None:
        """Take the domain's power away."""
        self._act("crash", instance, lambda domain: domain.destroy())

    def close(self) -> None:
        """Close the connection."""
        self._call("virConnect.close", self._connection.close)

    def _act(self, operation: str, instance: Instance, act: Callable[[Any], object]) -> None:
        domain = self._read(instance)
        what = f"{self.calls[operation]} for node {instance.node} ({instance.identifier})"
        self._call(what, lambda: act(domain), instance)

    def _read(self, instance: Instance) -> Any:
        """The domain, when its metadata now say that it is the deployment's.

        Raises:
            UserError: They do not, or there is none.
        """
        what = f"virConnect.lookupByUUIDString for node {instance.node} ({instance.identifier})"
        domain = self._call(what, lambda: self._connection.lookupByUUIDString(instance.identifier), instance)
        refuse_foreign(instance, self._deployment, self._tags(domain), "node")
        return domain

    def _tags(self, domain: Any) -> Mapping[str, str]:
        """The attributes of the domain's element of our namespace; none when it has no such element."""
        try:
            text = domain.metadata(self._libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        except self._libvirt.libvirtError as problem:
            missing = (self._libvirt.VIR_ERR_NO_DOMAIN_METADATA, self._libvirt.VIR_ERR_NO_DOMAIN)
            if problem.get_error_code() in missing:
                return {}
            raise failed_call(self.name, "virDomain.metadata", _said(problem)) from None
        return ElementTree.fromstring(text).attrib

    def _call(self, what: str, call: Callable[[], Answer], instance: Instance | None = None) -> Answer:
        libvirt = self._libvirt
        try:
            return call()
        except libvirt.libvirtError as problem:
            code = problem.get_error_code()
            if instance is not None and code == libvirt.VIR_ERR_NO_DOMAIN:
                raise gone(instance) from None
            if code in {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED}:
                raise refused_credential(self.name, URI, _said(problem)) from None
            raise failed_call(self.name, what, _said(problem)) from None


def open_provider(deployment_id: str, settings: Mapping[str, str]) -> PowerProvider:
    """libvirt for one deployment.

    Args:
        deployment_id: Only domains with this deployment in their metadata are seen and touched.
        settings: LIBVIRT_DEFAULT_URI, such as ``qemu:///system`` or ``qemu+ssh://user@host/system``.

    Raises:
        UserError: libvirt-python is not installed, there is no address, or nothing answers there.
    """
    libvirt = load_sdk()
    if reason := settings.get(UNAVAILABLE):
        raise UserError(reason)
    uri = required(ProviderName.LIBVIRT, settings, URI, "the address of the hypervisor")
    # By default the C library prints each error to standard error, besides raising it.
    libvirt.registerErrorHandler(_say_nothing, None)
    return LibvirtProvider(deployment_id, libvirt, uri)


def load_sdk() -> Any:
    """The module of libvirt-python.

    Raises:
        UserError: It is not installed.
    """
    try:
        import libvirt
    except ImportError as problem:
        message = (
            "The power of libvirt machines needs the Python package libvirt-python, which cannot be imported "
            f"({problem}): {INSTALL}"
        )
        raise UserError(message) from problem
    return libvirt


def _say_nothing(_context: object, _error: object) -> None:
    pass


def _said(problem: Exception) -> str:
    return secrets_in_use.mask(str(problem))
