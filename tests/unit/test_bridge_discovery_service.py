"""The discovery service: it registers processes, asks them for their health, and tells others where they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from bridge_support import (
    HealthDouble,
    called_here,
    events_of,
    running_bus,
    secrets_of,
    service_process,
    short_settings,
    until,
)
from testyard.core.deadline import Deadline
from testyard.lab.bridge.discovery import client as client_module
from testyard.lab.bridge.discovery.app import create_app
from testyard.lab.bridge.settings import DiscoverySettings, Settings
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.consul import ConsulDouble
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio
STAMPING = "metadata-stamping-service"
PATIENCE = timedelta(seconds=20)


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """Brokers with every topic of the services."""
    with running_bus() as kafka:
        yield kafka


@pytest.fixture
def consul() -> Iterator[ConsulDouble]:
    """A running Consul."""
    with ConsulDouble() as consul:
        yield consul


@pytest.fixture
def service() -> Iterator[HealthDouble]:
    """A process to register."""
    with HealthDouble() as service:
        yield service


def settings_of(kafka: MockKafka, directory: Path, consul: str | None) -> Settings:
    """Settings with short waits."""
    discovery = DiscoverySettings(
        consul=consul, timeout=timedelta(seconds=1), heartbeat=timedelta(milliseconds=50)
    )
    return short_settings(kafka.bootstrap_servers, directory, discovery=discovery)


@pytest.fixture
def settings(kafka: MockKafka, consul: ConsulDouble, tmp_path: Path) -> Settings:
    """Settings with Consul."""
    return settings_of(kafka, tmp_path, consul.url)


@pytest.fixture
async def client(settings: Settings, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A running discovery service with Consul."""
    async with called_here(create_app(settings, secrets_of(database_url))) as client:
        yield client


async def registered(client: httpx.AsyncClient, service: HealthDouble, **fields: Any) -> dict[str, Any]:
    """Register a process."""
    body = {"name": STAMPING, "host": "127.0.0.1", "port": service.port, **fields}
    answer = await client.post("/services", json=body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def good(client: httpx.AsyncClient, path: str) -> Any:
    """The body of the answer to a question that has to be answered."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def heartbeats(kafka: MockKafka, status: str) -> list[dict[str, Any]]:
    """Wait until a heartbeat has told of such a health; all heartbeats up to there."""
    deadline = Deadline(PATIENCE)
    while True:
        beats = [event.payload for event in await events_of(kafka, Route.NODE_HEARTBEAT)]
        if status in {beat["health_status"] for beat in beats}:
            return beats
        assert not deadline.expired, beats


async def located_by(client: httpx.AsyncClient, source: str) -> dict[str, Any]:
    """Wait until somebody tells where the stamping service is."""
    deadline = Deadline(PATIENCE)
    while True:
        answer = await client.get(f"/services/{STAMPING}?fresh=true")
        if answer.status_code == 200 and answer.json()["source"] == source:
            located: dict[str, Any] = answer.json()
            return located
        assert not deadline.expired, answer.text
        await elapse(timedelta(milliseconds=10))


async def test_a_process_is_registered_with_consul_and_then_located(
    client: httpx.AsyncClient, service: HealthDouble, consul: ConsulDouble
) -> None:
    told = await registered(client, service, tags=["blake3-hashing"], meta={"version": "1.0.0"})

    located = await located_by(client, "consul")
    again = await good(client, f"/services/{STAMPING}")

    assert told["id"] == f"{STAMPING}-127.0.0.1-{service.port}"
    assert (told["registered_with_consul"], told["health_status"]) == (True, "UNKNOWN")
    assert (located["name"], located["url"]) == (STAMPING, service.url)
    assert again["url"] == service.url
    assert again["duration_ms"] > 0
    everything = await good(client, "/services")
    assert (everything["source"], everything["services"][STAMPING]) == ("consul", ["blake3-hashing"])
    assert [it["id"] for it in everything["registered"]] == [told["id"]]
    assert await good(client, "/consul") == {"status": "healthy", "address": consul.url}


async def test_a_registration_is_published(
    client: httpx.AsyncClient, service: HealthDouble, kafka: MockKafka
) -> None:
    told = await registered(client, service, tags=["a"], meta={"version": "7.0.0", "protocol": "O.N.E. v0.1"})

    (event,) = await events_of(kafka, Route.NODE_INTROSPECTION)

    assert event.key == told["id"]
    assert event.envelope["event_type"] == "NODE_INTROSPECTION"
    assert event.payload == {
        "node_id": told["id"],
        "node_type": STAMPING,
        "node_version": "7.0.0",
        "capabilities": {"tags": ["a"]},
        "endpoints": {"http": service.url, "health": f"{service.url}/health"},
        "metadata": {"version": "7.0.0", "protocol": "O.N.E. v0.1"},
    }


async def test_the_health_of_a_process_is_asked_and_published_again_and_again(
    client: httpx.AsyncClient, service: HealthDouble, kafka: MockKafka
) -> None:
    told = await registered(client, service)

    beats = await heartbeats(kafka, "HEALTHY")
    service.tell("degraded")
    beats = await heartbeats(kafka, "DEGRADED")
    service.tell("healthy", 503)
    beats = await heartbeats(kafka, "UNHEALTHY")

    assert {beat["node_id"] for beat in beats} == {told["id"]}
    order = list(dict.fromkeys(beat["health_status"] for beat in beats))
    assert order == ["HEALTHY", "DEGRADED", "UNHEALTHY"]
    (known,) = (await good(client, "/services"))["registered"]
    assert known["health_status"] == "UNHEALTHY"
    assert known["last_heartbeat"] is not None


@pytest.mark.parametrize("said", [("unheard of", 200), ("unhealthy", 200), ("healthy", 500)])
async def test_what_does_not_say_that_it_is_well_is_not(
    client: httpx.AsyncClient, service: HealthDouble, kafka: MockKafka, said: tuple[str, int]
) -> None:
    service.tell(*said)
    await registered(client, service)

    assert {beat["health_status"] for beat in await heartbeats(kafka, "UNHEALTHY")} == {"UNHEALTHY"}


async def test_a_process_that_is_gone_is_not_located_any_more_however_long_answers_are_kept(
    settings: Settings,
    kafka: MockKafka,
    service: HealthDouble,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "KEEPS_FOR", timedelta(hours=1))
    async with called_here(create_app(settings, secrets_of(database_url))) as client:
        await registered(client, service)
        await located_by(client, "consul")
        service.stop()
        await heartbeats(kafka, "UNHEALTHY")
        deadline = Deadline(PATIENCE)
        while (await client.get(f"/services/{STAMPING}")).status_code != 503:
            assert not deadline.expired
            await elapse(timedelta(milliseconds=10))
        service.start()
        assert (await located_by(client, "consul"))["url"] == service.url


async def test_a_process_that_is_deregistered_is_not_asked_any_more(
    client: httpx.AsyncClient, service: HealthDouble, consul: ConsulDouble
) -> None:
    told = await registered(client, service)
    await until(lambda: service.asked >= 3, "the process was asked for its health")

    answer = await client.delete(f"/services/{told['id']}")

    assert answer.json() == {"id": told["id"], "deregistered": True}
    assert (await good(client, "/services"))["registered"] == []
    assert httpx.get(f"{consul.url}/v1/agent/services", trust_env=False).json() == {}
    assert (await client.delete(f"/services/{told['id']}")).status_code == 404
    assert (await located_by(client, "fallback"))["url"] == "http://localhost:8053"


async def test_what_nobody_knows_is_not_found_and_what_is_no_process_not_registered(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.get("/services/nobody")).status_code == 404
    assert (await client.post("/services", json={"name": "a b", "host": "x", "port": 1})).status_code == 422


async def test_a_process_is_registered_with_consul_when_that_is_back(
    client: httpx.AsyncClient, service: HealthDouble, consul: ConsulDouble
) -> None:
    consul.stop()
    told = await registered(client, service)
    away = await located_by(client, "fallback")
    assert (await good(client, "/consul"))["status"] == "unavailable"
    consul.start()

    located = await located_by(client, "consul")

    assert told["registered_with_consul"] is False
    assert away["reason"]
    assert located["url"] == service.url
    assert (await good(client, "/services"))["registered"][0]["registered_with_consul"] is True


async def test_without_consul_the_fallback_is_told(kafka: MockKafka, database_url: str, tmp_path: Path) -> None:
    settings = settings_of(kafka, tmp_path, None)
    async with called_here(create_app(settings, secrets_of(database_url))) as client:
        located = await good(client, f"/services/{STAMPING}")
        everything = await good(client, "/services")
        assert await good(client, "/consul") == {"status": "unavailable", "address": None}

    assert (located["url"], located["source"]) == ("http://localhost:8053", "fallback")
    assert (everything["source"], STAMPING in everything["services"]) == ("fallback", True)


async def test_without_kafka_processes_are_registered_and_the_events_follow(
    client: httpx.AsyncClient, service: HealthDouble, kafka: MockKafka
) -> None:
    kafka.down()
    await registered(client, service)
    kafka.up()

    assert len(await events_of(kafka, Route.NODE_INTROSPECTION)) == 1
    await heartbeats(kafka, "HEALTHY")


def test_the_service_is_a_process(
    settings: Settings, service: HealthDouble, database_url: str, tmp_path: Path
) -> None:
    with service_process("testyard.lab.bridge.discovery", settings, database_url, tmp_path) as process:
        body = {"name": STAMPING, "host": "127.0.0.1", "port": service.port}
        assert httpx.post(f"{process.url}/services", json=body, trust_env=False).status_code == 201
        health = httpx.get(f"{process.url}/health", trust_env=False).json()

    assert (health["service"], health["breakers"]["consul"]) == ("discovery", "closed")
    assert process.process.returncode == 0
