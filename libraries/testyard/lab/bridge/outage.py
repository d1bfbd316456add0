"""Telling of an outage in two lines of the log: when it begins and when it is over."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Outage:
    """Whether something that a service needs is away.

    Args:
        what: What is, in words, such as ``the database``.

    Attributes:
        reason: Why it is away; None while it is not.
    """

    def __init__(self, what: str) -> None:
        self.reason: str | None = None
        self._what = what

    def goes_on(self, problem: object) -> None:
        """It is away, or still so."""
        if self.reason is None:
            _log.warning("%s is away: %s", self._what, problem)
        self.reason = str(problem)

    def is_over(self) -> None:
        """It is there."""
        if self.reason is not None:
            _log.warning("%s is back", self._what)
        self.reason = None

    def reasons(self) -> list[str]:
        """What ``/health`` tells; nothing while it is there."""
        return [] if self.reason is None else [f"{self._what}: {self.reason}"]
