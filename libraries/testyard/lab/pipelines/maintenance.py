"""What the service does by itself, in every process at once: admitting, healing, sending notifications."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from testyard.lab.database import DATABASE_TROUBLE, Pool
from testyard.lab.pipelines.store import admission, outcomes
from testyard.lab.waiting import elapse

if TYPE_CHECKING:
    # Workers send nothing, and do without what sending is made of.
    from testyard.lab.pipelines.channels import Dispatcher

_LOGGER = logging.getLogger(__name__)

LONGEST_INTERVAL: Final = timedelta(seconds=5)
HEALINGS_PER_STALE_TIME: Final = 5
AWAY_PER_STALE_TIME: Final = 0.25
"""What of it an answer may take; a longer one means that the database was away. With the intervals between two
healings and two heartbeats, a shorter absence makes nobody's heartbeat stale."""

STALE_TIMES_TO_RETURN: Final = 2
"""How long everybody has to connect again and send a heartbeat, when the database was away."""

SENDING_INTERVAL: Final = timedelta(milliseconds=250)


async def heal_forever(pool: Pool, stale_after: timedelta) -> None:
    """Heal runs without heartbeat, and let in runs that a crash has left SCHEDULED.

    While the database was away from here, other workers too may have been unable to send heartbeats, and to report
    what has ended: they get the time for it before their runs are healed.

    Args:
        pool: The service's connections.
        stale_after: The time without heartbeat after which a run is healed.
    """
    heals_from = 0.0

    async def heal() -> None:
        nonlocal heals_from
        asked_at = time.monotonic()
        try:
            left = await outcomes.left(pool, stale_after)
        finally:
            answered_at = time.monotonic()
            if answered_at - asked_at > (stale_after * AWAY_PER_STALE_TIME).total_seconds():
                heals_from = answered_at + (stale_after * STALE_TIMES_TO_RETURN).total_seconds()
        if left.undecided:
            await admission.admit(pool)
        if not left.stale or answered_at < heals_from:
            return
        healed = await outcomes.heal(pool, stale_after)
        if healed:
            _LOGGER.warning("healed %d runs without heartbeat", healed)

    await _repeat(heal, min(stale_after / HEALINGS_PER_STALE_TIME, LONGEST_INTERVAL), "healing")


async def send_forever(dispatcher: Dispatcher, retry_base: timedelta) -> None:
    """Send the notifications that wait.

    Args:
        dispatcher: Sends them.
        retry_base: How soon the first of them may be due again.
    """

    async def send() -> None:
        await dispatcher.send_waiting()

    await _repeat(send, min(SENDING_INTERVAL, retry_base), "sending notifications")


async def _repeat(step: Callable[[], Awaitable[None]], interval: timedelta, what: str) -> None:
    away = False
    while True:
        try:
            await step()
            away = False
        except DATABASE_TROUBLE as error:
            # Once, not with every attempt.
            if not away:
                _LOGGER.warning("%s: %s", what, error)
            away = True
        await elapse(interval)
