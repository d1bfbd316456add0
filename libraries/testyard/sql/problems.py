"""What goes wrong with a database, in words for the people who read test logs."""

from __future__ import annotations

import psycopg

from testyard.core.errors import UserError
from testyard.sql.statements import Statement
from testyard.sql.target import Target

# What a server says when it does not take a credential (PostgreSQL, auth.c and fe-auth.c).
REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
)


class CannotConnectError(UserError):
    """Nothing answers, or what answers does not let us in."""


class CredentialRefusedError(CannotConnectError):
    """The server knows neither this user nor this password."""


class LostConnectionError(UserError):
    """The connection ended while it was used, or the server stopped answering."""


class StatementError(UserError):
    """The server refused a statement."""


class StatementTimeoutError(StatementError):
    """A statement took too long and was cancelled."""


def why_not_connected(problem: psycopg.Error, target: Target) -> CannotConnectError:
    """The error for a connection that could not be made: where to, as whom, and the server's reason.

    Args:
        problem: What psycopg raised.
        target: Where to.
    """
    said = " ".join(str(problem).strip().splitlines()[:1])
    reason = said.rpartition("FATAL:")[2].rpartition(" failed: ")[2].strip().rstrip(".") or "no reason given"
    if any(refusal in said for refusal in REFUSALS):
        message = f"The credentials were refused by {target}: {reason}."
        return CredentialRefusedError(message)
    message = f"Cannot connect to {target}: {reason}."
    return CannotConnectError(message)


def why_refused(problem: psycopg.Error, statement: Statement) -> StatementError:
    """The error for a statement that the server refused, with its position, detail and hint when it has them.

    Args:
        problem: What psycopg raised.
        statement: What was sent.
    """
    told = problem.diag
    primary = told.message_primary or str(problem).strip()
    kind = "is not valid SQL" if isinstance(problem, psycopg.errors.SyntaxError) else "was refused"
    lines = [f"The statement {kind}: {primary.rstrip('.')}."]
    if told.statement_position:
        lines.append(statement.marked(int(told.statement_position)))
    if told.message_detail:
        lines.append(told.message_detail)
    if told.message_hint:
        lines.append(f"Hint: {told.message_hint}")
    return StatementError("\n".join(lines))
