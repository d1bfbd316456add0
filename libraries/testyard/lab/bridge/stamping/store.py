"""Stamps in the table ``metadata_stamps``, which the database adapter fills from this service's events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from testyard.lab.bridge.breaker import CircuitBreaker
from testyard.lab.bridge.stamping.records import StampRecord
from testyard.lab.database import Pool, fetch

_COLUMNS: Final = """id, file_hash, file_path, file_size, content_type, stamp_data, protocol_version,
    intelligence_data, version, op_id, namespace, metadata_version, created_at"""
FIND: Final = f"""
    SELECT {_COLUMNS} FROM metadata_stamps
    WHERE file_hash = ANY(%(hashes)s) OR op_id = ANY(%(operations)s)"""
OF_NAMESPACE: Final = f"""
    SELECT {_COLUMNS}, count(*) OVER () AS total FROM metadata_stamps
    WHERE namespace = %(namespace)s ORDER BY created_at, id LIMIT %(limit)s OFFSET %(offset)s"""
TOTAL: Final = "SELECT count(*) AS total FROM metadata_stamps WHERE namespace = %(namespace)s"

Key = str | UUID
"""What a stamp is looked for by: a file's hash, or an operation."""


class StampTable:
    """Reads stamps; what is asked while a query is under way goes into the next one together.

    Args:
        pool: The table's connections.
        breaker: When nobody waits any more for the database.
    """

    def __init__(self, pool: Pool, breaker: CircuitBreaker) -> None:
        self._pool = pool
        self._breaker = breaker
        self._asked: dict[Key, asyncio.Future[StampRecord | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key: Key) -> StampRecord | None:
        """The stamp of a hash, or the one that an operation has made.

        Raises:
            DatabaseUnavailableError: The database is away, or too slow.
            CircuitOpenError: It was not asked, as it has been away for a while.
            psycopg.Error: It refuses to answer.
        """
        return await asyncio.shield(self.looking_for(key))

    def looking_for(self, key: Key) -> asyncio.Future[StampRecord | None]:
        """Ask as ``find`` does, without waiting for the answer; who waits must not cancel what others wait for."""
        future = self._asked.get(key)
        if future is None:
            future = self._asked[key] = asyncio.get_running_loop().create_future()
            # Nobody may be waiting any more when the database turns out to be away.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="find stamps")
        return future

    async def close(self) -> None:
        """End what is under way."""
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait([self._asking])
        for future in self._asked.values():
            future.cancel()

    async def _ask(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await self._find(asked)
            except Exception as problem:
                for future in asked.values():
                    future.set_exception(problem)
            except asyncio.CancelledError:
                for future in asked.values():
                    future.cancel()
                raise
            else:
                for key, future in asked.items():
                    future.set_result(found.get(key))

    async def _find(self, keys: Mapping[Key, object]) -> dict[Key, StampRecord]:
        hashes = [key for key in keys if isinstance(key, str)]
        operations = [key for key in keys if isinstance(key, UUID)]
        rows = await self._fetch(FIND, {"hashes": hashes, "operations": operations})
        found: dict[Key, StampRecord] = {}
        for record in map(StampRecord.of_row, rows):
            found[record.file_hash] = record
            if record.op_id is not None:
                found.setdefault(record.op_id, record)
        return found

    async def of_namespace(self, namespace: str, limit: int, offset: int) -> tuple[list[StampRecord], int]:
        """The stamps of a namespace, oldest first, and how many there are altogether.

        Args:
            namespace: Whose.
            limit: How many at most.
            offset: How many of the oldest are left out.

        Raises:
            DatabaseUnavailableError: The database is away, or too slow.
            CircuitOpenError: It was not asked, as it has been away for a while.
            psycopg.Error: It refuses to answer.
        """
        wanted = {"namespace": namespace, "limit": limit, "offset": offset}
        rows = await self._fetch(OF_NAMESPACE, wanted)
        # A page beyond the last one has no row that could tell.
        total = (rows or await self._fetch(TOTAL, wanted))[0]["total"]
        return [StampRecord.of_row(row) for row in rows], total

    async def _fetch(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with self._breaker.call():
            return await fetch(self._pool, statement, parameters)
