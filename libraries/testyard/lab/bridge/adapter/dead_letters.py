"""Where records go that are no events: to the dead-letter topic of their topic, with all that they were.

A dead-letter record has the original key, the original headers followed by the ``x-`` ones, and a JSON body; the
original value is in it byte for byte: as text when it is UTF-8, else in base64, as ``value_encoding`` says.

The outbox is not used: the record stays where it is in Kafka, and is read again as long as its offset is not
committed. A dead letter that cannot be written is tried again, and lost as little as an event.

Source: contract page "event-bus", 3.5 and 3.11, whose names for the same thing stand side by side.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from testyard.lab.bridge.adapter.figures import ErrorType
from testyard.lab.bridge.outage import Outage
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.topics import dead_letter_topic

UTF_8: Final = "utf-8"
BASE64: Final = "base64"
LARGEST_REQUEST: Final = 64 * 1024 * 1024
"""Bytes of a dead letter, uncompressed: what it may have is left to the brokers, which see it compressed."""
ENDS_WITHIN: Final = timedelta(milliseconds=500)

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class DeadLetter:
    """A record that is no event, or that the database can never take.

    Attributes:
        record: As it came from Kafka.
        error: What is wrong.
        reason: The same in words.
        retries: How often it was tried again before.
    """

    record: ConsumerRecord
    error: ErrorType
    reason: str
    retries: int = 0

    def headers(self, failed_at: datetime) -> Headers:
        """The record's own headers, and what became of it."""
        record = self.record
        told = {
            "x-original-topic": record.topic,
            "x-original-partition": record.partition,
            "x-original-offset": record.offset,
            "x-original-timestamp": record.timestamp,
            "x-error-type": self.error.value,
            "x-error-message": self.reason,
            "x-failed-at": failed_at.isoformat(),
            "x-retry-count": self.retries,
        }
        return [*record.headers, *((name, str(value).encode()) for name, value in told.items())]

    def body(self, failed_at: datetime, consumer: Mapping[str, str]) -> bytes:
        """What stands in the dead-letter topic.

        Args:
            failed_at: When the record was given up.
            consumer: Who gave it up.
        """
        record = self.record
        key, key_encoding = _as_text(record.key)
        value, value_encoding = _as_text(record.value)
        told = {
            "original_message": {
                "key": key,
                "key_encoding": key_encoding,
                "value": value,
                "value_encoding": value_encoding,
                "offset": record.offset,
                "partition": record.partition,
            },
            "original_topic": record.topic,
            "original_partition": record.partition,
            "original_offset": record.offset,
            "original_timestamp": record.timestamp,
            "correlation_id": _correlation_of(record.value),
            "error_type": self.error.value,
            "error_message": self.reason,
            "error_context": dict(consumer),
            "failed_at": failed_at.isoformat(),
            "failure_reason": self.reason,
            "failure_timestamp": failed_at.isoformat(),
            "retry_count": self.retries,
        }
        return json.dumps(told).encode()


def original_value(body: bytes) -> bytes | None:
    """The value of the record that became a dead letter, byte for byte.

    Args:
        body: The dead letter's own value.

    Returns:
        The value; None when the record had none.
    """
    message = json.loads(body)["original_message"]
    value = message["value"]
    if value is None:
        return None
    return b64decode(value) if message["value_encoding"] == BASE64 else str(value).encode()


def _as_text(data: bytes | None) -> tuple[str | None, str | None]:
    """Bytes as text that they can be made of again, and how."""
    if data is None:
        return None, None
    with suppress(UnicodeDecodeError):
        return data.decode(), UTF_8
    return b64encode(data).decode(), BASE64


def _correlation_of(value: bytes | None) -> str | None:
    """The workflow that something belongs to, if it says so, whatever else is wrong with it."""
    with suppress(ValueError, RecursionError):
        told: Any = json.loads(value or b"")
        correlation = told.get("correlation_id") if isinstance(told, dict) else None
        return correlation if isinstance(correlation, str) else None
    return None


class DeadLetters:
    """Writes dead letters.

    Args:
        settings: Of all services.
        instance: The process that writes them.
    """

    def __init__(self, settings: Settings, instance: str) -> None:
        self._outage = Outage("the dead-letter topic")
        self._settings = settings
        self._instance = instance
        self._producer: AIOKafkaProducer | None = None

    def trouble(self) -> list[str]:
        """Why dead letters cannot be written; nothing when they can."""
        return self._outage.reasons()

    async def stop(self) -> None:
        """Disconnect; what could not be written by now is read again by whoever consumes next."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)

    async def send(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Write dead letters, in the order of their records.

        Args:
            letters: What to write.

        Returns:
            Those that could not be written.
        """
        if not letters:
            return []
        try:
            producer = await self._ready_producer()
        except KafkaError as problem:
            self._failed(letters[0], problem)
            return list(letters)
        async with asyncio.TaskGroup() as tasks:
            sending = [(it, tasks.create_task(self._send(producer, it))) for it in letters]
        unwritten = [letter for letter, sent in sending if not sent.result()]
        if not unwritten:
            self._outage.is_over()
        return unwritten

    async def _ready_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = await self._new_producer()
        return self._producer

    async def _new_producer(self) -> AIOKafkaProducer:
        bus = self._settings.bus
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.bootstrap_servers,
            client_id=f"{self._instance}-dead-letters",
            acks="all",
            request_timeout_ms=milliseconds(bus.request_timeout),
            retry_backoff_ms=milliseconds(bus.retry_backoff),
            # What has one megabyte has more as text in JSON, but hardly when it is compressed.
            compression_type="gzip",
            max_request_size=LARGEST_REQUEST,
        )
        try:
            await producer.start()
        except BaseException:
            await _end(producer)
            raise
        return producer

    async def _send(self, producer: AIOKafkaProducer, letter: DeadLetter) -> bool:
        now = datetime.now(UTC)
        try:
            await producer.send_and_wait(
                dead_letter_topic(letter.record.topic),
                letter.body(now, {"group": self._settings.adapter.group, "instance": self._instance}),
                key=letter.record.key,
                headers=list(letter.headers(now)),
            )
        except KafkaError as problem:
            self._failed(letter, problem)
            return False
        return True

    def _failed(self, letter: DeadLetter, problem: KafkaError) -> None:
        record = letter.record
        where = f"{record.topic}[{record.partition}]@{record.offset}"
        self._outage.goes_on(f"the record {where} cannot be dead-lettered: {problem!r}")


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop a producer, or, when Kafka does not take what it still has, close its connections."""
    try:
        async with asyncio.timeout(ENDS_WITHIN.total_seconds()):
            await producer.stop()
    except (TimeoutError, KafkaError):
        await producer.client.close()


def milliseconds(duration: timedelta) -> int:
    """A duration as Kafka's clients take it."""
    return round(duration / timedelta(milliseconds=1))
