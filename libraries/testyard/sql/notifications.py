"""What a database notifies (LISTEN and NOTIFY; PostgreSQL manual, SQL commands)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json import JSONDecodeError, loads
from typing import Any

import psycopg
from psycopg import sql

from testyard.core.deadline import Deadline, never_within, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.sql.database import CONNECT_TIMEOUT, connect
from testyard.sql.problems import LostConnectionError
from testyard.sql.target import Target

SHOWN = 10

Accepts = Callable[["Notification"], bool]


@dataclass(frozen=True)
class Notification:
    """One notification.

    Attributes:
        channel: What it was sent on.
        payload: Its text.
        pid: The process id of the backend that sent it.
        arrived: When it arrived (UTC).
    """

    channel: str
    payload: str
    pid: int
    arrived: datetime

    def carries(self, wanted: str | dict[str, Any] | None) -> bool:
        """Whether the payload is this text, or a JSON object with these values; None takes any."""
        if wanted is None or isinstance(wanted, str):
            return wanted in {None, self.payload}
        with suppress(JSONDecodeError):
            content = loads(self.payload)
            return isinstance(content, dict) and all(
                name in content and str(content[name]) == str(value) for name, value in wanted.items()
            )
        return False


class NotificationListener:
    """Keeps what arrives on some channels, on a connection of its own: transactions elsewhere hold nothing back.

    Args:
        target: The database.
        application_name: How the server lists the connection.
        within: Give up connecting after this time.

    Raises:
        CannotConnectError: Nothing answers, or the credentials are refused.
    """

    def __init__(
        self, target: Target, *, application_name: str = "testyard", within: timedelta = CONNECT_TIMEOUT
    ) -> None:
        self._target = target
        self._connection = connect(target, application_name, within)
        self._channels: list[str] = []
        self._arrived: list[Notification] = []

    @property
    def is_lost(self) -> bool:
        """Whether its connection ended."""
        return self._connection.closed

    def close(self) -> None:
        """Stop listening."""
        self._connection.close()

    def listen(self, channel: str) -> None:
        """Keep what arrives on a channel from now on.

        Raises:
            LostConnectionError: The connection is gone.
        """
        try:
            self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except psycopg.OperationalError as problem:
            raise self._lost(problem) from None
        self._channels.append(channel)

    def wait_for(self, channel: str, accepts: Accepts, deadline: Deadline, what: str) -> Notification:
        """Wait for a notification; one that arrived before counts too, but each is given only once.

        Args:
            channel: Where it must arrive.
            accepts: Whether a notification is the one waited for.
            deadline: Give up after this.
            what: What is waited for, for the message.

        Raises:
            NotMetError: It did not arrive in time; lists what did.
            LostConnectionError: The connection ended: notifications may be missing.
            UserError: Nobody listens on the channel.
        """
        self._check(channel)
        try:
            found = wait_until(lambda: self._matching(channel, accepts), bool, deadline, what)
        except NotMetError:
            others = [f"{it.payload!r}" for it in self._arrived if it.channel == channel]
            seen = f"{len(others)} others did: {', '.join(others[-SHOWN:])}" if others else "nothing else did"
            message = f"{what} did not arrive within {deadline.within.total_seconds():g} s; {seen}."
            raise NotMetError(message) from None
        self._arrived.remove(found[0])
        return found[0]

    def never(self, channel: str, accepts: Accepts, deadline: Deadline, what: str) -> None:
        """Check until the deadline that no notification arrives, and that none did before.

        Raises:
            NotMetError: One did.
            LostConnectionError: The connection ended: notifications may be missing.
            UserError: Nobody listens on the channel.
        """
        self._check(channel)
        never_within(lambda: [it.payload for it in self._matching(channel, accepts)], bool, deadline, what)

    def _matching(self, channel: str, accepts: Accepts) -> list[Notification]:
        try:
            for notify in self._connection.notifies(timeout=0):
                self._arrived.append(Notification(notify.channel, notify.payload, notify.pid, datetime.now(UTC)))
        except psycopg.OperationalError as problem:
            raise self._lost(problem) from None
        return [it for it in self._arrived if it.channel == channel and accepts(it)]

    def _check(self, channel: str) -> None:
        if channel not in self._channels:
            message = f"Nobody listens on {channel!r}; channels: {', '.join(self._channels) or 'none'}."
            raise UserError(message)

    def _lost(self, problem: psycopg.Error) -> LostConnectionError:
        self._connection.close()
        reason = str(problem).strip().split("\n")[0].rstrip(".")
        message = (
            f"The connection that listens to {self._target} was lost, notifications may be missing: {reason}. "
            "Listen again."
        )
        return LostConnectionError(message)
