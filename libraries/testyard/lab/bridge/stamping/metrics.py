"""What the service counts: requests, refusals, and how long answers took."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final

from testyard.core.percentiles import LONGEST, MEDIAN, P95, P99

LAST: Final = 1000
"""Of each operation, so many durations are kept."""


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._durations: dict[str, deque[float]] = {}

    def count(self, operation: str, status: int, milliseconds: float) -> None:
        """Count one answer.

        Args:
            operation: What was asked for.
            status: The HTTP status of the answer.
            milliseconds: How long it took.
        """
        self._requests[operation] += 1
        self._statuses[status] += 1
        if status >= 400:
            self._refusals[operation] += 1
        self._durations.setdefault(operation, deque(maxlen=LAST)).append(milliseconds)

    def summary(self) -> dict[str, Any]:
        """All counters; durations in milliseconds with the number of samples that they are of."""
        return {
            "requests_total": self._requests.total(),
            "answers_by_status": {str(status): count for status, count in sorted(self._statuses.items())},
            "operations": {
                operation: {
                    "requests": self._requests[operation],
                    "refused": self._refusals[operation],
                    "duration_ms": _percentiles(sorted(durations)),
                }
                for operation, durations in sorted(self._durations.items())
            },
        }


def _percentiles(ordered: list[float]) -> dict[str, float]:
    told = {str(each): round(each.value_in(ordered), 3) for each in (MEDIAN, P95, P99, LONGEST)}
    return {"samples": len(ordered), **told}
