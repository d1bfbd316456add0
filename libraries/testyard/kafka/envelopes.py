"""Envelopes for events, built without the code of the services that read them.

Source: contract page "event-bus", 3.4 (OnexEnvelopeV1).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import uuid4

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use

VERSION = "1.0"
PADDING = "padding"

Envelope = dict[str, Any]


class SecurityLevel(Enum):
    """How sensitive what an event tells is."""

    STANDARD = "standard"
    ELEVATED = "elevated"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Signing:
    """What an envelope is signed with.

    Attributes:
        key: The secret.
        key_id: By what the receiver finds it.
    """

    key: str = field(repr=False)
    key_id: str = "default"

    def __post_init__(self) -> None:
        secrets_in_use.add(self.key)

    def signature(self, payload: Mapping[str, Any]) -> str:
        """HMAC-SHA256, in hexadecimal digits, over the payload as compact JSON (UTF-8) with sorted keys."""
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hmac.new(self.key.encode(), text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Security:
    """Who causes an event.

    Attributes:
        actor_id: Who.
        session_id: In which session.
        level: How sensitive it is.
    """

    actor_id: str | None = None
    session_id: str | None = None
    level: SecurityLevel = SecurityLevel.STANDARD


def new_envelope(
    event_type: str,
    payload: Mapping[str, Any] | None = None,
    *,
    event_id: str | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    partition_key: str | None = None,
    source_service: str = "testyard",
    source_version: str = "1.0.0",
    environment: str = "test",
    region: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    security: Security | None = None,
    signing: Signing | None = None,
    size: int | None = None,
) -> Envelope:
    """An envelope with an id of its own and the present time.

    Args:
        event_type: Such as ``WORKFLOW_STARTED``.
        payload: What the event tells.
        event_id: Its id; a new UUID when not given.
        correlation_id: Which workflow it belongs to.
        causation_id: Which event caused it.
        partition_key: What its order is kept by, when not by the workflow.
        source_service: Who sends it.
        source_version: The sender's version.
        environment: Where it is sent.
        region: In which region.
        metadata: Anything else.
        security: Who causes it.
        signing: Signs the payload; needs ``security``.
        size: How many bytes the envelope has as compact JSON; the payload is padded.

    Returns:
        The envelope, without the fields that nothing was given for.

    Raises:
        UserError: It is to be signed and has no security context, or is larger than it should be.
    """
    if signing and security is None:
        message = "An envelope without a security context cannot be signed: say who acts."
        raise UserError(message)
    optional = {
        "correlation_id": correlation_id,
        "causation_id": causation_id,
        "region": region,
        "partition_key": partition_key,
    }
    envelope: Envelope = {
        "envelope_version": VERSION,
        "event_id": event_id or str(uuid4()),
        "event_type": event_type,
        "event_version": VERSION,
        "timestamp": datetime.now(UTC).isoformat(),
        "source_service": source_service,
        "source_version": source_version,
        "environment": environment,
        **{name: value for name, value in optional.items() if value is not None},
        "payload": dict(payload or {}),
        "metadata": dict(metadata or {}),
    }
    if security:
        envelope["security_context"] = {
            "actor_id": security.actor_id,
            "session_id": security.session_id,
            "security_level": security.level.value,
        }
    _sign(envelope, signing)
    if size is not None:
        _pad(envelope, size)
        _sign(envelope, signing)
    return envelope


def _sign(envelope: Envelope, signing: Signing | None) -> None:
    if signing:
        envelope["security_context"]["hmac_signature"] = signing.signature(envelope["payload"])
        envelope["security_context"]["signing_key_id"] = signing.key_id


def _pad(envelope: Envelope, size: int) -> None:
    envelope["payload"][PADDING] = ""
    least = len(json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode())
    if least > size:
        message = f"The envelope has {least} bytes, more than the {size} that it should have."
        raise UserError(message)
    envelope["payload"][PADDING] = "x" * (size - least)
