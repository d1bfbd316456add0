"""What the database adapter does while its database is away, and what it tells of itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from adapter_support import ONE_AFTER_THE_OTHER, Bench, RunningAdapter, envelope_of, open_bench
from bridge_support import ENVIRONMENT, called_here, secrets_of, until
from kafka_support import eventually
from testyard.lab.bridge.adapter.app import create_app
from testyard.lab.bridge.breaker import BreakerState
from testyard.lab.bridge.envelope import Envelope
from testyard.lab.bridge.settings import DatabaseSettings
from testyard.lab.bridge.topics import Route
from testyard.lab.database import fetch
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.postgresql import PostgresqlServer, ShutdownMode

pytestmark = pytest.mark.anyio

ROUTE = Route.STATE_TRANSITION
TOPIC = ROUTE.topic(ENVIRONMENT)


@pytest.fixture
def proxy(database_url: str) -> Iterator[FaultProxy]:
    """In front of the database."""
    parts = urlsplit(database_url)
    with FaultProxy(parts.hostname or "", parts.port or 0) as proxy:
        yield proxy


@pytest.fixture
async def bench(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Its adapters reach the database through the proxy; the test does not."""
    async with open_bench(database_url, tmp_path, **getattr(request, "param", {})) as bench:
        # A connection that is not there is waited for so long.
        database = bench.settings.database.model_copy(update={"timeout": timedelta(milliseconds=700)})
        bench.settings = bench.settings.model_copy(update={"database": database})
        yield bench


@asynccontextmanager
async def adapter_behind(bench: Bench, proxy: FaultProxy) -> AsyncIterator[RunningAdapter]:
    """An adapter that reaches its database through a proxy."""
    parts = urlsplit(bench.url)
    netloc = f"{parts.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}"
    behind = replace(bench, url=urlunsplit(parts._replace(netloc=netloc)))
    async with behind.adapter() as running:
        yield running
        proxy.heal()


def events(count: int) -> list[Envelope]:
    """Some transitions."""
    return [envelope_of(ROUTE) for _ in range(count)]


async def test_nothing_is_lost_or_dead_lettered_while_the_database_is_away(bench: Bench, proxy: FaultProxy):
    async with adapter_behind(bench, proxy) as running:
        await bench.publish(ROUTE, *events(20))
        await running.has_handled(20)
        await bench.commits(TOPIC, 20)
        proxy.refuse()
        proxy.cut()
        await bench.publish(ROUTE, *events(30))
        breaker = running.node.database_breaker
        await until(lambda: breaker.state is BreakerState.OPEN, "the breaker opens")
        assert "the database: " in running.node.failures()[0]
        await bench.publish(ROUTE, *events(30))
        await until(lambda: breaker.metrics()["totals"]["transitions"] >= 4, "probes fail, too")
        assert bench.count("event_logs") == 20
        assert sum(it or 0 for it in (await bench.committed(TOPIC)).values()) == 20
        proxy.heal()
        await running.has_handled(80)
        await bench.commits(TOPIC, 80)
        await until(lambda: breaker.state is BreakerState.CLOSED, "the breaker closes")
        await until(lambda: running.node.failures() == [], "it is healthy")
        metrics = running.adapter.metrics()
    assert bench.count("event_logs") == 80
    assert (metrics["stored"], metrics["dead_lettered"]) == (80, 0)
    assert metrics["errors"]["DATABASE_CONNECTION_FAILED"] >= 3
    assert metrics["errors"]["CIRCUIT_BREAKER_OPEN"] >= 1


@ONE_AFTER_THE_OTHER
async def test_reading_ahead_has_an_end_and_the_group_is_not_left(bench: Bench, proxy: FaultProxy):
    settings = bench.settings.model_copy(
        update={"adapter": bench.settings.adapter.model_copy(update={"poll_records": 5})}
    )
    bench.settings = settings
    async with adapter_behind(bench, proxy) as running:
        await bench.publish(ROUTE)
        await running.has_handled(1)
        consumption = running.adapter.consumption
        assert consumption is not None
        proxy.refuse()
        proxy.cut()
        await bench.publish(ROUTE, *events(300))
        # Only heartbeats keep the session.
        longer = bench.settings.adapter.session_timeout.total_seconds() + 0.5
        await asyncio.to_thread(bench.execute, "SELECT pg_sleep(%s)", longer)
        assert running.adapter.consumption is consumption
        assert consumption.read_ahead <= 2 * 10 * 5 + 5
        proxy.heal()
        await running.has_handled(301)
        assert running.adapter.metrics()["duplicates"] == 0


async def test_an_operator_who_resets_the_breaker_need_not_wait(bench: Bench, proxy: FaultProxy):
    breaker = bench.settings.database.breaker.model_copy(update={"open_for": timedelta(hours=1)})
    bench.settings = bench.settings.model_copy(
        update={"database": bench.settings.database.model_copy(update={"breaker": breaker})}
    )
    async with adapter_behind(bench, proxy) as running:
        await bench.publish(ROUTE)
        await running.has_handled(1)
        proxy.refuse()
        proxy.cut()
        await bench.publish(ROUTE)
        breaker_of_node = running.node.database_breaker
        await until(
            lambda: running.adapter.metrics()["errors"]["CIRCUIT_BREAKER_OPEN"] > 0, "it waits for the breaker"
        )
        proxy.heal()
        breaker_of_node.reset()
        await running.has_handled(2)


async def test_a_database_that_refuses_everything_gets_every_event_later(bench: Bench):
    async with bench.adapter() as running:
        bench.execute("ALTER TABLE fsm_transitions RENAME TO elsewhere")
        await bench.publish(ROUTE, *events(5))
        await until(
            lambda: running.adapter.metrics()["errors"]["DATABASE_OPERATION_FAILED"] >= 2, "it is tried again"
        )
        [reason] = running.node.failures()
        assert reason.startswith('the database: relation "fsm_transitions" does not exist')
        bench.execute("ALTER TABLE elsewhere RENAME TO fsm_transitions")
        await running.has_handled(5)
        assert running.adapter.metrics()["dead_lettered"] == 0
    assert bench.count("fsm_transitions") == 5


async def test_postgresql_may_crash(tmp_path: Path):
    with PostgresqlServer(durable=False) as server:
        async with open_bench(server.url, tmp_path) as bench, bench.adapter() as running:
            await bench.publish(ROUTE, *events(10))
            await running.has_handled(10)
            publishing = asyncio.create_task(publish_slowly(bench))
            await running.has_handled(50)
            await asyncio.to_thread(server.restart, ShutdownMode.KILL)
            await publishing
            await until(lambda: bench.count("event_logs") == 310, "all events are stored")
            await bench.commits(TOPIC, 310)
            assert running.adapter.metrics()["dead_lettered"] == 0


async def publish_slowly(bench: Bench) -> None:
    for event in events(300):
        await bench.publish(ROUTE, event)


async def test_health_and_metrics_are_told(bench: Bench, proxy: FaultProxy):
    parts = urlsplit(bench.url)
    netloc = f"{parts.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}"
    url = urlunsplit(parts._replace(netloc=netloc))
    async with called_here(create_app(bench.settings, secrets_of(url))) as client:
        told: dict[str, Any] = {}

        async def becomes(status: str) -> list[str]:
            async def it_is() -> bool:
                told.update((await client.get("/health")).json())
                return bool(told["status"] == status)

            await eventually(it_is)
            return list(told["reasons"])

        assert await becomes("healthy") == []
        proxy.refuse()
        proxy.cut()
        # Nothing is published: it notices by itself.
        [reason, *_] = await becomes("unhealthy")
        assert reason.startswith("the database: ")
        proxy.heal()
        assert await becomes("healthy") == []
        await bench.publish(ROUTE)
        await bench.send(TOPIC, b"broken")

        async def handled() -> bool:
            told = (await client.get("/metrics")).json()
            return bool(told["stored"] and told["dead_lettered"])

        await eventually(handled)
        metrics = (await client.get("/metrics")).json()
        assert (metrics["stored"], metrics["dead_lettered"]) == (1, 1)
        assert metrics["batches"]["transactions"] == 1
        assert {"p50", "p95", "p99", "samples"} == set(metrics["lag_ms"]["since_happened"])
        bench.kafka.down()


async def test_it_is_degraded_while_most_connections_are_in_use(bench: Bench):
    bench.settings = bench.settings.model_copy(update={"database": DatabaseSettings(pool=2)})
    async with bench.adapter() as running:
        await bench.publish(ROUTE)
        await running.has_handled(1)
        await until(lambda: running.node.trouble() == [], "it is healthy")
        holding = asyncio.create_task(fetch(running.node.pool, "SELECT pg_sleep(0.3)"))
        other = asyncio.create_task(fetch(running.node.pool, "SELECT pg_sleep(0.3)"))
        await until(
            lambda: running.node.trouble() == ["the database: 100% of the connections are in use"],
            "it is degraded",
        )
        await asyncio.gather(holding, other)
        await until(lambda: running.node.trouble() == [], "it is healthy")
