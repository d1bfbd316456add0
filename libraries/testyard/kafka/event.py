"""One event as it was read, and one as it is to be sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from testyard.core.errors import UserError
from testyard.core.history import Happening, Kind
from testyard.core.redact import SECRET_PLACEHOLDER, refuse_placeholder

# No topic has it in its name.
PARTITION_MARK = "/"
LOST_SECRET = SECRET_PLACEHOLDER.encode()
NANOSECONDS = 10**9
MILLISECONDS = 1000
MOST_SHOWN = 500

Headers = list[tuple[str, bytes]]

# Made once: an encoder with settings of its own is otherwise made for every event.
TO_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Identity:
    """Where an event's id stands.

    Attributes:
        header: A header that has it; when the event has no such header, the field has it.
        name: A field of the value, when that is a JSON object.
    """

    header: str = "event_id"
    name: str = "event_id"

    def of(self, headers: Mapping[str, str], value: Any) -> str:
        """An event's id; empty when it has none.

        Args:
            headers: Its headers.
            value: Its value, read as JSON.
        """
        if self.header in headers:
            return headers[self.header]
        found = value.get(self.name) if isinstance(value, dict) else None
        return "" if found is None else str(found)


IDENTITY = Identity()


def place_of(topic: str, partition: int) -> str:
    """How a partition is called in messages and histories: ``orders/2``."""
    return f"{topic}{PARTITION_MARK}{partition}"


def partition_called(place: str) -> TopicPartition:
    """The partition that is called ``orders/2``.

    Raises:
        UserError: That is not how a partition is called.
    """
    topic, slash, number = place.rpartition(PARTITION_MARK)
    if not slash or not topic or not number.isdecimal():
        message = f"{place!r} is no partition: write the topic and the partition's number, such as orders/2."
        raise UserError(message)
    return TopicPartition(topic, int(number))


def text_of(raw: bytes | None) -> str | None:
    """Bytes as text; what is not UTF-8 is shown escaped."""
    return None if raw is None else raw.decode(errors="backslashreplace")


class Moment(Enum):
    """Which moment of an event a history tells: when it was read, or when it was sent."""

    RECEIVED = "received"
    SENT = "sent"


class Event:
    """An event as it was read.

    Args:
        record: What aiokafka read.
        received_ns: When, in nanoseconds since 1970.
        identity: Where its id stands.
    """

    def __init__(self, record: ConsumerRecord[bytes, bytes], received_ns: int, identity: Identity) -> None:
        self._record = record
        self._identity = identity
        self.received_ns = received_ns
        self.topic: str = record.topic
        self.partition: int = record.partition
        self.offset: int = record.offset

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= MOST_SHOWN else f"{self.text[:MOST_SHOWN]}…"
        return f"{place_of(self.topic, self.partition)}@{self.offset} key={self.key!r} {text}"

    @property
    def key(self) -> str | None:
        """Its key; events with one key are in one partition, in their order."""
        return text_of(self._record.key)

    @cached_property
    def headers(self) -> dict[str, str]:
        """Its headers; of several with one name, the last."""
        return {name: text_of(value) or "" for name, value in self._record.headers}

    @property
    def raw(self) -> bytes | None:
        """Its value as bytes; None is a tombstone."""
        value: bytes | None = self._record.value
        return value

    @property
    def text(self) -> str:
        """Its value as text; empty for a tombstone."""
        return text_of(self._record.value) or ""

    @cached_property
    def value(self) -> Any:
        """Its value read as JSON, or as text when it is none; None for a tombstone."""
        if self._record.value is None:
            return None
        try:
            return json.loads(self._record.value)
        except ValueError:
            return self.text

    @property
    def id(self) -> str:
        """Its id, or its place and offset when it has none."""
        found = self._identity.of(self.headers, self.value)
        return found or f"{place_of(self.topic, self.partition)}@{self.offset}"

    @property
    def timestamp(self) -> datetime:
        """When it was sent, or appended, as the topic is configured (UTC)."""
        return datetime.fromtimestamp(self._record.timestamp / MILLISECONDS, UTC)

    @property
    def received(self) -> datetime:
        """When it was read (UTC)."""
        return datetime.fromtimestamp(self.received_ns / NANOSECONDS, UTC)

    def happening(self, moment: Moment) -> Happening:
        """That it was received, for a history.

        Args:
            moment: Which one the history tells.
        """
        sent_ns = self._record.timestamp * NANOSECONDS // MILLISECONDS
        at_ns = self.received_ns if moment is Moment.RECEIVED else sent_ns
        place = place_of(self.topic, self.partition)
        return Happening(Kind.RECEIVED, self.id, at_ns, self.key, place, self.offset)


@dataclass(slots=True)
class Outgoing:
    """An event to send.

    Attributes:
        topic: Where to.
        value: Its value.
        key: Its key.
        headers: Its headers.
        partition: Which partition; None: by its key, or any.
        id: Its id, for the history.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = field(default_factory=list)
    partition: int | None = None
    id: str = ""


def outgoing(
    topic: str,
    value: Any,
    *,
    key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    partition: int | None = None,
    identity: Identity = IDENTITY,
) -> Outgoing:
    """An event to send.

    Args:
        topic: Where to.
        value: A mapping or list is sent as JSON, text as UTF-8, bytes as they are; None is a tombstone.
        key: What its order is kept by; when not given, an envelope's own (its partition key, or else its
            correlation id, or else its event id), and none for anything else.
        headers: Its headers.
        partition: Which partition; by its key, or any, when not given.
        identity: Where its id stands.

    Raises:
        UserError: The value cannot be sent, or holds ``<secret>`` instead of a secret.
    """
    raw = _bytes(topic, value)
    if raw is None and key is None:
        message = f"An event for {topic!r} has neither a key nor a value: give it one of them."
        raise UserError(message)
    if raw and LOST_SECRET in raw:
        refuse_placeholder(text_of(raw) or "")
    texts = {name: str(text) for name, text in headers.items()} if headers else {}
    refuse_placeholder("".join(texts.values()))
    content = value if isinstance(value, dict) else _read(raw)
    if key is None and isinstance(content, dict) and "envelope_version" in content:
        key = envelope_key(content)
    return Outgoing(
        topic,
        raw,
        None if key is None else key.encode(),
        [(name, text.encode()) for name, text in texts.items()] if texts else [],
        partition,
        identity.of(texts, content),
    )


def envelope_key(envelope: Mapping[str, Any]) -> str | None:
    """What an envelope's order is kept by (contract page "event-bus", 3.4)."""
    key = envelope.get("partition_key") or envelope.get("correlation_id") or envelope.get("event_id")
    return None if key is None else str(key)


def _bytes(topic: str, value: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    if value is None or isinstance(value, bytes):
        return value
    try:
        return TO_JSON(value).encode()
    except (TypeError, ValueError) as problem:
        message = f"An event for {topic!r} cannot be sent as JSON: {problem}."
        raise UserError(message) from None


def _read(raw: bytes | None) -> Any:
    # Only what can be an object: a large text is not read for nothing.
    if raw is None or raw.lstrip()[:1] != b"{":
        return None
    try:
        return json.loads(raw)
    except ValueError:
        return None
