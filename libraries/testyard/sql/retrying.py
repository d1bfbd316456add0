"""Reading from a database until what is read is right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import NotMetError
from testyard.sql.problems import (
    CannotConnectError,
    CredentialRefusedError,
    LostConnectionError,
    StatementTimeoutError,
)

Value = TypeVar("Value")
Result = TypeVar("Result")

# The last try of a retried statement may take this long, however little time is left.
SHORTEST_TRY = timedelta(milliseconds=500)
# What time may heal: a server that restarts, a statement that waits for a lock, a value that is not there yet.
PASSING = (AssertionError, CannotConnectError, LostConnectionError, StatementTimeoutError)


class _Attempts(Generic[Value, Result]):
    """Counts the tries and keeps the last one's outcome."""

    def __init__(self, read: Callable[[timedelta], Value], verify: Callable[[Value], Result]) -> None:
        self._read = read
        self._verify = verify
        self.count = 0
        self.problem: Exception | None = None
        self.results: list[Result] = []

    def succeeded(self, timeout: timedelta) -> bool:
        """Try once."""
        self.count += 1
        try:
            self.results.append(self._verify(self._read(timeout)))
        except CredentialRefusedError:
            raise
        except PASSING as problem:
            self.problem = problem
            return False
        return True


def read_until(
    read: Callable[[timedelta], Value],
    verify: Callable[[Value], Result],
    *,
    retry_for: timedelta,
    timeout: timedelta,
) -> Result:
    """Read until a check accepts what was read; the time that statements take counts.

    Args:
        read: Reads once; gets how long its statement may take.
        verify: Returns the result, or raises AssertionError when the value is not the right one yet.
        retry_for: Give up after this time; 0 reads once.
        timeout: How long one statement may take, at most.

    Returns:
        What ``verify`` returned.

    Raises:
        NotMetError: The last value was not the right one either; says why, how often and how long it was tried.
        UserError: The last try failed, or one failed in a way that time does not heal.
    """
    if not retry_for:
        return verify(read(timeout))
    deadline = Deadline(retry_for)
    attempts = _Attempts(read, verify)
    try:
        wait_until(
            lambda: attempts.succeeded(min(timeout, max(deadline.remaining, SHORTEST_TRY))),
            bool,
            deadline,
            "the value",
        )
    except NotMetError:
        problem = attempts.problem
        assert problem is not None
        message = f"{problem} (tried {attempts.count} times in {seconds(deadline.elapsed)})"
        if isinstance(problem, AssertionError):
            raise NotMetError(message) from None
        raise type(problem)(message) from None
    return attempts.results[-1]
