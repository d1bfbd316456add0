"""One connection to a database, which is made again when it was lost between two statements."""

from __future__ import annotations

import select
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import NotMetError, UserError
from testyard.sql.problems import (
    LostConnectionError,
    StatementError,
    StatementTimeoutError,
    why_not_connected,
    why_refused,
)
from testyard.sql.statements import Parameters, Statement
from testyard.sql.target import Target

Result = TypeVar("Result")
Row = dict[str, Any]

CONNECT_TIMEOUT = timedelta(seconds=10)
STATEMENT_TIMEOUT = timedelta(seconds=30)
# How much longer than the server's own statement timeout an answer may take to come back.
GRACE = timedelta(seconds=2)
TERMINATE_TIMEOUT = timedelta(seconds=5)

BACKENDS = """
    SELECT pid, application_name, usename AS "user", datname AS database, state, query, backend_start
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
      AND (%(application_name)s::text IS NULL OR application_name = %(application_name)s)
      AND (%(pid)s::int IS NULL OR pid = %(pid)s)
    ORDER BY pid
"""
TERMINATE = f"""
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, %(milliseconds)s)) AS terminated
    FROM ({BACKENDS}) AS backends
"""


class IsolationLevel(Enum):
    """What a transaction sees of others (SQL standard; PostgreSQL manual, 13.2)."""

    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


class _BoundedConnection(psycopg.Connection[DictRow]):
    """A connection on which no wait for the server is endless, also when the network swallows its answers."""

    longest_wait: timedelta | None = None

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """Wait for an answer, at most ``longest_wait``."""
        if timeout is None and self.longest_wait is not None:
            timeout = self.longest_wait.total_seconds()
        return super().wait(gen, interval, timeout)


def connect(target: Target, application_name: str, within: timedelta) -> _BoundedConnection:
    """A new connection that commits every statement.

    Args:
        target: Where to.
        application_name: How the server lists it.
        within: Give up after this time; whole seconds, at least 2.

    Raises:
        CannotConnectError: Nothing answers, or the credentials are refused; never quotes the password.
    """
    try:
        return _BoundedConnection.connect(
            make_conninfo(
                "",
                **{"application_name": application_name, **target.parameters},
                client_encoding="utf8",
                connect_timeout=max(round(within.total_seconds()), 2),
            ),
            autocommit=True,
            row_factory=dict_row,
        )
    except psycopg.Error as problem:
        raise why_not_connected(problem, target) from None


class Database:
    """A connection to one database.

    A connection that was lost is made again for the next statement, unless a transaction was open on it.

    Args:
        target: Where to.
        application_name: How the server lists the connection.
        within: Give up connecting after this time.

    Raises:
        CannotConnectError: Nothing answers, or the credentials are refused.

    Example:
        >>> with_runs = Database(Target.from_url(url))              # doctest: +SKIP
        >>> with_runs.query("SELECT * FROM runs WHERE state = %(state)s", {"state": "FAILED"})
    """

    def __init__(
        self, target: Target, *, application_name: str = "testyard", within: timedelta = CONNECT_TIMEOUT
    ) -> None:
        self.target = target
        self._application_name = application_name
        self._within = within
        self._connection = connect(target, application_name, within)
        self._statement_timeout: timedelta | None = None
        self._transaction_open = False

    @property
    def pid(self) -> int:
        """The process id of the connection's backend."""
        return self._connection.info.backend_pid

    @property
    def in_transaction(self) -> bool:
        """Whether ``begin`` was called and neither ``commit`` nor ``roll_back`` yet."""
        return self._transaction_open

    def close(self) -> None:
        """Close the connection; what was not committed is rolled back."""
        self._transaction_open = False
        self._connection.close()

    def query(
        self, text: str, parameters: Parameters = None, *, timeout: timedelta = STATEMENT_TIMEOUT
    ) -> list[Row]:
        """Send a statement and read its rows.

        Args:
            text: The statement, with ``%s`` or ``%(name)s`` where a value goes.
            parameters: The values, by name or by position.
            timeout: Cancel the statement after this time.

        Returns:
            The rows by column name.

        Raises:
            StatementError: The server refused it, or it took too long.
            LostConnectionError: The connection ended.
            UserError: A parameter is missing or too many, it returns no rows, or two columns have one name.
        """
        cursor = self._send(Statement(text, parameters), timeout)
        columns = _columns(cursor)
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            message = f"Two columns of the result are called {', '.join(twice)}: name one with AS."
            raise UserError(message)
        return cursor.fetchall()

    def query_one(
        self, text: str, parameters: Parameters = None, *, timeout: timedelta = STATEMENT_TIMEOUT
    ) -> Row:
        """Send a statement and read its only row; see ``query``.

        Raises:
            NotMetError: It returns no row, or more than one.
        """
        rows = self.query(text, parameters, timeout=timeout)
        if len(rows) != 1:
            first = f"; the first two: {rows[0]} and {rows[1]}" if rows else ""
            message = f"The query should return one row, but it returned {len(rows) or 'none'}{first}."
            raise NotMetError(message)
        return rows[0]

    def query_value(
        self, text: str, parameters: Parameters = None, *, timeout: timedelta = STATEMENT_TIMEOUT
    ) -> Any:
        """Send a statement and read the only column of its only row; see ``query``.

        Raises:
            NotMetError: It returns no row, or more than one.
            UserError: It returns more than one column.
        """
        row = self.query_one(text, parameters, timeout=timeout)
        if len(row) != 1:
            message = f"The query should return one column, but it returned {len(row)}: {', '.join(row)}."
            raise UserError(message)
        return next(iter(row.values()))

    def count(self, text: str, parameters: Parameters = None, *, timeout: timedelta = STATEMENT_TIMEOUT) -> int:
        """Send a query and count its rows; see ``query``."""
        cursor = self._send(Statement(text, parameters), timeout)
        _columns(cursor)
        return cursor.rowcount

    def execute(self, text: str, parameters: Parameters = None, *, timeout: timedelta = STATEMENT_TIMEOUT) -> int:
        """Send a statement, or several separated by semicolons when there are no parameters; see ``query``.

        Returns:
            How many rows the last one changed or returned; 0 for one that has none, such as ``CREATE TABLE``.
        """
        cursor = self._send(Statement(text, parameters), timeout)
        while cursor.nextset():
            pass
        return max(cursor.rowcount, 0)

    def begin(self, isolation: IsolationLevel | None = None) -> None:
        """Open a transaction; until its end nothing is committed.

        Args:
            isolation: What it sees of others; None is the database's default.

        Raises:
            UserError: One is open already.
        """
        if self._transaction_open:
            message = "A transaction is open already on this connection: commit it or roll it back first."
            raise UserError(message)
        self._send(Statement(f"BEGIN ISOLATION LEVEL {isolation.value}" if isolation else "BEGIN"))
        self._transaction_open = True

    def commit(self) -> None:
        """Make what the open transaction did last.

        Raises:
            StatementError: One of its statements failed, so that it was rolled back.
            UserError: None is open.
        """
        failed = self._status is TransactionStatus.INERROR
        self._end_transaction("COMMIT")
        if failed:
            message = "A statement of the transaction had failed, so it was rolled back instead of committed."
            raise StatementError(message)

    def roll_back(self) -> None:
        """Undo what the open transaction did.

        Raises:
            UserError: None is open.
        """
        self._end_transaction("ROLLBACK")

    def backends(self, *, application_name: str | None = None, pid: int | None = None) -> list[Row]:
        """The connections that the server has, but this one (PostgreSQL manual, pg_stat_activity).

        Args:
            application_name: Only those of this name.
            pid: Only the one of this process id.
        """
        return self.query(BACKENDS, {"application_name": application_name, "pid": pid})

    def terminate_backends(self, *, application_name: str | None = None, pid: int | None = None) -> int:
        """End connections from the server's side and wait until they are gone (``pg_terminate_backend``).

        Args:
            application_name: Those of this name.
            pid: The one of this process id.

        Returns:
            How many are gone now.

        Raises:
            UserError: Neither is given: that would end everybody's.
        """
        if application_name is None and pid is None:
            message = "Say which connections to terminate: by application_name or by pid."
            raise UserError(message)
        milliseconds = round(TERMINATE_TIMEOUT.total_seconds() * 1000)
        chosen = {"application_name": application_name, "pid": pid, "milliseconds": milliseconds}
        return int(self.query_value(TERMINATE, chosen))

    @property
    def _status(self) -> TransactionStatus:
        return self._connection.info.transaction_status

    def _end_transaction(self, command: str) -> None:
        if not self._transaction_open:
            message = "No transaction is open on this connection."
            raise UserError(message)
        try:
            self._send(Statement(command))
        finally:
            # However it ended: when the server refused or was lost, the transaction is gone too.
            self._transaction_open = False

    def _send(self, statement: Statement, timeout: timedelta = STATEMENT_TIMEOUT) -> psycopg.Cursor[DictRow]:
        statement.check()
        self._renew_if_lost()
        connection = self._connection
        connection.longest_wait = timeout + GRACE
        deadline = Deadline(timeout)
        try:
            self._set_timeout(timeout)
            return connection.execute(statement.text.encode(), statement.parameters)
        except psycopg.errors.QueryCanceled as problem:
            message = (
                f"The statement was cancelled after {seconds(deadline.elapsed)}: {problem.diag.message_primary}."
            )
            raise StatementTimeoutError(message) from None
        except psycopg.Error as problem:
            if connection.closed or self._status in {TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN}:
                raise self._lost(problem, deadline) from None
            raise why_refused(problem, statement) from None
        except BaseException:
            # A test's timeout interrupts the wait: the answer would come to the next statement.
            if self._status is TransactionStatus.ACTIVE:
                connection.close()
            raise

    def _set_timeout(self, timeout: timedelta) -> None:
        """Tell the server how long the next statement may take; a transaction may undo what it is told."""
        if self._status is TransactionStatus.INERROR or timeout == self._statement_timeout:
            return
        milliseconds = max(round(timeout.total_seconds() * 1000), 1)
        self._connection.execute(f"SET statement_timeout = {milliseconds:d}".encode())
        self._statement_timeout = timeout if self._status is TransactionStatus.IDLE else None

    def _renew_if_lost(self) -> None:
        if not self._connection.closed:
            _notice_end(self._connection)
        if not self._connection.closed:
            return
        if self._transaction_open:
            self._transaction_open = False
            message = f"The connection to {self.target} was lost, and its open transaction with it."
            raise LostConnectionError(message)
        self._statement_timeout = None
        self._connection = connect(self.target, self._application_name, self._within)

    def _lost(self, problem: psycopg.Error, deadline: Deadline) -> LostConnectionError:
        silent = not self._connection.closed and self._status is TransactionStatus.ACTIVE
        self._connection.close()
        also = ", and its open transaction with it" if self._transaction_open else ""
        self._transaction_open = False
        said = problem.diag.message_primary or str(problem).strip().split("\n")[0]
        reason = f"no answer after {seconds(deadline.elapsed)}" if silent else said.rstrip(".")
        message = f"The connection to {self.target} was lost during the statement{also}: {reason}."
        return LostConnectionError(message)


def _columns(cursor: psycopg.Cursor[DictRow]) -> list[str]:
    if cursor.description is None:
        message = "The statement returns no rows to read: execute it instead, or add RETURNING."
        raise UserError(message)
    return [column.name for column in cursor.description]


def _notice_end(connection: psycopg.Connection[Any]) -> None:
    """Read what an idle connection was told meanwhile; a connection that the server closed is closed here too."""
    with suppress(psycopg.Error, OSError):
        while select.select([connection.fileno()], [], [], 0)[0]:
            try:
                connection.pgconn.consume_input()
            except psycopg.OperationalError:
                connection.close()
                return
