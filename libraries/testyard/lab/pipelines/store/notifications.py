"""Failure notifications: where a customer wants them, what waits to be sent, what could not be sent.

Source: issue 4 (notifications: one per terminal failure, retries, a dead-letter row).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from testyard.lab.database import Connection, Pool, fetch, in_transaction
from testyard.lab.pipelines.records import Channel, DeadLetter, Notification, NotificationChannel

_CHANNELS = """
    SELECT channel, target FROM notification_channels
    WHERE customer_id = %(customer_id)s ORDER BY channel, target"""

_REMOVE_CHANNELS = "DELETE FROM notification_channels WHERE customer_id = %(customer_id)s"

_ADD_CHANNELS = """
    INSERT INTO notification_channels (customer_id, channel, target)
    SELECT %(customer_id)s, * FROM unnest(%(channels)s::text[], %(targets)s::text[]) ON CONFLICT DO NOTHING"""

# A lease instead of a lock: nothing is held while a message is on its way.
_LEASE = """
    WITH waiting AS MATERIALIZED (
        SELECT notification_id FROM notifications WHERE sent_at IS NULL AND not_before <= clock_timestamp()
        ORDER BY not_before LIMIT %(count)s FOR UPDATE SKIP LOCKED
    )
    UPDATE notifications AS notification
    SET attempts = notification.attempts + 1, not_before = clock_timestamp() + %(lease)s
    FROM waiting WHERE notification.notification_id = waiting.notification_id
    RETURNING notification.notification_id, customer_id, run_id, channel, target, subject, body, attempts"""

_SENT = """
    UPDATE notifications SET sent_at = clock_timestamp()
    WHERE notification_id = %(notification_id)s AND attempts = %(attempts)s AND sent_at IS NULL
    RETURNING notification_id"""

_POSTPONE = """
    UPDATE notifications SET not_before = clock_timestamp() + %(delay)s
    WHERE notification_id = %(notification_id)s AND attempts = %(attempts)s AND sent_at IS NULL
    RETURNING notification_id"""

_BURY = """
    WITH dead AS (
        DELETE FROM notifications
        WHERE notification_id = %(notification_id)s AND attempts = %(attempts)s AND sent_at IS NULL RETURNING *
    )
    INSERT INTO notification_dead_letters
        (notification_id, customer_id, run_id, channel, target, subject, body, attempts, last_error, created_at)
    SELECT notification_id, customer_id, run_id, channel, target, subject, body, attempts, %(error)s, service_now()
    FROM dead RETURNING notification_id"""

_DEAD_LETTERS = """
    SELECT notification_id, customer_id, run_id, channel, target, subject, body, attempts, last_error, created_at
    FROM notification_dead_letters WHERE customer_id = %(customer_id)s ORDER BY notification_id"""


async def channels(pool: Pool, customer_id: str) -> list[NotificationChannel]:
    """Where a customer's failure notifications go.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The channels.
    """
    rows = await fetch(pool, _CHANNELS, {"customer_id": customer_id})
    return [NotificationChannel(Channel(row["channel"]), row["target"]) for row in rows]


async def set_channels(pool: Pool, customer_id: str, wanted: Sequence[NotificationChannel]) -> None:
    """Replace where a customer's failure notifications go.

    Args:
        pool: The service's connections.
        customer_id: The customer, which must be there.
        wanted: The channels.
    """

    async def work(connection: Connection) -> None:
        await connection.execute(_REMOVE_CHANNELS, {"customer_id": customer_id})
        await connection.execute(
            _ADD_CHANNELS,
            {
                "customer_id": customer_id,
                "channels": [channel.channel for channel in wanted],
                "targets": [channel.target for channel in wanted],
            },
        )

    await in_transaction(pool, work)


async def lease(pool: Pool, count: int, lease_time: timedelta) -> list[Notification]:
    """Take notifications that wait to be sent; each counts as one more attempt.

    Args:
        pool: The service's connections.
        count: How many at most.
        lease_time: How long nobody else takes them. A sender that dies lets this time pass, then another sends.

    Returns:
        The notifications.
    """
    return [Notification.of(row) for row in await fetch(pool, _LEASE, {"count": count, "lease": lease_time})]


async def mark_sent(pool: Pool, notification: Notification) -> bool:
    """Write down that a notification was sent.

    Args:
        pool: The service's connections.
        notification: The leased notification.

    Returns:
        Whether it was still leased to this sender.
    """
    return bool(await fetch(pool, _SENT, _of(notification)))


async def postpone(pool: Pool, notification: Notification, delay: timedelta) -> bool:
    """Let a notification that could not be sent wait for its next attempt.

    Args:
        pool: The service's connections.
        notification: The leased notification.
        delay: How long it waits, in real time.

    Returns:
        Whether it was still leased to this sender.
    """
    return bool(await fetch(pool, _POSTPONE, {**_of(notification), "delay": delay}))


async def bury(pool: Pool, notification: Notification, error: str) -> bool:
    """Move a notification that could not be sent to the dead letters.

    Args:
        pool: The service's connections.
        notification: The leased notification.
        error: Why the last attempt failed.

    Returns:
        Whether it was still leased to this sender.
    """
    return bool(await fetch(pool, _BURY, {**_of(notification), "error": error}))


async def dead_letters(pool: Pool, customer_id: str) -> list[DeadLetter]:
    """A customer's notifications that could not be sent.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The dead letters, the oldest first.
    """
    return [DeadLetter.of(row) for row in await fetch(pool, _DEAD_LETTERS, {"customer_id": customer_id})]


def _of(notification: Notification) -> dict[str, int]:
    return {"notification_id": notification.notification_id, "attempts": notification.attempts}
