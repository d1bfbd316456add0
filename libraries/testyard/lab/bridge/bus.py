"""A service's way to Kafka: a producer that is made when it is needed, and made anew when it has died.

It is idempotent (acks from all replicas, numbered batches): a request that is repeated because its answer was lost
is not stored twice by a broker that knows the number. aiokafka never gives up a batch of such a producer. Without
numbers it would give it up after its request timeout, and report a batch as failed that a broker may have taken.

A publication here is given up after a while all the same: its event is then *unanswered*. The producer goes on
with it, and what becomes of it is told later, so that nobody has to publish it a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    ProducerClosed,
    RecordListTooLargeError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from testyard.lab.bridge.outbox_file import Headers
from testyard.lab.bridge.settings import BusSettings

Answer: TypeAlias = "asyncio.Future[Any]"

REFUSED: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError, PolicyViolationError)
"""What Kafka says of an event that it will never take: it works, and the next event may be fine."""

LARGEST_REQUEST: Final = 1_048_576
"""What a broker takes at most, unless it is told otherwise (``message.max.bytes``)."""

_LAST_CHANCE: Final = timedelta(seconds=1)
_ENDS_WITHIN: Final = timedelta(milliseconds=200)


class UnansweredError(Exception):
    """Kafka has not answered in time.

    Attributes:
        answer: Tells later what has become of the event; cancelled when nobody will ever know.
    """

    def __init__(self, within: timedelta, answer: Answer) -> None:
        super().__init__(f"Kafka has not answered within {within.total_seconds():g} s.")
        self.answer = answer


class _Producer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no type information
    """A producer that can be ended while it has batches that it cannot deliver: ``stop`` would wait for them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.unanswered: set[Answer] = set()

    def expect(self, answer: Answer) -> None:
        """Remember that an answer is to come."""
        self.unanswered.add(answer)
        answer.add_done_callback(self.unanswered.discard)
        answer.add_done_callback(_look_at)

    async def end(self, last_chance: timedelta) -> None:
        """Close it; what is unanswered after the last chance stays so."""
        if self.unanswered:
            await asyncio.wait(self.unanswered, timeout=last_chance.total_seconds())
        self._closed = True
        sender = self._sender.sender_task
        while sender is not None and not sender.done():
            # First it waits for the requests that are under way; then it does not.
            sender.cancel()
            await asyncio.wait([sender], timeout=_ENDS_WITHIN.total_seconds())
        await asyncio.wait([asyncio.ensure_future(self.client.close())], timeout=_ENDS_WITHIN.total_seconds())
        for answer in list(self.unanswered):
            answer.cancel()


class Bus:
    """Publishes records.

    Args:
        bootstrap_servers: Kafka.
        client_id: Which process this is.
        settings: How it is reached.
    """

    def __init__(self, bootstrap_servers: str, client_id: str, settings: BusSettings) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._client_id = client_id
        self._settings = settings
        self._producer: asyncio.Task[_Producer] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        # An answer that comes late is still an answer: the client waits for it longer than a publication does.
        self._client_waits = settings.request_timeout * 2
        self._closed = False

    async def send(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
        """Publish a record; on return all replicas have it.

        If it is cancelled, the record may be published or not.

        Raises:
            UnansweredError: It may be published later, or have been published.
            KafkaError: It is not published; one of ``REFUSED``: it will never be.
        """
        answer: Answer | None = None
        within = self._settings.request_timeout
        making = self._in_the_making()
        try:
            async with asyncio.timeout(within.total_seconds()):
                producer = await _made(making)
                answer = await producer.send(topic, value, key=key.encode(), headers=encoded(headers))
                producer.expect(answer)
                await asyncio.wait([answer])
        except TimeoutError:
            if answer is None:
                self._give_up_when_made(making)
                message = f"Kafka could not be given an event for {topic} within {within.total_seconds():g} s."
                raise KafkaTimeoutError(message) from None
            raise UnansweredError(within, answer) from None
        except KafkaError as problem:
            if not isinstance(problem, REFUSED):
                self._give_up(making)
            raise
        if answer.cancelled():
            raise UnansweredError(within, answer)
        failure = answer.exception()
        if failure is not None:
            # The number of a batch that was refused is missing: the broker takes no later one of this producer.
            self._give_up(making)
            raise failure

    async def ask(self) -> None:
        """Ask a broker for what every broker knows.

        Raises:
            KafkaError: None answers.
        """
        making = self._in_the_making()
        try:
            async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                producer = await _made(making)
                if await producer.client.force_metadata_update():
                    return
        except TimeoutError:
            pass
        except KafkaError:
            self._give_up(making)
            raise
        self._give_up_when_made(making)
        message = f"No broker answers within {self._settings.request_timeout.total_seconds():g} s."
        raise KafkaTimeoutError(message)

    def give_up(self, answer: Answer) -> None:
        """Use another producer from now on, as the present one has waited for an answer for too long.

        Args:
            answer: Cancelled soon, unless it comes; nothing is done when it is another producer's.
        """
        making = self._producer
        producer = _finished(making) if making is not None else None
        if making is not None and producer is not None and answer in producer.unanswered:
            self._give_up(making, _LAST_CHANCE)

    async def close(self) -> None:
        """End it; what is unanswered has a moment left."""
        self._closed = True
        old, self._producer = self._producer, None
        for ending in list(self._ending):
            ending.cancel()
        if self._ending:
            await asyncio.wait(self._ending)
        if old is not None:
            await _end(old, _LAST_CHANCE)

    def _in_the_making(self) -> asyncio.Task[_Producer]:
        """The producer; all that need it while it is being made wait for the same one."""
        if self._closed:
            raise ProducerClosed
        if self._producer is None:
            self._producer = asyncio.create_task(self._new_producer())
            self._producer.add_done_callback(_look_at)
        return self._producer

    def _give_up_when_made(self, making: asyncio.Task[_Producer]) -> None:
        """Give a producer up that finds no broker: they may be elsewhere now, where a new one would find them."""
        if making.done():
            self._give_up(making)

    def _give_up(self, making: asyncio.Task[_Producer], last_chance: timedelta | None = None) -> None:
        if self._producer is making:
            self._producer = None
            ending = asyncio.create_task(_end(making, last_chance or self._client_waits))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _new_producer(self) -> _Producer:
        patience = self._client_waits
        producer = _Producer(
            bootstrap_servers=self._bootstrap_servers,
            enable_idempotence=True,
            max_request_size=LARGEST_REQUEST,
            **client_settings(self._settings, self._client_id, patience),
        )
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await producer.start()
        except BaseException as problem:
            await producer.end(timedelta(0))
            if isinstance(problem, TimeoutError):
                message = f"Kafka could not be reached within {patience.total_seconds():g} s."
                raise KafkaTimeoutError(message) from None
            if isinstance(problem, (ValueError, OSError)):
                message = f"{self._bootstrap_servers!r} cannot be connected to: {problem}"
                raise KafkaConfigurationError(message) from None
            raise
        return producer


async def _made(making: asyncio.Task[_Producer]) -> _Producer:
    if not making.done():
        # Neither the cancellation of this task may end the other one, nor the other way round.
        await asyncio.wait([making])
    if making.cancelled():
        raise ProducerClosed
    return making.result()


def _finished(making: asyncio.Task[_Producer]) -> _Producer | None:
    """The producer that was made; None when it is still in the making, or could not be made."""
    if not making.done() or making.cancelled() or making.exception() is not None:
        return None
    return making.result()


async def _end(making: asyncio.Task[_Producer], last_chance: timedelta) -> None:
    """End a producer that may still be in the making."""
    making.cancel()
    await asyncio.wait([making])
    producer = _finished(making)
    if producer is None:
        return
    try:
        await producer.end(last_chance)
    except asyncio.CancelledError:
        await producer.end(timedelta(0))
        raise


def _look_at(done: asyncio.Future[Any]) -> None:
    """Take note of a failure that nobody may be waiting for any more, so that it is not told as overlooked."""
    if not done.cancelled():
        done.exception()


def encoded(headers: Headers) -> Sequence[tuple[str, bytes]]:
    """The headers as a record has them."""
    return [(name, text.encode()) for name, text in headers]


def refuse_too_large(key: str, value: bytes, headers: Headers) -> None:
    """Refuse an event that no broker will take, also while there is none that could say so.

    Raises:
        MessageSizeTooLargeError: It is too large.
    """
    size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key.encode(), value, list(encoded(headers)))
    if size > LARGEST_REQUEST:
        message = f"The event has {size} bytes, Kafka takes at most {LARGEST_REQUEST}."
        raise MessageSizeTooLargeError(message)


def client_settings(bus: BusSettings, client_id: str, request_timeout: timedelta) -> dict[str, Any]:
    """What every producer of a service is made with: what is acknowledged is on all replicas in sync.

    Args:
        bus: How the bus is reached.
        client_id: How the brokers call it in their logs.
        request_timeout: How long it waits for an answer.
    """
    return {
        "client_id": client_id,
        "acks": "all",
        "request_timeout_ms": _milliseconds(request_timeout),
        "retry_backoff_ms": _milliseconds(bus.retry_backoff),
        "linger_ms": _milliseconds(bus.linger),
    }


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
