"""Reading events in the background, and what is waited for among them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, OffsetOutOfRangeError

from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Happening
from testyard.core.loop_thread import LoopThread
from testyard.kafka.ending import end_client
from testyard.kafka.event import IDENTITY, Event, Identity, Moment, place_of
from testyard.kafka.problems import RecordsGoneError, reason
from testyard.kafka.selection import Selection

SHOWN = 10
# How long a broker may keep a request that finds nothing: one that does not wake it up when an event comes answers
# this much late.
FETCH_WAIT = timedelta(milliseconds=20)
SESSION_TIMEOUT = timedelta(seconds=10)
# How many signs of life a member gives in that time.
HEARTBEATS = 5
# How often it is looked whether what was asked for has been reached.
LOOK = timedelta(milliseconds=50)


class Start(Enum):
    """Where reading begins."""

    NOW = "now"
    OLDEST = "oldest"
    BEGINNING = "beginning"


class Isolation(Enum):
    """Whether events of transactions that are not committed are read."""

    READ_UNCOMMITTED = "read_uncommitted"
    READ_COMMITTED = "read_committed"


Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True)
class Reading:
    """What a collector reads, and how.

    Attributes:
        name: What the collector is called.
        start: Where each partition begins.
        group: The consumer group that it joins; None: it reads every partition, and nobody knows.
        isolation: Whether it reads what is not committed.
        identity: Where events have their ids.
        session_timeout: After which silence its group takes it for dead.
        options: What the client needs to connect.
    """

    name: str
    start: Offsets
    group: str | None = None
    isolation: Isolation = Isolation.READ_UNCOMMITTED
    identity: Identity = IDENTITY
    session_timeout: timedelta = SESSION_TIMEOUT
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def topics(self) -> list[str]:
        """The topics, each once."""
        return list(dict.fromkeys(partition.topic for partition in self.start))


class Collector:
    """Keeps what arrives, in the order of its arrival, until it is stopped.

    Args:
        loop: The thread that it reads on.
        reading: What it reads.

    Raises:
        UserError: It cannot be started.
    """

    def __init__(self, loop: LoopThread, reading: Reading) -> None:
        self.reading = reading
        self._loop = loop
        self._events: list[Event] = []
        self._next: dict[TopicPartition, int] = dict(reading.start)
        self._problem: UserError | None = None
        self._consumer: AIOKafkaConsumer
        loop.run(self._start())
        self._task: Future[None] = loop.spawn(self._collect())

    @property
    def events(self) -> list[Event]:
        """What has arrived so far.

        Raises:
            RecordsGoneError: Events are missing: retention dropped them before they were read.
            UserError: Reading has failed.
        """
        self.check()
        return list(self._events)

    def happenings(self, moment: Moment) -> list[Happening]:
        """What has arrived so far, for a history.

        Args:
            moment: Which moment of each event the history tells.

        Raises:
            UserError: Reading has failed, so that events may be missing.
        """
        return [event.happening(moment) for event in self.events]

    def check(self) -> None:
        """Make sure that nothing is missing.

        Raises:
            RecordsGoneError: Events are missing: retention dropped them before they were read.
            UserError: Reading has failed.
        """
        if self._problem is not None:
            raise self._problem

    def wait_for(self, selection: Selection, deadline: Deadline, count: int = 1) -> list[Event]:
        """Wait for events; those that arrived before count too.

        Args:
            selection: Which ones.
            deadline: Give up after this.
            count: How many.

        Returns:
            The first ``count`` of them.

        Raises:
            NotMetError: They did not arrive in time; shows the last ones that did arrive.
            UserError: Reading has failed.
        """
        found: list[Event] = []
        seen = 0

        def look() -> int:
            nonlocal seen
            self.check()
            until = len(self._events)
            found.extend(event for event in self._events[seen:until] if selection.accepts(event))
            seen = until
            return len(found)

        try:
            wait_until(look, lambda it: it >= count, deadline, str(selection))
        except NotMetError:
            what = "No event" if not found else f"Only {len(found)} of {count} events"
            message = f"{what} {selection} arrived within {seconds(deadline.within)}; {self._shown()}"
            raise NotMetError(message) from None
        return found[:count]

    def never(self, selection: Selection, deadline: Deadline) -> None:
        """Check until the deadline that no such event arrives, and that none did before.

        Raises:
            NotMetError: One did.
            UserError: Reading has failed.
        """
        seen = 0
        while True:
            self.check()
            # Asked before it is looked, so that what arrives until the deadline is looked at.
            expired = deadline.expired
            until = len(self._events)
            for event in self._events[seen:until]:
                if selection.accepts(event):
                    message = f"An event {selection} must not arrive, but did: {event!r}."
                    raise NotMetError(message)
            seen = until
            if expired:
                return
            deadline.pause()

    def drain(self, ends: Offsets, deadline: Deadline) -> list[Event]:
        """Wait until everything before some offsets has been read: only then can be said what is missing.

        Args:
            ends: The first offset of each partition that need not be read.
            deadline: Give up after this.

        Raises:
            NotMetError: It was not read in time.
            UserError: Reading has failed.
        """

        def left() -> dict[str, int]:
            self.check()
            return {
                place_of(*partition): end - self._next.get(partition, 0)
                for partition, end in ends.items()
                if self._next.get(partition, 0) < end
            }

        try:
            wait_until(left, lambda it: not it, deadline, "the end")
        except NotMetError:
            missing = ", ".join(f"{count} of {place}" for place, count in left().items())
            message = f"The events were not read to the end within {seconds(deadline.within)}: {missing} are left."
            raise NotMetError(message) from None
        return list(self._events)

    def pause(self) -> None:
        """Read no more, but stay a member of the group."""
        self._loop.run(self._pause())

    def resume(self) -> None:
        """Read on where it was paused."""
        self._loop.run(self._resume())

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from another offset; what was read before stays.

        Raises:
            UserError: The partition is not one that it reads.
        """
        self._loop.run(self._seek(partition, offset))

    def commit(self) -> dict[TopicPartition, int]:
        """Commit what has been read, for the group.

        Returns:
            The offsets: of each partition, the first that is not read yet.

        Raises:
            UserError: It is in no group, or the group refuses.
        """
        if self.reading.group is None:
            message = f"The collector {self.reading.name!r} is in no consumer group: it has nothing to commit."
            raise UserError(message)
        return self._loop.run(self._commit())

    def stop(self) -> None:
        """Read no more, and leave the group; what has arrived stays."""
        self._task.cancel()
        with suppress(CancelledError):
            self._task.result()
        self._loop.run(end_client(self._consumer))

    def _shown(self) -> str:
        events = self._events
        if not events:
            return "nothing arrived."
        last = "".join(f"\n- {event!r}" for event in events[-SHOWN:])
        return f"{len(events)} events arrived, the last ones:{last}"

    # On the loop's thread.

    async def _start(self) -> None:
        reading = self.reading
        self._consumer = AIOKafkaConsumer(
            **reading.options,
            group_id=reading.group,
            enable_auto_commit=False,
            # Without a group, an offset that is gone is an error; a group needs a place to begin, and is watched.
            auto_offset_reset="earliest" if reading.group else "none",
            isolation_level=reading.isolation.value,
            fetch_max_wait_ms=round(FETCH_WAIT.total_seconds() * 1000),
            session_timeout_ms=round(reading.session_timeout.total_seconds() * 1000),
            heartbeat_interval_ms=round(reading.session_timeout.total_seconds() * 1000 / HEARTBEATS),
        )
        try:
            if reading.group:
                self._consumer.subscribe(reading.topics)
                await self._consumer.start()
                await self._begin_in_group()
            else:
                await self._consumer.start()
                self._consumer.assign(list(reading.start))
                for partition, offset in reading.start.items():
                    self._consumer.seek(partition, offset)
        except BaseException as problem:
            await end_client(self._consumer)
            if isinstance(problem, KafkaError):
                message = f"Events of {', '.join(reading.topics)} cannot be collected: {reason(problem)}."
                raise UserError(message) from None
            raise

    async def _begin_in_group(self) -> None:
        """Begin each partition where the group has committed, or else where the reading says."""
        self._next.clear()
        for partition in self._consumer.assignment():
            committed = await self._consumer.committed(partition)
            self._next[partition] = self.reading.start.get(partition, 0) if committed is None else committed
            self._consumer.seek(partition, self._next[partition])

    async def _collect(self) -> None:
        consumer, identity = self._consumer, self.reading.identity
        try:
            while True:
                batches = await consumer.getmany(timeout_ms=round(LOOK.total_seconds() * 1000))
                now = time.time_ns()
                for partition, records in batches.items():
                    await self._check_gap(partition, records[0].offset)
                    # Both at once: who has seen an event may commit it.
                    self._events.extend(Event(record, now, identity) for record in records)
                    self._next[partition] = records[-1].offset + 1
                await self._note_positions()
        except OffsetOutOfRangeError as problem:
            (partition, offset), *_ = problem.args[0].items()
            self._problem = await self._gone(partition, offset)
        except UserError as problem:
            self._problem = problem
        except KafkaError as problem:
            hint = (
                " (librdkafka's mock cluster cannot return the records of a transaction)"
                if isinstance(problem, CorruptRecordException)
                else ""
            )
            message = f"Reading {', '.join(self.reading.topics)} has failed: {reason(problem)}{hint}."
            self._problem = UserError(message)

    async def _check_gap(self, partition: TopicPartition, offset: int) -> None:
        """Tell offsets that are gone from those that never had an event, such as a transaction's marker."""
        expected = self._next.get(partition)
        if expected is not None and offset > expected:
            beginnings = await self._consumer.beginning_offsets([partition])
            if beginnings[partition] > expected:
                raise await self._gone(partition, expected)

    async def _gone(self, partition: TopicPartition, expected: int) -> RecordsGoneError:
        beginning = (await self._consumer.beginning_offsets([partition]))[partition]
        ends = (await self._consumer.end_offsets([partition]))[partition]
        place = place_of(*partition)
        if expected > ends:
            return RecordsGoneError(f"There is no offset {expected} in {place} yet: it ends at {ends}.")
        return RecordsGoneError(records_gone(place, expected, beginning))

    async def _note_positions(self) -> None:
        if self.reading.group:
            # What another member reads meanwhile is not missing here.
            self._next = {it: self._next[it] for it in self._next if it in self._consumer.assignment()}
        for partition in self._consumer.assignment():
            before = self._next.get(partition)
            position = await self._consumer.position(partition)
            # It also moves without a record: past a transaction's marker, or past what retention has dropped.
            await self._check_gap(partition, position)
            if self._next.get(partition) == before:
                self._next[partition] = position

    async def _pause(self) -> None:
        self._consumer.pause(*self._consumer.assignment())

    async def _resume(self) -> None:
        self._consumer.resume(*self._consumer.assignment())

    async def _seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._consumer.assignment():
            read = ", ".join(sorted(place_of(*it) for it in self._consumer.assignment())) or "nothing"
            message = f"The collector {self.reading.name!r} does not read {place_of(*partition)}; it reads {read}."
            raise UserError(message)
        self._consumer.seek(partition, offset)
        self._next[partition] = offset

    async def _commit(self) -> dict[TopicPartition, int]:
        # Exactly what is among the events, not what the client has read ahead.
        offsets = dict(self._next)
        try:
            await self._consumer.commit(offsets)
        except KafkaError as problem:
            message = f"The group {self.reading.group!r} did not take the offsets: {reason(problem)}."
            raise UserError(message) from None
        return offsets


def records_gone(place: str, expected: int, beginning: int) -> str:
    """What to say about records that are no longer there.

    Args:
        place: The partition.
        expected: The first offset that should have been read.
        beginning: The first offset that is there.
    """
    return (
        f"{beginning - expected} records of {place} were dropped before they were read: it begins at offset "
        f"{beginning}, and {expected} was next. Give the topic more partitions, or a longer retention."
    )
