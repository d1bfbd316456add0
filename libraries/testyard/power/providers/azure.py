"""The power of virtual machines at Azure, by azure-mgmt-compute.

Source: REST reference of Microsoft.Compute/virtualMachines, "States and billing status of Azure Virtual Machines".
A stop deallocates: only then the billing stops. A crash is a power off that skips the shutdown; such a machine is
stopped, not deallocated. Azure's operations are only begun here: the SDK would wait for each of them by sleeping,
and whoever asked for the power waits for the machine's state anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from testyard.core.redact import secrets_in_use
from testyard.power.protocol import Instance, PowerProvider, PowerState, ProviderName
from testyard.power.providers.refusals import (
    checked_instances,
    failed_call,
    gone,
    import_sdk,
    refuse_foreign,
    refused_credential,
    required,
)
from testyard.power.providers.tokens import api_address, token_access

Answer = TypeVar("Answer")

STATES = {
    "PowerState/starting": PowerState.STARTING,
    "PowerState/running": PowerState.RUNNING,
    "PowerState/stopping": PowerState.STOPPING,
    "PowerState/deallocating": PowerState.STOPPING,
    "PowerState/stopped": PowerState.STOPPED,
    "PowerState/deallocated": PowerState.STOPPED,
}
OWN_ADDRESS = "https://management.azure.com"


class AzureProvider:
    """Virtual machines of one deployment; see :class:`testyard.power.protocol.PowerProvider`.

    Args:
        deployment: Value of their tag ``deployment``.
        client: The client of Microsoft.Compute.
        group: The resource group they are in.
        credentials: The environment variables that hold the credentials, for messages.
        credential: What the client is authenticated by, when that has connections of its own.
    """

    name = ProviderName.AZURE
    calls: Mapping[str, str] = {
        "start": "virtual_machines.begin_start",
        "stop": "virtual_machines.begin_deallocate",
        "crash": "virtual_machines.begin_power_off(skip_shutdown=True)",
    }

    def __init__(self, deployment: str, client: Any, group: str, credentials: str, credential: Any = None) -> None:
        self._deployment = deployment
        self._opened = [client] if credential is None else [client, credential]
        self._machines = client.virtual_machines
        self._group = group
        self._credentials = credentials

    def instances(self) -> Sequence[Instance]:
        """The virtual machines with the deployment's tag."""
        listed = self._call("virtual_machines.list", lambda: list(self._machines.list(self._group)))
        found = [
            Instance(machine.name, (machine.tags or {}).get("Name", ""), machine.location, self.name)
            for machine in listed
            if (machine.tags or {}).get("deployment") == self._deployment
        ]
        return checked_instances(self.name, self._deployment, found)

    def state(self, instance: Instance) -> PowerState:
        """The machine's state as its instance view tells it now."""
        view = self._read(instance).properties.instance_view
        states = [STATES[status.code] for status in view.statuses or [] if status.code in STATES] if view else []
        return states[0] if states else PowerState.UNKNOWN

    def start(self, instance: Instance) -> None:
        """Start the machine."""
        self._act("start", instance, lambda: self._machines.begin_start(*self._address(instance), polling=False))

    def stop(self, instance: Instance) -> None:
        """Deallocate the machine; its system shuts down."""
        self._act(
            "stop", instance, lambda: self._machines.begin_deallocate(*self._address(instance), polling=False)
        )

    def crash(self, instance: Instance) -> None:
        """Take the machine's power away."""
        self._act(
            "crash",
            instance,
            lambda: self._machines.begin_power_off(*self._address(instance), skip_shutdown=True, polling=False),
        )

    def close(self) -> None:
        """Close the connections."""
        for opened in self._opened:
            opened.close()

    def _address(self, instance: Instance) -> tuple[str, str]:
        return self._group, instance.identifier

    def _act(self, operation: str, instance: Instance, call: Callable[[], Any]) -> None:
        self._read(instance)
        self._call(f"{self.calls[operation]} for node {instance.node} ({instance.identifier})", call, instance)

    def _read(self, instance: Instance) -> Any:
        """What Azure says of the machine now, when it is the deployment's.

        Raises:
            UserError: It is not, or there is none.
        """
        machine = self._call(
            f"virtual_machines.get for node {instance.node} ({instance.identifier})",
            lambda: self._machines.get(*self._address(instance), expand="instanceView"),
            instance,
        )
        refuse_foreign(instance, self._deployment, machine.tags or {}, "Name")
        return machine

    def _call(self, what: str, call: Callable[[], Answer], instance: Instance | None = None) -> Answer:
        from azure.core.exceptions import AzureError, ClientAuthenticationError, ResourceNotFoundError

        try:
            return call()
        except ClientAuthenticationError as problem:
            raise refused_credential(self.name, self._credentials, _reason(problem)) from problem
        except ResourceNotFoundError as problem:
            if instance is not None and problem.error is not None and problem.error.code == "ResourceNotFound":
                raise gone(instance) from problem
            raise failed_call(self.name, what, _reason(problem)) from problem
        except AzureError as problem:
            raise failed_call(self.name, what, _reason(problem)) from problem


def open_provider(deployment_id: str, settings: Mapping[str, str]) -> PowerProvider:
    """Azure for one deployment.

    Args:
        deployment_id: Value of the tag ``deployment`` of its machines.
        settings: AZURE_SUBSCRIPTION_ID and AZURE_RESOURCE_GROUP; AZURE_TENANT_ID, AZURE_CLIENT_ID and
            AZURE_CLIENT_SECRET, or a ready AZURE_ACCESS_TOKEN; AZURE_ENDPOINT where it is not Azure's own.

    Raises:
        UserError: azure-mgmt-compute is not installed, or a setting is missing or wrong.
    """
    provider = ProviderName.AZURE
    secrets_in_use.add(settings.get("AZURE_CLIENT_SECRET", ""), settings.get("AZURE_ACCESS_TOKEN", ""))
    subscription = required(provider, settings, "AZURE_SUBSCRIPTION_ID", "the subscription of the machines")
    group = required(provider, settings, "AZURE_RESOURCE_GROUP", "the resource group of the machines")
    endpoint = api_address(settings, "AZURE_ENDPOINT", OWN_ADDRESS)
    credential = None
    if settings.get("AZURE_ACCESS_TOKEN"):
        variables, authentication = "AZURE_ACCESS_TOKEN", _by_token(settings)
    else:
        variables = "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
        credential = _by_client_secret(settings)
        authentication = {"credential": credential}
    compute = load_sdk()
    policies = import_sdk(ProviderName.AZURE, "azure.core.pipeline.policies")
    client = compute.ComputeManagementClient(
        subscription_id=subscription,
        base_url=endpoint,
        # Whoever waits for a state asks again anyway: no long silence behind a call.
        retry_total=1,
        connection_timeout=10,
        read_timeout=30,
        # A log of every poll's headers buries what the test did; each call that fails says so in its error.
        http_logging_policy=policies.SansIOHTTPPolicy(),
        **authentication,
    )
    return AzureProvider(deployment_id, client, group, variables, credential)


def load_sdk() -> Any:
    """The module of azure-mgmt-compute.

    Raises:
        UserError: It is not installed.
    """
    return import_sdk(ProviderName.AZURE, "azure.mgmt.compute")


def _by_token(settings: Mapping[str, str]) -> dict[str, Any]:
    """What makes the client send a token as it is.

    The SDK's own policy sends none without TLS, also not to this machine: the lab's endpoint needs another policy.
    """
    access = token_access(
        ProviderName.AZURE, settings, token="AZURE_ACCESS_TOKEN", endpoint="AZURE_ENDPOINT", default=OWN_ADDRESS
    )
    import_sdk(ProviderName.AZURE, "azure.core")
    from azure.core.credentials import AzureKeyCredential
    from azure.core.pipeline.policies import AzureKeyCredentialPolicy

    credential = AzureKeyCredential(access.token)
    policy = AzureKeyCredentialPolicy(credential, "Authorization", prefix="Bearer")
    return {"credential": credential, "authentication_policy": policy}


def _by_client_secret(settings: Mapping[str, str]) -> Any:
    provider = ProviderName.AZURE
    tenant = required(provider, settings, "AZURE_TENANT_ID", "the tenant of the credentials")
    client = required(provider, settings, "AZURE_CLIENT_ID", "the client id of the credentials")
    secret = required(provider, settings, "AZURE_CLIENT_SECRET", "the client secret of the credentials")
    identity = import_sdk(provider, "azure.identity")
    return identity.ClientSecretCredential(tenant, client, secret)


def _reason(problem: Exception) -> str:
    """What Azure said, in one line; the SDK's own text repeats it in several."""
    error = getattr(problem, "error", None)
    if error is not None and error.code:
        return f"{error.code}: {error.message}"
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__
