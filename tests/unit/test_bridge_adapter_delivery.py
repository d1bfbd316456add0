"""That the database adapter stores every event exactly once, whatever is away or ends meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from adapter_support import ONE_AFTER_THE_OTHER, Bench, envelope_of, events_of_workflows, open_bench
from bridge_support import ENVIRONMENT, service_process, until
from testyard.core.json_client import JsonClient
from testyard.lab.bridge.adapter.inbox import POLLS_PER_BATCH
from testyard.lab.bridge.envelope import Envelope
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.kafka_mock import Api, Failure

pytestmark = pytest.mark.anyio

ROUTE = Route.STATE_TRANSITION
TOPIC = ROUTE.topic(ENVIRONMENT)
MODULE = "testyard.lab.bridge.adapter"
# A process has to start, and the group to notice that the one before it has gone.
PROCESS_PATIENCE = timedelta(seconds=60)


@pytest.fixture
async def bench(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with open_bench(database_url, tmp_path, **getattr(request, "param", {})) as bench:
        yield bench


async def publish_workflows(bench: Bench, count: int) -> list[Envelope]:
    """Publish the events of some workflows, one route after the other."""
    of_route: dict[Route, list[Envelope]] = {}
    for _, route, event in events_of_workflows(count):
        of_route.setdefault(route, []).append(event)
    for route, events in of_route.items():
        await bench.publish(route, *events)
    return [event for events in of_route.values() for event in events]


async def test_fifteen_hundred_events_are_stored(bench: Bench):
    sent = await publish_workflows(bench, 150)
    async with bench.adapter() as running:
        await running.has_handled(1500)
        metrics = running.adapter.metrics()
        await bench.commits(TOPIC, 300)
    assert {it for (it,) in bench.rows("SELECT event_id FROM event_logs")} == {it.event_id for it in sent}
    assert (metrics["stored"], metrics["duplicates"], metrics["dead_lettered"]) == (1500, 0, 0)
    assert metrics["batches"]["events"] == 1500
    assert metrics["topics"][TOPIC] == {"stored": 300, "duplicates": 0, "dead_lettered": 0}
    assert metrics["lag_ms"]["since_happened"]["samples"] == 1500


async def test_what_is_read_while_the_database_is_busy_is_stored_in_one_transaction(bench: Bench):
    async with bench.adapter() as running:
        with psycopg.connect(bench.url) as holder:
            holder.execute("LOCK TABLE event_logs")
            await bench.publish(ROUTE)
            await until(lambda: len(holder.execute(WAITS).fetchall()) == 1, "the adapter waits for the table")
            await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(600)))
            await until(lambda: running.adapter.metrics()["read_ahead"] == 601, "everything is read")
        await running.has_handled(601)
        batches = running.adapter.metrics()["batches"]
    assert batches == {"transactions": 2, "events": 601, "largest": 600}


@pytest.mark.parametrize("bench", [{"gather": 60, "poll_records": 1}], indirect=True, ids=["patient"])
async def test_a_batch_is_gathered_until_it_is_full(bench: Bench):
    async with bench.adapter() as running:
        await bench.publish(ROUTE)
        await until(lambda: running.adapter.metrics()["read_ahead"] == 1, "the first one is read")
        await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(POLLS_PER_BATCH - 1)))
        await running.has_handled(POLLS_PER_BATCH)
        batches = running.adapter.metrics()["batches"]
    assert batches == {"transactions": 1, "events": POLLS_PER_BATCH, "largest": POLLS_PER_BATCH}


async def test_events_of_one_key_are_stored_in_their_order(bench: Bench):
    workflow = uuid4()
    events = [envelope_of(ROUTE, workflow) for _ in range(500)]
    async with bench.adapter() as running:
        for start in range(0, 500, 50):
            await bench.publish(ROUTE, *events[start : start + 50])
        await running.has_handled(500)
    stored = bench.rows("SELECT event_id FROM event_logs ORDER BY stored_at, ctid")
    assert [it for (it,) in stored] == [it.event_id for it in events]


async def test_an_event_that_comes_again_is_stored_once_and_counted(bench: Bench):
    event = envelope_of(ROUTE)
    await bench.publish(ROUTE, event, event, event)
    async with bench.adapter() as running:
        await running.has_handled(3)
        assert running.adapter.metrics()["duplicates"] == 2
        await bench.publish(ROUTE, event)
        await running.has_handled(4)
        metrics = running.adapter.metrics()
    assert bench.count("event_logs") == 1
    assert bench.count("fsm_transitions") == 1
    assert metrics["topics"][TOPIC] == {"stored": 1, "duplicates": 3, "dead_lettered": 0}


async def test_what_was_published_before_the_group_first_read_is_stored(bench: Bench):
    await bench.publish(ROUTE)
    async with bench.adapter() as running:
        await running.has_handled(1)


@ONE_AFTER_THE_OTHER
async def test_it_goes_on_where_it_has_committed(bench: Bench):
    for count in (3, 5):
        await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(count)))
        async with bench.adapter() as running:
            await running.has_handled(count)
            # At its end it commits what it has stored.
        assert running.adapter.metrics()["stored"] == count
        assert running.adapter.metrics()["duplicates"] == 0
    await bench.commits(TOPIC, 8)
    assert bench.count("event_logs") == 8


@ONE_AFTER_THE_OTHER
async def test_a_crash_between_storing_and_committing_neither_loses_nor_doubles_anything(
    bench: Bench, tmp_path: Path
):
    events = [envelope_of(ROUTE) for _ in range(40)]
    await bench.publish(ROUTE, *events[:20])
    bench.kafka.fail_next(Api.OFFSET_COMMIT, *[Failure.COORDINATOR_LOAD_IN_PROGRESS] * 10_000)
    with service_process(MODULE, bench.settings, bench.url, tmp_path) as service:
        await until(lambda: bench.count("event_logs") == 20, "the events are stored", PROCESS_PATIENCE)
        service.process.kill()
        service.process.wait()
    bench.kafka.fail_no_more(Api.OFFSET_COMMIT)
    assert set((await bench.committed(TOPIC)).values()) == {None}
    await bench.publish(ROUTE, *events[20:])
    with service_process(MODULE, bench.settings, bench.url, tmp_path) as service:
        await until(lambda: bench.count("event_logs") == 40, "the events are stored", PROCESS_PATIENCE)
        await bench.commits(TOPIC, 40)
        with JsonClient(service.url, headers={}, secret="", name="the adapter") as client:
            metrics = client.call("GET", "/metrics")
    assert (metrics["stored"], metrics["duplicates"]) == (20, 20)
    assert {it for (it,) in bench.rows("SELECT event_id FROM event_logs")} == {it.event_id for it in events}
    assert bench.count("fsm_transitions") == 40


@ONE_AFTER_THE_OTHER
async def test_a_crash_under_load_loses_nothing(bench: Bench, tmp_path: Path):
    events = [(route, event) for _, route, event in events_of_workflows(200)]

    async def publish() -> None:
        for route, event in events:
            await bench.publish(route, event)

    publishing = asyncio.create_task(publish())
    for least in (100, 600):
        with service_process(MODULE, bench.settings, bench.url, tmp_path) as service:
            await until(
                lambda least=least: bench.count("event_logs") >= least,
                f"{least} are stored",
                PROCESS_PATIENCE,
            )
            service.process.kill()
            service.process.wait()
    await publishing
    with service_process(MODULE, bench.settings, bench.url, tmp_path):
        await until(lambda: bench.count("event_logs") == len(events), "all events are stored", PROCESS_PATIENCE)
    assert bench.count("fsm_transitions") == 400
    assert bench.count("workflow_steps_waiting") == 800


async def test_at_its_end_it_stores_and_commits_what_is_in_flight(bench: Bench):
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(bench.adapter())
        await bench.publish(ROUTE)
        await running.has_handled(1)
        with psycopg.connect(bench.url) as holder:
            holder.execute("LOCK TABLE fsm_transitions")
            await bench.publish(ROUTE)
            await until(lambda: len(holder.execute(WAITS).fetchall()) == 1, "the adapter waits for the table")
            ending = asyncio.create_task(stack.pop_all().aclose())
            await asyncio.to_thread(holder.execute, "SELECT pg_sleep(0.2)")
            assert not ending.done()
        await ending
    assert bench.count("event_logs") == 2
    await bench.commits(TOPIC, 2)


async def test_terminating_it_stores_and_commits_what_was_read(bench: Bench, tmp_path: Path):
    await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(30)))
    with service_process(MODULE, bench.settings, bench.url, tmp_path) as service:
        await until(lambda: bench.count("event_logs") > 0, "an event is stored", PROCESS_PATIENCE)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(5) == 0
    stored = bench.count("event_logs")
    await bench.commits(TOPIC, stored)


async def test_it_starts_while_kafka_is_away_and_stores_when_it_is_back(bench: Bench):
    await bench.publish(ROUTE)
    bench.kafka.down()
    async with bench.adapter() as running:
        await until(lambda: "Kafka" in str(running.adapter.trouble()), "the trouble is told")
        assert running.node.failures() == []
        await until(lambda: "KafkaConnectionError" in str(running.adapter.trouble()), "why is told")
        bench.kafka.up()
        await running.has_handled(1)
        assert running.adapter.trouble() == []


@ONE_AFTER_THE_OTHER
async def test_it_survives_an_outage_of_kafka_that_is_longer_than_its_session(bench: Bench):
    async with bench.adapter() as running:
        await bench.publish(ROUTE)
        await running.has_handled(1)
        await bench.commits(TOPIC, 1)
        bench.kafka.down()
        longer = bench.settings.adapter.session_timeout.total_seconds() + 0.5
        await asyncio.to_thread(bench.execute, "SELECT pg_sleep(%s)", longer)
        bench.kafka.up()
        await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(10)))
        await until(lambda: bench.count("event_logs") == 11, "the events are stored")
        await bench.commits(TOPIC, 11)
    assert bench.count("event_logs") == 11


async def test_partitions_are_given_up_when_what_is_in_flight_is_stored_and_committed(bench: Bench):
    await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(20)))
    async with bench.adapter() as running:
        await running.has_handled(20)
        consumption = running.adapter.consumption
        assert consumption is not None
        with psycopg.connect(bench.url) as holder:
            holder.execute("LOCK TABLE fsm_transitions")
            await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(10)))
            await until(lambda: len(holder.execute(WAITS).fetchall()) == 1, "the adapter waits for the table")
            giving_up = asyncio.create_task(consumption.on_partitions_revoked(set()))
            await asyncio.to_thread(holder.execute, "SELECT pg_sleep(0.2)")
            assert not giving_up.done()
        await giving_up
        assert bench.count("event_logs") == 30
        await bench.commits(TOPIC, 30)
        # Nothing is read until there are partitions again.
        await bench.publish(ROUTE)
        await asyncio.to_thread(bench.execute, "SELECT pg_sleep(0.2)")
        assert bench.count("event_logs") == 30
        await consumption.on_partitions_assigned(set())
        await running.has_handled(31)


WAITS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@ONE_AFTER_THE_OTHER
async def test_what_was_in_flight_when_partitions_were_lost_is_not_committed(bench: Bench):
    async with bench.adapter() as running:
        await bench.publish(ROUTE)
        await running.has_handled(1)
        await bench.commits(TOPIC, 1)
        consumption = running.adapter.consumption
        assert consumption is not None
        with psycopg.connect(bench.url) as holder:
            holder.execute("LOCK TABLE fsm_transitions")
            await bench.publish(ROUTE, *(envelope_of(ROUTE) for _ in range(10)))
            await until(lambda: len(holder.execute(WAITS).fetchall()) == 1, "the adapter waits for the table")
            # It gives up waiting before the session would end.
            async with asyncio.timeout(bench.settings.adapter.session_timeout.total_seconds() / 2):
                await consumption.on_partitions_revoked(set())
    assert sum(it or 0 for it in (await bench.committed(TOPIC)).values()) == 1
    async with bench.adapter() as running:
        await running.has_handled(10)
        await bench.commits(TOPIC, 11)
    assert bench.count("event_logs") == 11


async def test_how_late_events_are_is_measured_from_when_they_happened(bench: Bench):
    hour = timedelta(hours=1)
    event = envelope_of(ROUTE)
    await bench.publish(ROUTE, event.model_copy(update={"timestamp": event.timestamp - hour}))
    async with bench.adapter() as running:
        await running.has_handled(1)
        lag = running.adapter.metrics()["lag_ms"]
    milliseconds = hour / timedelta(milliseconds=1)
    assert milliseconds < lag["since_happened"]["p95"] < milliseconds + 20_000
    assert 0 < lag["since_published"]["p95"] < 20_000
    assert lag["since_published"]["samples"] == 1


async def test_how_far_behind_it_is_is_told_of_each_partition(bench: Bench):
    def told(partition: int) -> dict[str, int | None]:
        return running.adapter.metrics()["partitions"].get(f"{TOPIC}-{partition}", {})

    async with bench.adapter() as running:
        await bench.send(TOPIC, envelope_of(ROUTE).to_bytes(), partition=1)
        await until(lambda: told(1) == {"end": 1, "committed": 1, "lag": 0}, "the partition is told of")
        with psycopg.connect(bench.url) as holder:
            holder.execute("LOCK TABLE event_logs")
            for _ in range(3):
                await bench.send(TOPIC, envelope_of(ROUTE).to_bytes(), partition=1)
            await until(lambda: told(1) == {"end": 4, "committed": 1, "lag": 3}, "it is behind")
        await until(lambda: told(1) == {"end": 4, "committed": 4, "lag": 0}, "it has caught up")
        assert told(2) == {"end": 0, "committed": None, "lag": None}
