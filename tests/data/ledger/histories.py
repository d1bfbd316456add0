"""Histories for the suites of the ledger: fabricated, in the recent past."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from robot.api.deco import keyword, library
from testyard.core.history import Happening, Kind

MILLISECOND_NS = 10**6
EVERY_MS = 10
STORED_AFTER_MS = 5


@library(scope="SUITE")
class histories:  # noqa: N801 named as its file, so that suites import it by its path
    """Fabricates histories; event 0 was attempted a minute ago, the others every 10 ms after it."""

    def __init__(self) -> None:
        self._start_ns = time.time_ns() // 10**9 * 10**9 - 60 * 10**9

    def _moment(self, number: int, after_ms: int) -> int:
        return self._start_ns + (number * EVERY_MS + after_ms) * MILLISECOND_NS

    @keyword
    def sent(self, events: int) -> list[Happening]:
        """So many events that were attempted and acknowledged, with two keys."""
        return [
            Happening(kind, str(UUID(int=number)), self._moment(number, after), f"key-{number % 2}")
            for number in range(events)
            for after, kind in enumerate((Kind.ATTEMPTED, Kind.ACKNOWLEDGED))
        ]

    @keyword
    def rows(self, events: int, *left_out: int) -> list[dict[str, Any]]:
        """The rows that a database has of them, but for some."""
        return [
            {
                "event_id": UUID(int=number),
                "created_at": self.moment(number, STORED_AFTER_MS),
                "headers": {"offset": number, "key": f"key-{number % 2}"},
            }
            for number in range(events)
            if number not in left_out
        ]

    @keyword
    def moment(self, number: int, after_ms: int = 0) -> datetime:
        """So many milliseconds after an event was attempted."""
        microseconds = self._moment(number, after_ms) // 1000
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
