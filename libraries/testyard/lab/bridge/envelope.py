"""The envelope that every event travels in: OnexEnvelopeV1, signed when there is a key.

Source: contract page "event-bus", 3.4.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Self
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python

ENVELOPE_VERSION: Final = "1.0"


class SecurityLevel(Enum):
    """How sensitive what an event tells is."""

    STANDARD = "standard"
    ELEVATED = "elevated"
    CRITICAL = "critical"


class SecurityContext(BaseModel):
    """Who sent an event, and the proof.

    Attributes:
        actor_id: Who caused it.
        session_id: In which session.
        security_level: How sensitive it is.
        hmac_signature: HMAC-SHA256 over the payload, in hexadecimal digits.
        signing_key_id: Which key signed.
    """

    model_config = ConfigDict(frozen=True)

    actor_id: str | None = None
    session_id: str | None = None
    security_level: SecurityLevel = SecurityLevel.STANDARD
    hmac_signature: str | None = None
    signing_key_id: str | None = None


class SigningError(ValueError):
    """An envelope cannot be signed, or its signature is not right."""


@contextmanager
def _in_json() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as problem:
        message = f"The payload has no form in JSON that could be signed: {problem}"
        raise SigningError(message) from None


class SigningKey:
    """The key that envelopes are signed with.

    Args:
        key: The secret.
        key_id: How the receiver finds it.

    Raises:
        SigningError: The key is empty: everybody could sign with it.
    """

    def __init__(self, key: str, key_id: str = "default") -> None:
        if not key:
            message = f"The signing key {key_id!r} is empty."
            raise SigningError(message)
        self._key = key.encode()
        self.key_id = key_id

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self.key_id!r})"

    def signature_of(self, payload: dict[str, Any]) -> str:
        """HMAC-SHA256 over the payload as compact JSON (UTF-8) with sorted keys.

        Raises:
            SigningError: The payload has no form in JSON.
        """
        with _in_json():
            text = json.dumps(
                payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
            ).encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


class Envelope(BaseModel):
    """One event.

    Attributes:
        envelope_version: Of this format.
        event_id: Tells this event from every other one; what makes storing it twice harmless.
        event_type: Such as ``WORKFLOW_STARTED``.
        event_version: Of the payload's format.
        timestamp: When it happened.
        correlation_id: Which workflow it belongs to.
        causation_id: Which event caused it.
        source_service: Who sent it.
        source_version: The sender's version.
        source_instance: Which process of the sender.
        source_node: On which machine.
        environment: Such as ``dev``.
        region: Where.
        partition_key: What its order is kept by, when not by the workflow.
        security_context: Who caused it, and the signature.
        payload: What happened.
        metadata: Anything else.
    """

    model_config = ConfigDict(frozen=True)

    envelope_version: str = ENVELOPE_VERSION
    event_id: UUID = Field(default_factory=uuid4)
    event_type: str = Field(min_length=1)
    event_version: str = "1.0"
    timestamp: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    source_service: str
    source_version: str = "1.0.0"
    source_instance: str | None = None
    source_node: str | None = None
    environment: str
    region: str | None = None
    partition_key: str | None = None
    security_context: SecurityContext | None = None
    payload: dict[str, Any]
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """The Kafka key: the partition key, else the workflow, else the event itself."""
        return self.partition_key or str(self.correlation_id or self.event_id)

    def signed(self, key: SigningKey) -> Self:
        """The same envelope with a signature.

        What is signed is what travels: dates and the like in the payload become what JSON has for them.

        Raises:
            SigningError: It has no security context to put the signature into, or the payload has no form in JSON.
        """
        if self.security_context is None:
            message = f"The event {self.event_id} has no security_context, so it cannot be signed."
            raise SigningError(message)
        with _in_json():
            payload = to_jsonable_python(self.payload)
        signature = key.signature_of(payload)
        context = self.security_context.model_copy(
            update={"hmac_signature": signature, "signing_key_id": key.key_id}
        )
        return self.model_copy(update={"security_context": context, "payload": payload})

    def verify(self, key: SigningKey) -> None:
        """Check the signature.

        Raises:
            SigningError: There is none, it was made with another key, or it is not the payload's.
        """
        context = self.security_context
        given = context.hmac_signature if context else None
        if context is None or given is None:
            message = f"The event {self.event_id} is not signed."
            raise SigningError(message)
        if context.signing_key_id not in {None, key.key_id}:
            message = (
                f"The event {self.event_id} is signed with the key {context.signing_key_id!r}, "
                f"expected {key.key_id!r}."
            )
            raise SigningError(message)
        if not hmac.compare_digest(given.encode(), key.signature_of(self.payload).encode()):
            message = f"The signature of the event {self.event_id} does not fit its payload."
            raise SigningError(message)

    def to_bytes(self) -> bytes:
        """The envelope as it travels."""
        return self.model_dump_json(exclude_none=True).encode()
