"""Envelopes: how they travel, by which key their order is kept, and who can vouch for them."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from testyard.lab.bridge.envelope import (
    Envelope,
    SecurityContext,
    SecurityLevel,
    SigningError,
    SigningKey,
)

KEY = SigningKey("a key of at least thirty-two bytes", "2026-01")
EVENT = UUID("5f0c3a5e-9d1c-4d0b-8a51-2f6a4c9b7e10")
WORKFLOW = UUID("0d5b1f6e-7a2c-4f3e-9b8d-1c2e3f4a5b6c")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PAYLOADS = st.dictionaries(st.text(), JSON, max_size=6)


def new(payload: dict[str, Any] | None = None, **fields: Any) -> Envelope:
    return Envelope(
        event_type="WORKFLOW_STARTED",
        source_service="orchestrator",
        environment="dev",
        payload={"a": 1} if payload is None else payload,
        **fields,
    )


def signable(payload: dict[str, Any]) -> Envelope:
    return new(payload, security_context=SecurityContext(actor_id="tester"))


def received(envelope: Envelope) -> Envelope:
    return Envelope.model_validate_json(envelope.to_bytes())


# ---- how it travels


def test_it_travels_with_the_documented_fields():
    context = SecurityContext(actor_id="a", session_id="s", security_level=SecurityLevel.CRITICAL)
    envelope = new(
        event_id=EVENT,
        timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        correlation_id=WORKFLOW,
        causation_id=WORKFLOW,
        source_instance="orchestrator-1",
        source_node="host",
        region="eu",
        partition_key="k",
        security_context=context,
        metadata={"m": None},
    )
    assert json.loads(envelope.to_bytes()) == {
        "envelope_version": "1.0",
        "event_id": str(EVENT),
        "event_type": "WORKFLOW_STARTED",
        "event_version": "1.0",
        "timestamp": "2026-01-02T03:04:05Z",
        "correlation_id": str(WORKFLOW),
        "causation_id": str(WORKFLOW),
        "source_service": "orchestrator",
        "source_version": "1.0.0",
        "source_instance": "orchestrator-1",
        "source_node": "host",
        "environment": "dev",
        "region": "eu",
        "partition_key": "k",
        "security_context": {"actor_id": "a", "session_id": "s", "security_level": "critical"},
        "payload": {"a": 1},
        "metadata": {"m": None},
    }


def test_what_is_not_given_does_not_travel_and_what_is_nothing_in_the_payload_does():
    told = json.loads(new({"nothing": None, "deep": {"nothing": None}}).to_bytes())
    assert told["payload"] == {"nothing": None, "deep": {"nothing": None}}
    assert not {"correlation_id", "causation_id", "region", "partition_key", "security_context"} & set(told)


@given(PAYLOADS)
def test_what_is_received_is_what_was_sent(payload):
    envelope = new(payload, correlation_id=WORKFLOW)
    assert received(envelope) == envelope


def test_every_event_has_an_id_of_its_own_and_the_present_time():
    first, second = new(), new()
    assert first.event_id != second.event_id
    assert timedelta(0) <= second.timestamp - first.timestamp < timedelta(seconds=10)
    assert datetime.now(UTC) - first.timestamp < timedelta(seconds=10)
    assert first.timestamp.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_id", "not-a-uuid"),
        ("event_type", ""),
        ("timestamp", "2026-01-02T03:04:05"),
        ("payload", [1]),
        ("correlation_id", "x"),
        ("security_context", {"security_level": "low"}),
    ],
)
def test_a_field_that_is_wrong_is_refused_by_its_name(field, value):
    told = json.loads(new().to_bytes()) | {field: value}
    with pytest.raises(ValidationError) as caught:
        Envelope.model_validate_json(json.dumps(told))
    assert caught.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize("field", ["event_type", "source_service", "environment", "payload"])
def test_a_field_that_is_missing_is_refused_by_its_name(field):
    told = json.loads(new().to_bytes())
    del told[field]
    with pytest.raises(ValidationError, match=field):
        Envelope.model_validate_json(json.dumps(told))


# ---- the key


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"partition_key": "mine", "correlation_id": WORKFLOW}, "mine"),
        ({"partition_key": "", "correlation_id": WORKFLOW}, str(WORKFLOW)),
        ({"correlation_id": WORKFLOW}, str(WORKFLOW)),
        ({}, str(EVENT)),
    ],
)
def test_the_key_is_the_partition_key_else_the_workflow_else_the_event(given, key):
    assert new(event_id=EVENT, **given).key == key


# ---- signatures


def test_the_signature_is_hmac_sha256_over_compact_json_with_sorted_keys():
    # RFC 4231, test case 2, has this key and the text "what do ya want for nothing?"; here the text is JSON.
    signature = SigningKey("Jefe").signature_of({"b": [1, {"z": None, "y": "ü"}], "a": 0.5})
    text = '{"a":0.5,"b":[1,{"y":"ü","z":null}]}'
    assert signature == hmac.new(b"Jefe", text.encode(), hashlib.sha256).hexdigest()
    assert signature == "e3815672b9b6781d95f424004df93daf71759ccb5b746b9d020db36b0bcc3129"


def test_a_signed_envelope_tells_which_key_signed_it_and_never_the_key():
    envelope = signable({"a": 1}).signed(KEY)
    assert envelope.security_context is not None
    assert envelope.security_context.signing_key_id == "2026-01"
    assert envelope.security_context.actor_id == "tester"
    for told in (repr(KEY), repr(envelope), envelope.to_bytes().decode(), str(KEY)):
        assert "thirty-two" not in told


@given(PAYLOADS)
def test_a_signature_holds_after_the_journey(payload):
    received(signable(payload).signed(KEY)).verify(KEY)


@pytest.mark.parametrize(
    "payload",
    [
        {"when": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1))), "day": date(2026, 1, 2), "id": EVENT},
        {"level": SecurityLevel.ELEVATED, "tuple": (1, 2), "bytes": b"text"},
        {"z": {10: "ten", 9: {2: 1, 10: 2}}},
        {"large": 2**80, "small": 1e-7, "float": 1e16, "whole": 1.0, "negative": -0.0},
    ],
    ids=["dates and ids", "enumerations", "numbers as names", "numbers"],
)
def test_a_signature_holds_for_what_json_has_no_form_of_its_own_for(payload):
    received(signable(payload).signed(KEY)).verify(KEY)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object()], ids=["no number", "infinity", "an object"]
)
def test_what_does_not_arrive_as_it_was_sent_is_not_signed(value):
    with pytest.raises(SigningError, match="no form in JSON"):
        signable({"value": value}).signed(KEY)


def test_signing_without_a_security_context_is_an_error():
    with pytest.raises(SigningError, match=r"has no security_context"):
        new().signed(KEY)


def test_a_changed_payload_is_found():
    told = json.loads(signable({"amount": 1, "to": "a"}).signed(KEY).to_bytes())
    told["payload"]["amount"] = 2
    with pytest.raises(SigningError, match="does not fit its payload"):
        Envelope.model_validate_json(json.dumps(told)).verify(KEY)


@pytest.mark.parametrize("context", [None, SecurityContext(actor_id="tester")])
def test_an_envelope_without_a_signature_does_not_pass(context):
    with pytest.raises(SigningError, match="is not signed"):
        new(security_context=context).verify(KEY)


def test_another_key_does_not_pass():
    envelope = signable({"a": 1}).signed(KEY)
    with pytest.raises(SigningError, match=r"signed with the key '2026-01', expected '2026-02'"):
        envelope.verify(SigningKey("a key of at least thirty-two bytes", "2026-02"))
    with pytest.raises(SigningError, match="does not fit its payload"):
        envelope.verify(SigningKey("another key of the same name......", "2026-01"))


def test_a_signature_without_the_name_of_its_key_passes_when_it_fits():
    envelope = signable({"a": 1}).signed(KEY)
    assert envelope.security_context is not None
    nameless = envelope.security_context.model_copy(update={"signing_key_id": None})
    envelope.model_copy(update={"security_context": nameless}).verify(KEY)


@pytest.mark.parametrize("signature", ["", "é" * 64, "0" * 64, "0" * 63])
def test_any_text_may_stand_where_the_signature_is(signature):
    context = SecurityContext(hmac_signature=signature, signing_key_id="2026-01")
    with pytest.raises(SigningError, match="does not fit its payload"):
        new(security_context=context).verify(KEY)


def test_signatures_are_compared_in_constant_time(monkeypatch):
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", compare)
    context = SecurityContext(hmac_signature="f" * 64, signing_key_id="2026-01")
    new(security_context=context).verify(KEY)
    assert compared == [(b"f" * 64, KEY.signature_of({"a": 1}).encode())]


def test_an_empty_key_is_refused():
    with pytest.raises(SigningError, match="signing key 'empty' is empty"):
        SigningKey("", "empty")


def test_the_original_stays_unsigned():
    envelope = signable({"a": 1})
    assert envelope.signed(KEY) != envelope
    assert envelope.security_context == SecurityContext(actor_id="tester")
    assert envelope.model_copy(update={"event_id": uuid4()}).signed(KEY).security_context == (
        envelope.signed(KEY).security_context
    )
