"""Envelopes as the contract describes them, signed and of a wanted size."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.kafka.envelopes import Security, SecurityLevel, Signing, new_envelope
from testyard.kafka.event import outgoing

KEY = "a-key-that-signs-envelopes"


def test_an_envelope_has_every_field_that_the_contract_demands() -> None:
    envelope = new_envelope("WORKFLOW_STARTED", {"n": 1})
    assert set(envelope) == {
        *("envelope_version", "event_id", "event_type", "event_version", "timestamp"),
        *("source_service", "source_version", "environment", "payload", "metadata"),
    }
    assert envelope["envelope_version"] == envelope["event_version"] == "1.0"
    assert UUID(envelope["event_id"]).version == 4
    moment = datetime.fromisoformat(envelope["timestamp"])
    assert moment.tzinfo == UTC
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert envelope["payload"] == {"n": 1}


def test_what_is_given_is_in_the_envelope() -> None:
    given = {
        "event_id": "e-1",
        "correlation_id": "c-1",
        "causation_id": "e-0",
        "partition_key": "p-1",
        "source_service": "orchestrator",
        "source_version": "2.0.0",
        "environment": "dev",
        "region": "north",
        "metadata": {"a": 1},
    }
    envelope = new_envelope("X", **given, security=Security("me", "s-1", SecurityLevel.CRITICAL))
    assert given.items() <= envelope.items()
    assert envelope["security_context"] == {"actor_id": "me", "session_id": "s-1", "security_level": "critical"}


def test_every_envelope_has_an_id_of_its_own() -> None:
    assert len({new_envelope("X")["event_id"] for _ in range(100)}) == 100


def test_the_payload_is_signed_as_compact_json_with_sorted_keys() -> None:
    payload = {"b": 1, "a": {"d": "Zoë", "c": None}}
    envelope = new_envelope("X", payload, security=Security("me"), signing=Signing(KEY, "key-7"))
    signed = '{"a":{"c":null,"d":"Zoë"},"b":1}'.encode()
    context = envelope["security_context"]
    assert context["hmac_signature"] == hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
    assert context["signing_key_id"] == "key-7"


def test_signing_needs_a_security_context() -> None:
    with pytest.raises(UserError, match="cannot be signed: say who acts"):
        new_envelope("X", signing=Signing(KEY))


def test_the_signing_key_is_a_secret() -> None:
    assert KEY not in repr(Signing(KEY))
    assert secrets_in_use.mask(KEY) == "***"


@pytest.mark.parametrize("size", [500, 1000, 65_536])
@pytest.mark.parametrize("signing", [None, Signing(KEY)])
def test_an_envelope_has_the_wanted_size_when_it_is_sent(size: int, signing: Signing | None) -> None:
    envelope = new_envelope("X", {"name": "Zoë"}, security=Security("me"), signing=signing, size=size)
    sent = outgoing("orders", envelope).value
    assert sent is not None
    assert len(sent) == size
    if signing:
        content = json.loads(sent)
        assert content["security_context"]["hmac_signature"] == signing.signature(content["payload"])


def test_an_envelope_that_is_larger_than_wanted_is_told() -> None:
    with pytest.raises(UserError, match=r"The envelope has \d+ bytes, more than the 100 that it should have"):
        new_envelope("X", size=100)


def test_the_payload_that_was_given_is_left_as_it_is() -> None:
    payload = {"n": 1}
    new_envelope("X", payload, size=600)
    assert payload == {"n": 1}
