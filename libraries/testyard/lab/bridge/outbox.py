"""Where events wait while the bus is away: a table; a file while that is away, too.

Nothing that was put here is lost by a crash of the service, and it comes out in the order in which it went in.
It comes out at least once: a crash between the publication of an event and its removal publishes it again. The
events have ids, by which everyone who stores them knows that they have them already.

Several processes of one service share the table and the directory, each with a number of its own. What a process
leaves behind is taken over by the next one that starts. Those that share the table have to share the directory.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from psycopg.rows import DictRow

from testyard.lab.bridge.breaker import CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.outbox_file import Headers, OutboxFile, Waiting, append_lines
from testyard.lab.database import DATABASE_TROUBLE, Pool, Statement, fetch, fetch_together

PROCESSES: Final = 1000
"""How many processes one service may have; the last digits of a position tell which of them it comes from."""

INSERTED_AT_ONCE: Final = 500

_AWAY: Final = (*DATABASE_TROUBLE, CircuitOpenError)

INSERT: Final = """
    INSERT INTO outbox (service, position, topic, key, value, headers)
    SELECT %(service)s, position, topic, key, value, headers::json
    FROM unnest(%(positions)s::bigint[], %(topics)s::text[], %(keys)s::bytea[], %(values)s::bytea[],
        %(headers)s::text[]) AS event (position, topic, key, value, headers)
    ON CONFLICT DO NOTHING
    RETURNING position"""
OLDEST: Final = """
    SELECT position, topic, key, value, headers FROM outbox
    WHERE service = %(service)s AND position %% %(processes)s = ANY(%(numbers)s)
    ORDER BY position LIMIT %(limit)s"""
# A removal that a crash of the database undoes does no harm: the event is published again.
WITHOUT_WAITING_FOR_THE_DISK: Final = "SELECT set_config('synchronous_commit', 'off', true)"
REMOVE: Final = "DELETE FROM outbox WHERE service = %(service)s AND position = ANY(%(positions)s)"
ALL: Final = "SELECT position, key FROM outbox WHERE service = %(service)s"


class Outbox:
    """The events of one service that wait.

    Args:
        pool: The table's connections.
        breaker: When nobody waits any more for the database.
        service: Whose events.
        directory: Where the file is.

    Attributes:
        refused: How many events the bus has refused for good; they are in a file beside the others.
    """

    def __init__(self, pool: Pool, breaker: CircuitBreaker, service: str, directory: Path) -> None:
        self.refused = 0
        self._pool = pool
        self._breaker = breaker
        self._service = service
        self._directory = directory
        self._files: dict[int, OutboxFile] = {}
        self._number = 0
        self._last = 0
        # Everything that waits, in the table, in a file or on its way there, with its key.
        self._keys_waiting: dict[int, str] = {}
        self._waiting_of_key: Counter[str] = Counter()
        self._in_table: set[int] = set()
        self._table_is_known = False
        # The database went away while these were written to it: they are in a file and maybe in the table.
        self._in_doubt: set[int] = set()
        # Published, but maybe still in the table.
        self._gone: set[int] = set()
        self._arriving: dict[int, Waiting] = {}
        self._alone = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._keys_waiting)

    @property
    def is_known(self) -> bool:
        """Whether it is known what an earlier process has left in the table: not before the database was there."""
        return self._table_is_known

    @property
    def in_file(self) -> int:
        """How many wait in the file."""
        return sum(len(file.events) for file in self._files.values())

    async def open(self) -> None:
        """Find what earlier processes have left; the table may be away.

        Raises:
            OSError: The file cannot be made or read.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        own = next((number for number in range(PROCESSES) if self._take(number)), None)
        if own is None:
            message = f"All {PROCESSES} files of the outbox of {self._service} in {self._directory} are in use."
            raise OSError(message)
        self._number = own
        name = re.compile(rf"{re.escape(self._service)}\.(\d+)\.jsonl")
        for path in self._directory.iterdir():
            if match := name.fullmatch(path.name):
                self._take(int(match[1]))
        async with self._alone:
            with suppress(*_AWAY):
                await self._know_the_table()

    async def close(self) -> None:
        """Let the next process have what waits."""
        async with self._alone:
            for file in self._files.values():
                file.close()
            self._files = {}

    def _take(self, number: int) -> bool:
        """Take over what a process has left; whether it has ended."""
        if number not in self._files:
            file = OutboxFile.take(self._directory / f"{self._service}.{number}.jsonl")
            if file is None:
                return False
            self._files[number] = file
            for event in file.events.values():
                self._expect(event.position, event.key)
        return True

    async def holds_up(self, key: str) -> bool:
        """Whether an event of this key has to wait, so that it does not overtake those that do."""
        if not self._table_is_known:
            async with self._alone:
                with suppress(*_AWAY):
                    await self._know_the_table()
            if not self._table_is_known:
                return True
        return key in self._waiting_of_key

    def new(self, topic: str, key: str, value: bytes, headers: Headers = ()) -> Waiting:
        """An event with the next place in the order, to be put."""
        passed = max(self._last // PROCESSES + 1, time.time_ns() // PROCESSES)
        self._last = passed * PROCESSES + self._number
        return Waiting(self._last, topic, key, value, headers)

    async def put(self, event: Waiting) -> None:
        """Keep an event until it can be published; on return it outlives a crash of this process.

        A put that is cancelled happens nevertheless, unless the process ends first.

        Args:
            event: From ``new``.

        Raises:
            OSError: Neither the table nor the file can take it.
        """
        self._expect(event.position, event.key)
        self._arriving[event.position] = event
        async with self._alone:
            # Whoever came first has kept those that came meanwhile.
            if event.position in self._arriving:
                try:
                    await self._keep_what_arrives()
                except OSError:
                    del self._arriving[event.position]
                    self._forget([event.position])
                    raise

    async def _keep_what_arrives(self) -> None:
        events = list(self._arriving.values())
        with suppress(*_AWAY):
            await self._insert(events)
            self._arrived(events)
            return
        file = self._files.get(self._number)
        if file is None:
            message = f"The outbox of {self._service} is closed."
            raise OSError(message)
        file.append(events)
        self._arrived(events)

    def _arrived(self, events: Iterable[Waiting]) -> None:
        for event in events:
            self._arriving.pop(event.position, None)

    async def oldest(self, limit: int) -> list[Waiting]:
        """The first ones, in order; while the table is away, those in the file that none in the table precede."""
        async with self._alone:
            if self._arriving:
                with suppress(OSError):
                    await self._keep_what_arrives()
            with suppress(*_AWAY):
                await self._empty_the_files()
                await self._remove_what_has_gone()
                return await self._read_table(limit)
            if not self._table_is_known:
                return []
            first = {self._keys_waiting[position] for position in self._in_table}
            events = sorted(self._events_in_files(), key=lambda event: event.position)
            return [event for event in events if event.key not in first][:limit]

    async def remove(self, published: Iterable[Waiting]) -> None:
        """Forget events that were published. While the table is away it is told later."""
        async with self._alone:
            positions = {event.position for event in published}
            for file in self._files.values():
                file.forget(positions)
            self._gone |= positions & (self._in_table | self._in_doubt)
            self._forget(positions)
            with suppress(*_AWAY):
                await self._remove_what_has_gone()

    async def refuse(self, event: Waiting, reason: str) -> None:
        """Set an event aside that can never be published, so that it holds up no other one.

        Args:
            event: The event.
            reason: What the bus has against it.

        Raises:
            OSError: It cannot be written; then it keeps waiting.
        """
        told = {
            "reason": reason,
            "topic": event.topic,
            "key": event.key,
            "value": event.value.decode(errors="backslashreplace"),
            "headers": event.headers,
        }
        append_lines(self._directory / f"{self._service}.{self._number}.refused", [json.dumps(told).encode()])
        self.refused += 1
        await self.remove([event])

    def _events_in_files(self) -> Iterator[Waiting]:
        for file in self._files.values():
            yield from file.events.values()

    def _expect(self, position: int, key: str) -> None:
        if position not in self._keys_waiting:
            self._keys_waiting[position] = key
            self._waiting_of_key[key] += 1
            self._last = max(self._last, position)

    def _forget(self, positions: Iterable[int]) -> None:
        for position in positions:
            key = self._keys_waiting.pop(position, None)
            self._in_table.discard(position)
            self._in_doubt.discard(position)
            if key is not None:
                self._waiting_of_key[key] -= 1
                if not self._waiting_of_key[key]:
                    del self._waiting_of_key[key]

    async def _know_the_table(self) -> None:
        if self._table_is_known:
            return
        rows = await self._fetch(ALL, {})
        numbers = {row["position"] % PROCESSES for row in rows}
        taken = {number for number in numbers if self._take(number)}
        for row in rows:
            if row["position"] % PROCESSES in taken:
                self._expect(row["position"], row["key"].decode())
                self._in_table.add(row["position"])
        self._table_is_known = True

    async def _empty_the_files(self) -> None:
        """Bring what is in the files into the table."""
        await self._know_the_table()
        for file in self._files.values():
            while file.events:
                events = list(file.events.values())[:INSERTED_AT_ONCE]
                await self._insert(events)
                file.forget([event.position for event in events])

    async def _insert(self, events: Sequence[Waiting]) -> None:
        positions = [event.position for event in events]
        parameters = {
            "positions": positions,
            "topics": [event.topic for event in events],
            "keys": [event.key.encode() for event in events],
            "values": [event.value for event in events],
            "headers": [json.dumps(event.headers) for event in events],
        }
        try:
            await self._fetch(INSERT, parameters)
        except DATABASE_TROUBLE:
            self._in_doubt.update(positions)
            raise
        self._in_doubt.difference_update(positions)
        self._in_table.update(positions)

    async def _read_table(self, limit: int) -> list[Waiting]:
        parameters = {"processes": PROCESSES, "numbers": list(self._files), "limit": limit}
        rows = await self._fetch(OLDEST, parameters)
        events = [
            Waiting(row["position"], row["topic"], row["key"].decode(), row["value"], _pairs(row["headers"]))
            for row in rows
        ]
        for event in events:
            self._expect(event.position, event.key)
            self._in_table.add(event.position)
        if len(events) < limit:
            # This is all there is: what else was in the table somebody has taken out of it.
            self._forget(self._in_table.difference(event.position for event in events))
        return events

    async def _remove_what_has_gone(self) -> None:
        if self._gone:
            gone = set(self._gone)
            parameters = {"service": self._service, "positions": list(gone)}
            with self._breaker.call():
                await fetch_together(
                    self._pool, Statement(WITHOUT_WAITING_FOR_THE_DISK), Statement(REMOVE, parameters)
                )
            self._gone -= gone

    async def _fetch(self, statement: str, parameters: dict[str, Any]) -> list[DictRow]:
        with self._breaker.call():
            return await fetch(self._pool, statement, {"service": self._service, **parameters})


def _pairs(headers: Iterable[Sequence[str]]) -> Headers:
    return tuple((name, text) for name, text in headers)
