"""Sending events, at once or on a schedule, on the loop's thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import islice

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from testyard.kafka.batching import Batching
from testyard.kafka.event import NANOSECONDS, Outgoing
from testyard.kafka.publication import Publication

# What a loop can keep: it looks at its clock in whole milliseconds.
SHORTEST_PAUSE = 0.001


async def publish_at_once(producer: AIOKafkaProducer, publication: Publication, within: timedelta) -> None:
    """Send all events as fast as it goes, and wait for their answers.

    Args:
        producer: Sends them.
        publication: The events; notes what comes of them.
        within: Give up waiting after this time.
    """
    batching = Batching(producer, publication)
    try:
        async with asyncio.timeout(within.total_seconds()):
            await batching.send()
            await _answers(publication)
    except TimeoutError as problem:
        batching.give_up(problem)
    finally:
        publication.end()


async def publish_at_rate(
    producer: AIOKafkaProducer, publication: Publication, rate: float, stopping: asyncio.Event, within: timedelta
) -> None:
    """Send events when they are due, whether or not earlier ones were answered, and wait for the last answers.

    An event counts as attempted when it was due, not when it could be sent: waiting for a slow broker is part of
    what is measured, and not left out ("coordinated omission").

    Args:
        producer: Sends them.
        publication: The events; notes what comes of them.
        rate: How many are due in a second.
        stopping: Ends it early.
        within: Give up waiting for the answers this long after the last event.
    """
    loop = asyncio.get_running_loop()
    started, started_ns = loop.time(), time.time_ns()
    remaining = iter(publication.events)

    def due_now() -> Iterator[tuple[Outgoing, int]]:
        due = int((loop.time() - started) * rate) + 1
        for event in islice(remaining, due - publication.attempts):
            due_after = publication.attempts / rate
            late = timedelta(seconds=loop.time() - started - due_after)
            publication.most_late = max(publication.most_late, late)
            yield event, started_ns + round(due_after * NANOSECONDS)
            if stopping.is_set():
                return

    try:
        while publication.attempts < len(publication.events) and not stopping.is_set():
            await _send(producer, publication, due_now())
            pause = max(publication.attempts / rate - (loop.time() - started), SHORTEST_PAUSE)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
        async with asyncio.timeout(within.total_seconds()):
            await _answers(publication)
    except TimeoutError:
        pass  # the publication knows what is open
    finally:
        publication.end()


async def _send(producer: AIOKafkaProducer, publication: Publication, due: Iterable[tuple[Outgoing, int]]) -> None:
    """Send events one after the other, each with the moment at which it is due."""
    attempt, settle, send = publication.attempt, publication.settle, producer.send
    for event, due_ns in due:
        number = attempt(due_ns)
        try:
            future = await send(event.topic, event.value, event.key, event.partition, None, event.headers)
        except asyncio.CancelledError:
            # It waited for its turn: the client had not taken it.
            publication.refuse([number], TimeoutError())
            raise
        except (KafkaError, AssertionError) as problem:
            publication.refuse([number], problem)
        else:
            future.add_done_callback(partial(settle, (number,)))


async def _answers(publication: Publication) -> None:
    settled = asyncio.Event()
    publication.when_settled = settled.set
    if not publication.is_settled:
        await settled.wait()
