"""What an agent asks its PostgreSQL, on one connection that it keeps."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from testyard.lab.cluster.database.lineage import parse_position
from testyard.lab.cluster.database.plan import MemberPlan

# One statement for all, as the manager asks every member many times a second. A standby's WAL ends where it has
# received to, or, when it has received nothing since it started, where it has replayed to.
STATE = """
    SELECT recovering,
           CASE WHEN recovering THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                ELSE pg_current_wal_flush_lsn() END,
           pg_last_wal_replay_lsn(),
           EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'),
           CASE WHEN NOT recovering THEN pg_walfile_name(pg_current_wal_flush_lsn()) END
    FROM pg_is_in_recovery() AS recovering
"""


class State(NamedTuple):
    """What a PostgreSQL says of itself.

    Attributes:
        recovering: Whether it is a standby.
        position: Where its WAL ends.
        replayed: Where the replay has come to; None for one that never was a standby since it started.
        streaming: Whether it receives WAL.
        timeline: The timeline's id on a primary; None on a standby, which does not tell.
    """

    recovering: bool
    position: int
    replayed: int | None
    streaming: bool
    timeline: int | None


class QueryError(Exception):
    """PostgreSQL did not answer, or not in time."""


class Queries:
    """The agent's connection; made again when it has broken.

    Args:
        plan: Where the server is, and the superuser's password.
    """

    def __init__(self, plan: MemberPlan) -> None:
        self._plan = plan
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._lock = asyncio.Lock()

    async def state(self, within: timedelta) -> State:
        """What the server is and how far it has come.

        Raises:
            QueryError: No answer in time.
        """
        row = await self.row(STATE, within)
        recovering, position, replayed, streaming, name = row
        return State(
            recovering,
            parse_position(position),
            parse_position(replayed) if replayed else None,
            streaming,
            int(name[:8], 16) if name else None,
        )

    async def row(self, statement: str, within: timedelta) -> tuple[Any, ...]:
        """The first row that a statement gives.

        Raises:
            QueryError: No answer in time.
        """
        try:
            async with asyncio.timeout(within.total_seconds()), self._lock:
                try:
                    connection = self._connection or await self._connect()
                    cursor = await connection.execute(statement.encode())
                    row = await cursor.fetchone()
                except BaseException:
                    await self.close()
                    raise
        except (psycopg.Error, TimeoutError) as problem:
            raise QueryError(str(problem).strip() or "no answer in time") from None
        assert row is not None
        return row

    async def _connect(self) -> psycopg.AsyncConnection[TupleRow]:
        plan = self._plan
        self._connection = await psycopg.AsyncConnection.connect(
            host=plan.host,
            port=plan.port,
            user=plan.accounts.superuser,
            password=plan.accounts.superuser_password,
            dbname=plan.accounts.database,
            application_name="agent",
            sslmode="disable",
            gssencmode="disable",
            autocommit=True,
        )
        return self._connection

    async def close(self) -> None:
        """End the connection; safe to call again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()
