"""What a record says: an event of its topic, or why it is none.

An envelope is checked against the format and its payload against its topic in one go, without making a
dictionary of either: the database takes the record's own text.

Source: contract page "event-bus", 3.3 to 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from aiokafka.structs import ConsumerRecord
from pydantic import AwareDatetime, ValidationError, create_model

from testyard.lab.bridge import events
from testyard.lab.bridge.envelope import Envelope, SigningError, SigningKey
from testyard.lab.bridge.topics import Route

PAYLOADS: Final[Mapping[Route, type[events.Payload]]] = {
    Route.WORKFLOW_STARTED: events.WorkflowStarted,
    Route.WORKFLOW_COMPLETED: events.WorkflowEnded,
    Route.WORKFLOW_FAILED: events.WorkflowEnded,
    Route.STEP_COMPLETED: events.StepCompleted,
    Route.STATE_TRANSITION: events.StateTransition,
    Route.METADATA_STAMPED: events.MetadataStamped,
    Route.STATE_AGGREGATION_COMPLETED: events.StateAggregationCompleted,
    Route.REDUCER_STATE_TRANSITION: events.StateTransition,
    Route.NODE_INTROSPECTION: events.NodeIntrospection,
    Route.NODE_HEARTBEAT: events.NodeHeartbeat,
}
"""What is published to each topic."""

MOST_PROBLEMS: Final = 5
"""How many values that are not right one message names."""

_NULL: Final = r"\N"
# Between the values of JSON stand line ends and tabs, which mean something else where rows are copied from.
_WHITESPACE: Final = bytes.maketrans(b"\n\r\t", b"   ")


class NotAnEventError(ValueError):
    """A record is not what its topic is for; the message says why, without the values that may be secret."""


@dataclass(frozen=True, slots=True)
class Event:
    """A record that is an event.

    Attributes:
        record: As it came from Kafka.
        route: What sort of event.
        happened_at: The envelope's timestamp, in seconds since 1970.
        row: What is copied into the table of incoming events (PostgreSQL manual, COPY, "Text Format").
    """

    record: ConsumerRecord
    route: Route
    happened_at: float
    row: bytes


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the records of one topic are read.

    Attributes:
        route: What they are.
        validate: Makes an envelope of a record's value.
        columns: What is the same in every row.
    """

    route: Route
    validate: Callable[[bytes], Envelope]
    columns: str


class Reader:
    """Reads the records of one environment.

    Args:
        environment: The first part of the topics' names.
        signing_key: Envelopes must be signed with it; None: whether they are signed does not matter.
    """

    def __init__(self, environment: str, signing_key: SigningKey | None = None) -> None:
        self._signing_key = signing_key
        self._kinds = {
            topic: _Kind(route, _validator(route), f"{route.name}\t{topic}")
            for route in Route
            for topic in [route.topic(environment)]
        }

    @property
    def topics(self) -> list[str]:
        """Every topic that events are read from."""
        return list(self._kinds)

    def read(self, record: ConsumerRecord) -> Event:
        """Read one record.

        Args:
            record: As it came from Kafka.

        Returns:
            The event.

        Raises:
            NotAnEventError: It has no value, is no envelope, carries another payload than its topic is for, is not
                signed as it must be, or nobody publishes to its topic.
        """
        kind = self._kinds.get(record.topic)
        if kind is None:
            raise NotAnEventError(f"No service publishes to the topic {record.topic}.")
        value = record.value
        if value is None:
            raise NotAnEventError("The record has no value.")
        try:
            envelope = kind.validate(value)
            if self._signing_key is not None:
                Envelope.model_validate_json(value).verify(self._signing_key)
        except ValidationError as problem:
            raise NotAnEventError(_in_words(problem)) from None
        except SigningError as problem:
            raise NotAnEventError(str(problem)) from None
        correlation = envelope.correlation_id
        row = (
            f"{envelope.event_id.hex}\t{correlation.hex if correlation else _NULL}\t"
            f"{envelope.timestamp.isoformat()}\t{kind.columns}\t{record.partition}\t{record.offset}\t"
        )
        text = value.translate(_WHITESPACE).replace(b"\\", b"\\\\")
        return Event(record, kind.route, envelope.timestamp.timestamp(), b"%b%b\n" % (row.encode(), text))


def _validator(route: Route) -> Callable[[bytes], Envelope]:
    """What makes envelopes of one route; the id and the time must be the sender's, not invented here."""
    fields: dict[str, Any] = {
        "event_id": (UUID, ...),
        "timestamp": (AwareDatetime, ...),
        "payload": (PAYLOADS[route], ...),
    }
    model = create_model(f"Envelope of {route.name}", __base__=Envelope, **fields)
    # The model's own method spends as much time again before it comes to this one.
    validate: Callable[[bytes], Envelope] = model.__pydantic_validator__.validate_json
    return validate


def _in_words(problem: ValidationError) -> str:
    found = problem.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{'.'.join(map(str, it['loc'])) or 'the value'}: {it['msg']}" for it in found[:MOST_PROBLEMS]]
    more = [f"and {len(found) - MOST_PROBLEMS} more"] if len(found) > MOST_PROBLEMS else []
    return "; ".join([*said, *more])
