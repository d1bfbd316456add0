"""The outbox: whatever was put comes out, in order, whatever becomes of the database and of the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest
from publisher_support import PATIENCE, Database, new_database, open_outbox, until
from testyard.lab.bridge.breaker import BreakerSettings, CircuitBreaker
from testyard.lab.bridge.outbox import PROCESSES, Outbox, Waiting
from testyard.lab.database import DatabaseUnavailableError, Pool, fetch
from testyard.lab.servers.postgresql import PostgresqlServer, ShutdownMode
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio

ALL = 10_000


@dataclass
class Place:
    """A database that can be taken away, and a directory."""

    database: Database
    directory: Path
    pool: Pool

    def process(self, service: str = "orchestrator") -> AbstractAsyncContextManager[Outbox]:
        """An outbox that is closed like a process."""
        return open_outbox(self.database, self.pool, self.directory, service)


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with new_database(database_url) as database, database.pool() as pool:
        yield Place(database, tmp_path / "outbox", pool)


async def put(outbox: Outbox, *numbers: int, key: str | Callable[[int], str] = "key") -> None:
    for number in numbers:
        of = key if isinstance(key, str) else key(number)
        await outbox.put(outbox.new("topic", of, b"%d" % number, (("traceparent", f"00-{number}"),)))


def numbers(events: list[Waiting]) -> list[int]:
    return [int(event.value) for event in events]


async def drained(outbox: Outbox, at_a_time: int = 3) -> list[int]:
    """Publish everything: what came out."""
    published: list[int] = []
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while len(outbox):
            events = await outbox.oldest(at_a_time)
            published += numbers(events)
            await outbox.remove(events)
            await elapse(timedelta(0))
    return published


# ---- the table


async def test_what_was_put_comes_out_in_order_and_as_it_was(place):
    async with place.process() as outbox:
        given = [
            outbox.new("topic", f"key-{number}", bytes([number, 0, 255]), (("a", "ü"),)) for number in range(9)
        ]
        for event in given:
            await outbox.put(event)
        assert await outbox.oldest(4) == given[:4]
        assert await outbox.oldest(4) == given[:4]
        await outbox.remove(given[:4])
        assert await outbox.oldest(ALL) == given[4:]
        assert len(outbox) == place.database.stored() == 5


async def test_what_comes_at_once_is_kept_together(place, monkeypatch):
    statements = 0

    async def counted(*arguments: Any) -> Any:
        nonlocal statements
        statements += 1
        return await fetch(*arguments)

    async with place.process() as outbox:
        monkeypatch.setattr("testyard.lab.bridge.outbox.fetch", counted)
        events = [outbox.new("topic", f"key-{number}", b"%d" % number) for number in range(300)]
        await asyncio.gather(*(outbox.put(event) for event in events))
        assert statements <= 10
        assert await outbox.oldest(ALL) == events
        assert len(outbox) == 300


async def test_a_key_holds_up_only_itself_and_only_while_something_waits(place):
    async with place.process() as outbox:
        await put(outbox, 1, 2, key="held")
        assert await outbox.holds_up("held")
        assert not await outbox.holds_up("other")
        first, second = await outbox.oldest(ALL)
        await outbox.remove([first])
        assert await outbox.holds_up("held")
        await outbox.remove([second])
        assert not await outbox.holds_up("held")


async def test_a_key_is_held_up_from_the_moment_in_which_it_is_put(place):
    async with place.process() as outbox:
        putting = asyncio.create_task(outbox.put(outbox.new("topic", "key", b"1")))
        await until(lambda: len(outbox) == 1, "it is on its way")
        assert await outbox.holds_up("key")
        await putting


@pytest.mark.parametrize("key", ["nothing\0here", "ü€😀", "", "'; DROP TABLE outbox; --"])
async def test_any_text_may_be_a_key(place, key):
    async with place.process() as outbox:
        await put(outbox, 1, key=key)
        assert outbox.in_file == 0
        assert await outbox.holds_up(key)
        (event,) = await outbox.oldest(ALL)
        assert event.key == key


async def test_rows_that_somebody_has_deleted_hold_up_nothing(place):
    async with place.process() as outbox:
        await put(outbox, 1, 2, 3)
        with psycopg.connect(place.database.url) as connection:
            connection.execute("TRUNCATE outbox")
        assert await outbox.oldest(ALL) == []
        assert len(outbox) == 0
        assert not await outbox.holds_up("key")


async def test_a_cancelled_put_happens_nevertheless_and_keeps_its_place(place):
    async with place.process() as outbox:
        await put(outbox, 1)
        with psycopg.connect(place.database.url) as locking:
            locking.execute("LOCK TABLE outbox IN SHARE MODE")
            putting = [asyncio.create_task(put(outbox, number)) for number in (2, 3)]
            await until(lambda: len(outbox) == 3, "both are on their way")
            for task in putting:
                task.cancel()
            await asyncio.wait(putting)
            locking.rollback()
        assert all(task.cancelled() for task in putting)
        assert await outbox.holds_up("key")
        await put(outbox, 4)
        assert await drained(outbox) == [1, 2, 3, 4]


# ---- the file


async def test_while_the_database_is_away_the_file_has_them_and_afterwards_the_table(place):
    async with place.process() as outbox:
        await put(outbox, 1, 2, key="a")
        place.database.away()
        await put(outbox, 3, 4, key="a")
        await put(outbox, 5, key="b")
        assert outbox.in_file == 3
        assert len(outbox) == 5
        place.database.back()
        await until_in_the_table(outbox)
        await put(outbox, 6, key="a")
        assert outbox.in_file == 0
        assert place.database.stored() == 6
        assert await drained(outbox) == [1, 2, 3, 4, 5, 6]


async def until_in_the_table(outbox: Outbox) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while outbox.in_file:
            await outbox.oldest(1)
            await elapse(timedelta(0))


async def test_without_the_database_what_is_in_the_file_comes_out_unless_the_table_has_an_earlier_one(place):
    async with place.process() as outbox:
        await put(outbox, 1, key="a")
        place.database.away()
        await put(outbox, 2, key="a")
        await put(outbox, 3, 4, key="b")
        events = await outbox.oldest(ALL)
        assert numbers(events) == [3, 4]
        await outbox.remove(events)
        assert await outbox.holds_up("a")
        assert not await outbox.holds_up("b")
        place.database.back()
        assert await drained(outbox) == [1, 2]


async def test_what_was_published_without_the_database_is_not_published_again(place):
    async with place.process() as outbox:
        await put(outbox, 1, 2)
        first = (await outbox.oldest(1))[0]
        place.database.away()
        await outbox.remove([first])
        assert len(outbox) == 1
        assert place.database.stored() == 2
        place.database.back()
        assert await drained(outbox) == [2]
        assert place.database.stored() == 0


@pytest.fixture
def answers_are_lost(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """The database does what it is told, and goes away before it can say so."""

    async def fetch_and_lose(*arguments: Any) -> NoReturn:
        await fetch(*arguments)
        raise DatabaseUnavailableError("the connection was lost")

    @contextmanager
    def patch() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr("testyard.lab.bridge.outbox.fetch", fetch_and_lose)
            yield

    return patch


async def test_what_the_table_has_after_all_is_published_once(place, answers_are_lost):
    async with place.process() as outbox:
        with answers_are_lost():
            await put(outbox, 2)
        assert outbox.in_file == place.database.stored() == 1
        place.database.away()
        assert await drained(outbox) == [2]
        assert len(outbox) == 0
        place.database.back()
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while place.database.stored():
                assert await outbox.oldest(ALL) == []
                await elapse(timedelta(0))
        assert len(outbox) == 0


async def test_what_is_in_the_table_and_in_the_file_comes_out_once(place, answers_are_lost):
    async with place.process() as outbox:
        with answers_are_lost():
            await put(outbox, 1)
        assert outbox.in_file == place.database.stored() == 1
        place.database.back()
        await until_in_the_table(outbox)
        await put(outbox, 2)
        assert len(outbox) == 2
        assert await drained(outbox) == [1, 2]
        assert not await outbox.holds_up("key")


async def test_when_neither_can_take_it_the_caller_is_told_and_nothing_is_held_up(place, monkeypatch):
    async with place.process() as outbox:
        place.database.away()

        def full(descriptor: int, content: bytes) -> int:
            raise OSError("no space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("testyard.lab.bridge.outbox_file.os.write", full)
            results = await asyncio.gather(*(put(outbox, number) for number in range(3)), return_exceptions=True)
        assert [str(it) for it in results] == ["no space left on device"] * 3
        assert len(outbox) == 0
        assert not await outbox.holds_up("key")
        await put(outbox, 9)
        assert await drained(outbox) == [9]


async def test_a_table_that_refuses_is_like_one_that_is_away(place):
    async with place.process() as outbox:
        with psycopg.connect(place.database.url) as connection:
            connection.execute("ALTER TABLE outbox RENAME TO elsewhere")
        await put(outbox, 1, 2)
        assert outbox.in_file == 2
        assert await drained(outbox) == [1, 2]


async def test_a_database_that_is_killed_in_the_middle_loses_nothing_that_was_kept(tmp_path):
    with PostgresqlServer(durable=False) as server:
        url = server.create_database("outbox")
        patient = BreakerSettings(failures=3, open_for=timedelta(milliseconds=100), successes=1)
        async with new_database(url) as database, database.pool() as pool:
            database.breaker = CircuitBreaker("database", patient)
            async with open_outbox(database, pool, tmp_path) as outbox:
                published, kept = await _put_while_it_is_killed(server, outbox)
    assert len(kept) == len(set(kept)) >= 400
    assert sorted(published) == sorted(kept)
    for first in range(4):
        of_key = [number for number in published if number % 4 == first]
        assert of_key == sorted(of_key)


async def _put_while_it_is_killed(server: PostgresqlServer, outbox: Outbox) -> tuple[list[int], list[int]]:
    kept: list[int] = []
    restarted = asyncio.Event()

    async def keep_on(first: int) -> None:
        number = first
        while not restarted.is_set() or number < first + 400:
            await put(outbox, number, key=f"key-{first}")
            kept.append(number)
            number += 4

    putting = [asyncio.create_task(keep_on(first)) for first in range(4)]
    await until(lambda: len(kept) > 100, "some are kept")
    await asyncio.to_thread(server.restart, ShutdownMode.KILL)
    restarted.set()
    await asyncio.gather(*putting)
    await until_in_the_table(outbox)
    return await drained(outbox, at_a_time=200), kept


# ---- processes


async def test_the_next_process_finds_everything_in_order(place):
    async with place.process() as outbox:
        await put(outbox, 1, 2)
        place.database.away()
        await put(outbox, 3, 4)
    place.database.back()
    async with place.process() as outbox:
        assert len(outbox) == 4
        assert await outbox.holds_up("key")
        await put(outbox, 5)
        assert await drained(outbox) == [1, 2, 3, 4, 5]


async def test_a_process_that_starts_without_the_database_lets_nothing_overtake(place):
    async with place.process() as outbox:
        await put(outbox, 1, key="a")
    place.database.away()
    async with place.process() as outbox:
        assert await outbox.holds_up("a")
        assert await outbox.holds_up("b"), "nobody knows what is in the table"
        await put(outbox, 2, key="a")
        assert await outbox.oldest(ALL) == []
        place.database.back()
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while await outbox.holds_up("b"):
                await elapse(timedelta(0))
        assert await drained(outbox) == [1, 2]


async def test_a_clock_that_was_set_back_changes_no_order(place, monkeypatch):
    async with place.process() as outbox:
        await put(outbox, 1, 2)
    yesterday = time.time_ns() - 86_400_000_000_000
    monkeypatch.setattr("testyard.lab.bridge.outbox.time.time_ns", lambda: yesterday)
    async with place.process() as outbox:
        await put(outbox, 3, 4)
        assert await drained(outbox) == [1, 2, 3, 4]


async def test_two_processes_of_a_service_have_each_their_own(place):
    async with place.process() as one, place.process() as other:
        await put(one, 1, 3)
        await put(other, 2, 4)
        assert numbers(await one.oldest(ALL)) == [1, 3]
        assert numbers(await other.oldest(ALL)) == [2, 4]
        assert await drained(one) == [1, 3]
        assert place.database.stored() == 2
        assert await drained(other) == [2, 4]


async def test_events_of_two_processes_never_have_one_place(place, monkeypatch):
    monkeypatch.setattr("testyard.lab.bridge.outbox.time.time_ns", lambda: 1_700_000_000_000_000_000)
    async with place.process() as one, place.process() as other:
        places = [outbox.new("topic", "key", b"").position for _ in range(100) for outbox in (one, other)]
        assert len(set(places)) == 200
        assert places[0::2] == sorted(places[0::2])


async def test_the_next_process_takes_over_what_all_that_have_ended_left(place):
    async with place.process() as one:
        async with place.process() as other:
            await put(other, 2)
            place.database.away()
            await put(other, 3)
        await put(one, 1)
        place.database.back()
        async with place.process() as third:
            assert await drained(third) == [2, 3]
            assert numbers(await one.oldest(ALL)) == [1]


async def test_a_file_of_a_process_that_has_left_nothing_else_is_taken_over(place):
    async with place.process(), place.process() as other:
        place.database.away()
        await put(other, 1)
    place.database.back()
    async with place.process() as outbox:
        assert await drained(outbox) == [1]


async def test_rows_whose_file_is_gone_are_taken_over_too(place):
    async with place.process(), place.process() as other:
        await put(other, 1)
    for path in place.directory.iterdir():
        path.unlink()
    async with place.process() as outbox:
        assert await drained(outbox) == [1]


async def test_services_do_not_touch_each_others_events(place):
    async with (
        place.process("reducer") as reducer,
        place.process("orchestrator") as orchestrator,
    ):
        await put(reducer, 1)
        await put(orchestrator, 2)
        assert not await orchestrator.holds_up("none")
        assert await drained(orchestrator) == [2]
        assert await drained(reducer) == [1]


async def test_too_many_processes_are_told_so(place, monkeypatch):
    monkeypatch.setattr("testyard.lab.bridge.outbox.PROCESSES", 1)
    async with place.process():
        with pytest.raises(OSError, match="All 1 files of the outbox of orchestrator"):
            async with place.process():
                pass
    assert PROCESSES == 1000


# ---- what the bus refuses


async def test_what_the_bus_refuses_is_set_aside_and_holds_up_nothing(place):
    async with place.process() as outbox:
        await put(outbox, 1, 2)
        first, second = await outbox.oldest(ALL)
        await outbox.refuse(first, "it is too large")
        assert await outbox.oldest(ALL) == [second]
        assert outbox.refused == 1
        (aside,) = place.directory.glob("*.refused")
        assert '"reason": "it is too large"' in aside.read_text()
        assert '"value": "1"' in aside.read_text()
