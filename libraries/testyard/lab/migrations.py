"""Versioned migrations of a service's database, applied at its start."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from testyard.core.errors import UserError
from testyard.lab.database import Pool, fetch, unavailable_when_lost

_FILE_NAME: Final = re.compile(r"(\d{3})_(\w+)\.sql")
_LOCK: Final = 7_319_001

_CREATE_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )"""


class MigrationError(UserError):
    """The database cannot be brought to this version of the service."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of statements.

    Args:
        version: Its number, which gives the order.
        name: What it is about.
        statements: The SQL.
    """

    version: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the statements, to notice a file that was changed after it had been applied."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


def read_migrations(directory: Path) -> list[Migration]:
    """Read the migrations of a directory.

    Args:
        directory: Holds files such as ``001_tables.sql``.

    Returns:
        The migrations in order.

    Raises:
        MigrationError: A file that is not named so, or a number that is missing or twice there.
    """
    migrations = []
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"the migration {path.name} is not named as in 001_tables.sql")
        migrations.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    versions = [migration.version for migration in migrations]
    if versions != list(range(1, len(versions) + 1)):
        raise MigrationError(f"the migrations in {directory.name} are numbered {versions}, expected 1, 2, 3 ...")
    return migrations


async def apply_migrations(
    url: str,
    wanted: Sequence[Migration],
    *,
    finish: Callable[[AsyncConnection[TupleRow]], Awaitable[None]] | None = None,
) -> int:
    """Bring a database to this version of a service; several processes may do so at once.

    Args:
        url: Where the database is.
        wanted: The service's migrations.
        finish: What is done after them, in the same transaction.

    Returns:
        The version the database is at now.

    Raises:
        MigrationError: A migration was changed after it had been applied, the database is of a newer version, or a
            statement failed.
        DatabaseUnavailableError: The database is away.
    """
    with unavailable_when_lost():
        # One transaction: a migration that fails leaves nothing behind.
        async with await AsyncConnection.connect(url, connect_timeout=5) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            await connection.execute(_CREATE_TABLE)
            for migration in await _missing(connection, wanted):
                await _apply(connection, migration)
            if finish is not None:
                await finish(connection)
    return len(wanted)


async def _missing(connection: AsyncConnection[TupleRow], wanted: Sequence[Migration]) -> Sequence[Migration]:
    """What has not been applied yet, after checking what has been."""
    cursor = await connection.execute("SELECT version, name, checksum FROM schema_migrations ORDER BY version")
    applied = await cursor.fetchall()
    if len(applied) > len(wanted):
        raise MigrationError(
            f"the database is at version {applied[-1][0]} ({applied[-1][1]}), "
            f"this service knows {len(wanted)}: start a newer service or use another database"
        )
    for migration, (version, name, checksum) in zip(wanted, applied, strict=False):
        if (migration.version, migration.checksum) != (version, checksum):
            raise MigrationError(
                f"migration {version} ({name}) was changed after it had been applied to this database: "
                "add a new migration instead, or use a new database"
            )
    return wanted[len(applied) :]


async def _apply(connection: AsyncConnection[TupleRow], migration: Migration) -> None:
    try:
        await connection.execute(migration.statements)
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError):
            raise
        first_line = str(error).splitlines()[0]
        raise MigrationError(f"migration {migration.version} ({migration.name}) failed: {first_line}") from error
    await connection.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
        (migration.version, migration.name, migration.checksum),
    )


async def applied_version(pool: Pool) -> int:
    """The version the database is at.

    Args:
        pool: The service's connections.

    Returns:
        The version of the last applied migration.
    """
    rows = await fetch(pool, "SELECT coalesce(max(version), 0) AS version FROM schema_migrations")
    return int(rows[0]["version"])
