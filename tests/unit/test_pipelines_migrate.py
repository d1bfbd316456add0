"""Migrations: once, in order, by several at once; and what is refused."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pipelines_support import private_database
from testyard.lab.database import DatabaseUnavailableError
from testyard.lab.migrations import Migration, MigrationError, applied_version, read_migrations
from testyard.lab.pipelines.database import open_pool
from testyard.lab.pipelines.migrate import MIGRATIONS, migrate
from testyard.lab.pipelines.states import TRANSITIONS
from testyard.lab.servers.postgresql import PostgresqlServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def empty_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A database without any table."""
    with private_database(postgresql_server) as url:
        yield url


def _rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


async def test_four_services_start_at_once_and_migrate_once(empty_url: str):
    count = len(read_migrations(MIGRATIONS))
    assert await asyncio.gather(*(migrate(empty_url) for _ in range(4))) == [count] * 4
    rows = _rows(empty_url, "SELECT version, name FROM schema_migrations ORDER BY 1")
    assert rows[:2] == [(1, "tables"), (2, "functions")]
    assert len(rows) == count
    async with open_pool(empty_url, test_clock=False, size=1, application_name="x") as pool:
        assert await applied_version(pool) == count


async def test_the_database_has_the_codes_transitions(empty_url: str):
    await migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("DELETE FROM run_states WHERE to_state = 'RUNNING'")
        connection.execute("INSERT INTO run_states VALUES ('COMPLETED', 'RUNNING')")
    await migrate(empty_url)
    steps = set(_rows(empty_url, "SELECT from_state, to_state FROM run_states"))
    assert steps == {
        (None, "SCHEDULED"),
        *((source.value, target.value) for source, targets in TRANSITIONS.items() for target in targets),
    }


async def test_a_changed_migration_is_refused(empty_url: str):
    first = Migration(1, "one", "CREATE TABLE one ()")
    assert await migrate_only(empty_url, first) == 1
    with pytest.raises(MigrationError, match=r"migration 1 \(one\) was changed after it had been applied"):
        await migrate_only(empty_url, Migration(1, "one", "CREATE TABLE one (a int)"))


async def test_a_newer_database_is_refused(empty_url: str):
    await migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (99, 'future', 'x')")
    with pytest.raises(MigrationError, match=r"the database is at version 99 \(future\), this service knows"):
        await migrate(empty_url)


async def test_a_failing_migration_leaves_nothing_and_says_which(empty_url: str):
    broken = Migration(2, "two", "CREATE TABLE two (); SELECT nonsense")
    with pytest.raises(MigrationError, match=r'migration 2 \(two\) failed: column "nonsense" does not exist'):
        await migrate_only(empty_url, Migration(1, "one", "CREATE TABLE one ()"), broken)
    assert _rows(empty_url, "SELECT FROM pg_tables WHERE schemaname = 'public'") == []


async def test_an_unreachable_database_is_said_to_be_so():
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1"):
        await migrate("postgresql://nobody@127.0.0.1:1/none")


def test_files_are_numbered_without_gaps(tmp_path: Path):
    (tmp_path / "001_one.sql").write_text("SELECT 1")
    (tmp_path / "003_three.sql").write_text("SELECT 3")
    with pytest.raises(MigrationError, match=r"are numbered \[1, 3\]"):
        read_migrations(tmp_path)
    (tmp_path / "last.sql").write_text("SELECT 4")
    with pytest.raises(MigrationError, match=r"last\.sql is not named as in 001_tables\.sql"):
        read_migrations(tmp_path)


async def migrate_only(url: str, *migrations: Migration) -> int:
    """Migrate with the states' table only, and what is given."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS other")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS other.run_states"
            " (from_state text, to_state text, UNIQUE NULLS NOT DISTINCT (from_state, to_state))"
        )
    separator = "&" if "?" in url else "?"
    return await migrate(f"{url}{separator}options=-c%20search_path%3Dpublic,other", migrations)
