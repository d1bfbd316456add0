"""Keywords for transactions."""

from __future__ import annotations

from robot.api.deco import keyword
from testyard.sql.database import IsolationLevel

from SqlLibrary.session import Session


class TransactionKeywords:
    """Keywords for transactions."""

    _session: Session

    @keyword(tags=["Setup"])
    def begin_transaction(self, isolation: IsolationLevel | None = None, *, alias: str = "default") -> None:
        """Open a transaction: until its end nothing is committed. At the test's end it is rolled back.

        Args:
            isolation: `READ COMMITTED`, `REPEATABLE READ` or `SERIALIZABLE`; when not given, the
                database's default.
            alias: The connection.

        Raises:
            UserError: A transaction is open already.

        Example:
            | Begin Transaction | alias=second |
        """
        self._session.connections.get(alias).begin(isolation)

    @keyword(tags=["Setup"])
    def commit_transaction(self, *, alias: str = "default") -> None:
        """Make what the open transaction did last.

        Args:
            alias: The connection.

        Raises:
            UserError: No transaction is open, or one of its statements had failed, so that it is rolled back.

        Example:
            | Commit Transaction | alias=second |
        """
        self._session.connections.get(alias).commit()

    @keyword(tags=["Setup"])
    def roll_back_transaction(self, *, alias: str = "default") -> None:
        """Undo what the open transaction did.

        Args:
            alias: The connection.

        Raises:
            UserError: No transaction is open.

        Example:
            | Roll Back Transaction | alias=second |
        """
        self._session.connections.get(alias).roll_back()
