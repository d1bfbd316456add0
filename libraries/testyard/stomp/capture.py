"""Capture events from any thread and wait for one of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import NotMetError
from testyard.core.identifiers import same_identifier
from testyard.core.journal import Journal

SOURCE, KIND = "stomp", "event"


@dataclass(frozen=True)
class Event:
    """One captured event.

    Attributes:
        channel: The name of the connection it came over.
        body: The message's JSON object.
        headers: The frame's headers.
        arrived: When, in UTC.
        captured_ns: When, on this machine's monotonic clock, in nanoseconds.
    """

    channel: str
    body: dict[str, Any]
    headers: dict[str, str]
    arrived: datetime
    captured_ns: int = 0

    @property
    def object_type(self) -> str:
        """What the event is about: ``order``, ``offering_user``…; empty when the message does not say."""
        return str(self.body.get("object_type", ""))

    def is_about(self, uuid: str) -> bool:
        """Whether the event names the object: any of its ``…_uuid`` values, hex or dashed."""
        return any(same_identifier(str(value), uuid) for key, value in self.body.items() if key.endswith("_uuid"))

    def __str__(self) -> str:
        state = self.body.get("order_state") or self.body.get("action") or self.body.get("state") or ""
        subject = self.body.get(f"{self.object_type}_uuid", "")
        return f"{self.arrived:%H:%M:%S.%f} {self.channel} {self.object_type or '(no type)'} {subject} {state}"


class EventCapture:
    """Keeps every event of one connection, on disk: memory does not grow with a long run.

    Args:
        channel: The connection's name.
        journal: Also receives every event.

    Example:
        >>> capture = EventCapture("source", Journal())
        >>> capture.add('{"object_type": "order", "order_uuid": "…"}', {})
        >>> len(capture.events)
        1
    """

    def __init__(self, channel: str, journal: Journal) -> None:
        self.channel = channel
        self._journal = journal
        self._own = Journal()
        self._changed = threading.Condition()

    def add(self, body: str, headers: dict[str, str]) -> None:
        """Keep one message, from any thread; a body that is no JSON object is kept as its ``text``."""
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            content = {"text": body}
        object_type = str(content.get("object_type", ""))
        self._own.append(SOURCE, KIND, object_type, body=content, headers=dict(headers))
        self._journal.append(SOURCE, KIND, object_type, channel=self.channel, body=content)
        with self._changed:
            self._changed.notify_all()

    @property
    def events(self) -> list[Event]:
        """Everything captured so far, oldest first."""
        return self._since(0)

    def _since(self, mark: int) -> list[Event]:
        return [
            Event(
                self.channel,
                entry.data["body"],
                entry.data["headers"],
                datetime.fromisoformat(entry.utc),
                entry.monotonic_ns,
            )
            for entry in self._own.entries(since=mark)
        ]

    def mark(self) -> int:
        """Where the captured events end now."""
        return self._own.mark()

    def wait_for(
        self, accepts: Callable[[Event], bool], deadline: Deadline, what: str, *, since: int = 0
    ) -> Event:
        """Wait until an event is accepted; one that was captured before counts too.

        Args:
            accepts: Whether an event is the one.
            deadline: Gives up after this.
            what: The event, for the message.
            since: A mark; only events captured after it count.

        Raises:
            NotMetError: None in time; lists what did arrive.
        """
        mark = since
        with self._changed:
            while True:
                upto = self._own.mark()
                for event in self._since(mark):
                    if accepts(event):
                        return event
                mark = upto
                if deadline.expired:
                    break
                # Short slices, so that Robot Framework's own timeouts can interrupt.
                self._changed.wait(min(deadline.remaining.total_seconds(), 0.2))
        arrived = "\n".join(map(str, self.events)) or "nothing"
        message = f"{what} did not arrive on {self.channel} within {seconds(deadline.within)}. Arrived:\n{arrived}"
        raise NotMetError(message)
