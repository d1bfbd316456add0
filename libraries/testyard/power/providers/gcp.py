"""The power of instances at Google Cloud, by google-cloud-compute.

Source: REST reference of Compute Engine v1, "VM instance lifecycle". A stop is orderly. A crash is a stop with
``no_graceful_shutdown``: the API has no harder one that leaves an instance off (``reset`` starts it again). Local
SSDs are never discarded: an instance that has some refuses to be stopped, in Google's own words. Operations are
only begun here: the SDK would wait for each of them by sleeping, and whoever asked waits for the state anyway.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.power.protocol import Instance, PowerProvider, PowerState, ProviderName
from testyard.power.providers.gcp_on_demand import import_compute
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

# Provisioning comes before staging; both are before the instance runs.
STATES = {
    "PROVISIONING": PowerState.STARTING,
    "STAGING": PowerState.STARTING,
    "RUNNING": PowerState.RUNNING,
    "PENDING_STOP": PowerState.STOPPING,
    "STOPPING": PowerState.STOPPING,
    "STOPPED": PowerState.STOPPED,
    "TERMINATED": PowerState.STOPPED,
}
OWN_ADDRESS = "https://compute.googleapis.com"
SECONDS_PER_CALL = 30
# What is secret in a file with credentials.
SECRETS = ("private_key", "client_secret", "refresh_token")
SCOPE = "https://www.googleapis.com/auth/compute"


class GcpProvider:
    """Instances of one deployment at Google; see :class:`testyard.power.protocol.PowerProvider`.

    Args:
        deployment: Value of their label ``deployment``.
        client: The client of instances.
        types: The module with the types of Compute Engine.
        zone: ``project`` and ``zone`` of the instances.
        credentials: The environment variable that holds the credentials, for messages.
    """

    name = ProviderName.GCP
    calls: Mapping[str, str] = {
        "start": "instances.start",
        "stop": "instances.stop",
        "crash": "instances.stop(no_graceful_shutdown=True)",
    }

    def __init__(
        self, deployment: str, client: Any, types: Any, zone: Mapping[str, str], credentials: str
    ) -> None:
        self._deployment = deployment
        self._client = client
        self._types = types
        self._zone = zone
        self._credentials = credentials

    def instances(self) -> Sequence[Instance]:
        """The instances with the deployment's label."""
        request = self._types.ListInstancesRequest(**self._zone, filter=f'labels.deployment="{self._deployment}"')
        listed = self._call(
            "instances.list", lambda: list(self._client.list(request, retry=None, timeout=SECONDS_PER_CALL))
        )
        found = [
            Instance(machine.name, machine.labels.get("node", ""), self._zone["zone"], self.name)
            for machine in listed
            if machine.labels.get("deployment") == self._deployment
        ]
        return checked_instances(self.name, self._deployment, found)

    def state(self, instance: Instance) -> PowerState:
        """The instance's state as Compute Engine tells it now."""
        return STATES.get(self._read(instance).status, PowerState.UNKNOWN)

    def start(self, instance: Instance) -> None:
        """Start the instance."""
        request = self._types.StartInstanceRequest(**self._zone, instance=instance.identifier)
        self._act("start", instance, self._client.start_unary, request)

    def stop(self, instance: Instance) -> None:
        """Stop the instance; its system shuts down."""
        request = self._types.StopInstanceRequest(**self._zone, instance=instance.identifier)
        self._act("stop", instance, self._client.stop_unary, request)

    def crash(self, instance: Instance) -> None:
        """Take the instance's power away."""
        request = self._types.StopInstanceRequest(
            **self._zone, instance=instance.identifier, no_graceful_shutdown=True
        )
        self._act("crash", instance, self._client.stop_unary, request)

    def close(self) -> None:
        """Close the connections."""
        self._client.transport.close()

    def _act(self, operation: str, instance: Instance, call: Callable[..., Any], request: Any) -> None:
        self._read(instance)
        self._call(
            f"{self.calls[operation]} for node {instance.node} ({instance.identifier})",
            lambda: call(request, retry=None, timeout=SECONDS_PER_CALL),
            instance,
        )

    def _read(self, instance: Instance) -> Any:
        """What Compute Engine says of the instance now, when it is the deployment's.

        Raises:
            UserError: It is not, or there is none.
        """
        request = self._types.GetInstanceRequest(**self._zone, instance=instance.identifier)
        machine = self._call(
            f"instances.get for node {instance.node} ({instance.identifier})",
            lambda: self._client.get(request, retry=None, timeout=SECONDS_PER_CALL),
            instance,
        )
        refuse_foreign(instance, self._deployment, dict(machine.labels), "node")
        return machine

    def _call(self, what: str, call: Callable[[], Answer], instance: Instance | None = None) -> Answer:
        from google.api_core.exceptions import GoogleAPIError, NotFound, Unauthorized
        from google.auth.exceptions import GoogleAuthError, TransportError
        from requests.exceptions import RequestException

        try:
            return call()
        except (TransportError, RequestException) as problem:
            reason = f"no answer from {self._client.api_endpoint} ({type(problem).__name__})"
            raise failed_call(self.name, what, reason) from problem
        except (GoogleAuthError, Unauthorized) as problem:
            reason = "the token has expired or is not valid, and there is no way to renew it"
            raise refused_credential(self.name, self._credentials, reason) from problem
        except NotFound as problem:
            if instance is not None and f"instances/{instance.identifier}" in problem.message:
                raise gone(instance) from problem
            raise failed_call(self.name, what, problem.message) from problem
        except GoogleAPIError as problem:
            raise failed_call(self.name, what, getattr(problem, "message", None) or str(problem)) from problem


def open_provider(deployment_id: str, settings: Mapping[str, str]) -> PowerProvider:
    """Google Cloud for one deployment.

    Args:
        deployment_id: Value of the label ``deployment`` of its instances.
        settings: GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_ZONE; GOOGLE_APPLICATION_CREDENTIALS, a file, or a ready
            GOOGLE_ACCESS_TOKEN; GOOGLE_COMPUTE_ENDPOINT where it is not Google's own.

    Raises:
        UserError: google-cloud-compute is not installed, or a setting is missing or wrong.
    """
    provider = ProviderName.GCP
    secrets_in_use.add(settings.get("GOOGLE_ACCESS_TOKEN", ""))
    project = required(provider, settings, "GOOGLE_CLOUD_PROJECT", "the project of the machines")
    zone = required(provider, settings, "GOOGLE_CLOUD_ZONE", "the zone of the machines")
    address = api_address(settings, "GOOGLE_COMPUTE_ENDPOINT", OWN_ADDRESS)
    variable, credentials = _credentials(settings)
    services, types = load_sdk()
    client = services.InstancesClient(credentials=credentials, client_options={"api_endpoint": address})
    return GcpProvider(deployment_id, client, types, {"project": project, "zone": zone}, variable)


def load_sdk() -> tuple[Any, Any]:
    """The parts of google-cloud-compute that are about instances.

    Raises:
        UserError: It is not installed.
    """
    import_sdk(ProviderName.GCP, "google.api_core")
    try:
        return import_compute()
    except ImportError:
        import_sdk(ProviderName.GCP, "google.cloud.compute_v1")
        raise


def _credentials(settings: Mapping[str, str]) -> tuple[str, Any]:
    """The variable of the credentials, and these; nothing is looked for elsewhere, as on a metadata server."""
    provider = ProviderName.GCP
    if settings.get("GOOGLE_ACCESS_TOKEN"):
        variable = "GOOGLE_ACCESS_TOKEN"
        access = token_access(
            provider, settings, token=variable, endpoint="GOOGLE_COMPUTE_ENDPOINT", default=OWN_ADDRESS
        )
        return variable, import_sdk(provider, "google.oauth2.credentials").Credentials(access.token)
    variable = "GOOGLE_APPLICATION_CREDENTIALS"
    path = required(provider, settings, variable, "a file with credentials")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        secrets_in_use.add(*(content[name] for name in SECRETS if name in content))
        if content["type"] == "service_account":
            service_account = import_sdk(provider, "google.oauth2.service_account")
            return variable, service_account.Credentials.from_service_account_info(content, scopes=[SCOPE])
        if content["type"] == "authorized_user":
            user = import_sdk(provider, "google.oauth2.credentials")
            return variable, user.Credentials.from_authorized_user_info(content, scopes=[SCOPE])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        # What is wrong with a key is not said in its own words: they may quote it.
        message = f"The file {path} in {variable} holds no usable credentials for GCP ({type(problem).__name__})."
        raise UserError(message) from problem
    message = f"The file {path} in {variable} holds credentials of type {content['type']}, which cannot be used."
    raise UserError(message)
