"""Query a PostgreSQL database, wait for what it must hold, and break its connections."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import library
from testyard import __version__
from testyard.core.errors import UserError
from testyard.core.listening import MaskingListener
from testyard.core.settings import Scope
from testyard.sql.database import STATEMENT_TIMEOUT

from SqlLibrary.connecting import ConnectionKeywords
from SqlLibrary.notifications import NotificationKeywords
from SqlLibrary.querying import QueryKeywords
from SqlLibrary.session import Session
from SqlLibrary.transactions import TransactionKeywords


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class SqlLibrary(ConnectionKeywords, QueryKeywords, TransactionKeywords, NotificationKeywords, MaskingListener):
    """Query a PostgreSQL database, wait for what it must hold, and break its connections.

    Every connection has an *alias*, `default` when none is given; every statement is committed at once unless
    `Begin Transaction` opened a transaction. Values are always bound, never written into the statement:

    - `%s` takes the values in their order: `parameters=${run}` or `parameters=${list}`,
    - `%(name)s` takes them by name: `parameters=&{values}` as a dictionary.

    With parameters, a percent sign in the statement is written `%%`.

    Keywords that read a value take an operator and an expected value, and `retry_for`, the time in which the
    value may still become right; the time that the statements take counts. What the test writes is compared as
    what the database returned: `3` beside a number, `true` beside a truth value, `NULL` beside NULL, a moment
    without a zone as UTC.

    A connection that was lost is made again for the next statement, unless a transaction was open on it. A
    transaction that a test leaves open is rolled back at its end, with a warning.
    """

    def __init__(self, *, timeout: timedelta = STATEMENT_TIMEOUT) -> None:
        """Choose how long statements may take.

        Args:
            timeout: A statement is cancelled after this time, unless `Set Sql Timeout` says otherwise.
        """
        MaskingListener.__init__(self)
        self._session = Session(timeout)

    # What Robot Framework calls as it runs.

    def start_suite(self, data: Any, result: Any) -> None:
        """What the suite sets lasts until its end."""
        self._session.timeout.enter(Scope.SUITE)

    def end_suite(self, data: Any, result: Any) -> None:
        """Undo what the suite set."""
        self._session.timeout.leave()
        super().end_suite(data, result)

    def start_test(self, data: Any, result: Any) -> None:
        """What the test sets lasts until its end."""
        self._session.timeout.enter(Scope.TEST)

    def end_test(self, data: Any, result: Any) -> None:
        """Undo what the test set, and roll back what it left open."""
        self._session.timeout.leave()
        for alias, database in self._session.connections.open_transactions().items():
            problem = ""
            try:
                database.roll_back()
            except UserError as error:
                problem = f" ({error})"
            logger.warn(
                f"Test '{result.name}' left a transaction open on the database connection '{alias}'; "
                f"it was rolled back{problem}."
            )
        super().end_test(data, result)

    def close(self) -> None:
        """Close whatever the run left open."""
        self._session.connections.close_all()
