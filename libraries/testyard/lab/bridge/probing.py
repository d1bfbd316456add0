"""Asking whether the other side works again: a breaker whose time is over would otherwise wait for a caller.

A service that has nothing to do would say for ever that it is degraded, and the first caller after an outage would
be the one who tries it out.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker, CircuitOpenError
from testyard.lab.waiting import elapse

Ask = Callable[[], Awaitable[object]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """How a breaker's other side is asked.

    Attributes:
        breaker: The breaker.
        ask: Raises when the other side does not work.
        unless: Says that somebody calls the other side anyway: what it does then tells more than an answer does.
    """

    breaker: CircuitBreaker
    ask: Ask
    unless: Callable[[], bool] = lambda: False

    async def run(self, every: timedelta) -> None:
        """Ask again and again while the breaker is half open, until cancelled.

        Args:
            every: How often the breaker is looked at.
        """
        while True:
            if self.breaker.state is BreakerState.HALF_OPEN and not self.unless():
                await self._ask_once()
            await elapse(every)

    async def _ask_once(self) -> None:
        with suppress(CircuitOpenError):
            try:
                with self.breaker.call():
                    await self.ask()
            except CircuitOpenError:
                raise
            except Exception as problem:
                _log.debug("%s does not work yet: %s", self.breaker.name, problem)
