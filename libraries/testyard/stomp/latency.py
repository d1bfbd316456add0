"""How long it takes from changing something over REST until the event about it is captured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from testyard.core.deadline import Deadline
from testyard.core.percentiles import MEDIAN, P95
from testyard.stomp.capture import Event, EventCapture


@dataclass(frozen=True)
class Latency:
    """Measured latencies.

    Attributes:
        samples: Each one, in milliseconds, in the order they were measured.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle sample, by nearest rank; in milliseconds."""
        return MEDIAN.value_in(sorted(self.samples))

    @property
    def ninety_fifth_percentile(self) -> float:
        """19 of 20 samples are not longer, by nearest rank; in milliseconds."""
        return P95.value_in(sorted(self.samples))

    def __str__(self) -> str:
        return (
            f"{len(self.samples)} samples: median {self.median:.2f} ms, "
            f"p95 {self.ninety_fifth_percentile:.2f} ms, longest {max(self.samples):.2f} ms"
        )


def measure_latency(
    change: Callable[[str], object],
    capture: EventCapture,
    tells: Callable[[Event, str], bool],
    *,
    samples: int,
    within: timedelta,
) -> Latency:
    """Change something so many times, each time to another value, and wait for the event about it.

    Args:
        change: Changes it to a value: ``latency-1`` and so on.
        capture: Where the event arrives.
        tells: Whether an event tells that value.
        samples: How many times, at least 2.
        within: Give up on one event after this time.

    Raises:
        NotMetError: An event did not arrive in time.
    """
    measured = []
    for number in range(1, samples + 1):
        value = f"latency-{number}"
        mark = capture.mark()
        started = time.monotonic_ns()
        change(value)
        event = capture.wait_for(
            partial(_told, tells, value),
            Deadline(within),
            f"The event about {value}",
            since=mark,
        )
        measured.append((event.captured_ns - started) / 1e6)
    return Latency(tuple(measured))


def _told(tells: Callable[[Event, str], bool], value: str, event: Event) -> bool:
    return tells(event, value)
