"""The connections of a run, by alias, and what is collected through them."""

from __future__ import annotations

from datetime import timedelta

from testyard.core.errors import UserError
from testyard.core.loop_thread import LoopThread
from testyard.kafka.client import Kafka
from testyard.kafka.connection import CONNECT_TIMEOUT, ProducerSettings
from testyard.kafka.target import Target

DEFAULT_ALIAS = "default"


class KafkaConnections:
    """Connections by alias; all their clients live on one loop thread.

    Example:
        >>> connections = KafkaConnections()
        >>> connections.get("events")
        Traceback (most recent call last):
        testyard.core.errors.UserError: There is no Kafka connection called 'events'; open connections: none.
    """

    def __init__(self) -> None:
        self._loop = LoopThread("kafka")
        self._connections: dict[str, Kafka] = {}

    def open(
        self,
        target: Target,
        *,
        alias: str = DEFAULT_ALIAS,
        producing: ProducerSettings | None = None,
        within: timedelta = CONNECT_TIMEOUT,
    ) -> Kafka:
        """Connect; a connection that already has the alias is closed.

        Args:
            target: Where to.
            alias: How the connection is called from now on.
            producing: How events are sent.
            within: Give up after this time.

        Raises:
            CannotConnectError: No broker answers, or the credentials are refused.
        """
        connection = Kafka(self._loop, target, producing=producing, within=within)
        if alias in self._connections:
            self.close(alias)
        self._connections[alias] = connection
        return connection

    def get(self, alias: str = DEFAULT_ALIAS) -> Kafka:
        """The connection of an alias.

        Raises:
            UserError: There is none; lists those there are.
        """
        if alias not in self._connections:
            known = ", ".join(self._connections) or "none"
            message = f"There is no Kafka connection called {alias!r}; open connections: {known}."
            raise UserError(message)
        return self._connections[alias]

    def open_transactions(self) -> dict[str, Kafka]:
        """The connections with an open transaction, by alias."""
        return {alias: it for alias, it in self._connections.items() if it.in_transaction}

    def close(self, alias: str = DEFAULT_ALIAS) -> None:
        """Close one connection, and stop what it publishes and collects.

        Raises:
            UserError: There is none; lists those there are.
        """
        self.get(alias)
        self._connections.pop(alias).close()

    def close_all(self) -> None:
        """Close every connection, and end the thread; safe to call again."""
        for alias in list(self._connections):
            self.close(alias)
        self._loop.stop()
