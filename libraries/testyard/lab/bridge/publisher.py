"""How a service publishes: to Kafka, or, while that is away, into its outbox, from where it is published later.

A service never waits for a bus that is known to be away, and never loses an event (document 004, section 4:
graceful degradation, automatic recovery, no data loss). Events of one key are published in the order in which
they were given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from pydantic import BaseModel

from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.envelope import Envelope, SecurityContext, SigningKey
from testyard.lab.bridge.outbox import Headers, Outbox, Waiting
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.topics import Route
from testyard.lab.waiting import elapse

_ONE_SECOND: Final = timedelta(seconds=1)


class Delivery(Enum):
    """What has become of an event that was published."""

    SENT = "sent"
    WAITING = "waiting"


def no_headers() -> Headers:
    """The headers of a record that belongs to no trace."""
    return ()


class Publisher:
    """Publishes the events of one service.

    Args:
        settings: Of all services.
        service: Which one publishes.
        instance: Which process of it.
        outbox: Where events wait.
        signing_key: Signs the envelopes; None: they are not signed.
        headers: Says what every record carries along: the trace it belongs to.

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
        headers: Callable[[], Headers] = no_headers,
    ) -> None:
        self.breaker = CircuitBreaker("event-bus", settings.bus.breaker)
        self.outbox = outbox
        self.replayed = 0
        self._settings = settings
        self._service = service
        self._instance = instance
        self._signing_key = signing_key
        self._headers = headers
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._something_waits = asyncio.Event()
        self._replaying: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.outbox.open()
        self._something_waits.set()
        self._replaying = asyncio.create_task(self._replay_for_ever(), name="replay")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._replaying is not None:
            self._replaying.cancel()
            await asyncio.wait([self._replaying])
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):
                await producer.stop()

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

        Args:
            topic: Where it is published.
            envelope: The event.

        Returns:
            Which of them has it.
        """
        key, value, headers = envelope.key, envelope.to_bytes(), self._headers()
        if not await self.outbox.holds_up(key):
            try:
                with self.breaker.call(MessageSizeTooLargeError):
                    await self._send(topic, key, value, headers)
            except MessageSizeTooLargeError:
                raise
            except (KafkaError, CircuitOpenError):
                pass
            else:
                return Delivery.SENT
        await self.outbox.put(topic, key, value, headers)
        self._something_waits.set()
        return Delivery.WAITING

    async def _send(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
        producer = await self._ready_producer()
        await producer.send_and_wait(
            topic, value, key=key.encode(), headers=[(name, text.encode()) for name, text in headers]
        )

    async def _ready_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            async with self._starting:
                if self._producer is None:
                    self._producer = await open_producer(self._settings, self._instance)
        return self._producer

    async def _replay_for_ever(self) -> None:
        while True:
            await self._something_waits.wait()
            self._something_waits.clear()
            while not await self._replay_what_waits():
                await elapse(self._settings.bus.look_after)

    async def _replay_what_waits(self) -> bool:
        """Publish what waits, in order; whether nothing is left."""
        pause = _ONE_SECOND / self._settings.bus.replay_per_second
        loop = asyncio.get_running_loop()
        while True:
            events = await self.outbox.oldest(self._settings.bus.replay_batch)
            for event in events:
                not_before = loop.time() + pause.total_seconds()
                if not await self._replay(event):
                    return False
                await elapse(max(timedelta(seconds=not_before - loop.time()), timedelta(0)))
            if not events:
                return len(self.outbox) == 0

    async def _replay(self, event: Waiting) -> bool:
        try:
            with self.breaker.call():
                await self._send(event.topic, event.key, event.value, event.headers)
        except (KafkaError, CircuitOpenError):
            return False
        self.replayed += 1
        return await self.outbox.remove([event])

    def metrics(self) -> dict[str, Any]:
        """What a health or metrics endpoint tells of it; JSON values."""
        return {
            "breaker": self.breaker.metrics(),
            "outbox": {"waiting": len(self.outbox), "in_file": self.outbox.in_file, "replayed": self.replayed},
        }

    def trouble(self) -> list[str]:
        """Why the service is degraded: nothing when it is not."""
        reasons = []
        if self.breaker.state is not BreakerState.CLOSED:
            last = self.breaker.transitions[-1]
            reasons.append(f"the event bus: circuit breaker {self.breaker.state.value}, {last.reason}")
        if len(self.outbox):
            reasons.append(f"the event bus: {len(self.outbox)} events wait in the outbox")
        return reasons


async def open_producer(settings: Settings, client_id: str, **more: Any) -> AIOKafkaProducer:
    """Connect to Kafka as everything that publishes here does: what is acknowledged is on all replicas in sync.

    Args:
        settings: Of all services.
        client_id: How the brokers call it in their logs.
        more: Further arguments of ``AIOKafkaProducer``.

    Returns:
        The producer, which the caller stops.

    Raises:
        KafkaError: Kafka is away.
    """
    bus = settings.bus
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        client_id=client_id,
        acks="all",
        request_timeout_ms=_milliseconds(bus.request_timeout),
        retry_backoff_ms=_milliseconds(bus.retry_backoff),
        linger_ms=_milliseconds(bus.linger),
        **more,
    )
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
