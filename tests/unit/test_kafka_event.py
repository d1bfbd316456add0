"""Events as they are sent and read: bytes, keys, ids, and no secret that was lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from testyard.core.errors import UserError
from testyard.core.history import Happening, Kind
from testyard.kafka.event import IDENTITY, Event, Identity, Moment, outgoing, partition_called

ENVELOPE = {"envelope_version": "1.0", "event_id": "e-1"}


def record(value: bytes | None, key: bytes | None = None, headers: Any = ()) -> ConsumerRecord[bytes, bytes]:
    """What the client reads."""
    moment = 1_700_000_000_123
    return ConsumerRecord("orders", 2, 17, moment, 0, key, value, None, 0, 0, headers)


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ({"name": "Zoë", "n": 1}, '{"name":"Zoë","n":1}'.encode()),
        ([1, None], b"[1,null]"),
        (7, b"7"),
        ("text", b"text"),
        (b"\x00\xff", b"\x00\xff"),
    ],
)
def test_a_value_is_sent_as_json_or_as_it_is(value: Any, raw: bytes) -> None:
    assert outgoing("orders", value).value == raw


@pytest.mark.parametrize(
    ("envelope", "key"),
    [
        ({**ENVELOPE, "partition_key": "p", "correlation_id": "c"}, b"p"),
        ({**ENVELOPE, "partition_key": None, "correlation_id": "c"}, b"c"),
        (ENVELOPE, b"e-1"),
        ('{"envelope_version":"1.0","correlation_id":"c"}', b"c"),
        ({"event_id": "e-1", "partition_key": "p"}, None),
        ("text", None),
    ],
)
def test_an_envelope_has_its_own_key(envelope: Any, key: bytes | None) -> None:
    assert outgoing("orders", envelope).key == key
    assert outgoing("orders", envelope, key="mine").key == b"mine"


@pytest.mark.parametrize(
    ("value", "headers", "identifier"),
    [
        ({"event_id": "e-1"}, {"event_id": "h-1"}, "h-1"),
        ({"event_id": "e-1"}, {"trace": "t"}, "e-1"),
        ('{"event_id": 5}', None, "5"),
        ("[1]", None, ""),
        ("{broken", None, ""),
        (None, None, ""),
        ({"event_id": None}, None, ""),
    ],
)
def test_an_id_is_a_header_or_a_field(value: Any, headers: dict[str, str] | None, identifier: str) -> None:
    assert outgoing("orders", value, key="k", headers=headers).id == identifier


def test_an_id_may_be_called_otherwise() -> None:
    identity = Identity("x-id", "order")
    assert outgoing("orders", {"order": "o-1", "event_id": "e-1"}, identity=identity).id == "o-1"
    assert outgoing("orders", {"order": "o-1"}, headers={"x-id": "h-1"}, identity=identity).id == "h-1"


def test_headers_are_sent_as_text() -> None:
    assert outgoing("orders", "x", headers={"attempt": 3}).headers == [("attempt", b"3")]


@pytest.mark.parametrize(
    ("value", "headers"), [("Token <secret>", None), ({"token": "<secret>"}, None), ("x", {"token": "<secret>"})]
)
def test_a_secret_that_was_lost_is_not_sent(value: Any, headers: dict[str, str] | None) -> None:
    with pytest.raises(UserError, match="a Secret variable was joined into a plain argument"):
        outgoing("orders", value, headers=headers)


def test_what_is_no_json_is_told() -> None:
    with pytest.raises(UserError, match="cannot be sent as JSON: Object of type object is not JSON serializable"):
        outgoing("orders", {"thing": object()})


def test_an_event_needs_a_key_or_a_value() -> None:
    with pytest.raises(UserError, match="has neither a key nor a value"):
        outgoing("orders", None)
    assert outgoing("orders", None, key="gone").value is None


def test_an_event_that_was_read_tells_all_that_it_has() -> None:
    event = Event(record(b'{"event_id":"e-1","n":1}', b"k", (("trace", b"t"), ("odd", b"\xff"))), 5, IDENTITY)
    assert (event.topic, event.partition, event.offset, event.key) == ("orders", 2, 17, "k")
    assert event.headers == {"trace": "t", "odd": "\\xff"}
    assert event.value == {"event_id": "e-1", "n": 1}
    assert event.timestamp == datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)
    assert event.happening(Moment.RECEIVED) == Happening(Kind.RECEIVED, "e-1", 5, "k", "orders/2", 17)
    assert event.happening(Moment.SENT).at_ns == 1_700_000_000_123_000_000
    assert repr(event) == 'orders/2@17 key=\'k\' {"event_id":"e-1","n":1}'


@pytest.mark.parametrize(
    ("raw", "value", "text"), [(None, None, ""), (b"plain", "plain", "plain"), (b"\xff", "\\xff", "\\xff")]
)
def test_what_is_no_json_is_read_as_text(raw: bytes | None, value: Any, text: str) -> None:
    event = Event(record(raw), 5, IDENTITY)
    assert (event.value, event.text, event.raw) == (value, text, raw)


def test_an_event_without_an_id_is_told_by_its_place() -> None:
    assert Event(record(b"plain"), 5, IDENTITY).id == "orders/2@17"


def test_a_long_event_is_shown_in_part() -> None:
    shown = repr(Event(record(b"x" * 10_000), 5, IDENTITY))
    assert len(shown) < 600
    assert shown.endswith("x…")


def test_a_partition_is_called_by_topic_and_number() -> None:
    assert partition_called("orders/12") == TopicPartition("orders", 12)
    for wrong in ("orders", "orders/", "/1", "orders/-1", "orders/x"):
        with pytest.raises(UserError, match="is no partition: write the topic and the partition's number"):
            partition_called(wrong)
