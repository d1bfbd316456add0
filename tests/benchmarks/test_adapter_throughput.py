"""How many events per second the database adapter stores, against reading and copying the same records only.

Both read the same topics of the embedded Kafka in a group, a hundred records a poll as documented for the
adapter and a thousand for the other one, and commit. The bare one copies topic, partition, offset and value
into a table without any index. The adapter checks every envelope and payload, stores each event once by its
id in a table with three more indexes, and most of them in a second table, too. Commits wait for the disk.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from adapter_support import KNOWN_WORKFLOWS, WORKFLOW_ROUTES, events_of_workflows, running_adapter
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from testyard.lab.bridge.settings import ConsumerSettings, Settings
from testyard.lab.bridge.tables import migrate
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.kafka_mock import MockKafka, partitions_for
from testyard.lab.servers.postgresql import PostgresqlServer
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio

LEAST_PER_SECOND = 10_000
LEAST_RATIO = 0.5
ROUNDS = 5
WORKFLOWS = 5_000
EVENTS = WORKFLOWS * len(WORKFLOW_ROUTES)
LEAST_BYTES = 500
RECORDS_AT_A_TIME = 1_000
ENVIRONMENT = "test"
TABLES = "event_logs, workflow_steps, workflow_steps_waiting, fsm_transitions, metadata_stamps"


async def test_stored_events_per_second(
    durable_server: PostgresqlServer, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Rounds of both, one after the other."""
    url = durable_server.create_database(f"adapter_{uuid4().hex[:8]}")
    await migrate(url)
    with MockKafka() as kafka:
        of_route = Counter(WORKFLOW_ROUTES)
        for route in Route:
            kafka.create_topic(route.topic(ENVIRONMENT), partitions_for(WORKFLOWS * of_route[route], 900))
        size = await publish(kafka, url)
        adapter_rates, bare_rates = [], []
        for _ in range(ROUNDS):
            adapter_rates.append(EVENTS / await stored_within(kafka, url, tmp_path))
            bare_rates.append(EVENTS / await copied_within(kafka, url))
        assert not kafka.dropped_records()
    durable_server.drop_database(url.rpartition("/")[2])
    rate, bare_rate = statistics.median(adapter_rates), statistics.median(bare_rates)
    report(
        f"database adapter: {rate:.0f} events/s stored ({min(adapter_rates):.0f} to {max(adapter_rates):.0f}), "
        f"{size:.0f} bytes each; bare consume and COPY {bare_rate:.0f}/s ({min(bare_rates):.0f} to "
        f"{max(bare_rates):.0f}); ratio {rate / bare_rate:.2f}"
    )
    assert rate >= LEAST_PER_SECOND
    assert rate / bare_rate >= LEAST_RATIO


async def publish(kafka: MockKafka, url: str) -> float:
    """Publish the events of all workflows, which the database knows already; how many bytes one has."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    sizes, sent, workflows = [], [], set()
    for workflow, route, envelope in events_of_workflows(WORKFLOWS):
        value = envelope.to_bytes()
        sizes.append(len(value))
        workflows.add(workflow)
        sent.append(await producer.send(route.topic(ENVIRONMENT), value, key=envelope.key.encode()))
    await asyncio.gather(*sent)
    await producer.stop()
    with psycopg.connect(url) as connection:
        connection.execute(KNOWN_WORKFLOWS, [list(workflows)])
    assert min(sizes) >= LEAST_BYTES
    return statistics.mean(sizes)


async def stored_within(kafka: MockKafka, url: str, directory: Path) -> float:
    """Seconds that the adapter needs, from its start until everything is stored."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {TABLES}")
        connection.execute("CHECKPOINT")
    settings = Settings(
        environment=ENVIRONMENT,
        bootstrap_servers=kafka.bootstrap_servers,
        outbox_directory=directory,
        adapter=ConsumerSettings(group=f"adapter-{uuid4()}"),
    )
    async with running_adapter(settings, url) as running:
        began = time.monotonic()
        while running.adapter.figures.total < EVENTS:
            await elapse(running.node.settings.adapter.poll / 100)
        took = time.monotonic() - began
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*), count(DISTINCT event_id) FROM event_logs").fetchone()
    assert row == (EVENTS, EVENTS)
    return took


async def copied_within(kafka: MockKafka, url: str) -> float:
    """Seconds that reading and copying need, from the start of the consumer."""
    topics = [route.topic(ENVIRONMENT) for route in Route]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("DROP TABLE IF EXISTS bare")
        await connection.execute("CREATE TABLE bare (topic text, partition integer, position bigint, value jsonb)")
        await connection.execute("CHECKPOINT")
        began = time.monotonic()
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=f"bare-{uuid4()}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        copied = 0
        while copied < EVENTS:
            polled = await consumer.getmany(timeout_ms=1000, max_records=RECORDS_AT_A_TIME)
            rows = [
                b"%b\t%d\t%d\t%b\n"
                % (it.topic.encode(), it.partition, it.offset, it.value.replace(b"\\", b"\\\\"))
                for records in polled.values()
                for it in records
            ]
            if rows:
                async with (
                    connection.transaction(),
                    connection.cursor() as cursor,
                    cursor.copy("COPY bare FROM STDIN") as copy,
                ):
                    await copy.write(b"".join(rows))
                await consumer.commit()
            copied += len(rows)
        took = time.monotonic() - began
        await consumer.stop()
    return took
