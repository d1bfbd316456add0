"""The services' envelopes and those that KafkaLibrary builds without their code are the same."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testyard.kafka import envelopes
from testyard.lab.bridge import envelope as bridge

SECRET = "a key of at least thirty-two bytes"
EVENT = "5f0c3a5e-9d1c-4d0b-8a51-2f6a4c9b7e10"
WORKFLOW = "0d5b1f6e-7a2c-4f3e-9b8d-1c2e3f4a5b6c"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PAYLOADS = st.dictionaries(st.text(), JSON, max_size=6)


def built(payload: dict[str, Any], **more: Any) -> dict[str, Any]:
    return envelopes.new_envelope("WORKFLOW_STARTED", payload, environment="dev", **more)


def as_bytes(envelope: dict[str, Any]) -> bytes:
    return json.dumps(envelope).encode()


@given(PAYLOADS)
def test_what_the_library_signs_the_services_accept(payload):
    signing = envelopes.Signing(SECRET, "2026-01")
    sent = built(payload, security=envelopes.Security(actor_id="tester"), signing=signing)
    received = bridge.Envelope.model_validate_json(as_bytes(sent))
    received.verify(bridge.SigningKey(SECRET, "2026-01"))


@given(PAYLOADS)
def test_both_sign_alike(payload):
    assert envelopes.Signing(SECRET).signature(payload) == bridge.SigningKey(SECRET).signature_of(payload)


def test_a_service_refuses_what_the_library_signed_with_another_key():
    other = envelopes.Signing("another key of thirty-two bytes...", "2026-01")
    sent = built({"a": 1}, security=envelopes.Security(actor_id="tester"), signing=other)
    with pytest.raises(bridge.SigningError, match="does not fit its payload"):
        bridge.Envelope.model_validate_json(as_bytes(sent)).verify(bridge.SigningKey(SECRET, "2026-01"))


def test_the_library_builds_what_a_service_would():
    security = envelopes.Security("a", "s", envelopes.SecurityLevel.ELEVATED)
    sent = built(
        {"a": None},
        event_id=EVENT,
        correlation_id=WORKFLOW,
        causation_id=WORKFLOW,
        partition_key="k",
        source_service="orchestrator",
        region="eu",
        metadata={"m": 1},
        security=security,
        signing=envelopes.Signing(SECRET, "2026-01"),
    )
    received = bridge.Envelope.model_validate_json(as_bytes(sent))
    unsigned = bridge.SecurityContext(actor_id="a", session_id="s", security_level=bridge.SecurityLevel.ELEVATED)
    made = bridge.Envelope(
        event_id=UUID(EVENT),
        event_type="WORKFLOW_STARTED",
        timestamp=received.timestamp,
        correlation_id=UUID(WORKFLOW),
        causation_id=UUID(WORKFLOW),
        source_service="orchestrator",
        environment="dev",
        region="eu",
        partition_key="k",
        security_context=unsigned,
        payload={"a": None},
        metadata={"m": 1},
    ).signed(bridge.SigningKey(SECRET, "2026-01"))
    assert received == made
    travels = json.loads(made.to_bytes())
    assert set(sent) == set(travels)
    assert {name: sent[name] for name in sent if name != "timestamp"} == {
        name: travels[name] for name in travels if name != "timestamp"
    }


def test_both_know_the_same_levels_and_the_same_version():
    assert [it.value for it in envelopes.SecurityLevel] == [it.value for it in bridge.SecurityLevel]
    assert envelopes.VERSION == bridge.ENVELOPE_VERSION


def test_neither_signs_without_a_security_context():
    with pytest.raises(envelopes.UserError, match="security context"):
        built({"a": 1}, signing=envelopes.Signing(SECRET))
    with pytest.raises(bridge.SigningError, match="security_context"):
        bridge.Envelope.model_validate(built({"a": 1})).signed(bridge.SigningKey(SECRET))
