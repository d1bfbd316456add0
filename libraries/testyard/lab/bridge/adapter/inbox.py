"""What was read and is not stored yet, and how far each partition may be committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from testyard.lab.bridge.adapter.dead_letters import DeadLetter
from testyard.lab.bridge.adapter.figures import ErrorType
from testyard.lab.bridge.adapter.reading import Event, NotAnEventError, Reader
from testyard.lab.waiting import happens

POLLS_PER_BATCH: Final = 10
"""How many polls go into one transaction at most, when polls come faster than the database takes them."""
LARGEST_BATCH: Final = 16 * 1024 * 1024
"""Bytes of the values of a batch from which on nothing is added to it."""

Records = Mapping[TopicPartition, Sequence[ConsumerRecord]]
Offsets = dict[TopicPartition, int]


@dataclass(slots=True)
class Batch:
    """What is stored in one transaction.

    Attributes:
        events: In the order of their records.
        letters: Records that are no events.
        ends: The offset after the last record of each partition.
        records: How many records it holds.
        size: Bytes of their values.
    """

    events: list[Event] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    ends: Offsets = field(default_factory=dict)
    records: int = 0
    size: int = 0

    def add(self, records: Records, reader: Reader) -> None:
        """Read what a poll has brought."""
        for partition, some in records.items():
            for record in some:
                try:
                    self.events.append(reader.read(record))
                except NotAnEventError as problem:
                    self.letters.append(DeadLetter(record, ErrorType.VALIDATION_ERROR, str(problem)))
                self.size += record.serialized_value_size
            self.records += len(some)
            self.ends[partition] = some[-1].offset + 1


class Inbox:
    """One batch that grows while the one before it is stored: reading ahead, but not without end.

    Args:
        most: Records of a batch, from which on nothing is added to it.
        reader: Reads what polls bring.
    """

    def __init__(self, most: int, reader: Reader) -> None:
        self._most = most
        self._reader = reader
        self._batch = Batch()
        self._has_some = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_full = asyncio.Event()

    def __len__(self) -> int:
        return self._batch.records

    async def room(self) -> None:
        """Wait until something may be added."""
        await self._has_room.wait()

    def add(self, records: Records) -> None:
        """Take in what a poll has brought; also when there is no room, as it must not be lost."""
        self._batch.add(records, self._reader)
        if self._batch.records:
            self._has_some.set()
        if self._batch.records >= self._most or self._batch.size >= LARGEST_BATCH:
            self._has_room.clear()
            self._is_full.set()

    async def take(self, gather: timedelta) -> Batch:
        """Wait until there is something, and take all of it out.

        Args:
            gather: How long what follows may join it, as long as there is room.
        """
        while True:
            await self._has_some.wait()
            if gather:
                await happens(self._is_full, gather)
            # What there was may have been cleared meanwhile, as the partitions are another member's now.
            if self._has_some.is_set():
                return self.clear()

    def clear(self) -> Batch:
        """Take out what is there."""
        batch, self._batch = self._batch, Batch()
        self._has_some.clear()
        self._has_room.set()
        self._is_full.clear()
        return batch


class Commits:
    """How far each partition may be committed, and has been.

    A partition may be committed past what is stored or dead-lettered, and not past anything that is neither.

    Contract page "event-bus", 3.5, commits "safe" offsets, and leaves open what becomes of what is behind a gap.
    Here it is stored, but not committed before the gap is closed; when that does not happen in the life of the
    process, it is read again, and found to be there.

    Attributes:
        changed: Set when more may be committed.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._ends: Offsets = {}
        self._gaps: dict[TopicPartition, set[int]] = {}
        self._committed: Offsets = {}

    def allow(self, ends: Offsets, gaps: Iterable[ConsumerRecord] = ()) -> None:
        """Everything before these offsets is stored or dead-lettered, but for some records."""
        for record in gaps:
            self._gaps.setdefault(TopicPartition(record.topic, record.partition), set()).add(record.offset)
        self._ends.update(ends)
        self.changed.set()

    def close(self, record: ConsumerRecord) -> None:
        """One of those records is dead-lettered now."""
        self._gaps.get(TopicPartition(record.topic, record.partition), set()).discard(record.offset)
        self.changed.set()

    def pending(self) -> Offsets:
        """What may be committed and is not yet."""
        safe = {it: min(self._gaps.get(it) or [end]) for it, end in self._ends.items()}
        return {partition: end for partition, end in safe.items() if self._committed.get(partition) != end}

    def committed(self, ends: Offsets) -> None:
        """These offsets were committed."""
        self._committed.update(ends)

    def give_up(self) -> None:
        """Do not try again to commit what may be committed now; what comes later is tried."""
        self._ends.clear()

    def position(self, partition: TopicPartition) -> int | None:
        """The committed offset of a partition; None when nothing was committed since it was assigned."""
        return self._committed.get(partition)

    def clear(self) -> None:
        """Forget everything: the partitions may be another member's now."""
        self._ends.clear()
        self._gaps.clear()
        self._committed.clear()
