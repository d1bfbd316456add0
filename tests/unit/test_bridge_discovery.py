"""Finding services: with Consul, when Consul is away, slow or has no leader, and without any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from bridge_support import HealthDouble
from pydantic import ValidationError
from testyard.core.deadline import Deadline
from testyard.lab.bridge.breaker import BreakerState
from testyard.lab.bridge.discovery import client as client_module
from testyard.lab.bridge.discovery.client import DiscoveryClient, NobodyPassesError
from testyard.lab.bridge.discovery.services import ConsulStatus, Instance, Located, Registration, Source
from testyard.lab.bridge.settings import DiscoverySettings
from testyard.lab.servers.consul import ConsulDouble
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio
STAMPING = "metadata-stamping-service"
PATIENCE = timedelta(seconds=20)
FALLBACK = "http://localhost:8053"


@pytest.fixture
def consul() -> Iterator[ConsulDouble]:
    """A running Consul."""
    with ConsulDouble() as consul:
        yield consul


def registration_of(port: int, **fields: Any) -> Registration:
    """A process of the stamping service."""
    return Registration.model_validate({"name": STAMPING, "host": "127.0.0.1", "port": port, **fields})


@asynccontextmanager
async def discovery_of(consul: str | None, **fields: Any) -> AsyncIterator[DiscoveryClient]:
    """A client with short waits."""
    given = {"timeout": timedelta(milliseconds=500), "heartbeat": timedelta(milliseconds=50), **fields}
    async with DiscoveryClient(DiscoverySettings(consul=consul, **given)) as discovery:
        yield discovery


async def located(discovery: DiscoveryClient, name: str = STAMPING, **options: Any) -> Located:
    """Where a service is; it has to be somewhere."""
    found = await discovery.locate(name, **options)
    assert found is not None
    return found


def put(consul: ConsulDouble, service_id: str, port: int, status: str = "passing") -> None:
    """Register a process whose check has turned out so, and is not made again soon."""
    check = {"HTTP": "http://127.0.0.1:9/", "Interval": "1h", "Status": status}
    body = {"ID": service_id, "Name": STAMPING, "Address": "127.0.0.1", "Port": port}
    # The first check of a passing one would be made at once.
    body |= {"Check": check} if status != "passing" else {}
    answer = httpx.put(f"{consul.url}/v1/agent/service/register", json=body, trust_env=False)
    assert answer.status_code == 200, answer.text


async def passes(discovery: DiscoveryClient, count: int) -> list[Instance]:
    """Wait until so many processes pass."""
    deadline = Deadline(PATIENCE)
    while len(found := await discovery.discover(STAMPING)) != count:
        assert not deadline.expired, found
        await elapse(timedelta(milliseconds=10))
    return found


# ---- what is registered


def test_a_registration_is_told_to_consul_as_the_contract_says() -> None:
    registration = registration_of(8053, tags=["blake3-hashing"], meta={"version": "1.0.0"})
    before = datetime.now(UTC)

    body = registration.to_consul(DiscoverySettings().heartbeat, DiscoverySettings().timeout)

    assert before <= datetime.fromisoformat(body["Meta"].pop("registered_at")) <= datetime.now(UTC)
    assert body == {
        "ID": f"{STAMPING}-127.0.0.1-8053",
        "Name": STAMPING,
        "Tags": ["blake3-hashing"],
        "Address": "127.0.0.1",
        "Port": 8053,
        "Meta": {"version": "1.0.0"},
        "Check": {"HTTP": "http://127.0.0.1:8053/health", "Interval": "10s", "Timeout": "5s"},
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "no name"},
        {"name": ""},
        {"name": "-a"},
        {"host": "a b"},
        {"host": "http://x"},
        {"port": 0},
        {"port": 65_536},
        {"colour": "red"},
    ],
)
def test_what_is_no_service_is_not_registered(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        registration_of(**{"port": 1, **fields})


async def test_a_process_is_found_when_its_health_check_passes_and_only_then(consul: ConsulDouble) -> None:
    with HealthDouble() as service:
        service.tell("unhealthy", 503)
        registration = registration_of(service.port, tags=["blake3-hashing"], meta={"version": "1.0.0"})
        async with discovery_of(consul.url) as discovery:
            assert await discovery.register(registration) is True
            assert await discovery.discover(STAMPING) == []
            with pytest.raises(NobodyPassesError, match="none of its health checks passes"):
                await discovery.locate(STAMPING)
            service.tell("healthy", 200)
            (found,) = await passes(discovery, 1)
            assert (found.service_id, found.url) == (registration.service_id, registration.url)
            assert (found.tags, found.meta["version"]) == (("blake3-hashing",), "1.0.0")
            assert await located(discovery) == Located(name=STAMPING, url=registration.url, source=Source.CONSUL)
            assert await discovery.deregister(registration.service_id) is True
            assert await discovery.discover(STAMPING) == []
            assert (await located(discovery)).reason == "Consul does not know it"
            assert await discovery.deregister(registration.service_id) is False


async def test_processes_that_pass_take_turns(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    put(consul, "b", 1002)
    put(consul, "c", 1003, "critical")
    async with discovery_of(consul.url) as discovery:
        urls = [(await located(discovery, fresh=True)).url for _ in range(4)]

    assert urls == [f"http://127.0.0.1:{port}" for port in (1001, 1002, 1001, 1002)]


async def test_all_services_are_listed(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    async with discovery_of(consul.url) as discovery:
        assert await discovery.services() == ({"consul": (), STAMPING: ()}, Source.CONSUL)
        consul.stop()
        services, source = await discovery.services()

    assert (services.keys(), source) == (DiscoverySettings().fallback.keys(), Source.FALLBACK)


# ---- without Consul


async def test_without_consul_every_service_is_where_the_settings_say() -> None:
    async with discovery_of(None) as discovery:
        found = await located(discovery)
        assert await discovery.register(registration_of(1)) is False
        assert await discovery.deregister("x") is False
        assert await discovery.discover(STAMPING) == []
        assert await discovery.health() is ConsulStatus.UNAVAILABLE
        assert await discovery.locate("nobody-knows") is None

    assert (found.url, found.source, found.reason) == (
        FALLBACK,
        Source.FALLBACK,
        "there is no Consul in the settings",
    )


def test_the_documented_addresses_are_the_fallback() -> None:
    fallback = DiscoverySettings().fallback

    assert fallback[STAMPING] == "http://localhost:8053"
    assert fallback["omninode-bridge"] == "http://localhost:8080"


async def test_a_consul_that_is_away_is_done_without_and_used_when_it_is_back(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    async with discovery_of(consul.url) as discovery:
        assert (await located(discovery)).source is Source.CONSUL
        consul.stop()
        away = await located(discovery, fresh=True)
        assert await discovery.discover(STAMPING) == []
        assert await discovery.register(registration_of(1)) is False
        assert await discovery.health() is ConsulStatus.UNAVAILABLE
        consul.start()
        put(consul, "a", 1001)
        deadline = Deadline(PATIENCE)
        while (await located(discovery, fresh=True)).source is not Source.CONSUL:
            assert not deadline.expired
            await elapse(timedelta(milliseconds=10))
        assert await discovery.health() is ConsulStatus.HEALTHY

    assert (away.url, away.source) == (FALLBACK, Source.FALLBACK)
    assert away.reason
    assert "does not answer" in away.reason


async def test_a_consul_without_a_leader_is_unhealthy_and_done_without(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    consul.lose_leader()
    async with discovery_of(consul.url) as discovery:
        found = await located(discovery)
        assert await discovery.health() is ConsulStatus.UNHEALTHY
        assert await discovery.discover(STAMPING) == []

    assert (found.source, found.reason) == (Source.FALLBACK, "Consul answers 500: No cluster leader")


async def test_what_is_not_consul_is_done_without() -> None:
    with HealthDouble() as other:
        async with discovery_of(other.url) as discovery:
            found = await located(discovery)
            assert await discovery.discover(STAMPING) == []
            assert await discovery.health() is ConsulStatus.UNHEALTHY

    assert found.source is Source.FALLBACK


async def test_a_consul_that_says_nothing_is_soon_not_asked_any_more(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    with FaultProxy(consul.host, consul.port) as proxy:
        url = f"http://{proxy.host}:{proxy.port}"
        timeout = timedelta(milliseconds=50)
        async with discovery_of(url, timeout=timeout, heartbeat=timedelta(minutes=1)) as discovery:
            proxy.silence()
            for _ in range(5):
                assert (await located(discovery, fresh=True)).source is Source.FALLBACK
            began = time.monotonic()
            found = await located(discovery, fresh=True)
            took = time.monotonic() - began
            assert discovery.breaker.state is BreakerState.OPEN
            discovery.breaker.reset()
            proxy.heal()
            assert (await located(discovery, fresh=True)).source is Source.CONSUL

    assert found.reason
    assert "circuit breaker consul is open" in found.reason
    assert took < timeout.total_seconds()


async def test_while_consul_takes_its_time_the_last_answer_is_good(
    consul: ConsulDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(consul, "a", 1001)
    monkeypatch.setattr(client_module, "KEEPS_FOR", timedelta(milliseconds=1))
    monkeypatch.setattr(client_module, "PATIENCE", timedelta(milliseconds=20))
    with FaultProxy(consul.host, consul.port) as proxy:
        async with discovery_of(f"http://{proxy.host}:{proxy.port}", timeout=timedelta(seconds=30)) as discovery:
            assert (await located(discovery)).source is Source.CONSUL
            proxy.silence()
            await elapse(timedelta(milliseconds=5))
            async with asyncio.timeout(10):
                found = await located(discovery)
            proxy.heal()

    assert found.source is Source.CONSUL


# ---- answers are kept for a moment


async def test_an_answer_is_kept_until_it_turns_out_to_be_wrong(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    async with discovery_of(consul.url) as discovery:
        first = await located(discovery)
        put(consul, "a", 1002)
        kept = await located(discovery)
        fresh = await located(discovery, fresh=True)
        put(consul, "a", 1003)
        discovery.forget(STAMPING)
        again = await located(discovery)

    assert [it.url[-4:] for it in (first, kept, fresh, again)] == ["1001", "1001", "1002", "1003"]


async def test_an_answer_is_kept_for_a_short_while(consul: ConsulDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    assert timedelta(0) < client_module.KEEPS_FOR <= timedelta(seconds=1)
    monkeypatch.setattr(client_module, "KEEPS_FOR", timedelta(milliseconds=1))
    put(consul, "a", 1001)
    async with discovery_of(consul.url) as discovery:
        await located(discovery)
        put(consul, "a", 1002)
        await elapse(timedelta(milliseconds=5))

        assert (await located(discovery)).url.endswith(":1002")


async def test_a_kept_answer_is_given_in_much_less_than_ten_milliseconds(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    durations = []
    async with discovery_of(consul.url) as discovery:
        for _ in range(200):
            began = time.perf_counter()
            await located(discovery)
            durations.append(time.perf_counter() - began)

    assert sorted(durations)[189] < 0.010


async def test_many_who_look_for_a_service_ask_consul_once(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    with FaultProxy(consul.host, consul.port) as proxy:
        async with discovery_of(f"http://{proxy.host}:{proxy.port}") as discovery:
            found = await asyncio.gather(*(located(discovery) for _ in range(50)))
            calls = discovery.breaker.metrics()["totals"]["calls"]

    assert {it.url for it in found} == {"http://127.0.0.1:1001"}
    assert calls == 1


async def test_who_gives_up_does_not_end_what_others_wait_for(consul: ConsulDouble) -> None:
    put(consul, "a", 1001)
    async with discovery_of(consul.url) as discovery:
        impatient = asyncio.create_task(located(discovery))
        patient = asyncio.create_task(located(discovery))
        await asyncio.wait([impatient], timeout=0)
        impatient.cancel()

        assert (await patient).source is Source.CONSUL
