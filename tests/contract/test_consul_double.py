"""The Consul stand-in: a real client of Consul talks to it, and its answers have the documented shapes.

The shapes are the sample answers of Consul's HTTP API documentation, v1, as of Consul 1.21.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import consul as consul_client
import httpx
import pytest
from consul import Check
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.servers.consul import ConsulDouble
from testyard.lab.servers.consul_definitions import go_duration
from testyard.lab.servers.loop_thread import loopback_listener
from testyard.lab.servers.webhooks import WebhookReceiver

SOON = timedelta(seconds=10)

DOCUMENTED_NODE = {"ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta"}
DOCUMENTED_SERVICE = {
    *("ID", "Service", "Tags", "Address", "TaggedAddresses", "Meta", "Port", "Weights"),
    *("EnableTagOverride", "Datacenter"),
}
DOCUMENTED_CHECK = {
    *("Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName", "ServiceTags"),
}
DOCUMENTED_CATALOG_ENTRY = {
    *("ID", "Node", "Address", "Datacenter", "TaggedAddresses", "NodeMeta", "CreateIndex", "ModifyIndex"),
    *("ServiceAddress", "ServiceEnableTagOverride", "ServiceID", "ServiceName", "ServicePort", "ServiceMeta"),
    *("ServiceTaggedAddresses", "ServiceTags"),
}


@pytest.fixture
def consul() -> Iterator[ConsulDouble]:
    """A running agent."""
    with ConsulDouble() as consul:
        yield consul


@pytest.fixture
def client(consul: ConsulDouble) -> Iterator[consul_client.Consul]:
    """The client that Python programs use."""
    client = consul_client.Consul(host=consul.host, port=consul.port)
    yield client
    client.http.session.close()


class Target:
    """A service whose health can be changed."""

    def __init__(self, receiver: WebhookReceiver) -> None:
        self.receiver = receiver

    @property
    def check(self) -> dict[str, Any]:
        """An HTTP check of it; what it answers to POST can be changed."""
        return {"HTTP": f"{self.receiver.url}/health", "Method": "POST", "Interval": "20ms", "Timeout": "1s"}

    def answers(self, status: int) -> None:
        """Let it answer with a status from now on."""
        self.receiver.fail(1_000_000 if status != 200 else 0, status)


@pytest.fixture
def target() -> Iterator[Target]:
    """A healthy service."""
    with WebhookReceiver() as receiver:
        yield Target(receiver)


def register(consul: ConsulDouble, **fields: Any) -> httpx.Response:
    """Register a service as its documentation says."""
    return httpx.put(f"{consul.url}/v1/agent/service/register", json=fields, trust_env=False)


def get(consul: ConsulDouble, path: str) -> Any:
    """The JSON of an answer."""
    answer = httpx.get(f"{consul.url}/v1{path}", trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


def passing(consul: ConsulDouble, name: str) -> list[str]:
    """The ids of the processes of a service that pass."""
    return [entry["Service"]["ID"] for entry in get(consul, f"/health/service/{name}?passing=true")]


def status_of(consul: ConsulDouble, check_id: str) -> str:
    """How a check has turned out."""
    status: str = get(consul, "/agent/checks")[check_id]["Status"]
    return status


def until_check_is(consul: ConsulDouble, status: str, check_id: str = "service:web-1") -> None:
    """Wait until a check has turned out so."""
    wait_until(
        lambda: status_of(consul, check_id), lambda it: it == status, Deadline(SOON), f"{check_id} is {status}"
    )


def until_checked(target: Target, path: str, times: int) -> None:
    """Wait until a path of a service was asked so often."""
    what = f"{times} checks of {path}"
    wait_until(lambda: len(target.receiver.deliveries(path)), lambda it: it >= times, Deadline(SOON), what)


def test_a_real_client_registers_finds_and_deregisters(
    consul: ConsulDouble, client: consul_client.Consul, target: Target
) -> None:
    assert client.agent.service.register(
        "metadata-stamping-service",
        service_id="metadata-stamping-service-127.0.0.1-8053",
        address="127.0.0.1",
        port=8053,
        tags=["blake3-hashing"],
        meta={"version": "1.0.0"},
        check={**Check.http(f"{target.receiver.url}/health", interval="20ms", timeout="1s"), "method": "POST"},
    )
    until_check_is(consul, "passing", "service:metadata-stamping-service-127.0.0.1-8053")

    index, nodes = client.health.service("metadata-stamping-service", passing=True)

    assert int(index) > 1
    (node,) = nodes
    service = node["Service"]
    assert (service["Address"], service["Port"], service["Meta"]) == ("127.0.0.1", 8053, {"version": "1.0.0"})
    assert client.catalog.services()[1] == {"consul": [], "metadata-stamping-service": ["blake3-hashing"]}
    assert client.catalog.service("metadata-stamping-service")[1][0]["ServicePort"] == 8053
    assert list(client.agent.services()) == [service["ID"]]
    assert client.agent.checks()[f"service:{service['ID']}"]["Status"] == "passing"
    assert client.status.leader() == f"{consul.host}:8300"
    assert client.agent.service.deregister(service["ID"])
    assert client.health.service("metadata-stamping-service")[1] == []
    assert client.agent.checks() == {}


def test_the_answers_have_the_documented_fields(consul: ConsulDouble, target: Target) -> None:
    assert (
        register(
            consul, ID="web-1", Name="web", Tags=["primary"], Port=80, Check=target.check, Meta={"a": "b"}
        ).content
        == b""
    )

    (entry,) = get(consul, "/health/service/web")
    (in_catalog,) = get(consul, "/catalog/service/web")

    assert entry.keys() == {"Node", "Service", "Checks"}
    assert entry["Node"].keys() >= DOCUMENTED_NODE
    assert entry["Service"].keys() >= DOCUMENTED_SERVICE
    assert all(check.keys() >= DOCUMENTED_CHECK for check in entry["Checks"])
    assert [check["CheckID"] for check in entry["Checks"]] == ["serfHealth", "service:web-1"]
    assert entry["Checks"][1]["Name"] == "Service 'web' check"
    assert entry["Service"]["Weights"] == {"Passing": 1, "Warning": 1}
    assert in_catalog.keys() >= DOCUMENTED_CATALOG_ENTRY
    assert get(consul, "/agent/services")["web-1"].keys() >= DOCUMENTED_SERVICE
    assert get(consul, "/health/checks/web")[0]["CheckID"] == "service:web-1"


def test_a_service_passes_when_its_check_does_and_only_then(consul: ConsulDouble, target: Target) -> None:
    target.answers(503)
    register(consul, ID="web-1", Name="web", Check=target.check)

    assert status_of(consul, "service:web-1") == "critical"
    assert passing(consul, "web") == []
    assert len(get(consul, "/health/service/web")) == 1
    target.answers(200)
    until_check_is(consul, "passing")
    assert passing(consul, "web") == ["web-1"]
    assert "200 OK Output: ok" in get(consul, "/agent/checks")["service:web-1"]["Output"]
    target.answers(429)
    until_check_is(consul, "warning")
    assert passing(consul, "web") == []
    target.answers(200)
    until_check_is(consul, "passing")
    target.receiver.stop()
    until_check_is(consul, "critical")
    target.receiver.start()
    until_check_is(consul, "passing")


def test_a_check_that_is_not_answered_in_time_is_critical(consul: ConsulDouble) -> None:
    with loopback_listener() as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        register(consul, ID="web-1", Name="web", Check={"HTTP": url, "Interval": "10s", "Timeout": "50ms"})
        wait_until(
            lambda: get(consul, "/agent/checks")["service:web-1"]["Output"],
            lambda output: "deadline exceeded" in output,
            Deadline(SOON),
            "the check has given up",
        )
        assert status_of(consul, "service:web-1") == "critical"


def test_what_was_not_checked_yet_is_critical_unless_it_says_otherwise(consul: ConsulDouble) -> None:
    with loopback_listener() as silent:
        check = {"HTTP": f"http://127.0.0.1:{silent.getsockname()[1]}/", "Interval": "10s", "Timeout": "1m"}
        register(consul, ID="web-1", Name="web", Check=check)
        register(consul, ID="web-2", Name="web", Check={**check, "Status": "passing"})

        assert passing(consul, "web") == ["web-2"]
        assert status_of(consul, "service:web-1") == "critical"


def test_checks_are_made_again_and_again_until_the_service_is_deregistered(
    consul: ConsulDouble, target: Target
) -> None:
    register(consul, ID="web-1", Name="web", Check=target.check)
    until_checked(target, "/health", 5)

    httpx.put(f"{consul.url}/v1/agent/service/deregister/web-1", trust_env=False)
    made = len(target.receiver.deliveries("/health"))
    other = {**target.check, "HTTP": f"{target.receiver.url}/other"}
    register(consul, ID="other", Name="other", Check=other)
    until_checked(target, "/other", 5)

    # The last one may have been on its way.
    assert len(target.receiver.deliveries("/health")) <= made + 1


def test_registering_the_same_process_again_replaces_it(consul: ConsulDouble, target: Target) -> None:
    register(consul, ID="web-1", Name="web", Port=80, Check=target.check)
    register(consul, ID="web-1", Name="web", Port=81)

    assert [entry["Service"]["Port"] for entry in get(consul, "/health/service/web")] == [81]
    assert get(consul, "/agent/checks") == {}


def test_several_checks_are_numbered_and_all_have_to_pass(consul: ConsulDouble, target: Target) -> None:
    bad = {"HTTP": "http://127.0.0.1:9/", "Interval": "20ms"}
    register(consul, ID="web-1", Name="web", Checks=[target.check, bad])

    until_check_is(consul, "passing", "service:web-1:1")
    assert status_of(consul, "service:web-1:2") == "critical"
    assert passing(consul, "web") == []


def test_a_service_is_named_in_camel_and_in_snake_case(consul: ConsulDouble) -> None:
    register(consul, id="a", name="web", enable_tag_override=True, meta={"CamelCase": "stays"})
    register(consul, ID="b", Name="web", EnableTagOverride=True)

    services = get(consul, "/agent/services")
    assert [services[each]["EnableTagOverride"] for each in "ab"] == [True, True]
    assert services["a"]["Meta"] == {"CamelCase": "stays"}


def test_services_are_found_by_all_of_their_tags(consul: ConsulDouble) -> None:
    register(consul, ID="a", Name="web", Tags=["primary", "v1"])
    register(consul, ID="b", Name="web", Tags=["v1"])

    def found(query: str) -> list[str]:
        return [entry["Service"]["ID"] for entry in get(consul, f"/health/service/web?{query}")]

    assert (found("tag=v1"), found("tag=v1&tag=primary"), found("tag=v2")) == (["a", "b"], ["a"], [])
    assert get(consul, "/catalog/services") == {"consul": [], "web": ["primary", "v1"]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", "Missing service name"),
        (b"{", "Request decode failed"),
        (b'{"Name": 7}', "Request decode failed"),
        (b'{"Name": "a", "Check": {"HTTP": "http://x/", "Interval": "soon"}}', "invalid duration"),
        (b'{"Name": "a", "Check": {"HTTP": "http://x/"}}', "Interval must be > 0"),
        (b'{"Name": "a", "Check": {"TTL": "10s"}}', "HTTP checks only"),
    ],
)
def test_what_cannot_be_registered_is_refused_in_plain_text(consul: ConsulDouble, body: bytes, said: str) -> None:
    answer = httpx.put(f"{consul.url}/v1/agent/service/register", content=body, trust_env=False)

    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert said in answer.text
    assert get(consul, "/agent/services") == {}


def test_a_process_that_is_not_known_cannot_be_deregistered(consul: ConsulDouble) -> None:
    answer = httpx.put(f"{consul.url}/v1/agent/service/deregister/nobody", trust_env=False)

    assert answer.status_code == 404
    assert (
        answer.text == 'Unknown service ID "nobody". Ensure that the service ID is passed, not the service name.'
    )


def test_a_blocking_query_answers_when_something_has_changed(
    consul: ConsulDouble, client: consul_client.Consul
) -> None:
    index, _ = client.health.service("web")
    changing = threading.Timer(0.1, register, [consul], {"ID": "a", "Name": "web"})
    changing.start()

    later, nodes = client.health.service("web", index=index, wait="10s")

    changing.join()
    assert int(later) > int(index)
    assert len(nodes) == 1


def test_a_blocking_query_in_which_nothing_changes_answers_in_the_end(
    consul: ConsulDouble, client: consul_client.Consul
) -> None:
    index, _ = client.health.service("web")
    began = time.monotonic()

    same, nodes = client.health.service("web", index=index, wait="100ms")

    assert time.monotonic() - began >= 0.1
    assert (same, nodes) == (index, [])


def test_an_agent_that_stops_does_not_wait_for_a_blocking_query(consul: ConsulDouble) -> None:
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        with suppress(httpx.HTTPError):
            httpx.get(f"{consul.url}/v1/health/service/web?index=1&wait=60s", trust_env=False, timeout=30)

    asking = threading.Thread(target=ask)
    asking.start()
    assert asked.wait(5)
    began = time.monotonic()
    consul.stop()
    asking.join(20)

    assert not asking.is_alive()
    assert time.monotonic() - began < 10


def test_without_a_leader_the_catalogue_does_not_answer(consul: ConsulDouble) -> None:
    consul.lose_leader()

    assert get(consul, "/status/leader") == ""
    answer = httpx.get(f"{consul.url}/v1/health/service/web", trust_env=False)
    assert (answer.status_code, answer.text) == (500, "No cluster leader")
    consul.elect_leader()
    assert get(consul, "/health/service/web") == []


def test_an_agent_that_is_started_again_is_at_the_same_place_and_knows_nothing(
    consul: ConsulDouble, target: Target
) -> None:
    register(consul, ID="web-1", Name="web", Check=target.check)
    url = consul.url
    consul.stop()
    with pytest.raises(httpx.ConnectError):
        get(consul, "/agent/services")
    made = len(target.receiver.deliveries())
    consul.start()

    assert consul.url == url
    assert get(consul, "/agent/services") == {}
    assert len(target.receiver.deliveries()) == made


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400), ("0.25s", 0.25), ("1h1m1s", 3661)],
)
def test_durations_are_written_as_go_does(text: str, seconds: float) -> None:
    assert go_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1d"])
def test_what_go_does_not_understand_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        go_duration(text)
