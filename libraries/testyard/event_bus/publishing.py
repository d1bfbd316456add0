"""Publishing by the orchestrator at a steady rate in the background, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from testyard.core.deadline import Deadline
from testyard.core.errors import UserError
from testyard.core.history import Happening, Kind

Publish = Callable[[int], list[dict[str, Any]]]

STOPS_WITHIN = timedelta(seconds=60)


class SteadyPublishing:
    """Publishes one event after the other, each at its time, until it is stopped.

    An event is attempted at the time that the rate gives, also when the one before took longer: waiting behind it
    is a part of its time.

    Args:
        publish: Publishes the event of a number; returns the orchestrator's answers.
        per_second: How many events a second.

    Raises:
        UserError: The rate is not above zero.
    """

    def __init__(self, publish: Publish, per_second: float) -> None:
        if per_second <= 0:
            message = f"The rate must be above 0 events per second, found {per_second:g}."
            raise UserError(message)
        self._publish = publish
        self._pause = timedelta(seconds=1 / per_second)
        self._stopping = threading.Event()
        self._happened: list[Happening] = []
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="steady publishing", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began, began_ns = time.monotonic(), time.time_ns()
        number = 0
        while not self._stopping.wait(max(0.0, began + number * self._pause.total_seconds() - time.monotonic())):
            attempted_ns = began_ns + number * int(self._pause / timedelta(microseconds=1)) * 1000
            try:
                answers = self._publish(number)
            except Exception as problem:
                self._problem = problem
                return
            for answer in answers:
                event, key = answer["event_id"], answer["key"]
                self._happened.append(Happening(Kind.ATTEMPTED, event, attempted_ns, key))
                self._happened.append(Happening(Kind.ACKNOWLEDGED, event, time.time_ns(), key))
            number += 1

    def stop(self) -> list[Happening]:
        """End it, and wait for the last answer.

        Returns:
            Each attempt and each acknowledgement, which says that the bus or the outbox has the event.

        Raises:
            UserError: An event was refused, or the last answer does not come.
        """
        self._stopping.set()
        deadline = Deadline(STOPS_WITHIN)
        self._thread.join(deadline.remaining.total_seconds())
        if self._thread.is_alive():
            message = f"The last event was not answered within {STOPS_WITHIN.total_seconds():g} s."
            raise UserError(message)
        if self._problem is not None:
            message = f"An event could not be published: {self._problem}"
            raise UserError(message) from None
        return self._happened
