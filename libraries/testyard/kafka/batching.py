"""Sending many events at once: building batches here costs less than handing over one event after the other."""

from __future__ import annotations

import random
import time
from functools import partial
from itertools import cycle
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner

from testyard.kafka.event import Outgoing
from testyard.kafka.publication import Publication

# What a request may have, unless brokers are told otherwise (max.message.bytes), with room for what is around it.
LARGEST_EVENT = 1024 * 1024 - 1024


class Batching:
    """Fills a batch for each partition, and hands it over when it is full.

    Args:
        producer: Sends the batches; those of one partition in their order.
        publication: Notes what comes of each event.
    """

    def __init__(self, producer: AIOKafkaProducer, publication: Publication) -> None:
        self._producer = producer
        self._publication = publication
        self._partitioner = DefaultPartitioner()
        self._topics: dict[str, _Partitions] = {}
        self._open: dict[tuple[str, int], _Batch] = {}

    async def send(self) -> None:
        """Hand all events over; returns when the client has the last one."""
        attempt, clock = self._publication.attempt, time.time_ns
        for event in self._publication.events:
            number = attempt(clock())
            try:
                await self._add(number, event)
            except KafkaError as problem:
                self._publication.refuse([number], problem)
            except BaseException as problem:
                self._publication.refuse([number], problem)
                raise
        while self._open:
            await self._hand_over(*self._open.popitem())

    def give_up(self, problem: BaseException) -> None:
        """Say that the client did not take what is left."""
        for batch in self._open.values():
            self._publication.refuse(batch.numbers, problem)
        self._open.clear()

    async def _add(self, number: int, event: Outgoing) -> None:
        place = event.topic, await self._partition(event)
        batch = self._open.get(place)
        if batch is None:
            batch = self._open[place] = _Batch(self._producer)
        if not batch.append(number, event):
            # Not in `_open` while it is handed over: what becomes of it is noted there.
            del self._open[place]
            await self._hand_over(place, batch)
            batch = self._open[place] = _Batch(self._producer)
            batch.append(number, event)

    async def _partition(self, event: Outgoing) -> int:
        if event.partition is not None:
            return event.partition
        partitions = self._topics.get(event.topic)
        if partitions is None:
            numbers = sorted(await self._producer.partitions_for(event.topic))
            partitions = self._topics[event.topic] = _Partitions(numbers)
        if event.key is None:
            return next(partitions.any)
        number = partitions.by_key.get(event.key)
        if number is None:
            number = self._partitioner(event.key, partitions.numbers, partitions.numbers)
            partitions.by_key[event.key] = number
        return number

    async def _hand_over(self, place: tuple[str, int], batch: _Batch) -> None:
        topic, partition = place
        try:
            future = await self._producer.send_batch(batch.builder, topic, partition=partition)
        except KafkaError as problem:
            self._publication.refuse(batch.numbers, problem)
        except BaseException as problem:
            self._publication.refuse(batch.numbers, problem)
            raise
        else:
            future.add_done_callback(partial(self._publication.settle, batch.numbers))


class _Partitions:
    """The partitions of a topic."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.by_key: dict[bytes, int] = {}
        # From one event to the next; those of several publications do not all begin at the same one.
        start = random.randrange(len(numbers))
        self.any = cycle([*numbers[start:], *numbers[:start]])


class _Batch:
    """Events of one partition."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.builder: Any = producer.create_batch()
        self.numbers: list[int] = []

    def append(self, number: int, event: Outgoing) -> bool:
        """Add an event; whether there was room. The first one always has it."""
        if len(event.value or b"") + len(event.key or b"") > LARGEST_EVENT:
            message = f"the event has more than {LARGEST_EVENT} bytes"
            raise MessageSizeTooLargeError(message)
        if self.builder.append(timestamp=None, key=event.key, value=event.value, headers=event.headers) is None:
            return False
        self.numbers.append(number)
        return True
