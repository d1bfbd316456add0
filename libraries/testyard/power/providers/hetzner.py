"""The power of machines at Hetzner, by ``hcloud`` (Cloud API v1).

A server of a deployment carries the labels ``deployment`` and ``node``. An action is only begun here: the client's
waiters sleep, and the action of a shutdown only says that the request was sent to the server; the server's own
status is what tells.

Source: docs.hetzner.cloud/reference/cloud, "Servers", "Server Actions", "Labels", "Errors".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.power.protocol import Instance, PowerProvider, PowerState, ProviderName
from testyard.power.providers.refusals import (
    checked_instances,
    failed_call,
    gone,
    import_sdk,
    refuse_foreign,
    refused_credential,
)
from testyard.power.providers.tokens import token_access

Answer = TypeVar("Answer")

TOKEN = "HCLOUD_TOKEN"
ENDPOINT = "HCLOUD_ENDPOINT"
DEFAULT_ENDPOINT = "https://api.hetzner.cloud/v1"
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0

STATES = {
    "initializing": PowerState.STARTING,
    "starting": PowerState.STARTING,
    "running": PowerState.RUNNING,
    "stopping": PowerState.STOPPING,
    "off": PowerState.STOPPED,
}


class HetznerProvider:
    """Servers of one deployment; see :class:`testyard.power.protocol.PowerProvider`.

    Args:
        deployment: Value of their label ``deployment``.
        client: An ``hcloud.Client``.
    """

    name = ProviderName.HETZNER
    calls: Mapping[str, str] = {
        "start": "servers.power_on",
        "stop": "servers.shutdown",
        "crash": "servers.power_off",
    }

    def __init__(self, deployment: str, client: Any) -> None:
        self._deployment = deployment
        self._client = client
        # Actions that this process has begun and not yet seen ended, by server.
        self._begun: dict[str, int] = {}

    def instances(self) -> Sequence[Instance]:
        """The servers with the deployment's label."""
        selector = f"deployment=={self._deployment}"
        servers = self._call("servers.get_all", lambda: self._client.servers.get_all(label_selector=selector))
        found = [
            Instance(str(server.id), server.labels.get("node", ""), server.location.name, self.name)
            for server in servers
        ]
        return checked_instances(self.name, self._deployment, found)

    def state(self, instance: Instance) -> PowerState:
        """The server's status, as the API tells it now.

        Raises:
            UserError: The action that was begun on the server failed, or the server cannot be read.
        """
        begun = self._begun.get(instance.identifier)
        if begun is not None:
            what = f"actions.get_by_id for node {instance.node} (action {begun})"
            action = self._call(what, lambda: self._client.actions.get_by_id(begun))
            if action.status != action.STATUS_RUNNING:
                del self._begun[instance.identifier]
            if action.status == action.STATUS_ERROR:
                self._read(instance)
                reason = secrets_in_use.mask((action.error or {}).get("message", "the action's status is 'error'"))
                raise failed_call(self.name, f"{action.command} for node {instance.node}", reason)
        return STATES.get(self._read(instance).status, PowerState.UNKNOWN)

    def start(self, instance: Instance) -> None:
        """Power the server on."""
        self._act("start", instance, self._client.servers.power_on)

    def stop(self, instance: Instance) -> None:
        """Ask the server's system to shut down (ACPI)."""
        self._act("stop", instance, self._client.servers.shutdown)

    def crash(self, instance: Instance) -> None:
        """Cut the server's power."""
        self._act("crash", instance, self._client.servers.power_off)

    def close(self) -> None:
        """Nothing to give back: the client has no way to close its connections, they end with it."""

    def _act(self, operation: str, instance: Instance, begin: Callable[[Any], Any]) -> None:
        server = self._read(instance)
        what = f"{self.calls[operation]} for node {instance.node} ({instance.identifier})"
        self._begun[instance.identifier] = self._call(what, lambda: begin(server), instance).id

    def _read(self, instance: Instance) -> Any:
        """What the API says of the server now, when it is the deployment's.

        Raises:
            UserError: It is not, or there is none.
        """
        what = f"servers.get_by_id for node {instance.node} ({instance.identifier})"
        server = self._call(what, lambda: self._client.servers.get_by_id(int(instance.identifier)), instance)
        refuse_foreign(instance, self._deployment, server.labels, "node")
        return server

    def _call(self, what: str, call: Callable[[], Answer], instance: Instance | None = None) -> Answer:
        import requests
        from hcloud import APIException

        try:
            return call()
        except APIException as problem:
            reason = secrets_in_use.mask(f"{problem.message} ({problem.code})")
            if problem.code in {"unauthorized", "token_readonly"}:
                raise refused_credential(self.name, TOKEN, reason) from None
            if instance is not None and problem.code == "not_found":
                raise gone(instance) from None
            raise failed_call(self.name, what, reason) from None
        except requests.RequestException as problem:
            raise failed_call(self.name, what, secrets_in_use.mask(str(problem))) from None


def open_provider(deployment_id: str, settings: Mapping[str, str]) -> PowerProvider:
    """Hetzner for one deployment.

    Args:
        deployment_id: Only servers with the label ``deployment=<id>`` are seen and touched.
        settings: HCLOUD_TOKEN, and HCLOUD_ENDPOINT where it is not Hetzner's own.

    Raises:
        UserError: hcloud is not installed, a setting is missing or wrong, or the id can be no label's value.
    """
    provider = ProviderName.HETZNER
    access = token_access(provider, settings, token=TOKEN, endpoint=ENDPOINT, default=DEFAULT_ENDPOINT)
    if not LABEL_VALUE.fullmatch(deployment_id):
        message = (
            f"{deployment_id!r} cannot be the value of a label at Hetzner: letters, digits, '-', '_' and '.', "
            "at most 63, a letter or digit first and last."
        )
        raise UserError(message)
    client = load_sdk().Client(
        access.token, access.endpoint, application_name="testyard", timeout=(CONNECT_SECONDS, READ_SECONDS)
    )
    return HetznerProvider(deployment_id, client)


def load_sdk() -> Any:
    """The module of hcloud.

    Raises:
        UserError: It is not installed.
    """
    return import_sdk(ProviderName.HETZNER, "hcloud")
