"""The pipeline service's connections to PostgreSQL: its sessions, and what keeps a day from turning."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from psycopg.rows import DictRow

from testyard.lab import database
from testyard.lab.database import DEFAULT_TIMEOUT, Pool, Statement, fetch_together

# Any number, the same in every process: held shared by whoever touches quotas, exclusively by who opens a day.
DAY_LOCK: Final = 7_319_002
LOCK_DAY_SHARED: Final = f"SELECT pg_advisory_xact_lock_shared({DAY_LOCK})"
LOCK_DAY: Final = f"SELECT pg_advisory_xact_lock({DAY_LOCK})"


def session_url(url: str, *, test_clock: bool, application_name: str, timeout: timedelta = DEFAULT_TIMEOUT) -> str:
    """The connection string of one of the service's sessions.

    Args:
        url: Where the database is.
        test_clock: Whether ``service_now()`` follows the test clock in this session.
        application_name: What ``pg_stat_activity`` shows.
        timeout: How long a statement may take; connecting, too, in whole seconds and at least two.

    Returns:
        The URL's connection parameters with the session's settings; options of the URL are kept.
    """
    clock = {"testyard.test_clock": "on" if test_clock else "off"}
    return database.session_url(url, application_name=application_name, timeout=timeout, settings=clock)


def open_pool(
    url: str, *, test_clock: bool, size: int, application_name: str, timeout: timedelta = DEFAULT_TIMEOUT
) -> Pool:
    """A pool of autocommitting connections, checked on checkout, that is opened by ``async with``.

    Args:
        url: Where the database is.
        test_clock: Whether ``service_now()`` follows the test clock.
        size: Connections at most; one is kept open.
        application_name: What ``pg_stat_activity`` shows.
        timeout: How long a statement may take, or the wait for a connection; a transaction twice as long. After
            that the database counts as away.

    Returns:
        The pool, not yet open. It opens also while the database is away.

    Example:
        >>> async with open_pool(url, test_clock=False, size=4, application_name="api") as pool:
        ...     runs = await find(pool)
    """
    session = session_url(url, test_clock=test_clock, application_name=application_name, timeout=timeout)
    return database.open_pool(session, size=size, application_name=application_name, timeout=timeout)


async def fetch_within_day(pool: Pool, *statements: Statement) -> list[list[DictRow]]:
    """``fetch_together`` for what touches quotas: the day cannot turn meanwhile.

    A row that a new day brings would not be in a statement's snapshot: so they first wait for the day's lock.

    Args:
        pool: Where the connection comes from.
        statements: What to run, in this order.

    Returns:
        The rows of each.

    Raises:
        DatabaseUnavailableError: The database is away, or too slow.
        psycopg.Error: Anything else; then none of them has done anything.
    """
    _, *rows = await fetch_together(pool, Statement(LOCK_DAY_SHARED), *statements)
    return rows
