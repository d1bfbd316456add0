"""Keywords that make envelopes."""

from __future__ import annotations

from typing import Any

from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.errors import UserError
from testyard.kafka.envelopes import Security, SecurityLevel, Signing, new_envelope

from KafkaLibrary.session import Session


class EnvelopeKeywords:
    """Keywords that make envelopes."""

    _session: Session

    @keyword(tags=["Setup"])
    def new_envelope(
        self,
        event_type: str,
        payload: dict[str, Any] | None = None,
        *,
        event_id: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        partition_key: str | None = None,
        source_service: str = "testyard",
        source_version: str = "1.0.0",
        environment: str = "test",
        region: str | None = None,
        metadata: dict[str, Any] | None = None,
        actor_id: str | None = None,
        session_id: str | None = None,
        security_level: SecurityLevel = SecurityLevel.STANDARD,
        signing_key: Secret | None = None,
        signing_key_id: str = "default",
        size: int | None = None,
    ) -> dict[str, Any]:
        """Make an event envelope (OnexEnvelopeV1) with an id of its own and the present time.

        Args:
            event_type: Such as `WORKFLOW_STARTED`.
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
            actor_id: Who causes it; with it, or a session, the envelope has a security context.
            session_id: In which session.
            security_level: `STANDARD`, `ELEVATED` or `CRITICAL`.
            signing_key: Signs the payload (HMAC-SHA256); needs an actor or a session.
            signing_key_id: By what the receiver finds the key.
            size: How many bytes the envelope has when it is sent; the payload is padded.

        Returns:
            The envelope, for `Publish Event`, which sends it with its own key.

        Raises:
            UserError: It cannot be signed, or is larger than it should be.

        Example:
            | ${envelope} = | New Envelope | WORKFLOW_STARTED | ${payload} | correlation_id=${workflow} |
        """
        acts = actor_id is not None or session_id is not None
        return new_envelope(
            event_type,
            payload,
            event_id=event_id,
            correlation_id=correlation_id,
            causation_id=causation_id,
            partition_key=partition_key,
            source_service=source_service,
            source_version=source_version,
            environment=environment,
            region=region,
            metadata=metadata,
            security=Security(actor_id, session_id, security_level) if acts else None,
            signing=Signing(signing_key.value, signing_key_id) if signing_key else None,
            size=size,
        )

    @keyword(tags=["Setup"])
    def new_envelopes(
        self,
        count: int,
        event_type: str,
        payload: dict[str, Any] | None = None,
        *,
        keys: int | None = None,
        correlation_id: str | None = None,
        source_service: str = "testyard",
        environment: str = "test",
        size: int | None = None,
    ) -> list[dict[str, Any]]:
        """Make many envelopes of one type, each with an id of its own; their payloads are numbered from 0.

        Args:
            count: How many.
            event_type: Such as `WORKFLOW_STARTED`.
            payload: What each event tells, besides its `number`.
            keys: Among how many partition keys, `key-0`, `key-1` and so on, they take turns; without it, their
                order is kept by the workflow, or not at all.
            correlation_id: Which workflow they belong to.
            source_service: Who sends them.
            environment: Where they are sent.
            size: How many bytes each has when it is sent; the payloads are padded.

        Returns:
            The envelopes, for `Publish Events` and `Publish Events At Rate`.

        Raises:
            UserError: There would be none, or one is larger than it should be.

        Example:
            | ${envelopes} = | New Envelopes | 1500 | WORKFLOW_STARTED | keys=50 | size=600 |
        """
        for name, number in (("count", count), ("keys", keys)):
            if number is not None and number < 1:
                message = f"{name} must be at least 1, got {number}."
                raise UserError(message)
        return [
            new_envelope(
                event_type,
                {**(payload or {}), "number": number},
                correlation_id=correlation_id,
                partition_key=None if keys is None else f"key-{number % keys}",
                source_service=source_service,
                environment=environment,
                size=size,
            )
            for number in range(count)
        ]
