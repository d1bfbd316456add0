"""What the adapter tells of its work: how much, what went wrong, and how late events were stored."""

from __future__ import annotations

import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any, Final

from testyard.core.percentiles import MEDIAN, P95, P99
from testyard.lab.bridge.adapter.reading import Event

WINDOW: Final = timedelta(seconds=60)
"""How long a sample counts."""
MOST_SAMPLES: Final = 20_000
"""How many samples are kept; with more of them the window is shorter."""

_MILLISECONDS: Final = 1000.0


class ErrorType(Enum):
    """What can go wrong (contract page "event-bus", 3.5)."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    DATABASE_CONNECTION_FAILED = "DATABASE_CONNECTION_FAILED"
    DATABASE_OPERATION_FAILED = "DATABASE_OPERATION_FAILED"
    TRANSACTION_ROLLBACK = "TRANSACTION_ROLLBACK"
    CIRCUIT_BREAKER_OPEN = "CIRCUIT_BREAKER_OPEN"


class SlidingWindow:
    """Samples of the last while, summarised when asked for.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, array[float]]] = deque()
        self._count = 0

    def add(self, milliseconds: Iterable[float]) -> None:
        """Take samples in, which are all of now."""
        samples = array("d", milliseconds)
        self._samples.append((self._clock(), samples))
        self._count += len(samples)
        # The newest ones stay, however many they are.
        while len(self._samples) > 1 and (self._count > MOST_SAMPLES or self._is_over(self._samples[0][0])):
            self._forget()

    def summary(self) -> dict[str, Any]:
        """Percentiles by nearest rank, in milliseconds, and of how many samples; null when there are none."""
        while self._samples and self._is_over(self._samples[0][0]):
            self._forget()
        ordered = sorted(sample for _, samples in self._samples for sample in samples)
        told: dict[str, Any] = {
            str(it): round(it.value_in(ordered), 3) if ordered else None for it in (MEDIAN, P95, P99)
        }
        return {**told, "samples": len(ordered)}

    def _is_over(self, taken_at: float) -> bool:
        return self._clock() - taken_at > WINDOW.total_seconds()

    def _forget(self) -> None:
        self._count -= len(self._samples.popleft()[1])


class Figures:
    """Everything that is counted and measured."""

    def __init__(self) -> None:
        self._stored: Counter[str] = Counter()
        self._duplicates: Counter[str] = Counter()
        self._dead_lettered: Counter[str] = Counter()
        self._dead_lettered_for: Counter[ErrorType] = Counter()
        self._errors: Counter[ErrorType] = Counter()
        self._batches: Counter[str] = Counter()
        self._largest = 0
        self._adopted = 0
        self._since_happened = SlidingWindow()
        self._since_published = SlidingWindow()

    @property
    def total(self) -> int:
        """How many events were stored, and how many records dead-lettered; no event twice."""
        return self._stored.total() + self._dead_lettered.total()

    def stored(self, events: Sequence[Event], fresh: Counter[str]) -> None:
        """Count a transaction that was committed just now.

        Args:
            events: What was in it.
            fresh: How many of them were new, by topic; the others were there already.
        """
        now = time.time()
        came = Counter(event.record.topic for event in events)
        came.subtract(fresh)
        self._stored.update(fresh)
        self._duplicates.update(came)
        self._batches.update(transactions=1, events=len(events))
        self._largest = max(self._largest, len(events))
        self._since_happened.add((now - event.happened_at) * _MILLISECONDS for event in events)
        self._since_published.add(now * _MILLISECONDS - event.record.timestamp for event in events)

    def dead_lettered(self, topic: str, error: ErrorType) -> None:
        """Count a record that is in its dead-letter topic now."""
        self._dead_lettered[topic] += 1
        self._dead_lettered_for[error] += 1

    def went_wrong(self, error: ErrorType) -> None:
        """Count something that did not work, whether or not it was tried again."""
        self._errors[error] += 1

    def adopted(self, steps: int) -> None:
        """Count steps whose workflow is there by now."""
        self._adopted += steps

    def metrics(self) -> dict[str, Any]:
        """What ``/metrics`` tells; JSON values."""
        counts = {
            "stored": self._stored,
            "duplicates": self._duplicates,
            "dead_lettered": self._dead_lettered,
        }
        topics = sorted(set().union(*counts.values()))
        return {
            **{name: it.total() for name, it in counts.items()},
            "dead_lettered_by_error": {it.value: self._dead_lettered_for[it] for it in ErrorType},
            "errors": {it.value: self._errors[it] for it in ErrorType},
            "topics": {topic: {name: it[topic] for name, it in counts.items()} for topic in topics},
            "lag_ms": {
                "window_seconds": WINDOW.total_seconds(),
                "since_happened": self._since_happened.summary(),
                "since_published": self._since_published.summary(),
            },
            "batches": {
                "transactions": self._batches["transactions"],
                "events": self._batches["events"],
                "largest": self._largest,
            },
            "steps_adopted": self._adopted,
        }
