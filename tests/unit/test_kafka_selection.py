"""Which event is meant: topics, keys, headers and JSONPath."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from testyard.core.errors import UserError
from testyard.kafka.event import IDENTITY, Event
from testyard.kafka.selection import FieldCriterion, Selection

VALUE = {
    "event_type": "STEP",
    "payload": {"state": "DONE", "n": 3, "share": 0.5, "ok": True, "none": None, "a=b": "c=d"},
    "files": [{"name": "a.txt", "size": 10}, {"name": "b.txt", "size": 200}],
}


def event(value: Any = VALUE, *, topic: str = "orders", key: str | None = "k", headers: Any = ()) -> Event:
    """An event that was read."""
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Event(
        ConsumerRecord(topic, 0, 0, 0, 0, None if key is None else key.encode(), raw, None, 0, 0, headers),
        0,
        IDENTITY,
    )


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("$.event_type=STEP", True),
        ("$.event_type=step", False),
        ("$.payload.n=3", True),
        ("$.payload.n=3.0", True),
        ("$.payload.n=4", False),
        ("$.payload.share=0.5", True),
        ("$.payload.ok=true", True),
        ("$.payload.ok=1", False),
        ("$.payload.ok=True", False),
        ("$.payload.none=null", True),
        ("$.payload.none", True),
        ("$.payload['a=b']=c=d", True),
        ("$.payload", True),
        ('$.payload={"state": "DONE"}', False),
        ("$.missing", False),
        ("$.missing=null", False),
        ("$.files[0].name=a.txt", True),
        ("$.files[*].size=200", True),
        ("$.files[*].size=201", False),
        ("$.files[?@.size > 100]", True),
        ("$.files[?@.size > 1000]", False),
        ("$.files[?@.name == 'b.txt'].size=200", True),
        ("$.files[?@.name == 'b.txt'].size=10", False),
        ("$..size=10", True),
    ],
)
def test_a_path_finds_what_is_expected(text: str, holds: bool) -> None:
    assert FieldCriterion.parse(text).accepts(VALUE) is holds


def test_text_is_compared_as_text() -> None:
    assert FieldCriterion.parse("$.n=5").accepts({"n": "5"})
    assert FieldCriterion.parse("$.n=true").accepts({"n": "true"})
    assert not FieldCriterion.parse("$.n=abc").accepts({"n": 5})


@pytest.mark.parametrize("value", [b"plain", None, 7])
def test_what_is_no_object_has_no_fields(value: Any) -> None:
    assert not Selection.of(None, ["$"]).accepts(event(value))


@pytest.mark.parametrize("text", ["event_type=STEP", "", "=x", "payload.state"])
def test_a_path_without_its_root_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"is no JSONPath: it must begin with \$"):
        FieldCriterion.parse(text)


@pytest.mark.parametrize("text", ["$.[", "$.files[?@.size >]", "$..", "$.files[", "$.a b"])
def test_a_broken_path_is_told_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"is no JSONPath \(RFC 9535\): ") as told:
        FieldCriterion.parse(text)
    assert "\n" not in str(told.value)
    assert str(told.value).endswith(".")


@pytest.mark.parametrize(
    ("selection", "holds"),
    [
        (Selection(), True),
        (Selection.of("orders", []), True),
        (Selection.of("payments", []), False),
        (Selection.of(None, [], key="k"), True),
        (Selection.of(None, [], key="other"), False),
        (Selection.of(None, [], headers={"trace": "t", "n": 5}), True),
        (Selection.of(None, [], headers={"trace": "u"}), False),
        (Selection.of(None, [], headers={"missing": "t"}), False),
        (Selection.of("orders", ["$.event_type=STEP", "$.payload.state=DONE"], key="k"), True),
        (Selection.of("orders", ["$.event_type=STEP", "$.payload.state=OPEN"], key="k"), False),
    ],
)
def test_everything_that_is_given_must_hold(selection: Selection, holds: bool) -> None:
    assert selection.accepts(event(headers=(("trace", b"t"), ("n", b"5"), ("more", b"m")))) is holds


def test_an_event_without_a_key_has_no_key() -> None:
    assert not Selection.of(None, [], key="").accepts(event(key=None))


def test_a_selection_is_told_in_words() -> None:
    selection = Selection.of("orders", ["$.a=1"], key="k", headers={"trace": "t"})
    assert str(selection) == "on orders with key 'k' with header trace=t with $.a=1"
    assert str(Selection()) == "of any kind"
