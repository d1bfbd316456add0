"""Which event goes to which topic: one convention for all services.

The public system has three conventions side by side; this one is the database adapter's (contract page
"event-bus", 3.3): ``{environment}.omninode-bridge.{service}.{event-type}.v1``, and ``<topic>.dlq`` for what could
not be handled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

SYSTEM: Final = "omninode-bridge"
VERSION: Final = "v1"
DEAD_LETTERS: Final = ".dlq"

_NAME: Final = re.compile(
    rf"(?P<environment>[a-z0-9][a-z0-9_-]*)\.{SYSTEM}\.(?P<service>[a-z-]+)\.(?P<slug>[a-z-]+)\.{VERSION}"
)


class Route(Enum):
    """Where an event is published: its service and its type, as they stand in the topic's name."""

    WORKFLOW_STARTED = ("orchestrator", "workflow-started")
    WORKFLOW_COMPLETED = ("orchestrator", "workflow-completed")
    WORKFLOW_FAILED = ("orchestrator", "workflow-failed")
    STEP_COMPLETED = ("orchestrator", "step-completed")
    STATE_TRANSITION = ("orchestrator", "state-transition")
    METADATA_STAMPED = ("metadata", "stamped")
    STATE_AGGREGATION_COMPLETED = ("reducer", "state-aggregation-completed")
    REDUCER_STATE_TRANSITION = ("reducer", "state-transition")
    NODE_INTROSPECTION = ("registry", "node-introspection")
    NODE_HEARTBEAT = ("registry", "node-heartbeat")

    @property
    def service(self) -> str:
        """Who publishes it."""
        return self.value[0]

    @property
    def slug(self) -> str:
        """The type as it stands in the topic's name."""
        return self.value[1]

    @property
    def event_type(self) -> str:
        """The type as it stands in the envelope: ``WORKFLOW_STARTED``. Both state transitions have one."""
        if self is Route.METADATA_STAMPED:
            return "METADATA_STAMPED"
        return self.slug.upper().replace("-", "_")

    def topic(self, environment: str) -> str:
        """The topic's name.

        Args:
            environment: Such as ``dev``; every lab has one of its own.

        Example:
            >>> Route.WORKFLOW_STARTED.topic("dev")
            'dev.omninode-bridge.orchestrator.workflow-started.v1'
        """
        return f"{environment}.{SYSTEM}.{self.service}.{self.slug}.{VERSION}"


@dataclass(frozen=True)
class TopicName:
    """The parts of a topic's name.

    Attributes:
        environment: Such as ``dev``.
        service: Who publishes.
        slug: The event's type.
    """

    environment: str
    service: str
    slug: str

    @property
    def route(self) -> Route | None:
        """What is published there; None when no service does."""
        return _ROUTES.get((self.service, self.slug))


_ROUTES: Final = {route.value: route for route in Route}


def parse_topic(topic: str) -> TopicName | None:
    """Take a topic's name apart.

    The public adapter takes the fifth part for the event's type, which is always ``v1`` (contract
    page "event-bus", 3.3).

    Args:
        topic: The name.

    Returns:
        Its parts; None when it does not follow the convention.

    Example:
        >>> parse_topic("dev.omninode-bridge.metadata.stamped.v1").slug
        'stamped'
    """
    match = _NAME.fullmatch(topic)
    return None if match is None else TopicName(**match.groupdict())


def dead_letter_topic(topic: str) -> str:
    """Where records of a topic go that could not be handled."""
    return topic + DEAD_LETTERS
