"""The connections of a run, by alias."""

from __future__ import annotations

from datetime import timedelta

from testyard.core.errors import UserError
from testyard.sql.database import CONNECT_TIMEOUT, Database
from testyard.sql.notifications import NotificationListener
from testyard.sql.target import Target

DEFAULT_ALIAS = "default"


class Connections:
    """Databases by alias, each with a listener for notifications when one is asked for.

    Example:
        >>> connections = Connections()
        >>> connections.get("runs")
        Traceback (most recent call last):
        testyard.core.errors.UserError: There is no database connection called 'runs'; open connections: none.
    """

    def __init__(self) -> None:
        self._databases: dict[str, Database] = {}
        self._listeners: dict[str, NotificationListener] = {}

    def open(
        self,
        target: Target,
        *,
        alias: str = DEFAULT_ALIAS,
        application_name: str = "testyard",
        within: timedelta = CONNECT_TIMEOUT,
    ) -> Database:
        """Connect; a connection that already has the alias is closed.

        Args:
            target: Where to.
            alias: How the connection is called from now on.
            application_name: How the server lists it.
            within: Give up after this time.

        Raises:
            CannotConnectError: Nothing answers, or the credentials are refused.
        """
        database = Database(target, application_name=application_name, within=within)
        if alias in self._databases:
            self.close(alias)
        self._databases[alias] = database
        return database

    def get(self, alias: str = DEFAULT_ALIAS) -> Database:
        """The database of an alias.

        Raises:
            UserError: There is none; lists those there are.
        """
        if alias not in self._databases:
            known = ", ".join(self._databases) or "none"
            message = f"There is no database connection called {alias!r}; open connections: {known}."
            raise UserError(message)
        return self._databases[alias]

    def listen(self, channel: str, alias: str = DEFAULT_ALIAS) -> None:
        """Keep what the database of an alias notifies on a channel, from now on, and nothing from before.

        Raises:
            UserError: There is no such alias.
            CannotConnectError: The listener's own connection is refused.
        """
        target = self.get(alias).target
        listener = self._listeners.get(alias)
        if listener is None or listener.is_lost:
            listener = self._listeners[alias] = NotificationListener(target)
        listener.listen(channel)

    def listener(self, alias: str = DEFAULT_ALIAS) -> NotificationListener:
        """The listener of an alias.

        Raises:
            UserError: There is no such alias, or nobody listens on it.
        """
        self.get(alias)
        if alias not in self._listeners:
            message = f"Nobody listens to the database connection {alias!r}: listen on a channel first."
            raise UserError(message)
        return self._listeners[alias]

    def open_transactions(self) -> dict[str, Database]:
        """The databases with an open transaction, by alias."""
        return {alias: database for alias, database in self._databases.items() if database.in_transaction}

    def close(self, alias: str = DEFAULT_ALIAS) -> None:
        """Close one connection and its listener.

        Raises:
            UserError: There is none; lists those there are.
        """
        self.get(alias)
        self._databases.pop(alias).close()
        if listener := self._listeners.pop(alias, None):
            listener.close()

    def close_all(self) -> None:
        """Close every connection; safe to call again."""
        for alias in list(self._databases):
            self.close(alias)
