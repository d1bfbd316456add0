"""Sessions on the database of single nodes, and statements that are given up on the client's side alone.

``statement_timeout`` is never used: a commit that waits for its synchronous standby and is cancelled by it is
reported as done, although only the primary has it (PostgreSQL manual, 27.2.8). Here the client stops waiting.
"""

from __future__ import annotations

import json
import math
import select
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

import psycopg
from psycopg import errors, pq

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use

CREDENTIALS_FILE = ".credentials.json"
# libpq takes whole seconds, and nothing below two.
SHORTEST_CONNECT = 2
# How PostgreSQL tells that a commit reached the primary only (syncrep.c).
LOCAL_ONLY = "might not have been replicated"


class NoAnswerError(psycopg.OperationalError):
    """The server did not answer a statement in time; whether it was carried out is not known."""


class LocalCommitError(psycopg.OperationalError):
    """The server committed, but without its synchronous standby: a fail-over may lose it."""


@dataclass(frozen=True)
class Credentials:
    """As whom to go to the database; its text never holds the password.

    Attributes:
        user: The role.
        password: Its password.
        name: The database.
    """

    user: str
    password: str = field(repr=False)
    name: str

    @classmethod
    def read(cls, directory: Path) -> Self:
        """What the deployer wrote in ``.credentials.json``.

        Raises:
            UserError: The deployment has no database, or the file is not what it should be.
        """
        path = directory / CREDENTIALS_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))["database"]
            credentials = cls(*(str(content[name]) for name in ("user", "password", "name")))
        except FileNotFoundError:
            message = f"The deployment has no database that can be asked: there is no {path}."
            raise UserError(message) from None
        except (KeyError, TypeError, ValueError):
            message = f"{path} should hold an object 'database' with user, password and name, but does not."
            raise UserError(message) from None
        secrets_in_use.add(credentials.password)
        return credentials


class Session:
    """One connection to one node's database; every statement is its own transaction.

    Args:
        host: The node's address.
        port: Its database's port.
        credentials: As whom.
        within: How long connecting may take.

    Raises:
        psycopg.OperationalError: Nothing answers, or what answers accepts no connections.
    """

    def __init__(self, host: str, port: int, credentials: Credentials, within: timedelta) -> None:
        self._local_only = False
        self._connection = psycopg.connect(
            host=host,
            port=port,
            user=credentials.user,
            password=credentials.password,
            dbname=credentials.name,
            connect_timeout=max(math.ceil(within.total_seconds()), SHORTEST_CONNECT),
            application_name="testyard",
            autocommit=True,
        )
        self._connection.add_notice_handler(self._notice)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, statement: str, *arguments: object, within: timedelta) -> list[tuple[str | None, ...]]:
        """Send one statement and wait for its end, but no longer than ``within``.

        Args:
            statement: With ``$1``, ``$2``... for the arguments.
            arguments: Sent as text.
            within: Stop waiting after this; the session is closed then, as the statement may still be running.

        Returns:
            The rows, each value as PostgreSQL writes it.

        Raises:
            NoAnswerError: No end in time.
            LocalCommitError: Committed on the primary alone.
            psycopg.Error: What the server refused, or that the connection broke.
        """
        self._local_only = False
        wire = self._connection.pgconn
        wire.send_query_params(statement.encode(), [str(it).encode() for it in arguments])
        result = self._last_result(wire, Deadline(within))
        if result.status not in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}:
            raise errors.error_from_result(result)
        if self._local_only:
            message = "The commit was not confirmed by a standby: it is on the primary alone."
            raise LocalCommitError(message)
        return [
            tuple(_decoded(result, row, column) for column in range(result.nfields))
            for row in range(result.ntuples)
        ]

    def close(self) -> None:
        """End the session; safe to call again."""
        self._connection.close()

    def _last_result(self, wire: pq.abc.PGconn, deadline: Deadline) -> pq.abc.PGresult:
        result = None
        while True:
            while wire.flush():
                select.select([], [wire.socket], [], deadline.remaining.total_seconds())
            while wire.is_busy():
                ready, _, _ = select.select([wire.socket], [], [], deadline.remaining.total_seconds())
                if not ready:
                    self.close()
                    message = f"The database had not answered after {seconds(deadline.within)}."
                    raise NoAnswerError(message)
                wire.consume_input()
            following = wire.get_result()
            if following is None:
                break
            result = following
        if result is None:
            message = "The connection ended without an answer."
            raise psycopg.OperationalError(message)
        return result

    def _notice(self, diagnostic: errors.Diagnostic) -> None:
        self._local_only = self._local_only or LOCAL_ONLY in (diagnostic.message_detail or "")


def reason(problem: psycopg.Error) -> str:
    """Why a connection or a statement failed, in one line, in the server's words where it has spoken."""
    told = problem.diag.message_primary or next(iter(str(problem).strip().splitlines()), "")
    told = told.rpartition("FATAL:")[2].rpartition(" failed: ")[2].strip().rstrip(".")
    return secrets_in_use.mask(told) or "no reason given"


def first_value(rows: Sequence[tuple[str | None, ...]]) -> str:
    """The first value of the first row, empty when there is none."""
    return (rows[0][0] or "") if rows else ""


def _decoded(result: pq.abc.PGresult, row: int, column: int) -> str | None:
    value = result.get_value(row, column)
    return None if value is None else bytes(value).decode()
