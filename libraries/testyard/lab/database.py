"""A service's connections to PostgreSQL: the pool, transactions, and what counts as "the database is away"."""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from testyard.lab.waiting import elapse

Value = TypeVar("Value")
Parameters: TypeAlias = Mapping[str, Any]

DEFAULT_TIMEOUT: Final = timedelta(seconds=5)
"""How long a statement, or a connection, may take."""

IDLE_IN_TRANSACTION_TIMEOUT: Final = timedelta(seconds=15)
# How long a connection is waited for that says nothing, not even that the server has cancelled a statement.
TIMEOUTS_PER_STATEMENT: Final = 1.25
TIMEOUTS_PER_TRANSACTION: Final = 2

MAXIMUM_ATTEMPTS: Final = 3
"""How often a transaction is tried that lost against another one (deadlock, serialisation failure)."""

TRUSTED_AFTER_USE: Final = timedelta(seconds=1)
"""How long a connection that answered needs no question whether it still does, unless it was closed."""

CONNECTS_AGAIN_WITHIN: Final = timedelta(seconds=1)
"""How long connecting is tried again and again: the pool itself waits a whole second before it repeats it."""

CONNECTS_AGAIN_AFTER: Final = timedelta(milliseconds=50)


class Connection(AsyncConnection[DictRow]):
    """A connection that knows when it last answered, and that is made soon after the database is back."""

    answered_at: float = -math.inf

    @classmethod
    async def connect(cls, conninfo: str = "", **settings: Any) -> Self:
        """Connect, and try again for a short while.

        Args:
            conninfo: Where to.
            settings: As psycopg takes them.

        Raises:
            psycopg.OperationalError: The database is away.
        """
        ends_at = time.monotonic() + CONNECTS_AGAIN_WITHIN.total_seconds()
        while True:
            try:
                return await super().connect(conninfo, **settings)
            except psycopg.OperationalError:
                if time.monotonic() >= ends_at:
                    raise
            await elapse(CONNECTS_AGAIN_AFTER)

    def may_have_ended(self) -> bool:
        """Whether it has not answered for a while, or there is something to read that nobody asked for."""
        if time.monotonic() - self.answered_at > TRUSTED_AFTER_USE.total_seconds():
            return True
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))


class Pool(AsyncConnectionPool[Connection]):
    """Connections that are checked when they are handed out, the one that was used last first.

    The pool itself hands them out in turn: all of them would have to plan every statement. Its own ``check`` waits
    a second after the first connection that has ended, although the database may be back already.
    """

    async def getconn(self, timeout: float | None = None) -> Connection:
        """A connection that answers.

        Args:
            timeout: Seconds; None is the pool's own.

        Raises:
            psycopg_pool.PoolTimeout: There was none in that time.
        """
        given = self.timeout if timeout is None else timeout
        ends_at = time.monotonic() + given
        while True:
            self._pool.rotate(1)  # the pool takes from the left what it has put back on the right
            connection = await super().getconn(ends_at - time.monotonic())
            try:
                if connection.may_have_ended():
                    with broken_when_silent(connection, timedelta(seconds=given)):
                        await self.check_connection(connection)
            except psycopg.Error:
                await self.putconn(connection)
            except BaseException:
                await self.putconn(connection)
                raise
            else:
                return connection


class DatabaseUnavailableError(Exception):
    """The database is away, or was too slow: what was asked of it may or may not have happened."""


DATABASE_TROUBLE: Final = (DatabaseUnavailableError, psycopg.DatabaseError)
"""What work in the background outlives: the database is away, or refuses what is asked of it."""


def session_url(
    url: str,
    *,
    application_name: str,
    timeout: timedelta = DEFAULT_TIMEOUT,
    settings: Mapping[str, str] | None = None,
) -> str:
    """The connection string of one of a service's sessions.

    Args:
        url: Where the database is.
        application_name: What ``pg_stat_activity`` shows.
        timeout: How long a statement may take; connecting, too, in whole seconds and at least two.
        settings: The service's own session settings.

    Returns:
        The URL's connection parameters with the session's settings; options of the URL are kept.
    """
    all_settings = {
        "timezone": "UTC",
        "statement_timeout": f"{timeout / timedelta(milliseconds=1):.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT / timedelta(milliseconds=1):.0f}",
        # A statement that the planner is kept from guessing about looks dear, and compiling it would be.
        "jit": "off",
        **(settings or {}),
    }
    given = str(conninfo_to_dict(url).get("options") or "")
    options = " ".join([given, *(f"-c {name}={value}" for name, value in all_settings.items())]).strip()
    connect_timeout = math.ceil(timeout.total_seconds())
    return make_conninfo(url, options=options, application_name=application_name, connect_timeout=connect_timeout)


def open_pool(session: str, *, size: int, application_name: str, timeout: timedelta = DEFAULT_TIMEOUT) -> Pool:
    """A pool of autocommitting connections, checked on checkout, that is opened by ``async with``.

    Args:
        session: From ``session_url``.
        size: Connections at most; one is kept open.
        application_name: What the pool is called.
        timeout: How long a statement may take, or the wait for a connection; a transaction twice as long. After
            that the database counts as away.

    Returns:
        The pool, not yet open. It opens also while the database is away.

    Example:
        >>> async with open_pool(session_url(url, application_name="api"), size=4, application_name="api") as pool:
        ...     runs = await find(pool)
    """
    return Pool(
        session,
        connection_class=Connection,
        kwargs={"autocommit": True, "row_factory": dict_row},
        min_size=1,
        max_size=size,
        timeout=timeout.total_seconds(),
        # Short, so that a database that is back is noticed soon; the pool starts over with the next checkout.
        reconnect_timeout=timeout.total_seconds() / 2,
        name=application_name,
        open=False,
    )


@contextmanager
def broken_when_silent(connection: Connection, within: timedelta) -> Iterator[None]:
    """Break a connection that is used for too long, as if the other side had closed it.

    The server's own timeout does not help when the network delivers nothing. Cancelling does not either: psycopg
    then asks the server to cancel the statement, and waits.

    Args:
        connection: The connection.
        within: How long it may be used.
    """

    def close_for_both_directions() -> None:
        with socket.socket(fileno=os.dup(connection.fileno())) as other:
            other.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(within.total_seconds(), close_for_both_directions)
    try:
        yield
    finally:
        timer.cancel()


@asynccontextmanager
async def _connection_of(pool: Pool, timeouts: float = TIMEOUTS_PER_TRANSACTION) -> AsyncIterator[Connection]:
    async with pool.connection() as connection:
        with broken_when_silent(connection, timedelta(seconds=pool.timeout) * timeouts):
            yield connection
        connection.answered_at = time.monotonic()


@contextmanager
def unavailable_when_lost() -> Iterator[None]:
    """Turn what psycopg raises for a lost, unreachable or too slow database into ``DatabaseUnavailableError``."""
    try:
        yield
    except (errors.DeadlockDetected, errors.SerializationFailure):
        raise
    except (psycopg.OperationalError, psycopg.InterfaceError, errors.IdleInTransactionSessionTimeout) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DatabaseUnavailableError(reason[0]) from error


@contextmanager
def _not_losing_a_cancellation() -> Iterator[None]:
    """End as cancelled when the task was cancelled meanwhile.

    psycopg waits with ``asyncio.wait_for``, which in Python 3.11 loses a cancellation that comes together with the
    answer (solved in 3.12): a loop around the database would then never end.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def _again_after_conflicts(attempt: Callable[[], Awaitable[Value]]) -> Value:
    conflict = ""
    for _ in range(MAXIMUM_ATTEMPTS):
        try:
            with unavailable_when_lost(), _not_losing_a_cancellation():
                return await attempt()
        except (errors.DeadlockDetected, errors.SerializationFailure) as error:
            conflict = str(error).splitlines()[0]
    raise DatabaseUnavailableError(f"gave up after {MAXIMUM_ATTEMPTS} attempts: {conflict}")


async def in_transaction(pool: Pool, work: Callable[[Connection], Awaitable[Value]]) -> Value:
    """Do some work in one transaction, again if it loses against another one.

    Args:
        pool: Where the connection comes from.
        work: Is called with the connection, maybe several times; nothing of a failed call stays in the database.

    Returns:
        What the work returned.

    Raises:
        DatabaseUnavailableError: The database is away, or too slow.
        psycopg.Error: Anything else, such as a violated constraint.
    """

    async def attempt() -> Value:
        async with _connection_of(pool) as connection, connection.transaction():
            return await work(connection)

    return await _again_after_conflicts(attempt)


async def fetch(pool: Pool, statement: str, parameters: Parameters | None = None) -> list[DictRow]:
    """Run one statement on its own.

    Args:
        pool: Where the connection comes from.
        statement: SQL that returns rows.
        parameters: Its named parameters.

    Returns:
        Its rows.

    Raises:
        DatabaseUnavailableError: The database is away, or too slow.
    """

    async def attempt() -> list[DictRow]:
        async with _connection_of(pool, TIMEOUTS_PER_STATEMENT) as connection:
            return await (await connection.execute(statement, parameters)).fetchall()

    return await _again_after_conflicts(attempt)


@dataclass(frozen=True, slots=True)
class Statement:
    """One of several statements that are sent together.

    Attributes:
        text: SQL.
        parameters: Its named parameters.
        prepare: False plans the statement anew: one plan does not fit one row and thousands. None prepares it when
            it is used often.
    """

    text: str
    parameters: Parameters | None = None
    prepare: bool | None = None


async def fetch_together(pool: Pool, *statements: Statement) -> list[list[DictRow]]:
    """Run some statements in one transaction and one round trip: none can depend on what another one returned.

    Nothing says BEGIN and COMMIT, which would cost a round trip each: what is sent between two Sync messages is
    one transaction (PostgreSQL's protocol, section "Pipelining").

    Args:
        pool: Where the connection comes from.
        statements: What to run, in this order.

    Returns:
        The rows of each; none of a statement that returns no rows.

    Raises:
        DatabaseUnavailableError: The database is away, or too slow.
        psycopg.Error: Anything else; then none of them has done anything.

    Example:
        >>> run, history = await fetch_together(pool, Statement("SELECT ..."), Statement("SELECT ..."))
    """

    async def attempt() -> list[list[DictRow]]:
        async with _connection_of(pool) as connection:
            async with connection.pipeline():
                cursors = [
                    await connection.execute(statement.text, statement.parameters, prepare=statement.prepare)
                    for statement in statements
                ]
            return [[] if cursor.rownumber is None else await cursor.fetchall() for cursor in cursors]

    return await _again_after_conflicts(attempt)
