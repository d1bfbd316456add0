"""Waiting on conditions: the only module of testyard that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from testyard.core.errors import NotMetError

Value = TypeVar("Value")

# Short enough that Robot Framework's own timeouts can interrupt a wait promptly.
POLL_INTERVAL = timedelta(milliseconds=50)
# What is waited for has often happened by the second probe; each pause is twice as long as the one before.
FIRST_PAUSE = timedelta(milliseconds=5)


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock until which something may take.

    Args:
        within: How long from now.

    Example:
        >>> Deadline(timedelta(seconds=5)).expired
        False
    """

    within: timedelta
    _started: float = field(default_factory=time.monotonic, init=False)

    @property
    def elapsed(self) -> timedelta:
        """Time since the deadline was set."""
        return timedelta(seconds=time.monotonic() - self._started)

    @property
    def remaining(self) -> timedelta:
        """Time left; zero when expired."""
        return max(self.within - self.elapsed, timedelta())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return not self.remaining

    def pause(self, interval: timedelta = POLL_INTERVAL) -> None:
        """Sleep for ``interval``, or for what remains when that is less."""
        time.sleep(min(interval, self.remaining).total_seconds())


def seconds(duration: timedelta) -> str:
    """A duration for people: ``1.5 s``, ``1800 s``."""
    total = duration.total_seconds()
    return f"{total:.0f} s" if total >= 100 else f"{total:.3g} s"


def wait_until(
    probe: Callable[[], Value],
    accepts: Callable[[Value], bool],
    deadline: Deadline,
    what: str,
    *,
    interval: timedelta = POLL_INTERVAL,
) -> Value:
    """Call ``probe`` until ``accepts`` its value.

    Args:
        probe: Reads the present value; its exceptions end the wait.
        accepts: Says whether a value is the one waited for.
        deadline: Gives up after this.
        what: What is waited for, for the message.
        interval: Pause between two probes, at most: the first ones are shorter.

    Returns:
        The accepted value.

    Raises:
        NotMetError: No accepted value in time; names what was waited for, the last value and how long.
    """
    pause = min(FIRST_PAUSE, interval)
    while True:
        value = probe()
        if accepts(value):
            return value
        if deadline.expired:
            message = f"Waited {seconds(deadline.elapsed)} for {what}; the last value was {value!r}."
            raise NotMetError(message)
        deadline.pause(pause)
        pause = min(2 * pause, interval)


def never_within(
    probe: Callable[[], Value],
    rejects: Callable[[Value], bool],
    deadline: Deadline,
    what: str,
    *,
    interval: timedelta = POLL_INTERVAL,
) -> Value:
    """Call ``probe`` until the deadline and fail as soon as ``rejects`` its value.

    Args:
        probe: Reads the present value.
        rejects: Says whether a value is the one that must not appear.
        deadline: How long the condition must hold.
        what: What must not happen, for the message.
        interval: Pause between two probes.

    Returns:
        The last value.

    Raises:
        NotMetError: A rejected value was seen; names it and when.
    """
    while True:
        value = probe()
        if rejects(value):
            message = f"{what} must not happen, but did after {seconds(deadline.elapsed)}: {value!r}."
            raise NotMetError(message)
        if deadline.expired:
            return value
        deadline.pause(interval)
