"""Circuit breakers: after some failures in a row nobody waits any more for what does not answer.

Source: contract page "event-bus", 3.7. Unlike the public system's, a breaker here goes by the monotonic
clock, and what was started before its last change of state no longer counts: a late success does not close
it, a late failure neither opens it again nor keeps it open for longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

LAST_TRANSITIONS: Final = 100
TOTALS: Final = ("calls", "rejected", "successes", "failures", "cancelled", "late", "transitions")
"""What is counted from the start; ``late`` are those of the successes and failures that did not count any more."""


class BreakerState(Enum):
    """Whether calls are let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerSettings(BaseModel):
    """When a breaker changes its state.

    Attributes:
        failures: So many in a row open it.
        open_for: How long it stays open.
        successes: So many probes in a row close it.
        probes: How many calls are let through at a time while it is half open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(default=5, ge=1)
    open_for: timedelta = Field(default=timedelta(seconds=60), gt=timedelta(0))
    successes: int = Field(default=2, ge=1)
    probes: int = Field(default=3, ge=1)


class CircuitOpenError(Exception):
    """A call was not let through.

    Attributes:
        breaker: The breaker's name.
        retry_after: When the next call may be; zero when that depends on the calls that are under way.
    """

    def __init__(self, breaker: str, retry_after: timedelta) -> None:
        why = f"is open for another {retry_after.total_seconds():.3g} s"
        if not retry_after:
            why = "is half open, and as many calls as may be are under way"
        super().__init__(f"The circuit breaker {breaker} {why}.")
        self.breaker = breaker
        self.retry_after = retry_after


@dataclass(frozen=True)
class Transition:
    """One change of state.

    Attributes:
        at: When.
        source: What it was.
        target: What it is now.
        reason: Why.
    """

    at: datetime
    source: BreakerState
    target: BreakerState
    reason: str


class CircuitBreaker:
    """Lets calls through, or not, by how the last ones went. Not for several threads.

    Args:
        name: How it is called in messages.
        settings: When it changes its state.
        clock: Monotonic seconds.

    Example:
        >>> breaker = CircuitBreaker("database", BreakerSettings())
        >>> with breaker.call():
        ...     rows = await fetch()
    """

    def __init__(self, name: str, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.settings = settings
        self.transitions: list[Transition] = []
        self._clock = clock
        self._state = BreakerState.CLOSED
        # Tells calls that began before the last change of state from those after it.
        self._period = 0
        self._failures = 0
        self._successes = 0
        self._probing = 0
        self._opened_at = 0.0
        self._totals = Counter(dict.fromkeys(TOTALS, 0))
        self._last: dict[str, datetime] = {}
        self._listeners: list[Callable[[Transition], None]] = []

    def when_it_changes(self, tell: Callable[[Transition], None]) -> None:
        """Have every change of state told."""
        self._listeners.append(tell)

    @property
    def state(self) -> BreakerState:
        """What it is now; an open one is half open when its time is over."""
        if self._state is BreakerState.OPEN and not self._open_for_another:
            self._turn(BreakerState.HALF_OPEN, f"open for {self.settings.open_for.total_seconds():g} s")
        return self._state

    @property
    def _open_for_another(self) -> timedelta:
        passed = timedelta(seconds=self._clock() - self._opened_at)
        return max(self.settings.open_for - passed, timedelta(0))

    @contextmanager
    def call(self, *harmless: type[Exception]) -> Iterator[None]:
        """Do something that may fail. A cancellation counts as neither success nor failure.

        A time limit belongs inside: one around this call cancels it.

        Args:
            harmless: Exceptions that say that the other side works: they count as a success.

        Raises:
            CircuitOpenError: It is open, or half open with as many probes under way as may be.
        """
        period, probe = self._admit()
        try:
            yield
        except harmless:
            self._succeeded(period)
            raise
        except Exception as problem:
            self._failed(period, problem)
            raise
        except asyncio.CancelledError:
            self._totals["cancelled"] += 1
            raise
        else:
            self._succeeded(period)
        finally:
            if probe and period == self._period:
                self._probing -= 1

    def _admit(self) -> tuple[int, bool]:
        state = self.state
        self._totals["calls"] += 1
        if state is BreakerState.OPEN:
            self._totals["rejected"] += 1
            raise CircuitOpenError(self.name, self._open_for_another)
        probe = state is BreakerState.HALF_OPEN
        if probe:
            if self._probing >= self.settings.probes:
                self._totals["rejected"] += 1
                raise CircuitOpenError(self.name, timedelta(0))
            self._probing += 1
        return self._period, probe

    def _succeeded(self, period: int) -> None:
        self._totals["successes"] += 1
        self._last["success"] = datetime.now(UTC)
        if period != self._period:
            self._totals["late"] += 1
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._successes += 1
            if self._successes >= self.settings.successes:
                self._turn(BreakerState.CLOSED, f"{self._successes} probes in a row have succeeded")

    def _failed(self, period: int, problem: Exception) -> None:
        self._totals["failures"] += 1
        self._last["failure"] = datetime.now(UTC)
        if period != self._period:
            self._totals["late"] += 1
            return
        self._failures += 1
        why = f"{type(problem).__name__}: {problem}"
        if self._state is BreakerState.HALF_OPEN:
            self._turn(BreakerState.OPEN, f"a probe has failed: {why}")
        elif self._failures >= self.settings.failures:
            self._turn(BreakerState.OPEN, f"{self._failures} failures in a row, the last one {why}")

    def reset(self) -> None:
        """Close it and forget the failures, as an operator does who knows that the other side works again."""
        if self._state is BreakerState.CLOSED:
            self._failures = 0
        else:
            self._turn(BreakerState.CLOSED, "an operator has reset it")

    def _turn(self, target: BreakerState, reason: str) -> None:
        transition = Transition(datetime.now(UTC), self._state, target, reason)
        self._state = target
        self._period += 1
        self._probing = self._successes = 0
        if target is BreakerState.OPEN:
            self._opened_at = self._clock()
        elif target is BreakerState.CLOSED:
            self._failures = 0
        self._totals["transitions"] += 1
        self.transitions = [*self.transitions[-LAST_TRANSITIONS + 1 :], transition]
        for tell in self._listeners:
            tell(transition)

    def metrics(self) -> dict[str, Any]:
        """What a health or metrics endpoint tells of it; JSON values."""
        state = self.state
        return {
            "name": self.name,
            "state": state.value,
            "failure_count": self._failures,
            "success_count": self._successes,
            "half_open_calls": self._probing,
            "totals": dict(self._totals),
            "last_success_time": _iso(self._last.get("success")),
            "last_failure_time": _iso(self._last.get("failure")),
            "retry_after_seconds": self._open_for_another.total_seconds() if state is BreakerState.OPEN else 0.0,
            "transitions": [
                {"at": _iso(it.at), "from": it.source.value, "to": it.target.value, "reason": it.reason}
                for it in self.transitions
            ],
            "configuration": {
                "failures": self.settings.failures,
                "open_for_seconds": self.settings.open_for.total_seconds(),
                "successes": self.settings.successes,
                "probes": self.settings.probes,
            },
        }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
