"""What the library's keywords share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from testyard.core.errors import UserError
from testyard.kafka.client import Since
from testyard.kafka.collecting import Start
from testyard.kafka.connections import KafkaConnections
from testyard.kafka.event import Identity, Outgoing, outgoing, partition_called

DEFAULT_COLLECTOR = "default"


class Session:
    """The connections of a run, and where events have their ids.

    Args:
        event_id: The header, or the field of the value, that has an event's id.
    """

    def __init__(self, event_id: str) -> None:
        self.connections = KafkaConnections()
        self.identity = Identity(event_id, event_id)

    def outgoing(
        self,
        topic: str,
        value: Any,
        key: str | None,
        headers: Mapping[str, Any] | None,
        partition: int | None = None,
    ) -> Outgoing:
        """An event to send."""
        return outgoing(topic, value, key=key, headers=headers, partition=partition, identity=self.identity)

    @staticmethod
    def since(given: Start | datetime | dict[str, int]) -> Since:
        """Where to begin, as a test says it."""
        if not isinstance(given, dict):
            return given
        if not given:
            message = "Say from which offsets to read, such as {'orders/0': 17}: none is given."
            raise UserError(message)
        return {partition_called(place): int(offset) for place, offset in given.items()}
