"""How far the database adapter may commit, and what happens to dead letters that cannot be written."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import cast

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from bridge_support import until
from testyard.lab.bridge.adapter.dead_letters import DeadLetter, DeadLetters
from testyard.lab.bridge.adapter.figures import ErrorType, Figures
from testyard.lab.bridge.adapter.inbox import Commits, Inbox
from testyard.lab.bridge.adapter.postbox import MOST_LETTERS, Postbox
from testyard.lab.bridge.adapter.reading import Reader

TOPIC = "orders"
GATHER = timedelta(milliseconds=20)
FIRST, SECOND = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


def record_at(offset: int, partition: int = 0) -> ConsumerRecord:
    """A record of the topic."""
    return ConsumerRecord(TOPIC, partition, offset, 0, 0, None, b"", None, 0, 0, ())


def letters(count: int) -> list[DeadLetter]:
    """Dead letters of the first records."""
    return [DeadLetter(record_at(offset), ErrorType.VALIDATION_ERROR, "no event") for offset in range(count)]


class Writer:
    """Writes dead letters, or refuses to."""

    def __init__(self) -> None:
        self.refused = 0
        self.refuses: set[int] = set()
        self.written: list[int] = []

    async def send(self, given: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those that are refused."""
        left = [it for it in given if it.record.offset in self.refuses]
        self.refused += len(left)
        self.written += [it.record.offset for it in given if it not in left]
        return left


@asynccontextmanager
async def writing(postbox: Postbox) -> AsyncIterator[None]:
    """While its letters are written."""
    task = asyncio.create_task(postbox.write_for_ever())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_what_is_handled_may_be_committed_once():
    commits = Commits()
    commits.allow({FIRST: 5, SECOND: 7})
    assert commits.changed.is_set()
    assert commits.pending() == {FIRST: 5, SECOND: 7}
    commits.committed({FIRST: 5})
    assert commits.pending() == {SECOND: 7}
    assert (commits.position(FIRST), commits.position(SECOND)) == (5, None)


def test_nothing_behind_a_gap_may_be_committed():
    commits = Commits()
    commits.allow({FIRST: 5, SECOND: 7}, [record_at(4), record_at(2)])
    assert commits.pending() == {FIRST: 2, SECOND: 7}
    commits.allow({FIRST: 9})
    assert commits.pending() == {FIRST: 2, SECOND: 7}
    commits.committed({FIRST: 2, SECOND: 7})
    commits.changed.clear()
    commits.close(record_at(2))
    assert commits.changed.is_set()
    assert commits.pending() == {FIRST: 4}
    commits.close(record_at(4))
    assert commits.pending() == {FIRST: 9}


def test_a_gap_is_not_forgotten_when_a_commit_is_given_up():
    commits = Commits()
    commits.allow({FIRST: 5}, [record_at(2)])
    commits.give_up()
    assert commits.pending() == {}
    commits.allow({FIRST: 9})
    assert commits.pending() == {FIRST: 2}


def test_other_members_partitions_are_forgotten():
    commits = Commits()
    commits.allow({FIRST: 5}, [record_at(2)])
    commits.clear()
    assert commits.pending() == {}
    commits.close(record_at(2))
    commits.allow({FIRST: 3})
    assert commits.pending() == {FIRST: 3}


@pytest.mark.anyio
async def test_letters_are_tried_again_until_they_are_written_and_counted_once():
    writer, figures, closed = Writer(), Figures(), []
    writer.refuses = {1}
    postbox = Postbox(cast(DeadLetters, writer), figures, lambda it: closed.append(it.record.offset))
    postbox.add(letters(3))
    async with writing(postbox):
        await until(lambda: writer.refused > 1, "it is tried again")
        assert closed == [0, 2]
        assert len(postbox) == 1
        writer.refuses.clear()
        await until(lambda: len(postbox) == 0, "it is written")
    assert closed == writer.written == [0, 2, 1]
    assert figures.metrics()["dead_lettered"] == 3


@pytest.mark.anyio
async def test_there_is_room_for_so_many_letters_and_no_more():
    postbox = Postbox(cast(DeadLetters, Writer()), Figures(), lambda _: None)
    postbox.add(letters(MOST_LETTERS - 1))
    async with asyncio.timeout(1):
        await postbox.room()
    postbox.add(letters(1))
    waiting = asyncio.create_task(postbox.room())
    await asyncio.wait([waiting], timeout=0.01)
    assert not waiting.done()
    async with writing(postbox), asyncio.timeout(5):
        await waiting


@pytest.mark.anyio
async def test_letters_of_partitions_that_were_given_up_are_forgotten():
    postbox = Postbox(cast(DeadLetters, Writer()), Figures(), lambda _: None)
    postbox.add(letters(MOST_LETTERS))
    postbox.clear()
    assert len(postbox) == 0
    async with asyncio.timeout(1):
        await postbox.room()


@pytest.mark.anyio
async def test_what_is_cleared_while_a_batch_is_gathered_is_not_taken():
    inbox = Inbox(100, Reader("test"))
    inbox.add({FIRST: [record_at(0)]})
    taking = asyncio.create_task(inbox.take(GATHER))
    await asyncio.wait([taking], timeout=0)
    inbox.clear()
    await asyncio.wait([taking], timeout=(GATHER * 5).total_seconds())
    assert not taking.done()
    inbox.add({FIRST: [record_at(7)]})
    async with asyncio.timeout(5):
        batch = await taking
    assert (batch.records, batch.ends) == (1, {FIRST: 8})
