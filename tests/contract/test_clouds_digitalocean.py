"""pydo against the lab's DigitalOcean, whose answers are held against what DigitalOcean documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pydo
import pytest
from azure.core.exceptions import HttpResponseError
from clouds_contract import LASTING, open_provider
from clouds_support import NODES, OWN, ServedCloud
from clouds_token_contract import BEFORE, DONE, OPERATIONS, TokenContract, until_done
from pydo.operations import ActionsOperations, DropletsOperations
from testyard.lab.clouds.digitalocean_bodies import TYPES
from testyard.lab.clouds.machines import MachineState, instance_identifier
from testyard.power.protocol import PowerProvider, ProviderName
from testyard.power.providers import digitalocean

DOCUMENTED = json.loads(
    (Path(__file__).parents[1] / "data" / "clouds" / "digitalocean.json").read_text(encoding="utf-8")
)
TYPE_NAMES = {
    "integer": int,
    "number": (int, float),
    "string": str,
    "boolean": bool,
}
# What a reboot does to the machine before that starts again.
BUTTONS = {"reboot": "press", "power_cycle": "power_off"}
N11 = int(instance_identifier("digitalocean", OWN, "n11"))


class TestDigitalOcean(TokenContract):
    """The power of machines at DigitalOcean."""

    provider = ProviderName.DIGITALOCEAN
    title = "DigitalOcean"
    required_settings = ("DIGITALOCEAN_TOKEN",)
    credential = "DIGITALOCEAN_TOKEN"
    endpoint = "DIGITALOCEAN_ENDPOINT"
    sdk = "pydo"
    busy = "422: Droplet already has a pending event"

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_every_call_that_is_announced_is_made(
        self, cloud: ServedCloud, power: PowerProvider, monkeypatch: pytest.MonkeyPatch, operation: str
    ) -> None:
        made: list[str] = []
        post = power._client.droplet_actions.post

        def note_and_post(droplet_id: int, body: dict[str, str]) -> Any:
            made.append(f"droplet_actions.post(type={body['type']})")
            return post(droplet_id, body=body)

        monkeypatch.setattr(power._client.droplet_actions, "post", note_and_post)
        cloud.machines.put("n12", BEFORE[operation])
        getattr(power, operation)(self.instance())
        assert made == [power.calls[operation]]
        assert cloud.machines.actions == [(DONE[operation], "n12")]

    def test_a_tag_that_differs_in_case_is_another_deployments(
        self, cloud: ServedCloud, power: PowerProvider
    ) -> None:
        # The API matches tags without regard to case.
        cloud.machines.relabel("n12", deployment=OWN.upper())
        assert len(power._client.droplets.list(tag_name=f"deployment:{OWN}")["droplets"]) == len(NODES)
        assert [each.node for each in power.instances()] == ["n11", "n13"]

    def test_every_page_is_read(
        self, cloud: ServedCloud, power: PowerProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(digitalocean, "MOST_PER_PAGE", 2)
        assert [each.node for each in power.instances()] == list(NODES)
        assert [request.partition("?")[0] for request in cloud.requests] == ["GET /v2/droplets"] * 2


@pytest.fixture(scope="module")
def served() -> Iterator[ServedCloud]:
    """The lab's DigitalOcean, for all tests."""
    with ServedCloud("digitalocean") as cloud:
        yield cloud


@pytest.fixture
def cloud(served: ServedCloud) -> ServedCloud:
    """The lab's DigitalOcean, with its machines running."""
    served.reset()
    return served


@pytest.fixture(scope="module")
def client(served: ServedCloud) -> Iterator[pydo.Client]:
    """The SDK, with a policy that sends the token without TLS."""
    with closing(open_provider(ProviderName.DIGITALOCEAN, served.settings)) as power:
        yield power._client


def differences(value: Any, shape: Any, where: str) -> list[str]:
    """Where a value is not as documented."""
    match shape:
        case "any":
            return []
        case str():
            fits = isinstance(value, TYPE_NAMES[shape]) and (shape == "boolean") is isinstance(value, bool)
            return [] if fits else [f"{where} is {value!r}, documented as {shape}"]
        case [item]:
            if not isinstance(value, list):
                return [f"{where} is no list"]
            return [
                each for number, one in enumerate(value) for each in differences(one, item, f"{where}[{number}]")
            ]
    if not isinstance(value, dict):
        return [f"{where} is no object"]
    found = []
    keys = {key.removesuffix("|null").removesuffix("?"): (key, inner) for key, inner in shape.items()}
    found += [f"{where}.{name} is not documented" for name in value.keys() - keys.keys()]
    for name, (key, inner) in keys.items():
        if name not in value:
            found += [] if key.endswith("?") else [f"{where}.{name} is missing"]
        elif not (value[name] is None and key.endswith("|null")):
            found += differences(value[name], inner, f"{where}.{name}")
    return found


def keys_of(shape: Any) -> set[str]:
    """Every key of a documented shape."""
    if isinstance(shape, list):
        return keys_of(shape[0])
    if not isinstance(shape, dict):
        return set()
    own = {key.removesuffix("|null").removesuffix("?") for key in shape}
    return own.union(*(keys_of(inner) for inner in shape.values()))


@pytest.mark.parametrize(
    ("shape", "method"),
    [("droplet", DropletsOperations.get), ("action", ActionsOperations.get), ("error", DropletsOperations.get)],
)
def test_what_is_documented_is_what_the_client_documents(shape: str, method: Any) -> None:
    assert {key for key in keys_of(DOCUMENTED[shape]) if f'"{key}":' not in method.__doc__} == set()


@pytest.mark.parametrize("state", list(MachineState))
def test_a_droplet_is_as_documented(cloud: ServedCloud, client: pydo.Client, state: MachineState) -> None:
    cloud.machines.put("n11", state)
    droplet = client.droplets.get(N11)["droplet"]
    assert differences(droplet, DOCUMENTED["droplet"], "droplet") == []
    assert droplet["status"] in DOCUMENTED["droplet_status"]
    assert droplet["tags"] == [f"deployment:{OWN}", "node:n11"]


@pytest.mark.parametrize("kind", list(TYPES))
def test_an_action_is_as_documented(cloud: ServedCloud, client: pydo.Client, kind: str) -> None:
    cloud.machines.put("n11", MachineState.STOPPED if kind == "power_on" else MachineState.RUNNING)
    client.droplets.get(N11)
    cloud.account.delay = LASTING
    action = client.droplet_actions.post(N11, body={"type": kind})["action"]
    assert differences(action, DOCUMENTED["action"], "action") == []
    assert (action["type"], action["status"], action["completed_at"]) == (kind, "in-progress", None)
    assert client.droplet_actions.get(N11, action["id"])["action"] == action
    cloud.account.delay = timedelta()
    if kind != "power_on":
        cloud.machines.put("n11", MachineState.STOPPED)
    if kind in {"reboot", "power_cycle"}:
        until_done(cloud, (BUTTONS[kind], "n11"), ("power_on", "n11"))
    if kind in {"power_on", "reboot", "power_cycle"}:
        cloud.machines.put("n11", MachineState.RUNNING)
    done = client.actions.get(action["id"])["action"]
    assert differences(done, DOCUMENTED["action"], "action") == []
    assert (done["status"], done["completed_at"] is None) == ("completed", False)


def test_a_list_comes_in_pages(client: pydo.Client) -> None:
    first = client.droplets.list(per_page=2, page=1)
    last = client.droplets.list(per_page=2, page=3)
    for page in (first, last):
        assert differences(page, DOCUMENTED["list"], "list") == []
        assert page["meta"]["total"] == 2 * len(NODES)
        assert len(page["droplets"]) == 2
    assert set(first["links"]["pages"]) == {"next", "last"}
    assert set(last["links"]["pages"]) == {"first", "prev"}
    assert "links" in (everything := client.droplets.list())
    assert everything["links"] == {}


@pytest.mark.parametrize(
    ("path", "status", "identifier"),
    [
        ("/v2/droplets/1", 404, "not_found"),
        ("/v2/actions/1", 404, "not_found"),
        ("/v2/nothing", 404, "not_found"),
        ("/v2/droplets?per_page=201", 422, "unprocessable_entity"),
    ],
)
def test_errors_are_as_documented(cloud: ServedCloud, path: str, status: int, identifier: str) -> None:
    headers = {"Authorization": f"Bearer {cloud.account.secret}"}
    answer = httpx.get(cloud.base_url + path, headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (status, identifier)
    assert differences(answer.json(), DOCUMENTED["error"], "error") == []


def test_without_a_token_nothing_is_told(cloud: ServedCloud) -> None:
    answer = httpx.get(cloud.base_url + "/v2/droplets")
    assert (answer.status_code, answer.json()["id"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("state", "kind"), [(MachineState.RUNNING, "power_on"), (MachineState.STOPPED, "shutdown")]
)
def test_an_action_that_would_change_nothing_is_refused(
    cloud: ServedCloud, client: pydo.Client, state: MachineState, kind: str
) -> None:
    cloud.machines.put("n11", state)
    with pytest.raises(HttpResponseError, match="Droplet is currently powered") as caught:
        client.droplet_actions.post(N11, body={"type": kind})
    assert caught.value.status_code == 422
    assert cloud.machines.actions == []
