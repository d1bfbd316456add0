"""The adapter: consumes whatever is away meanwhile, and tells how it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from aiokafka.errors import KafkaError

from testyard.lab.bridge.adapter.consuming import Consumption, new_consumer
from testyard.lab.bridge.adapter.dead_letters import DeadLetters
from testyard.lab.bridge.adapter.figures import Figures
from testyard.lab.bridge.adapter.reading import Reader
from testyard.lab.bridge.adapter.store import Store
from testyard.lab.bridge.breaker import BreakerState
from testyard.lab.bridge.ending import end_tasks
from testyard.lab.bridge.envelope import SigningKey
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.outage import Outage
from testyard.lab.waiting import LONGEST_RETRY, Backoff, elapse, happens

POOL_IN_USE: Final = 0.8
"""The share of the connections from which on the adapter is degraded (contract page "event-bus", 3.5)."""
FINISHES_WITHIN: Final = timedelta(seconds=2)
"""How long what was read may take to be stored and committed at the end."""
ADOPTION_SHARE: Final = 0.1
"""How much of the time may go into looking for steps whose workflow is there by now."""


class Adapter:
    """Stores the events of one environment.

    Args:
        node: Its tables and settings.
        signing_key: Envelopes must be signed with it; None: they need not be.
        more_topics: Read, too, although no service publishes to them; everything in them is dead-lettered.

    Attributes:
        figures: What was done.
        consumption: The membership of the consumer group; None while there is none.
    """

    def __init__(self, node: Node, signing_key: SigningKey | None = None, more_topics: Sequence[str] = ()) -> None:
        settings = node.settings
        self.figures = Figures()
        self.consumption: Consumption | None = None
        self._node = node
        self._reader = Reader(settings.environment, signing_key)
        self._topics = [*self._reader.topics, *more_topics]
        self._store = Store(node.pool, node.database_breaker, settings.adapter, self.figures)
        self._dead_letters = DeadLetters(settings, node.instance)
        self._kafka = Outage("Kafka")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work for the length of a block; at its end what was read is stored and committed, if it is soon done."""
        self._node.degraded_for.append(self.trouble)
        self._node.unhealthy_for.append(self.failures)
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(self._consume_for_ever(), name="consume"),
                tasks.create_task(self._adopt_for_ever(), name="adopt"),
            ]
            try:
                yield
                if self.consumption is not None:
                    await self.consumption.finish(FINISHES_WITHIN)
            finally:
                await end_tasks(working)
                await self._dead_letters.stop()

    async def _consume_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            began = time.monotonic()
            try:
                await self._consume()
            except* KafkaError as problems:
                self._kafka.goes_on("; ".join(repr(problem) for problem in problems.exceptions))
            if time.monotonic() - began > LONGEST_RETRY.total_seconds():
                backoff.reset()
            await elapse(backoff.next())

    async def _consume(self) -> None:
        settings = self._node.settings
        consumer = new_consumer(settings, self._node.instance)
        try:
            await consumer.start()
            self._kafka.is_over()
            self.consumption = Consumption(
                consumer,
                settings.adapter,
                self._topics,
                reader=self._reader,
                store=self._store,
                dead_letters=self._dead_letters,
                figures=self.figures,
                tracing=self._node.tracing,
            )
            await self.consumption.run()
        finally:
            self.consumption = None
            with suppress(KafkaError):
                await consumer.stop()

    async def _adopt_for_ever(self) -> None:
        """Look after each transaction while steps wait, and now and then, as other adapters have steps, too.

        Not all the time: many steps may wait for a workflow that never comes.
        """
        while True:
            began = time.monotonic()
            if await self._store.adopt():
                took = timedelta(seconds=time.monotonic() - began)
                await elapse(took * (1 / ADOPTION_SHARE - 1))
            await happens(self._store.adoptable, self._node.settings.adapter.poll)

    def trouble(self) -> list[str]:
        """Why the adapter is degraded; nothing when it is not."""
        reasons = self._kafka.reasons() + self._dead_letters.trouble()
        if self.consumption is None and not reasons:
            reasons.append("Kafka: not connected yet")
        in_use = self._connections_in_use()
        if in_use > POOL_IN_USE:
            reasons.append(f"the database: {in_use:.0%} of the connections are in use")
        return reasons

    def failures(self) -> list[str]:
        """Why the adapter cannot store anything; nothing when it can."""
        reasons = []
        if self._store.trouble is not None:
            reasons.append(f"the database: {self._store.trouble}")
        elif self._node.database_breaker.state is BreakerState.OPEN:
            reasons.append("the database: its circuit breaker is open")
        return reasons

    def _connections_in_use(self) -> float:
        stats = self._node.pool.get_stats()
        return (stats["pool_size"] - stats["pool_available"]) / stats["pool_max"]

    def metrics(self) -> dict[str, Any]:
        """What ``/metrics`` tells; JSON values."""
        consumption = self.consumption
        return {
            **self.figures.metrics(),
            "read_ahead": 0 if consumption is None else consumption.read_ahead,
            "partitions": {} if consumption is None else consumption.partitions(),
        }
