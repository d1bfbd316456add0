"""What the service does by itself, in every process at once: admitting, healing, sending notifications."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from testyard.lab.pipelines.channels import Dispatcher
from testyard.lab.pipelines.database import DatabaseUnavailableError, Pool
from testyard.lab.pipelines.store import admission, outcomes
from testyard.lab.pipelines.waiting import elapse

_LOGGER = logging.getLogger(__name__)

LONGEST_INTERVAL: Final = timedelta(seconds=5)
HEALINGS_PER_STALE_TIME: Final = 5
SENDING_INTERVAL: Final = timedelta(milliseconds=250)


async def heal_forever(pool: Pool, stale_after: timedelta) -> None:
    """Heal runs without heartbeat, and let in runs that a crash has left SCHEDULED.

    Args:
        pool: The service's connections.
        stale_after: The time without heartbeat after which a run is healed.
    """

    async def heal() -> None:
        await admission.admit(pool)
        healed = await outcomes.heal(pool, stale_after)
        if healed:
            _LOGGER.warning("healed %d runs without heartbeat", healed)

    await _repeat(heal, min(stale_after / HEALINGS_PER_STALE_TIME, LONGEST_INTERVAL), "healing")


async def send_forever(dispatcher: Dispatcher) -> None:
    """Send the notifications that wait.

    Args:
        dispatcher: Sends them.
    """

    async def send() -> None:
        await dispatcher.send_waiting()

    await _repeat(send, SENDING_INTERVAL, "sending notifications")


async def _repeat(step: Callable[[], Awaitable[None]], interval: timedelta, what: str) -> None:
    away = False
    while True:
        try:
            await step()
            away = False
        except DatabaseUnavailableError as error:
            # Once, not with every attempt.
            if not away:
                _LOGGER.warning("%s: the database is away: %s", what, error)
            away = True
        await elapse(interval)
