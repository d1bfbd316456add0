"""The power of machines at DigitalOcean, by ``pydo`` (API v2).

A droplet of a deployment carries the tags ``deployment:<id>`` and ``node:<name>``. The API knows no state between
``active`` and ``off``: an action is ``in-progress`` until it is ``completed`` or ``errored``, so the state of a
droplet on which this process has begun an action is read from that action.

Source: docs.digitalocean.com/reference/api, "Droplets", "Droplet Actions" and "Actions".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
)
from testyard.power.providers.tokens import TokenAccess, token_access

Answer = TypeVar("Answer")

TOKEN = "DIGITALOCEAN_TOKEN"
ENDPOINT = "DIGITALOCEAN_ENDPOINT"
DEFAULT_ENDPOINT = "https://api.digitalocean.com"
MOST_PER_PAGE = 200
NOT_FOUND = "not_found"
CONNECT_SECONDS, READ_SECONDS = 10, 30
# Whoever waits for a state asks again anyway: no long silence behind a call.
RETRIES = 1

STATES = {"new": PowerState.STARTING, "active": PowerState.RUNNING, "off": PowerState.STOPPED}
IN_PROGRESS = {
    "power_on": PowerState.STARTING,
    "shutdown": PowerState.STOPPING,
    "power_off": PowerState.STOPPING,
}


@dataclass(frozen=True)
class _Begun:
    """An action that this process has begun and not yet seen ended."""

    identifier: int
    kind: str


class DigitalOceanProvider:
    """Droplets of one deployment; see :class:`testyard.power.protocol.PowerProvider`.

    Args:
        deployment: Value of their tag ``deployment:``.
        client: A ``pydo.Client``.
    """

    name = ProviderName.DIGITALOCEAN
    calls: Mapping[str, str] = {
        "start": "droplet_actions.post(type=power_on)",
        "stop": "droplet_actions.post(type=shutdown)",
        "crash": "droplet_actions.post(type=power_off)",
    }

    def __init__(self, deployment: str, client: Any) -> None:
        self._deployment = deployment
        self._client = client
        self._begun: dict[str, _Begun] = {}

    def instances(self) -> Sequence[Instance]:
        """The droplets with the deployment's tag."""
        droplets: list[dict[str, Any]] = []
        for page in itertools.count(1):
            answer = self._call("droplets.list", partial(self._page, page))
            droplets += answer["droplets"]
            if "next" not in answer.get("links", {}).get("pages", {}):
                break
        found = [
            Instance(str(droplet["id"]), _tags(droplet).get("node", ""), droplet["region"]["slug"], self.name)
            for droplet in droplets
            # The API matches tags without regard to case.
            if _tags(droplet).get("deployment") == self._deployment
        ]
        return checked_instances(self.name, self._deployment, found)

    def state(self, instance: Instance) -> PowerState:
        """The droplet's state, as the API tells it now.

        Raises:
            UserError: The action that was begun on the droplet ended in an error, or the droplet cannot be read.
        """
        begun = self._begun.get(instance.identifier)
        if begun is not None:
            what = f"actions.get for node {instance.node} ({begun.kind}, action {begun.identifier})"
            answer = self._call(what, lambda: self._client.actions.get(begun.identifier))
            status = answer.get("action", {}).get("status")
            if status == "in-progress":
                return IN_PROGRESS[begun.kind]
            del self._begun[instance.identifier]
            if status == "errored":
                self._read(instance)
                raise failed_call(self.name, f"{begun.kind} for node {instance.node}", "the action is 'errored'")
        return STATES.get(self._read(instance)["status"], PowerState.UNKNOWN)

    def start(self, instance: Instance) -> None:
        """Power the droplet on."""
        self._act("power_on", instance)

    def stop(self, instance: Instance) -> None:
        """Ask the droplet's system to shut down."""
        self._act("shutdown", instance)

    def crash(self, instance: Instance) -> None:
        """Power the droplet off, as if by pulling its plug."""
        self._act("power_off", instance)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _page(self, page: int) -> Any:
        return self._client.droplets.list(
            tag_name=f"deployment:{self._deployment}", per_page=MOST_PER_PAGE, page=page
        )

    def _act(self, kind: str, instance: Instance) -> None:
        self._read(instance)
        what = f"droplet_actions.post(type={kind}) for node {instance.node} ({instance.identifier})"
        answer = self._call(
            what, lambda: self._client.droplet_actions.post(int(instance.identifier), body={"type": kind})
        )
        if answer.get("id") == NOT_FOUND:
            raise gone(instance)
        self._begun[instance.identifier] = _Begun(answer["action"]["id"], kind)

    def _read(self, instance: Instance) -> dict[str, Any]:
        """What the API says of the droplet now, when it is the deployment's.

        Raises:
            UserError: It is not, or there is none.
        """
        what = f"droplets.get for node {instance.node} ({instance.identifier})"
        answer = self._call(what, lambda: self._client.droplets.get(int(instance.identifier)))
        # pydo gives the body of a 404 back instead of raising.
        if answer.get("id") == NOT_FOUND:
            raise gone(instance)
        droplet: dict[str, Any] = answer["droplet"]
        refuse_foreign(instance, self._deployment, _tags(droplet), "node")
        return droplet

    def _call(self, what: str, call: Callable[[], Answer]) -> Answer:
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        try:
            return call()
        except ClientAuthenticationError as problem:
            raise refused_credential(self.name, TOKEN, _said(problem)) from None
        except HttpResponseError as problem:
            raise failed_call(self.name, what, f"{problem.status_code}: {_said(problem)}") from None
        except AzureError as problem:
            raise failed_call(self.name, what, secrets_in_use.mask(str(problem))) from None


def open_provider(deployment_id: str, settings: Mapping[str, str]) -> PowerProvider:
    """DigitalOcean for one deployment.

    Args:
        deployment_id: Only droplets with the tag ``deployment:<id>`` are seen and touched.
        settings: DIGITALOCEAN_TOKEN, and DIGITALOCEAN_ENDPOINT where it is not DigitalOcean's own.

    Raises:
        UserError: pydo is not installed, or a setting is missing or wrong.
    """
    provider = ProviderName.DIGITALOCEAN
    access = token_access(provider, settings, token=TOKEN, endpoint=ENDPOINT, default=DEFAULT_ENDPOINT)
    return DigitalOceanProvider(deployment_id, _new_client(load_sdk(), access))


def load_sdk() -> Any:
    """The module of pydo.

    Raises:
        UserError: It is not installed.
    """
    return import_sdk(ProviderName.DIGITALOCEAN, "pydo")


def _new_client(pydo: Any, access: TokenAccess) -> Any:
    options: dict[str, Any] = {"retry_total": RETRIES}
    if access.plain:
        from azure.core.credentials import AzureKeyCredential
        from azure.core.pipeline.policies import AzureKeyCredentialPolicy

        # The client's own policy sends a bearer token over TLS only; the lab's endpoint is on this machine.
        policy = AzureKeyCredentialPolicy(AzureKeyCredential(access.token), "Authorization", prefix="Bearer")
        options = {"retry_total": 0, "authentication_policy": policy}
    return pydo.Client(
        access.token,
        endpoint=access.endpoint,
        connection_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        **options,
    )


def _tags(droplet: Mapping[str, Any]) -> dict[str, str]:
    """Tags such as ``node:n11`` by what is before the colon."""
    return {name: value for name, colon, value in (tag.partition(":") for tag in droplet["tags"]) if colon}


def _said(problem: Any) -> str:
    """What the API says was wrong, in its own words."""
    try:
        said = problem.response.json()["message"]
    except (AttributeError, KeyError, TypeError, ValueError):
        said = problem.reason
    return secrets_in_use.mask(str(said))
