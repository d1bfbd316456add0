"""Where events wait while the bus is away: a table; a file while that is away, too.

Nothing that was put here is lost by a crash of the service, and it comes out in the order in which it went
in. It comes out at least once: a crash after an event was published and before it was removed publishes it
again, under the same event id.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psycopg.types.json import Jsonb

from testyard.lab.bridge.breaker import CircuitBreaker, CircuitOpenError
from testyard.lab.database import Connection, DatabaseUnavailableError, Pool, fetch, in_transaction

Headers = tuple[tuple[str, str], ...]

_AWAY: Final = (DatabaseUnavailableError, CircuitOpenError)

INSERT: Final = """
    INSERT INTO outbox (position, service, topic, key, value, headers)
    VALUES (%(position)s, %(service)s, %(topic)s, %(key)s, %(value)s, %(headers)s)
    ON CONFLICT (position) DO NOTHING"""
OLDEST: Final = """
    SELECT position, topic, key, value, headers FROM outbox
    WHERE service = %(service)s ORDER BY position LIMIT %(limit)s"""
REMOVE: Final = "DELETE FROM outbox WHERE position = ANY(%(positions)s)"
KEYS: Final = "SELECT key, count(*) AS waiting FROM outbox WHERE service = %(service)s GROUP BY key"


@dataclass(frozen=True, slots=True)
class Waiting:
    """One event that waits.

    Attributes:
        position: Its place in the order.
        topic: Where it is to be published.
        key: Under which key.
        value: The envelope.
        headers: The record's headers.
    """

    position: int
    topic: str
    key: str
    value: bytes
    headers: Headers = ()


class Outbox:
    """The events of one service that wait.

    Args:
        pool: The table's connections.
        breaker: When nobody waits any more for the database.
        service: Whose events.
        directory: Where the file is.
    """

    def __init__(self, pool: Pool, breaker: CircuitBreaker, service: str, directory: Path) -> None:
        self._pool = pool
        self._breaker = breaker
        self._service = service
        self._file = directory / f"{service}.jsonl"
        self._last = 0
        self._in_table: Counter[str] | None = None
        self._in_file: list[Waiting] = []

    def __len__(self) -> int:
        return (self._in_table.total() if self._in_table else 0) + len(self._in_file)

    @property
    def in_file(self) -> int:
        """How many wait in the file."""
        return len(self._in_file)

    async def open(self) -> None:
        """Find what an earlier process has left; the table may be away."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            # A process that was killed may have been writing its last line.
            complete = self._file.read_bytes().rpartition(b"\n")[0]
            self._in_file = [_read(line) for line in complete.splitlines()]
        with suppress(*_AWAY):
            await self._know_the_table()

    async def holds_up(self, key: str) -> bool:
        """Whether an event of this key has to wait, so that it does not overtake those that do."""
        if self._in_table is None:
            with suppress(*_AWAY):
                await self._know_the_table()
        if self._in_table is None:
            return True
        return self._in_table[key] > 0 or any(it.key == key for it in self._in_file)

    async def put(self, topic: str, key: str, value: bytes, headers: Headers = ()) -> None:
        """Keep an event until it can be published; on return it outlives a crash of this process.

        Raises:
            OSError: Neither the table nor the file can take it.
        """
        self._last = max(self._last + 1, time.time_ns())
        waiting = Waiting(self._last, topic, key, value, headers)
        # What is in the file is older than what goes to the table now.
        if await self._file_is_emptied():
            with suppress(*_AWAY):
                await self._insert([waiting])
                return
        with self._file.open("ab") as file:
            file.write(_line(waiting))
            file.flush()
            os.fsync(file.fileno())
        self._in_file.append(waiting)

    async def oldest(self, limit: int) -> list[Waiting]:
        """The first ones, in order; none while the table is away and has some that must come first."""
        if not await self._file_is_emptied():
            return self._in_file[:limit] if self._in_table is not None and not self._in_table.total() else []
        try:
            await self._know_the_table()
            with self._breaker.call():
                rows = await fetch(self._pool, OLDEST, {"service": self._service, "limit": limit})
        except _AWAY:
            return []
        return [
            Waiting(row["position"], row["topic"], row["key"], row["value"], _headers(row["headers"]))
            for row in rows
        ]

    async def remove(self, published: Sequence[Waiting]) -> bool:
        """Forget events that were published.

        Returns:
            Whether it could be done; if not they will be published again.
        """
        positions = {it.position for it in published}
        if any(it.position in positions for it in self._in_file):
            self._in_file = [it for it in self._in_file if it.position not in positions]
            self._write_file()
            return True
        try:
            await self._execute(REMOVE, [{"positions": list(positions)}])
        except _AWAY:
            return False
        if self._in_table is not None:
            self._in_table.subtract(it.key for it in published)
        return True

    async def _know_the_table(self) -> None:
        if self._in_table is None:
            with self._breaker.call():
                rows = await fetch(self._pool, KEYS, {"service": self._service})
            self._in_table = Counter({row["key"]: row["waiting"] for row in rows})

    async def _file_is_emptied(self) -> bool:
        """Bring what is in the file into the table; whether nothing is left in it."""
        if not self._in_file:
            return True
        moved = self._in_file
        try:
            await self._know_the_table()
            await self._insert(moved)
        except _AWAY:
            return False
        self._in_file = [it for it in self._in_file if it not in moved]
        self._write_file()
        return not self._in_file

    async def _insert(self, events: Iterable[Waiting]) -> None:
        events = list(events)
        await self._execute(
            INSERT,
            [
                {
                    "position": it.position,
                    "service": self._service,
                    "topic": it.topic,
                    "key": it.key,
                    "value": it.value,
                    "headers": Jsonb(it.headers),
                }
                for it in events
            ],
        )
        if self._in_table is not None:
            self._in_table.update(it.key for it in events)

    async def _execute(self, statement: str, parameters: Sequence[dict[str, Any]]) -> None:
        async def work(connection: Connection) -> None:
            async with connection.cursor() as cursor:
                await cursor.executemany(statement, parameters)

        with self._breaker.call():
            await in_transaction(self._pool, work)

    def _write_file(self) -> None:
        new = self._file.with_suffix(".new")
        with new.open("wb") as file:
            file.writelines(map(_line, self._in_file))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)


def _headers(pairs: Iterable[Sequence[str]]) -> Headers:
    return tuple((name, value) for name, value in pairs)


def _line(waiting: Waiting) -> bytes:
    fields = [waiting.position, waiting.topic, waiting.key, b64encode(waiting.value).decode(), waiting.headers]
    return json.dumps(fields).encode() + b"\n"


def _read(line: bytes) -> Waiting:
    position, topic, key, value, headers = json.loads(line)
    return Waiting(position, topic, key, b64decode(value), _headers(headers))
