"""Keywords for what a database notifies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline

from SqlLibrary.session import Session


class NotificationKeywords:
    """Keywords for what a database notifies."""

    _session: Session

    @keyword(tags=["Setup"])
    def listen_for_notifications(self, channel: str, *, alias: str = "default") -> None:
        """Keep what the database notifies on a channel from now on, over a connection of its own.

        Args:
            channel: What `NOTIFY` names.
            alias: The connection to whose database to listen.

        Raises:
            UserError: The second connection is refused.

        Example:
            | Listen For Notifications | runs |
        """
        self._session.connections.listen(channel, alias)

    @keyword(tags=["Assertion", "Wait"])
    def notification_should_arrive(
        self,
        channel: str,
        payload: dict[str, Any] | str | None = None,
        *,
        within: timedelta = timedelta(seconds=10),
        alias: str = "default",
    ) -> str:
        """Wait until the database notifies; an earlier one counts too, but each is taken only once.

        Args:
            channel: Where it must arrive.
            payload: Its text, or a dictionary of values that its JSON object must have; any when not given.
            within: Give up after this time.
            alias: The connection to whose database the channel belongs.

        Returns:
            The notification's text.

        Raises:
            NotMetError: It did not arrive in time; lists what did.
            UserError: Nobody listens on the channel, or the connection was lost.

        Example:
            | Notification Should Arrive | runs | run 4711 failed | within=5s |
        """
        listener = self._session.connections.listener(alias)
        notification = listener.wait_for(
            channel, lambda it: it.carries(payload), Deadline(within), _named(channel, payload)
        )
        logger.info(f"Arrived: {notification}")
        return notification.payload

    @keyword(tags=["Assertion", "Wait"])
    def no_notification_should_arrive(
        self,
        channel: str,
        payload: dict[str, Any] | str | None = None,
        *,
        within: timedelta,
        alias: str = "default",
    ) -> None:
        """Check for a while that the database does not notify, and has not, but what was taken already.

        Args:
            channel: Where it must not arrive.
            payload: Its text, or a dictionary of values of its JSON object; any when not given.
            within: How long to look.
            alias: The connection to whose database the channel belongs.

        Raises:
            NotMetError: It arrived.
            UserError: Nobody listens on the channel, or the connection was lost.

        Example:
            | No Notification Should Arrive | runs | within=1s |
        """
        listener = self._session.connections.listener(alias)
        listener.never(channel, lambda it: it.carries(payload), Deadline(within), _named(channel, payload))


def _named(channel: str, payload: dict[str, Any] | str | None) -> str:
    return f"A notification on {channel}" + ("" if payload is None else f" with {payload}")
