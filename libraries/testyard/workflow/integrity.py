"""What ``data_integrity`` compares: a seeded table, and every write that was acknowledged while a fault was on.

The seeded table's rows follow from a seed, so that what must be there is known without asking any database. Row
count and checksum are computed by the database and compared with what the seed gives (contract 2.2). The writer
commits one row at a time and remembers what it was told: acknowledged, refused, or indeterminate when the
connection broke, or nobody answered, after the row had been sent. An acknowledged row must be there afterwards, an
indeterminate one may be, and no other row may.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Self

import psycopg

from testyard.core.deadline import Deadline, seconds
from testyard.workflow.database import Session, reason

SEEDED_TABLE = "testyard_integrity"
WRITES_TABLE = "testyard_writes"
SEED_FILE = ".integrity.json"
# A row every 20 ms shows a fail-over well, and leaves the cluster alone otherwise.
PACE = timedelta(milliseconds=20)
# Between two looks for a primary, at least.
SEARCH = timedelta(milliseconds=50)
# Longer than a healthy commit takes anywhere, shorter than a fail-over: the next primary is looked for.
ANSWER = timedelta(seconds=2)
# Classes of SQLSTATE after which a commit may have happened: shut down, connection, completion unknown, internal.
UNDECIDED = ("57", "08", "40003", "XX")
NAMED_AT_MOST = 20


@dataclass(frozen=True)
class Seed:
    """From what the seeded table's rows are made.

    Attributes:
        seed: Any text.
        rows: How many rows.

    Example:
        >>> Seed("a", 2).rows
        2
    """

    seed: str
    rows: int

    @property
    def checksum(self) -> str:
        """The MD5 of all rows, in their order, as the database computes it."""
        lines = (f"{number}:{self.payload(number)}" for number in range(1, self.rows + 1))
        return hashlib.md5("\n".join(lines).encode(), usedforsecurity=False).hexdigest()

    def payload(self, number: int) -> str:
        """A row's text."""
        return hashlib.md5(f"{self.seed}:{number}".encode(), usedforsecurity=False).hexdigest()

    def create(self, session: Session, within: timedelta) -> None:
        """Make the table on the primary, in one transaction.

        Raises:
            psycopg.Error: The database does not take it.
        """
        create = f"create table if not exists {SEEDED_TABLE} (id bigint primary key, payload text not null)"
        session.run(create, within=within)
        # One statement is one transaction: nobody ever sees a part of the rows.
        session.run(
            f"insert into {SEEDED_TABLE}"
            " select number, md5($1::text || ':' || number) from generate_series(1, $2::bigint) as number"
            " on conflict (id) do update set payload = excluded.payload",
            self.seed,
            self.rows,
            within=within,
        )

    def compare(self, session: Session, within: timedelta) -> tuple[bool, str]:
        """Have the database count and add up the rows.

        Returns:
            Whether they are the seed's, and what was found.
        """
        try:
            ((count, checksum),) = session.run(
                "select count(*), coalesce(md5(string_agg(id || ':' || payload, e'\\n' order by id)), 'none')"
                f" from {SEEDED_TABLE}",
                within=within,
            )
        except psycopg.errors.UndefinedTable:
            return False, f"the seeded table {SEEDED_TABLE} is missing"
        if (count, checksum) == (str(self.rows), self.checksum):
            return True, f"the seeded table has its {count} rows and its checksum {checksum}"
        return False, (
            f"the seeded table has {count} rows with checksum {checksum},"
            f" expected {self.rows} rows with checksum {self.checksum}"
        )

    def save(self, directory: Path) -> None:
        """Note in the deployment's directory that the table was made."""
        content = json.dumps({"seed": self.seed, "rows": self.rows})
        temporary = directory / f"{SEED_FILE}.new"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(directory / SEED_FILE)

    @classmethod
    def load(cls, directory: Path) -> Seed | None:
        """What :meth:`save` noted; nothing when no table was made."""
        try:
            content = json.loads((directory / SEED_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(str(content["seed"]), int(content["rows"]))


class Outcome(Enum):
    """What the writer was told about a row."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True)
class Write:
    """One row that the writer sent.

    Attributes:
        number: The row's id; never used twice.
        payload: Its text.
        node: Whose database it was sent to.
        outcome: What came back.
        ended: When.
        detail: Why it was not acknowledged.
    """

    number: int
    payload: str
    node: str
    outcome: Outcome
    ended: datetime
    detail: str = ""

    def __str__(self) -> str:
        return f"row {self.number} ({self.outcome.value} by {self.node} at {self.ended:%H:%M:%S.%f})"


@dataclass(frozen=True)
class Comparison:
    """What became of the writes.

    Attributes:
        writes: All that were sent.
        lost: Acknowledged, but not there, or there with another text.
        unexpected: Rows that are there although nobody sent them, or although they were refused.
    """

    writes: Sequence[Write]
    lost: Sequence[Write]
    unexpected: Mapping[int, str]

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and nothing came from nowhere."""
        return not self.lost and not self.unexpected

    def count(self, outcome: Outcome) -> int:
        """How many writes ended like this."""
        return sum(write.outcome is outcome for write in self.writes)

    def __str__(self) -> str:
        told = (
            f"{len(self.writes)} writes: {self.count(Outcome.ACKNOWLEDGED)} acknowledged,"
            f" {self.count(Outcome.INDETERMINATE)} indeterminate, {self.count(Outcome.REFUSED)} refused"
        )
        if self.lost:
            told += f"; {len(self.lost)} acknowledged writes are lost: {_named(self.lost)}"
        else:
            told += "; none lost"
        if self.unexpected:
            rows = [f"row {number} ({payload})" for number, payload in self.unexpected.items()]
            told += f"; {len(rows)} unexpected rows: {_named(rows)}"
        return told


def compare(writes: Sequence[Write], found: Mapping[int, str]) -> Comparison:
    """Hold what the writer was told against the rows that are there.

    Args:
        writes: What was sent.
        found: The rows' texts by id.

    Example:
        >>> sent = Write(1, "a", "n11", Outcome.ACKNOWLEDGED, datetime(2025, 1, 1, tzinfo=UTC))
        >>> [write.number for write in compare([sent], {}).lost]
        [1]
    """
    possible = {write.number: write.payload for write in writes if write.outcome is not Outcome.REFUSED}
    lost = [it for it in writes if it.outcome is Outcome.ACKNOWLEDGED and found.get(it.number) != it.payload]
    unexpected = {number: payload for number, payload in found.items() if possible.get(number) != payload}
    return Comparison(tuple(writes), lost, unexpected)


def written_rows(session: Session, within: timedelta) -> dict[int, str]:
    """The rows of the writer's table; none when the table is missing."""
    try:
        rows = session.run(f"select id, payload from {WRITES_TABLE}", within=within)
    except psycopg.errors.UndefinedTable:
        return {}
    return {int(number or 0): payload or "" for number, payload in rows}


class AcknowledgedWriter:
    """Commits one row after the other from a thread of its own, and finds the primary again after each fail-over.

    Args:
        open_primary: Gives a session on the node that is the primary now, and the node's name; raises
            ``psycopg.OperationalError`` while there is none.
        pace: Pause between two rows.
        answer: How long one commit may take before the primary is looked for again.
        first: Number of the first row; from 1 on, rows that are there are dropped, else they are continued.

    Example:
        >>> with AcknowledgedWriter(cluster.open_primary) as writer:  # doctest: +SKIP
        ...     crash_the_primary()
        >>> compare(writer.writes, found).passed  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        open_primary: Callable[[], tuple[str, Session]],
        *,
        pace: timedelta = PACE,
        answer: timedelta = ANSWER,
        first: int = 1,
    ) -> None:
        self._open_primary = open_primary
        self._pace = pace
        self._answer = answer
        self._first = first
        self._writes: list[Write] = []
        self._acknowledged = 0
        # Guards everything above; notified after each write, when the writer fails and when it is to stop.
        self._changed = threading.Condition()
        self._stopping = False
        self._failure: BaseException | None = None
        self._waits_for = ""
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def writes(self) -> Sequence[Write]:
        """What was sent so far."""
        with self._changed:
            return tuple(self._writes)

    @property
    def running(self) -> bool:
        """Whether rows are being sent."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Make the table, and begin to write; returns when the first row was acknowledged.

        Raises:
            psycopg.Error: There is no primary, or it does not take the table.
        """
        node, session = self._open_primary()
        with session:
            if self._first == 1:
                session.run(f"drop table if exists {WRITES_TABLE}", within=self._answer)
            create = f"create table if not exists {WRITES_TABLE} (id bigint primary key, payload text not null)"
            session.run(create, within=self._answer)
        self._thread = threading.Thread(target=self._write, name=f"writer on {node}", daemon=True)
        self._thread.start()
        self.wait_for_acknowledged(1, Deadline(3 * self._answer))

    def wait_for_acknowledged(self, more: int, deadline: Deadline) -> None:
        """Wait until that many further rows were acknowledged: the cluster takes writes (again).

        Raises:
            psycopg.OperationalError: Not in time; says what the writer waits for.
        """
        with self._changed:
            wanted = self._acknowledged + more
            in_time = self._changed.wait_for(
                lambda: self._acknowledged >= wanted or self._failure is not None,
                deadline.remaining.total_seconds(),
            )
            if self._failure is not None:
                raise self._failure
        if not in_time:
            why = self._waits_for or "nothing was refused"
            message = f"{more} more writes were not acknowledged in {seconds(deadline.within)}: {why}."
            raise psycopg.OperationalError(message)

    def stop(self) -> None:
        """Stop writing; returns when the last row's outcome is known. Safe to call again.

        Raises:
            BaseException: What ended the writer before it was told to stop.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        number, session, node = self._first, None, ""
        try:
            while not self._stopping:
                if session is None:
                    node, session = self._find_primary()
                else:
                    write = self._send(session, node, number)
                    number += 1
                    if write.outcome is not Outcome.ACKNOWLEDGED:
                        session.close()
                        session = None
                    with self._changed:
                        self._writes.append(write)
                        self._acknowledged += write.outcome is Outcome.ACKNOWLEDGED
                        self._changed.notify_all()
                self._pause(self._pace if session is not None else max(self._pace, SEARCH))
        except BaseException as problem:  # told by whoever waits for the writer: a thread has nobody to tell
            with self._changed:
                self._failure = problem
                self._changed.notify_all()
        finally:
            if session is not None:
                session.close()

    def _find_primary(self) -> tuple[str, Session | None]:
        try:
            return self._open_primary()
        except psycopg.OperationalError as problem:
            self._waits_for = reason(problem)
            return "", None

    def _send(self, session: Session, node: str, number: int) -> Write:
        payload = hashlib.md5(f"write {number}".encode(), usedforsecurity=False).hexdigest()
        outcome, detail = Outcome.ACKNOWLEDGED, ""
        try:
            insert = f"insert into {WRITES_TABLE} (id, payload) values ($1::bigint, $2::text)"
            session.run(insert, number, payload, within=self._answer)
        except psycopg.Error as problem:
            # With a state the server has spoken, instead of a commit; without one it broke off, did not answer in
            # time, or committed without its standby.
            refused = problem.sqlstate is not None and not problem.sqlstate.startswith(UNDECIDED)
            outcome, detail = (Outcome.REFUSED if refused else Outcome.INDETERMINATE), reason(problem)
        self._waits_for = detail
        return Write(number, payload, node, outcome, datetime.now(UTC), detail)

    def _pause(self, duration: timedelta) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, duration.total_seconds())


class IntegrityWatch:
    """What ``data_integrity`` knows of one deployment: its seeded table, and the writes while faults were on.

    The seeded table is made when a deployment is ready; one that others made gets it at the first look, which
    says so. A watch begins with an empty table of writes: what an earlier process wrote, it cannot know.

    Args:
        directory: The deployment's.
        open_primary: As for :class:`AcknowledgedWriter`.
        seed: What the seeded table is made from, should there be none yet.
        answer: What computing the checksum may take.
    """

    def __init__(
        self, directory: Path, open_primary: Callable[[], tuple[str, Session]], seed: Seed, *, answer: timedelta
    ) -> None:
        self._directory = directory
        self._open_primary = open_primary
        self._seed = seed
        self._answer = answer
        self._writer: AcknowledgedWriter | None = None
        self._writes: list[Write] = []
        self._not_written = ""
        # Steps that run beside each other share one writer.
        self._lock = threading.Lock()

    @property
    def seeded(self) -> bool:
        """Whether the seeded table was made."""
        return Seed.load(self._directory) is not None

    def seed(self) -> Seed:
        """Make the seeded table on the primary, and note that it is there.

        Returns:
            What it was made from.

        Raises:
            psycopg.Error: There is no primary, or it does not take the table.
        """
        _, session = self._open_primary()
        with session:
            self._seed.create(session, self._answer)
        self._seed.save(self._directory)
        return self._seed

    def keep_writing(self) -> str:
        """See to it that rows are written from now on; when it returns, one was acknowledged.

        Returns:
            Why nothing is written, empty when rows are: before a fault there may already be no primary.
        """
        with self._lock:
            if self._writer is not None and self._writer.running:
                return ""
            self._collect()
            writer = AcknowledgedWriter(self._open_primary, first=len(self._writes) + 1)
            self._writer = writer
            try:
                writer.start()
            except psycopg.Error as problem:
                self._not_written = reason(problem)
                self._collect()
            return self._not_written

    def pause(self) -> None:
        """Write no more, and keep what was written in mind."""
        with self._lock:
            self._collect()

    def measure(self) -> tuple[bool, str]:
        """Stop writing, and hold everything that must be there against what the primary has.

        Returns:
            Whether everything is there and nothing else, and what was found.

        Raises:
            psycopg.OperationalError: There is no primary to ask.
        """
        with self._lock:
            self._collect()
            node, session = self._open_primary()
            with session:
                intact, found = self._seeded_rows(session)
                comparison = compare(self._writes, written_rows(session, self._answer) if self._writes else {})
        told = f"{node}: {found}; {comparison}"
        if self._not_written:
            told += f"; a fault found no primary to write to ({self._not_written})"
        return intact and comparison.passed, told

    def _seeded_rows(self, session: Session) -> tuple[bool, str]:
        made = Seed.load(self._directory)
        if made is not None:
            return made.compare(session, self._answer)
        self._seed.create(session, self._answer)
        self._seed.save(self._directory)
        intact, found = self._seed.compare(session, self._answer)
        return intact, f"nothing was seeded before, so this is only the beginning: {found}"

    def _collect(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.stop()
            finally:
                self._writes.extend(writer.writes)


def _named(items: Sequence[object]) -> str:
    named = ", ".join(map(str, items[:NAMED_AT_MOST]))
    return named if len(items) <= NAMED_AT_MOST else f"{named} and {len(items) - NAMED_AT_MOST} more"
