"""The migrations of the pipeline service's database, applied at its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from testyard.lab.migrations import Migration, apply_migrations, read_migrations
from testyard.lab.pipelines.states import TRANSITIONS, RunState

MIGRATIONS: Final = Path(__file__).parent / "migrations"


async def migrate(url: str, migrations: Sequence[Migration] | None = None) -> int:
    """Bring a database to this version of the service; several processes may do so at once.

    Args:
        url: Where the database is.
        migrations: What to apply; the service's own by default.

    Returns:
        The version the database is at now.

    Raises:
        MigrationError: A migration was changed after it had been applied, the database is of a newer version, or a
            statement failed.
        DatabaseUnavailableError: The database is away.
    """
    wanted = read_migrations(MIGRATIONS) if migrations is None else migrations
    return await apply_migrations(url, wanted, finish=_write_transitions)


async def _write_transitions(connection: AsyncConnection[TupleRow]) -> None:
    """Give the database the transition table of the code, which its trigger enforces."""
    steps: list[tuple[str | None, str]] = [(None, RunState.SCHEDULED)]
    steps += [(source, target) for source, targets in TRANSITIONS.items() for target in sorted(targets)]
    parameters = {"sources": [source for source, _ in steps], "targets": [target for _, target in steps]}
    await connection.execute(
        """
        DELETE FROM run_states WHERE NOT EXISTS (
            SELECT FROM unnest(%(sources)s::text[], %(targets)s::text[]) AS step (source, target)
            WHERE step.source IS NOT DISTINCT FROM from_state AND step.target = to_state
        )""",
        parameters,
    )
    await connection.execute(
        """
        INSERT INTO run_states (from_state, to_state)
        SELECT * FROM unnest(%(sources)s::text[], %(targets)s::text[]) ON CONFLICT DO NOTHING""",
        parameters,
    )
