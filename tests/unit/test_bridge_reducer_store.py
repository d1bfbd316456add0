"""What the reducer writes: one row for each workflow, counted once, with the offsets, in one transaction."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psutil
import psycopg
import pytest
from bridge_support import ENVIRONMENT, migrated
from hypothesis import given, settings
from hypothesis import strategies as st
from orchestrator_support import NAMESPACE, Story, Told, execution
from postgresql_support import processes_of
from testyard.lab.bridge.reducer.aggregation import aggregate, execution_of
from testyard.lab.bridge.reducer.store import (
    Totals,
    bridge_id_of,
    persist,
    read_offsets,
    read_totals,
)
from testyard.lab.bridge.settings import DatabaseSettings
from testyard.lab.bridge.tables import open_tables
from testyard.lab.database import Pool, fetch
from testyard.lab.servers.postgresql import PostgresqlServer

pytestmark = pytest.mark.anyio

TOPIC = "test.omninode-bridge.orchestrator.workflow-started.v1"
ROW = """
    SELECT id, correlation_id, workflow_type, current_state, namespace, started_at, completed_at,
        execution_time_ms, error_message, metadata
    FROM workflow_executions WHERE correlation_id = %(correlation_id)s"""


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """The tables."""
    await asyncio.to_thread(migrated, database_url)
    async with open_tables(database_url, DatabaseSettings(), "test") as pool:
        yield pool


async def write(pool: Pool, *events: Told, offsets: dict[tuple[str, int], int] | None = None) -> list[Totals]:
    told = (execution_of(*it) for it in events)
    return await persist(pool, ENVIRONMENT, aggregate(it for it in told if it is not None), offsets or {})


async def row(pool: Pool, story: Story) -> dict[str, Any]:
    (found,) = await fetch(pool, ROW, {"correlation_id": story.correlation_id})
    return found


async def totals(pool: Pool) -> dict[str, tuple[int, int]]:
    return {it.namespace: (it.total_workflows, it.total_items) for it in await read_totals(pool, ENVIRONMENT)}


async def test_a_workflow_has_its_row_and_is_counted_when_it_ends(pool: Pool):
    story = Story(items=3)
    assert await write(pool, story.start()) == []
    assert (await row(pool, story))["current_state"] == "PENDING"
    assert await write(pool, story.transition()) == []
    assert (await row(pool, story))["current_state"] == "PROCESSING"
    bridge = bridge_id_of(ENVIRONMENT, NAMESPACE)
    assert await write(pool, story.end()) == [Totals(bridge, NAMESPACE, 1, 3, 1, 3, is_new=True)]
    found = await row(pool, story)
    assert (found["id"], found["current_state"], found["execution_time_ms"]) == (
        story.workflow_id,
        "COMPLETED",
        25,
    )
    assert found["completed_at"] - found["started_at"] == timedelta(milliseconds=25)
    assert found["metadata"]["request"]["file_path"] == "README.md"
    assert found["metadata"]["result"] == {"told_by": "orchestrator-1"}
    assert await write(pool, *Story().whole(), *Story().whole()) == [
        Totals(bridge, NAMESPACE, 2, 2, 3, 5, is_new=False)
    ]
    assert await totals(pool) == {NAMESPACE: (3, 5)}


async def test_a_failed_workflow_says_why_and_is_counted_as_well(pool: Pool):
    story = Story("team.a")
    await write(pool, *story.whole()[:2], story.end("metadata stamping timeout"))
    found = await row(pool, story)
    assert (found["current_state"], found["error_message"]) == ("FAILED", "metadata stamping timeout")
    assert await totals(pool) == {"team.a": (1, 1)}


async def test_what_is_read_again_is_not_counted_again(pool: Pool):
    story = Story(items=2)
    await write(pool, *story.whole())
    before = await row(pool, story)
    for again in ([*story.whole(), *story.whole()], story.whole()[:1], story.whole()[-1:], story.whole()[1:2]):
        assert await write(pool, *again) == []
    assert await row(pool, story) == before
    assert await totals(pool) == {NAMESPACE: (1, 2)}


async def test_a_start_that_is_read_again_does_not_set_a_workflow_back(pool: Pool):
    story = Story()
    await write(pool, story.start())
    await write(pool, story.transition())
    await write(pool, story.start())
    assert (await row(pool, story))["current_state"] == "PROCESSING"


async def test_a_start_that_is_read_late_does_not_set_a_workflow_back(pool: Pool):
    story = Story()
    await write(pool, story.transition())
    await write(pool, story.start())
    assert (await row(pool, story))["current_state"] == "PROCESSING"
    assert "request" in (await row(pool, story))["metadata"]


async def write_batches(
    url: str, story: Story, batches: Sequence[Sequence[Told]]
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Write batches of events; gives the workflow's row and the totals of its namespace."""
    async with open_tables(url, DatabaseSettings(), "test") as pool:
        for batch in batches:
            await write(pool, *batch)
        return await row(pool, story), (await totals(pool))[story.namespace]


def test_every_order_and_every_batch_gives_the_same_row(database_url: str):
    migrated(database_url)

    # The pool uses random numbers of its own, which hypothesis minds: there is none while values are drawn.
    @settings(deadline=None, database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        story = Story(f"namespace-{uuid4()}", items=2)
        events = [
            story.start(),
            story.transition(),
            story.transition(instance="orchestrator-2"),
            story.end("metadata stamping timeout", after=7, instance="orchestrator-2"),
            story.end(after=0.025),
        ]
        (expected,) = aggregate(map(execution, events))
        redelivered = data.draw(st.lists(st.sampled_from(range(len(events))), max_size=4))
        order = data.draw(st.permutations([*range(len(events)), *redelivered]))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1))))
        starts, ends = [0, *cuts], [*cuts, len(order)]
        given_batches = [
            [events[number] for number in order[start:end]] for start, end in zip(starts, ends, strict=True)
        ]
        found, counted = asyncio.run(write_batches(database_url, story, given_batches))
        assert found == {
            "id": expected.workflow_id,
            "correlation_id": expected.correlation_id,
            "workflow_type": expected.workflow_type,
            "current_state": "COMPLETED",
            "namespace": expected.namespace,
            "started_at": expected.started_at,
            "completed_at": expected.completed_at,
            "execution_time_ms": 25,
            "error_message": None,
            "metadata": expected.metadata,
        }
        assert counted == (1, 2)

    check()


async def test_two_members_that_read_the_same_events_count_them_once(pool: Pool):
    stories = [Story(f"team.{number % 3}") for number in range(60)]
    events = [told for story in stories for told in story.whole()]
    results = await asyncio.gather(
        *(write(pool, *order) for order in (events, events[::-1], events, events[::-1]))
    )
    assert sum(it.workflows for result in results for it in result) == 60
    assert await totals(pool) == {f"team.{number}": (20, 20) for number in range(3)}


async def test_the_offsets_are_written_with_the_rows_or_not_at_all(pool: Pool):
    story, other = Story(), Story()
    await write(pool, *story.whole(), offsets={(TOPIC, 0): 7, (TOPIC, 2): 9})
    assert await read_offsets(pool, [TOPIC]) == {(TOPIC, 0): 7, (TOPIC, 2): 9}
    refused = other.end(result={"text": "\0"})
    with pytest.raises(psycopg.DataError):
        await write(pool, *other.whole()[:2], refused, offsets={(TOPIC, 0): 8})
    assert await read_offsets(pool, [TOPIC]) == {(TOPIC, 0): 7, (TOPIC, 2): 9}
    assert await fetch(pool, ROW, {"correlation_id": other.correlation_id}) == []
    assert await totals(pool) == {NAMESPACE: (1, 1)}


async def test_offsets_go_back_when_a_topic_was_made_anew(pool: Pool):
    await persist(pool, ENVIRONMENT, [], {(TOPIC, 0): 1000})
    await persist(pool, ENVIRONMENT, [], {(TOPIC, 0): 200})
    assert await read_offsets(pool, [TOPIC]) == {(TOPIC, 0): 200}
    assert await read_offsets(pool, ["another"]) == {}


async def test_a_row_that_belongs_to_another_workflow_is_refused(pool: Pool):
    story, other = Story(), Story()
    await write(pool, story.start())
    with pytest.raises(psycopg.IntegrityError):
        await write(pool, other.start(workflow_id=story.workflow_id))


async def test_each_environment_has_its_own_totals(pool: Pool):
    executions = aggregate([execution(Story().end())])
    await persist(pool, "dev", executions, {})
    await persist(pool, "staging", aggregate([execution(Story().end())]), {})
    (dev,), (staging,) = await read_totals(pool, "dev"), await read_totals(pool, "staging")
    assert (dev.total_workflows, staging.total_workflows) == (1, 1)
    assert dev.bridge_id != staging.bridge_id
    assert await read_totals(pool, "test") == []


async def test_the_totals_are_told_again_with_what_the_last_batch_had_added(pool: Pool):
    await write(pool, *(Story(items=2).end() for _ in range(3)))
    (last,) = await write(pool, *(Story(items=5).end() for _ in range(2)))
    assert isinstance(last.bridge_id, UUID)
    assert (last.workflows, last.items, last.total_workflows, last.total_items) == (2, 10, 5, 16)
    (again,) = await read_totals(pool, ENVIRONMENT)
    assert (again.workflows, again.items, again.total_workflows, again.total_items) == (2, 10, 5, 16)


def processor_time(server: PostgresqlServer) -> float:
    """Seconds that this process and the database have worked so far."""
    spent = [process.cpu_times() for process in (psutil.Process(), *processes_of(server))]
    return sum(it.user + it.system for it in spent)


async def test_a_thousand_items_take_less_than_a_hundred_milliseconds(
    pool: Pool, postgresql_server: PostgresqlServer
):
    rounds = [[execution(Story(f"team.{number}").end()) for _ in range(1000)] for number in range(12)]
    # By the processor's clock: by the wall's, it would matter what else the machine does.
    before = processor_time(postgresql_server)
    for number, executions in enumerate(rounds):
        (total,) = await persist(pool, ENVIRONMENT, aggregate(executions), {(TOPIC, 0): number})
        assert total.items == 1000
    took = (processor_time(postgresql_server) - before) / len(rounds)
    assert took < 0.1, f"{took:.3f} s for a thousand items"
