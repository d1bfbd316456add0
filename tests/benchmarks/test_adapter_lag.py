"""How late events are stored: from the time in the envelope until the transaction that holds them is committed.

A publisher publishes at a steady rate, and the adapter is a process of its own; the lag is what it tells. The
embedded brokers answer a waiting request not when an event comes, but when it has waited as long as it may:
with the documented settings that is half a second, and only whether the adapter keeps up is asserted.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from adapter_support import KNOWN_WORKFLOWS, WORKFLOW_ROUTES, events_of_workflows
from aiokafka import AIOKafkaProducer
from bridge_support import ENVIRONMENT, rows, running_bus, service_process, until
from testyard.core.json_client import JsonClient
from testyard.lab.bridge.settings import ConsumerSettings, Settings
from testyard.lab.bridge.tables import migrate
from testyard.lab.servers.postgresql import PostgresqlServer
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio

MOST_LATE = timedelta(milliseconds=100)
SECONDS = 10
MOST_EVENTS = 20_000
"""The embedded brokers drop what is more than a few megabytes a partition."""
BURSTS_PER_SECOND = 50
GROUP = "database-adapter-effect-group"
EMBEDDED = ConsumerSettings(group=GROUP, fetch_wait=timedelta(milliseconds=10))
DOCUMENTED = ConsumerSettings(group=GROUP)


@dataclass(frozen=True)
class Load:
    """How fast events are published, to an adapter with which settings.

    Attributes:
        settings: Whose they are.
        consumer: What they are.
        per_second: How many events.
        most_late: What the 95th percentile must not reach; None when that is up to the brokers.
    """

    settings: str
    consumer: ConsumerSettings
    per_second: int
    most_late: timedelta | None


LOADS = [
    Load("embedded", EMBEDDED, 100, MOST_LATE),
    Load("embedded", EMBEDDED, 1000, MOST_LATE),
    Load("embedded", EMBEDDED, 2000, MOST_LATE),
    # At this rate the publisher and the brokers need a core of their own.
    Load("embedded", EMBEDDED, 5000, None),
    Load("documented", DOCUMENTED, 2000, None),
]


@pytest.mark.parametrize("load", LOADS, ids=lambda it: f"{it.settings}-{it.per_second}")
async def test_lag(
    durable_server: PostgresqlServer,
    tmp_path: Path,
    report: Callable[[str], None],
    load: Load,
) -> None:
    """Publish for some seconds, and ask."""
    events = min(load.per_second * SECONDS, MOST_EVENTS)
    url = durable_server.create_database(f"lag_{uuid4().hex[:8]}")
    await migrate(url)
    with running_bus() as kafka:
        settings = Settings(
            environment=ENVIRONMENT,
            bootstrap_servers=kafka.bootstrap_servers,
            outbox_directory=tmp_path,
            adapter=load.consumer,
        )
        with (
            service_process("testyard.lab.bridge.adapter", settings, url, tmp_path) as service,
            JsonClient(service.url, headers={}, secret="", name="the adapter") as adapter,
        ):
            await until(lambda: len(adapter.call("GET", "/metrics")["partitions"]) > 0, "it has its partitions")
            took = await publish(kafka.bootstrap_servers, url, events, load.per_second)
            await until(lambda: stored(url) == events, "everything is stored", timedelta(seconds=2))
            metrics = adapter.call("GET", "/metrics")
        assert not kafka.dropped_records()
    durable_server.drop_database(url.rpartition("/")[2])
    lag = metrics["lag_ms"]["since_happened"]
    report(
        f"database adapter, {load.settings} settings, {events / took:.0f} events/s: stored after p50 "
        f"{lag['p50']:.0f} ms, p95 {lag['p95']:.0f} ms, p99 {lag['p99']:.0f} ms of {lag['samples']} samples, in "
        f"{metrics['batches']['transactions']} transactions of at most {metrics['batches']['largest']}"
    )
    assert metrics["stored"] == events
    assert load.most_late is None or lag["p95"] < load.most_late / timedelta(milliseconds=1)


def stored(url: str) -> int:
    """How many events the database has."""
    [(count,)] = rows(url, "SELECT count(*) FROM event_logs")
    return int(count)


async def publish(bootstrap_servers: str, url: str, events: int, per_second: int) -> float:
    """Publish at a steady rate, each event with the time at which it is published; how many seconds it took."""
    prepared: list[Any] = list(events_of_workflows(events // len(WORKFLOW_ROUTES)))
    with psycopg.connect(url) as connection:
        connection.execute(KNOWN_WORKFLOWS, [list({workflow for workflow, _, _ in prepared})])
    burst = per_second // BURSTS_PER_SECOND
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        began = time.monotonic()
        sending = []
        for start in range(0, events, burst):
            for _, route, event in prepared[start : start + burst]:
                now = event.model_copy(update={"timestamp": event.timestamp.now(event.timestamp.tzinfo)})
                sending.append(await producer.send(route.topic(ENVIRONMENT), now.to_bytes(), key=now.key.encode()))
            due = began + (start + burst) / per_second
            await elapse(timedelta(seconds=max(due - time.monotonic(), 0)))
        await asyncio.gather(*sending)
        return time.monotonic() - began
