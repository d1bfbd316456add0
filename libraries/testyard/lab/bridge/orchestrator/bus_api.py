"""Publishing on the bus by HTTP, for those who have no Kafka client: by the orchestrator's own publisher."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import to_json

from testyard.lab.bridge.bus import REFUSED
from testyard.lab.bridge.catalogue import PAYLOADS
from testyard.lab.bridge.node import node_of
from testyard.lab.bridge.topics import Route

MOST_EVENTS: Final = 1000

router = APIRouter(prefix="/api/v1/events")


class Event(BaseModel):
    """One event to publish.

    Attributes:
        route: Which sort of event, such as ``STATE_TRANSITION``.
        payload: What happened; has to fit the sort.
        correlation_id: Which workflow it belongs to.
        partition_key: What its order is kept by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    route: str
    payload: dict[str, Any]
    correlation_id: UUID | None = None
    partition_key: str | None = None

    @field_validator("route")
    @classmethod
    def _is_known(cls, given: str) -> str:
        if given not in Route.__members__:
            message = f"expected one of {', '.join(Route.__members__)}"
            raise ValueError(message)
        return given

    @field_validator("payload")
    @classmethod
    def _fits(cls, given: dict[str, Any], others: ValidationInfo) -> dict[str, Any]:
        # JSON can say what is no text, such as half a surrogate pair, and what cannot be said in it again.
        to_json(given)
        if "route" in others.data:
            PAYLOADS[Route[others.data["route"]]].model_validate(given)
        return given


class Events(BaseModel):
    """Events to publish, one after the other.

    Attributes:
        events: The events.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: Annotated[list[Event], Field(min_length=1, max_length=MOST_EVENTS)]


@router.post("")
async def publish(request: Request, wanted: Events) -> dict[str, Any]:
    """Publish events; each answer says whether Kafka has it or it waits, and how long that took."""
    node = node_of(request)
    answers: list[dict[str, Any]] = []
    for event in wanted.events:
        route = Route[event.route]
        envelope = node.publisher.envelope(
            route,
            PAYLOADS[route].model_validate(event.payload),
            correlation_id=event.correlation_id,
            partition_key=event.partition_key,
        )
        began = time.monotonic()
        try:
            delivery = await node.publisher.deliver(route.topic(node.settings.environment), envelope)
        except (*REFUSED, OSError) as problem:
            status = 503 if isinstance(problem, OSError) else 413
            before = f"{len(answers)} of {len(wanted.events)} events were published before it."
            raise HTTPException(status, f"This {event.route} cannot be published: {problem} {before}") from problem
        answers.append(
            {
                "event_id": str(envelope.event_id),
                "key": envelope.key,
                "delivery": delivery.value,
                "took_ms": (time.monotonic() - began) * 1000,
                "published_at": envelope.timestamp.isoformat(),
            }
        )
    return {"events": answers}
