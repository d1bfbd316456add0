"""hcloud against the lab's Hetzner, whose answers are held against the client's own models."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import hcloud
import httpx
import pytest
from clouds_contract import LASTING, open_provider
from clouds_support import FOREIGN, NODES, OWN, ServedCloud
from clouds_token_contract import BEFORE, DONE, OPERATIONS, TokenContract, until_done
from hcloud.actions import Action
from hcloud.core.domain import Pagination
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer, IPv4Address, PublicNetwork, Server
from testyard.core.errors import UserError
from testyard.lab.clouds.hetzner import selects
from testyard.lab.clouds.hetzner_bodies import COMMANDS, PATHS
from testyard.lab.clouds.machines import MachineState, instance_identifier
from testyard.power.protocol import PowerProvider, ProviderName

N11 = int(instance_identifier("hetzner", OWN, "n11"))
# Documented in answers, but nothing that the client's models have.
ONLY_IN_ANSWERS = {"load_balancers"}


def noting(made: list[str], name: str, real: Any) -> Any:
    """A method that notes its call."""

    def call(server: Any) -> Any:
        made.append(name)
        return real(server)

    return call


class TestHetzner(TokenContract):
    """The power of machines at Hetzner."""

    provider = ProviderName.HETZNER
    title = "Hetzner"
    required_settings = ("HCLOUD_TOKEN",)
    credential = "HCLOUD_TOKEN"
    endpoint = "HCLOUD_ENDPOINT"
    sdk = "hcloud"
    busy = "server is locked .locked."

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_every_call_that_is_announced_is_made(
        self, cloud: ServedCloud, power: PowerProvider, monkeypatch: pytest.MonkeyPatch, operation: str
    ) -> None:
        made: list[str] = []
        servers = power._client.servers
        for name in ("power_on", "power_off", "shutdown", "reboot", "reset"):
            monkeypatch.setattr(servers, name, noting(made, f"servers.{name}", getattr(servers, name)))
        cloud.machines.put("n12", BEFORE[operation])
        getattr(power, operation)(self.instance())
        assert made == [power.calls[operation]]
        assert cloud.machines.actions == [(DONE[operation], "n12")]

    def test_an_id_that_can_be_no_label_is_refused(self, cloud: ServedCloud) -> None:
        with pytest.raises(UserError, match=r"'d own'.*label"):
            open_provider(self.provider, cloud.settings, "d own")


@pytest.fixture(scope="module")
def served() -> Iterator[ServedCloud]:
    """The lab's Hetzner, for all tests."""
    with ServedCloud("hetzner") as cloud:
        yield cloud


@pytest.fixture
def cloud(served: ServedCloud) -> ServedCloud:
    """The lab's Hetzner, with its machines running."""
    served.reset()
    return served


@pytest.fixture
def client(cloud: ServedCloud) -> hcloud.Client:
    """The SDK alone."""
    return hcloud.Client(cloud.settings["HCLOUD_TOKEN"], cloud.settings["HCLOUD_ENDPOINT"], poll_interval=0.01)


def test_a_server_is_what_the_model_knows(client: hcloud.Client) -> None:
    server = client.request("GET", f"/servers/{N11}")["server"]
    assert set(server) - ONLY_IN_ANSWERS == set(Server.__api_properties__)
    assert set(server["image"]) == set(Image.__api_properties__)
    assert set(server["location"]) == set(Location.__api_properties__)
    assert set(server["server_type"]) <= set(ServerType.__api_properties__)
    assert set(server["public_net"]) == {"ipv4", "ipv6", "floating_ips", "firewalls"}
    assert set(server["public_net"]["ipv4"]) == set(IPv4Address.__api_properties__) | {"id"}


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (MachineState.STARTING, Server.STATUS_STARTING),
        (MachineState.RUNNING, Server.STATUS_RUNNING),
        (MachineState.STOPPING, Server.STATUS_STOPPING),
        (MachineState.STOPPED, Server.STATUS_OFF),
    ],
)
def test_a_server_is_read_by_the_client(
    cloud: ServedCloud, client: hcloud.Client, state: MachineState, status: str
) -> None:
    cloud.machines.put("n11", state)
    server = client.servers.get_by_id(N11)
    assert isinstance(server, BoundServer)
    assert isinstance(server.public_net, PublicNetwork)
    assert (server.status, server.locked, server.labels) == (status, False, {"deployment": OWN, "node": "n11"})
    assert (server.location.name, server.created.year) == ("fsn1", 2026)


@pytest.mark.parametrize("path", list(PATHS))
def test_an_action_is_what_the_model_knows(cloud: ServedCloud, client: hcloud.Client, path: str) -> None:
    cloud.machines.put("n11", MachineState.STOPPED if path == "poweron" else MachineState.RUNNING)
    assert not client.servers.get_by_id(N11).locked
    cloud.account.delay = LASTING
    begun = client.request("POST", f"/servers/{N11}/actions/{path}")["action"]
    assert set(begun) == set(Action.__api_properties__)
    assert (begun["command"], begun["status"], begun["finished"]) == (COMMANDS[PATHS[path]], "running", None)
    assert begun["resources"] == [{"id": N11, "type": "server"}]
    assert client.servers.get_by_id(N11).locked
    for place in (f"/servers/{N11}/actions", "/servers/actions", "/actions"):
        assert client.request("GET", f"{place}/{begun['id']}")["action"]["id"] == begun["id"]
    cloud.account.delay = timedelta()
    if path in {"reboot", "reset"}:
        cloud.machines.put("n11", MachineState.STOPPED)
        first = "press" if path == "reboot" else "power_off"
        until_done(cloud, (first, "n11"), ("power_on", "n11"))
    if path in {"poweron", "reboot", "reset"}:
        cloud.machines.put("n11", MachineState.RUNNING)
    action = client.actions.get_by_id(begun["id"])
    action.wait_until_finished()
    assert (action.status, action.progress, action.error) == ("success", 100, None)
    assert action.finished >= action.started


def test_the_action_of_a_shutdown_ends_before_the_server_is_off(cloud: ServedCloud, client: hcloud.Client) -> None:
    client.servers.shutdown(client.servers.get_by_id(N11)).wait_until_finished()
    assert client.servers.get_by_id(N11).status == Server.STATUS_STOPPING
    cloud.machines.put("n11", MachineState.STOPPED)
    assert client.servers.get_by_id(N11).status == Server.STATUS_OFF


@pytest.mark.parametrize(
    ("state", "path"), [(MachineState.RUNNING, "poweron"), (MachineState.STOPPED, "poweroff")]
)
def test_an_action_that_changes_nothing_succeeds(
    cloud: ServedCloud, client: hcloud.Client, state: MachineState, path: str
) -> None:
    cloud.machines.put("n11", state)
    begun = client.request("POST", f"/servers/{N11}/actions/{path}")["action"]
    client.actions.get_by_id(begun["id"]).wait_until_finished()
    assert cloud.machines.actions == []


def test_a_list_comes_in_pages(client: hcloud.Client) -> None:
    answer = client.request("GET", "/servers", params={"per_page": 4, "page": 1})
    assert set(answer["meta"]["pagination"]) == set(Pagination.__api_properties__)
    servers, meta = client.servers.get_list(per_page=4, page=2)
    assert len(servers) == 2 * len(NODES) - 4
    found = meta.pagination
    assert (found.page, found.previous_page, found.next_page, found.last_page) == (2, 1, None, 2)
    assert found.total_entries == 2 * len(NODES)


def test_every_page_is_read(client: hcloud.Client, cloud: ServedCloud) -> None:
    client.servers.max_per_page = 2
    names = [server.labels["node"] for server in client.servers.get_all(label_selector=f"deployment=={OWN}")]
    assert names == list(NODES)
    assert len(cloud.requests) == 2


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        (f"deployment=={OWN}", True),
        (f"deployment={OWN}", True),
        (f"deployment=={FOREIGN}", False),
        (f"deployment=={OWN},node==n11", True),
        (f"deployment=={OWN}, node!=n11", False),
        ("node!=n12", True),
        ("node", True),
        ("!node", False),
        ("role", False),
        ("!role", True),
    ],
)
def test_label_selectors(selector: str, chosen: bool) -> None:
    assert selects(selector, {"deployment": OWN, "node": "n11"}) is chosen


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/servers/1", 404, "not_found"),
        ("/actions/1", 404, "not_found"),
        ("/nothing", 404, "not_found"),
        ("/servers?per_page=51", 400, "invalid_input"),
        ("/servers?label_selector=node in (n11)", 400, "invalid_input"),
    ],
)
def test_errors_are_read_by_the_client(client: hcloud.Client, path: str, status: int, code: str) -> None:
    with pytest.raises(hcloud.APIException) as caught:
        client.request("GET", path)
    assert caught.value.code == code
    token, base = client._client._token, client._client._endpoint
    answer = httpx.get(base + path, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, set(answer.json()["error"])) == (status, {"code", "message", "details"})


def test_without_a_token_nothing_is_told(cloud: ServedCloud) -> None:
    answer = httpx.get(cloud.base_url + "/v1/servers")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
