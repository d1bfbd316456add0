"""The reducer at work: on brokers and a database that come and go, killed, and told nonsense."""

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from bridge_support import (
    ENVIRONMENT,
    called_here,
    events_of,
    migrated,
    rows,
    running_bus,
    secrets_of,
    service_process,
    until,
)
from orchestrator_support import (
    KEY,
    LONG,
    NAMESPACE,
    REDUCER,
    Story,
    behind_a_proxy,
    execution,
    lab_settings,
    opened,
    reducing,
    tell,
)
from testyard.core.deadline import Deadline
from testyard.lab.bridge.envelope import SigningKey
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.outage import Outage
from testyard.lab.bridge.reducer.app import create_app
from testyard.lab.bridge.reducer.store import persist
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio

MODULE = "testyard.lab.bridge.reducer"
COUNT = "SELECT count(*) FROM workflow_executions WHERE current_state = 'COMPLETED'"
TOTAL = "SELECT total_workflows_processed, total_items_aggregated FROM bridge_states WHERE namespace = %s"


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """Brokers with all topics."""
    with running_bus() as kafka:
        yield kafka


@pytest.fixture
def url(database_url: str) -> str:
    """The tables."""
    return migrated(database_url)


def total_of(url: str, namespace: str = NAMESPACE) -> tuple[int, int]:
    return next(iter(rows(url, TOTAL, namespace)), (0, 0))


async def counted(url: str, workflows: int, within: timedelta = LONG) -> None:
    await until(lambda: total_of(url)[0] >= workflows, f"{workflows} workflows are counted", within)


async def test_workflows_have_rows_and_totals_that_are_told(kafka: MockKafka, url: str, tmp_path: Path):
    async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), url) as node, reducing(node) as reducer:
        for story in (Story(items=2), Story(items=3)):
            await tell(node, *story.whole())
        await counted(url, 2)
        assert total_of(url) == (2, 5)
        told = [it.payload for it in await events_of(kafka, Route.STATE_AGGREGATION_COMPLETED)]
        assert sum(it["workflows"] for it in told) == 2
        assert (told[-1]["total_workflows_processed"], told[-1]["total_items_aggregated"]) == (2, 5)
        (first,) = await events_of(kafka, Route.REDUCER_STATE_TRANSITION)
        assert (first.payload["to_state"], first.payload["entity_type"]) == ("ACTIVE", "bridge")
        assert first.payload["entity_id"] == told[0]["bridge_id"] == first.key
        await until(lambda: reducer.counts["events"] == 8, "all events are read")
        assert reducer.metrics()["workflows"] == 2
        assert (reducer.metrics()["not_understood"], reducer.metrics()["refused"]) == (0, 0)


async def test_a_batch_is_gathered_until_it_is_full(kafka: MockKafka, url: str, tmp_path: Path):
    patient = REDUCER.model_copy(update={"gather": LONG, "poll_records": 8})
    settings = lab_settings(kafka.bootstrap_servers, tmp_path, reducer=patient)
    async with opened(settings, url) as node, reducing(node):
        await tell(node, *Story().whole())
        await tell(node, *Story().whole())
        await counted(url, 2, LONG / 2)
        (told,) = await events_of(kafka, Route.STATE_AGGREGATION_COMPLETED)
    assert told.payload["workflows"] == 2


async def test_what_is_not_understood_is_skipped_and_counted(kafka: MockKafka, url: str, tmp_path: Path):
    async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), url) as node, reducing(node) as reducer:
        topic = Route.WORKFLOW_STARTED.topic(ENVIRONMENT)
        before = Story()
        await tell(node, before.start())
        # With the workflow's own key, so that it is read between the other events.
        for value in (b"", b"{", b"[]", b'{"event_type": "WORKFLOW_STARTED"}', b"\xff\xfe"):
            await node.publisher._bus.send(topic, str(before.correlation_id), value, ())
        await tell(node, *before.whole()[1:], Story().transition(items=None), *Story().whole())
        await counted(url, 2)
        await until(lambda: reducer.counts["events"] == 14, "all records are read")
        assert (reducer.counts["not_understood"], reducer.counts["refused"]) == (6, 0)


async def test_an_event_that_the_tables_refuse_does_not_keep_others_back(
    kafka: MockKafka, url: str, tmp_path: Path
):
    async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), url) as node:
        stories = [Story() for _ in range(40)]
        spoilt = Story()
        for story in [*stories[:20], spoilt, *stories[20:]]:
            request = {"content": "\0" if story is spoilt else "# Readme"}
            await tell(node, story.start(request=request), *story.whole()[1:])
        async with reducing(node) as reducer:
            await counted(url, 41)
            await until(lambda: reducer.counts["events"] == 164, "all records are read")
        assert (reducer.counts["refused"], reducer.counts["workflows"]) == (1, 41)
        assert node.database_breaker.metrics()["totals"]["failures"] == 0
        assert reducer.counts["not_understood"] == 0


async def test_with_a_signing_key_only_signed_events_count(kafka: MockKafka, url: str, tmp_path: Path):
    async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), url) as node:
        route, envelope = Story().end()
        assert envelope.security_context is not None
        unsigned = envelope.model_copy(update={"security_context": None})
        forged = envelope.model_copy(update={"payload": {**envelope.payload, "items": 1_000_000}})
        async with reducing(node, SigningKey(KEY)) as reducer:
            await tell(node, (route, unsigned), (route, forged), Story().end())
            await until(lambda: reducer.counts["events"] == 3, "all records are read")
            assert total_of(url) == (1, 1)
            assert reducer.counts["not_understood"] == 2


async def test_a_database_that_goes_away_and_comes_back_costs_nothing(kafka: MockKafka, url: str, tmp_path: Path):
    with behind_a_proxy(url) as (through, proxy):
        async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), through) as node, reducing(node):
            await tell(node, *Story().whole())
            await counted(url, 1)
            proxy.refuse()
            proxy.cut()
            for _ in range(20):
                await tell(node, *Story(items=2).whole())
            await until(lambda: bool(node.failures()), "it says that the database is away")
            assert "the database" in node.failures()[0]
            # Longer than the session lasts: the member stays in its group, and nobody reads anything twice.
            await elapse(REDUCER.session_timeout * 1.5)
            assert total_of(url) == (1, 1)
            proxy.heal()
            await counted(url, 21)
            assert total_of(url) == (21, 41)
            await until(lambda: not node.failures(), "it says that the database is there")


async def test_brokers_that_come_later_are_waited_for(kafka: MockKafka, url: str, tmp_path: Path):
    kafka.down()
    async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), url) as node, reducing(node):
        await until(lambda: any(it.startswith("Kafka:") for it in node.trouble()), "it says that Kafka is away")
        kafka.up()
        await tell(node, *Story().whole())
        await counted(url, 1)
        await until(lambda: not node.trouble(), "it says that Kafka is there")


async def test_brokers_that_are_away_for_longer_than_the_session_cost_nothing(
    kafka: MockKafka, url: str, tmp_path: Path
):
    async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), url) as node, reducing(node):
        await tell(node, *Story().whole())
        await counted(url, 1)
        kafka.down()
        await elapse(REDUCER.session_timeout * 2)
        kafka.up()
        for _ in range(20):
            await tell(node, *Story().whole())
        await counted(url, 21)
        assert total_of(url) == (21, 21)


async def test_it_goes_on_where_the_tables_say_and_not_where_the_brokers_do(
    kafka: MockKafka, url: str, tmp_path: Path
):
    settings = lab_settings(kafka.bootstrap_servers, tmp_path)
    async with opened(settings, url) as node:
        async with reducing(node):
            for _ in range(5):
                await tell(node, *Story().whole())
            await counted(url, 5)
        # A database that was restored to what it was before: the brokers have committed what it does not have.
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("TRUNCATE workflow_executions, bridge_states, reducer_offsets CASCADE")
        async with reducing(node) as reducer:
            await counted(url, 5)
            await until(lambda: reducer.counts["events"] == 20, "everything is read again")
        # And one that knows more than the brokers: what was read is not read again.
        other = settings.model_copy(update={"reducer": REDUCER.model_copy(update={"group": "another"})})
    async with opened(other, url) as node, reducing(node) as reducer:
        await tell(node, *Story().whole())
        await counted(url, 6)
        await until(lambda: reducer.counts["events"] >= 4, "the new ones are read")
        assert reducer.counts["events"] == 4


def lines_about(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.name.startswith("testyard") and text in it.getMessage()]


def test_every_outage_is_told_in_two_lines(caplog: pytest.LogCaptureFixture):
    outage = Outage("the database")
    outage.is_over()
    for _ in range(2):
        for attempt in range(3):
            outage.goes_on(f"attempt {attempt}")
            assert outage.reasons() == [f"the database: attempt {attempt}"]
        for _ in range(2):
            outage.is_over()
            assert outage.reasons() == []
    assert lines_about(caplog, "") == ["the database is away: attempt 0", "the database is back"] * 2


async def test_an_outage_of_the_database_does_not_flood_the_log(
    kafka: MockKafka, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with behind_a_proxy(url) as (through, proxy):
        async with opened(lab_settings(kafka.bootstrap_servers, tmp_path), through) as node, reducing(node):
            proxy.refuse()
            proxy.cut()
            await tell(node, *Story().whole())
            await until(lambda: bool(node.failures()), "it says that the database is away")
            calls = node.database_breaker.metrics()["totals"]["calls"]
            await until(
                lambda: node.database_breaker.metrics()["totals"]["calls"] >= calls + 2, "it has tried again"
            )
            proxy.heal()
            await counted(url, 1)
    assert len(lines_about(caplog, "the database is away")) == 1
    assert len(lines_about(caplog, "the database is back")) == 1


async def ids_of(kafka: MockKafka, route: Route, at_least: int) -> list[str]:
    return [it.envelope["event_id"] for it in await events_of(kafka, route, at_least)]


async def test_totals_that_a_crash_kept_from_being_told_are_told_at_the_start(
    kafka: MockKafka, url: str, tmp_path: Path
):
    settings = lab_settings(kafka.bootstrap_servers, tmp_path)
    async with opened(settings, url) as node, reducing(node):
        await tell(node, *Story(items=2).whole())
        await counted(url, 1)
        await events_of(kafka, Route.STATE_AGGREGATION_COMPLETED)
    async with opened(settings, url) as node:
        # As far as a process comes that is killed between its transaction and what it tells of it.
        await persist(node.pool, ENVIRONMENT, [execution(Story(items=5).end()) for _ in range(2)], {})
    for start in (1, 2):
        async with opened(settings, url) as node, reducing(node):
            told = await events_of(kafka, Route.STATE_AGGREGATION_COMPLETED, 1 + start)
            assert told[-1].payload["total_workflows_processed"] == 3
            assert told[-1].payload["total_items_aggregated"] == 12
            assert (told[-1].payload["workflows"], told[-1].payload["items"]) == (2, 10)
    # What is told again has the id that it had, so that nobody stores it twice.
    aggregations = await ids_of(kafka, Route.STATE_AGGREGATION_COMPLETED, 3)
    assert (len(aggregations), len(set(aggregations))) == (3, 2)
    transitions = await ids_of(kafka, Route.REDUCER_STATE_TRANSITION, 3)
    assert (len(transitions), len(set(transitions))) == (3, 1)


@pytest.mark.parametrize("away", ["nothing", "Kafka", "Kafka says nothing", "the database", "both"])
async def test_it_ends_within_seconds_whatever_is_away(kafka: MockKafka, url: str, tmp_path: Path, away: str):
    async with AsyncExitStack() as stack:
        through, proxy = stack.enter_context(behind_a_proxy(url))
        settings = lab_settings(kafka.bootstrap_servers, tmp_path)
        application = create_app(settings, secrets_of(through))
        client = await stack.enter_async_context(called_here(application))
        await tell(application.state.node, *Story().whole())
        await counted(url, 1)
        if away in {"the database", "both"}:
            proxy.refuse()
            proxy.cut()
            await tell(application.state.node, *Story().whole())
            await until(lambda: bool(application.state.node.failures()), "the database is away")
            assert (await client.get("/health")).json()["status"] == "unhealthy"
        if away in {"Kafka", "both"}:
            kafka.down()
            await elapse(timedelta(milliseconds=300))
        if away == "Kafka says nothing":
            kafka.slow_down(timedelta(minutes=1))
            await elapse(timedelta(milliseconds=300))
        deadline = Deadline(timedelta(seconds=5))
    assert not deadline.expired, deadline.elapsed


WAITING = """
    SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE relname = 'reducer_offsets' AND NOT granted"""


@contextmanager
def without_offsets(url: str) -> Iterator[None]:
    """Let no transaction go further than to its offsets, which it writes last."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE reducer_offsets IN ACCESS EXCLUSIVE MODE")
        yield


async def test_killed_again_and_again_it_loses_and_doubles_nothing(kafka: MockKafka, url: str, tmp_path: Path):
    reducer = REDUCER.model_copy(update={"poll_records": 20})
    settings = lab_settings(kafka.bootstrap_servers, tmp_path, reducer=reducer)
    stories = [Story(f"team.{number % 2}", items=number % 5) for number in range(400)]
    async with opened(settings, url, "orchestrator") as node:
        for begin in (0, 150):
            with service_process(MODULE, settings, url, tmp_path, stderr=subprocess.DEVNULL) as service:
                await until(lambda begin=begin: rows(url, COUNT)[0][0] == begin, "it goes on", LONG)
                await tell_all(node, stories[begin : begin + 100])
                await until(lambda begin=begin: rows(url, COUNT)[0][0] > begin, "it has ended a batch", LONG)
                with without_offsets(url):
                    await tell_all(node, stories[begin + 100 : begin + 150])
                    await until(lambda: rows(url, WAITING)[0][0] > 0, "it is in a transaction", LONG)
                    service.process.kill()
                    service.process.wait()
            if not begin:
                await caught_up(settings, url, tmp_path, 150)
        await tell_all(node, stories[300:])
    await caught_up(settings, url, tmp_path, 400)
    for number in range(2):
        own = [story for story in stories if story.namespace == f"team.{number}"]
        assert total_of(url, f"team.{number}") == (200, sum(story.items for story in own))
    told = await events_of(kafka, Route.STATE_AGGREGATION_COMPLETED, 2)
    last = {it.payload["namespace"]: it.payload["total_workflows_processed"] for it in told}
    assert last == {"team.0": 200, "team.1": 200}
    # However often an aggregation was told, each is one event; what a crash kept from being told is in the next.
    once = {it.envelope["event_id"]: it.payload["workflows"] for it in told}
    assert sum(once.values()) <= 400


async def tell_all(node: Node, stories: Sequence[Story]) -> None:
    """Publish what some workflows tell, in whatever order."""
    await asyncio.gather(*(tell(node, told) for story in stories for told in story.whole()))


async def caught_up(settings: Settings, url: str, directory: Path, ended: int) -> None:
    """Have another process read everything."""
    with service_process(MODULE, settings, url, directory, stderr=subprocess.DEVNULL) as service:
        await until(lambda: rows(url, COUNT)[0][0] == ended, f"{ended} workflows have ended", LONG)
        with httpx.Client(base_url=service.url) as client:
            await until(
                lambda: client.get("/metrics").json()["workflows"] > 0, "it has counted some of them", LONG
            )
            waiting = client.get("/metrics").json()["publisher"]["outbox"]["waiting"]
        assert waiting == 0
