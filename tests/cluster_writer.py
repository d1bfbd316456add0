"""A client that writes one row per commit to the primary, and the comparison of what it was told with the rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import psycopg
from testyard.core.deadline import Deadline, wait_until

TABLE = "DROP TABLE IF EXISTS written; CREATE TABLE written (number integer PRIMARY KEY)"
INSERT = "INSERT INTO written VALUES (%s)"
PAUSE = timedelta(milliseconds=3)
AGAIN = timedelta(milliseconds=20)


@dataclass(frozen=True)
class Comparison:
    """What came of the writes.

    Attributes:
        lost: Acknowledged, and not there.
        unexpected: There, and never sent.
    """

    lost: list[int]
    unexpected: list[int]


def compare(acknowledged: Iterable[int], sent: Iterable[int], present: Iterable[int]) -> Comparison:
    """What of the acknowledged rows is missing, and what is there that nobody sent."""
    there = set(present)
    return Comparison(sorted(set(acknowledged) - there), sorted(there - set(sent)))


@dataclass
class Writer:
    """Writes for the length of a ``with`` statement, in a thread of its own.

    It never cancels a statement and sets no timeout: PostgreSQL acknowledges a commit whose wait is cancelled,
    with a warning that it may not be replicated. What comes with any notice does not count as acknowledged.
    """

    conninfo: str
    acknowledged: list[int] = field(default_factory=list)
    sent: int = 0
    failures: list[str] = field(default_factory=list)
    longest_gap: timedelta = timedelta()
    _thread: threading.Thread | None = None
    _ends: threading.Event = field(default_factory=threading.Event)
    _notices: list[str] = field(default_factory=list)
    _last: float = 0.0

    def __enter__(self) -> Self:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(TABLE)
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._write, name="writer")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        assert self._thread is not None
        self._thread.join()

    def until(self, more: int, within: timedelta) -> None:
        """Wait until so many more rows have been acknowledged."""
        wanted = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged), lambda count: count >= wanted, Deadline(within), "writes")

    def present(self, conninfo: str | None = None) -> list[int]:
        """The rows that are there, by default on the primary."""
        with psycopg.connect(conninfo or self.conninfo) as connection:
            return [row[0] for row in connection.execute("SELECT number FROM written").fetchall()]

    def compared(self, conninfo: str | None = None) -> Comparison:
        """What came of the writes so far."""
        # In this order, as it goes on writing meanwhile.
        acknowledged = list(self.acknowledged)
        present = self.present(conninfo)
        return compare(acknowledged, range(1, self.sent + 1), present)

    def _write(self) -> None:
        while not self._ends.is_set():
            try:
                with psycopg.connect(self.conninfo, autocommit=True, connect_timeout=5) as connection:
                    connection.add_notice_handler(lambda notice: self._notices.append(str(notice.message_primary)))
                    self._write_on(connection)
            except psycopg.Error as problem:
                self.failures.append(str(problem).strip().splitlines()[0])
                self._ends.wait(AGAIN.total_seconds())

    def _write_on(self, connection: psycopg.Connection[Any]) -> None:
        while not self._ends.is_set():
            self.sent += 1
            self._notices.clear()
            connection.execute(INSERT, (self.sent,))
            if self._notices:
                self.failures.append(self._notices[0])
                continue
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, timedelta(seconds=now - self._last))
            self._last = now
            self.acknowledged.append(self.sent)
            self._ends.wait(PAUSE.total_seconds())
