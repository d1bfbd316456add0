"""How a service publishes: to Kafka, or, while that is away, into its outbox, from where it is published later.

A service never waits for a bus that is known to be away, and never loses an event (document 004, section 4:
graceful degradation, automatic recovery, no data loss). Events of one key are published in the order in which
they were given.

What may be published twice, always under one event id, by which everyone who stores it knows that it is the same:

- what was published just before a crash, and not yet taken out of the outbox;
- what was with a producer that had to be given up, at the end of the process or because the bus stayed away, if a
  broker had taken it and only the answer was lost: one request to each broker at most;
- with brokers that do not look at a producer's batch numbers, any request whose answer was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from aiokafka.errors import KafkaError
from pydantic import BaseModel

from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.bus import REFUSED, Answer, Bus, UnansweredError, refuse_too_large
from testyard.lab.bridge.envelope import Envelope, SecurityContext, SigningKey
from testyard.lab.bridge.outbox import Outbox
from testyard.lab.bridge.outbox_file import Headers
from testyard.lab.bridge.probing import Probe
from testyard.lab.bridge.replay import Replay
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.topics import Route
from testyard.lab.bridge.tracing import NO_TRACING, Tracing


class Delivery(Enum):
    """What has become of an event that was published."""

    SENT = "sent"
    WAITING = "waiting"


class Publisher:
    """Publishes the events of one service.

    Args:
        settings: Of all services.
        service: Which one publishes.
        instance: Which process of it.
        outbox: Where events wait.
        signing_key: Signs the envelopes; None: they are not signed.
        tracing: Says which trace every record belongs to.

    Example:
        >>> async with Publisher(settings, "orchestrator", "orchestrator-1", outbox) as publisher:
        ...     await publisher.publish(Route.WORKFLOW_STARTED, started, correlation_id=workflow)
    """

    def __init__(
        self,
        settings: Settings,
        service: str,
        instance: str,
        outbox: Outbox,
        *,
        signing_key: SigningKey | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.breaker = CircuitBreaker("event-bus", settings.bus.breaker)
        self.outbox = outbox
        self._settings = settings
        self._service = service
        self._instance = instance
        self._signing_key = signing_key
        self._tracing = tracing
        self._bus = Bus(settings.bootstrap_servers, instance, settings.bus)
        self._replay = Replay(outbox, self._bus, self.breaker, settings.bus)
        self._replaying: asyncio.Task[None] | None = None
        self._at_a_time = asyncio.Semaphore(settings.bus.at_a_time)
        self._in_order: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way = 0
        self._none_under_way = asyncio.Event()
        self._none_under_way.set()
        # A bus that answers may still take nothing: what waits is the better probe.
        self._probe = Probe(self.breaker, self._bus.ask, unless=lambda: len(outbox) > 0)
        self._probing: asyncio.Task[None] | None = None

    @property
    def replayed(self) -> int:
        """How many events that waited were published."""
        return self._replay.published

    async def __aenter__(self) -> Self:
        await self.outbox.open()
        self._replaying = asyncio.create_task(self._replay.run(), name="replay")
        self._probing = asyncio.create_task(self._probe.run(self._settings.bus.look_after), name="probe the bus")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is under way ends, in Kafka or in the outbox.
        for task in (self._replaying, self._probing):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._bus.close()
        await self._none_under_way.wait()
        await self.outbox.close()

    @contextmanager
    def _one_under_way(self) -> Iterator[None]:
        self._under_way += 1
        self._none_under_way.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_under_way.set()

    async def publish(
        self,
        route: Route,
        payload: BaseModel,
        *,
        correlation_id: UUID | None = None,
        causation_id: UUID | None = None,
        partition_key: str | None = None,
        context: SecurityContext | None = None,
        event_id: UUID | None = None,
    ) -> Envelope:
        """Publish an event; on return Kafka or the outbox has it.

        Args:
            route: What sort of event.
            payload: What happened.
            correlation_id: Which workflow it belongs to.
            causation_id: Which event caused it.
            partition_key: What its order is kept by, when not by the workflow.
            context: Who caused it.
            event_id: Of an event that may be published again, as by a service that resumes its work; a new
                one when not given.

        Returns:
            The envelope that was published.

        Raises:
            KafkaError: It can never be published, as it is too large.
            OSError: Nothing can take it.
        """
        envelope = self.envelope(
            route,
            payload,
            correlation_id=correlation_id,
            causation_id=causation_id,
            partition_key=partition_key,
            context=context,
            event_id=event_id,
        )
        await self.deliver(route.topic(self._settings.environment), envelope)
        return envelope

    def envelope(
        self,
        route: Route,
        payload: BaseModel,
        *,
        correlation_id: UUID | None = None,
        causation_id: UUID | None = None,
        partition_key: str | None = None,
        context: SecurityContext | None = None,
        event_id: UUID | None = None,
    ) -> Envelope:
        """The envelope of an event of this service, signed when there is a key; arguments as of ``publish``."""
        envelope = Envelope(
            event_id=event_id or uuid4(),
            event_type=route.event_type,
            correlation_id=correlation_id,
            causation_id=causation_id,
            source_service=self._service,
            source_instance=self._instance,
            environment=self._settings.environment,
            region=self._settings.region,
            partition_key=partition_key,
            security_context=context or (SecurityContext(actor_id=self._service) if self._signing_key else None),
            payload=payload.model_dump(mode="json"),
        )
        return envelope if self._signing_key is None else envelope.signed(self._signing_key)

    async def deliver(self, topic: str, envelope: Envelope) -> Delivery:
        """Bring one envelope to Kafka or into the outbox.

        If it is cancelled, the event may be published or not.

        Args:
            topic: Where it is published.
            envelope: The event.

        Returns:
            Which of them has it.

        Raises:
            KafkaError: It can never be published, as it is too large.
            OSError: Nothing can take it.
        """
        key, value = envelope.key, envelope.to_bytes()
        with self._tracing.producer_span(topic, key):
            headers = self._tracing.inject_headers()
            refuse_too_large(key, value, headers)
            # Two events of one key that are under way at once could overtake each other when the first one fails.
            in_order = self._in_order.setdefault(key, asyncio.Lock())
            with self._one_under_way():
                async with in_order:
                    return await self._send_or_keep(topic, key, value, headers)

    async def _send_or_keep(self, topic: str, key: str, value: bytes, headers: Headers) -> Delivery:
        unanswered: Answer | None = None
        if not await self.outbox.holds_up(key):
            try:
                async with self._at_a_time:
                    with self.breaker.call(*REFUSED):
                        await self._bus.send(topic, key, value, headers)
            except REFUSED:
                raise
            except UnansweredError as problem:
                unanswered = problem.answer
            except (KafkaError, CircuitOpenError):
                pass
            else:
                return Delivery.SENT
        event = self.outbox.new(topic, key, value, headers)
        self._replay.expect(event, unanswered)
        await self.outbox.put(event)
        return Delivery.WAITING

    def metrics(self) -> dict[str, Any]:
        """What a health or metrics endpoint tells of it; JSON values."""
        return {
            "breaker": self.breaker.metrics(),
            "outbox": {
                "waiting": len(self.outbox),
                "in_file": self.outbox.in_file,
                "replayed": self.replayed,
                "settled": self._replay.settled,
                "refused": self.outbox.refused,
            },
        }

    def trouble(self) -> list[str]:
        """Why the service is degraded: nothing when it is not."""
        reasons = []
        if self.breaker.state is not BreakerState.CLOSED:
            last = self.breaker.transitions[-1]
            reasons.append(f"the event bus: circuit breaker {self.breaker.state.value}, {last.reason}")
        if len(self.outbox):
            reasons.append(f"the event bus: {len(self.outbox)} events wait in the outbox")
        if self._replay.trouble is not None:
            reasons.append(f"the event bus: {self._replay.trouble}")
        return reasons
