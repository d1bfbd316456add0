"""The services' tables: their migrations and their connections."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from testyard.lab.bridge.settings import DatabaseSettings
from testyard.lab.database import Pool, open_pool, session_url
from testyard.lab.migrations import apply_migrations, read_migrations

MIGRATIONS: Final = Path(__file__).parent / "migrations"


async def migrate(url: str) -> int:
    """Bring the database to this version of the services; several of them may do so at once.

    Args:
        url: Where it is.

    Returns:
        The version it is at now.

    Raises:
        MigrationError: It is of a newer version, or a migration was changed after it had been applied.
        DatabaseUnavailableError: It is away.
    """
    return await apply_migrations(url, read_migrations(MIGRATIONS))


def open_tables(url: str, settings: DatabaseSettings, service: str) -> Pool:
    """The connections of one service, opened by ``async with``; also while the database is away.

    Args:
        url: Where it is.
        settings: How it is reached.
        service: What ``pg_stat_activity`` shows.
    """
    session = session_url(url, application_name=service, timeout=settings.timeout)
    return open_pool(session, size=settings.pool, application_name=service, timeout=settings.timeout)
