"""Sending failure notifications: e-mail, Slack, plain webhook; again after a failure, then to the dead letters.

A sender that is killed after a message has left and before that is written down sends it again: the notification's
id is in a header, by which a receiver can tell.

Source: issue 4 (notifications); RFC 5321 (SMTP); Slack, "Sending messages using incoming webhooks" (``text``).
"""

from __future__ import annotations

import asyncio
import logging
import smtplib
from collections.abc import Mapping
from datetime import timedelta
from email.message import EmailMessage
from typing import Final, Protocol

import httpx

from testyard.lab.database import Pool
from testyard.lab.pipelines.records import Channel, Notification
from testyard.lab.pipelines.settings import SmtpServer
from testyard.lab.pipelines.store import notifications

_LOGGER = logging.getLogger(__name__)

NOTIFICATION_HEADER: Final = "X-Notification-Id"
EMAIL_SENDER: Final = "pipelines@testyard.invalid"
SENDING_TIMEOUT: Final = timedelta(seconds=10)
# Longer than the longest attempt, so that nobody else sends meanwhile.
LEASE: Final = SENDING_TIMEOUT * 3
SENT_AT_ONCE: Final = 20
LONGEST_DELAY: Final = timedelta(hours=1)


class SendingError(Exception):
    """A notification was not taken. The message names no address: a webhook's is a secret."""


class Sender(Protocol):
    """One way to a customer."""

    async def send(self, notification: Notification) -> None:
        """Hand a notification over.

        Args:
            notification: What to send, and where.

        Raises:
            SendingError: It was not taken.
        """
        ...


class EmailSender:
    """Hands e-mail to an SMTP server.

    Args:
        server: Where; None when the service has no such server: then nothing can be sent.
    """

    def __init__(self, server: SmtpServer | None) -> None:
        self._server = server

    async def send(self, notification: Notification) -> None:
        """See ``Sender.send``."""
        if self._server is None:
            raise SendingError("the service was started without an SMTP server")
        try:
            await asyncio.to_thread(self._deliver, self._server, notification)
        except (smtplib.SMTPException, OSError) as error:
            raise SendingError(f"{type(error).__name__}: {error}") from error

    def _deliver(self, server: SmtpServer, notification: Notification) -> None:
        message = EmailMessage()
        message["From"] = EMAIL_SENDER
        message["To"] = notification.target
        message["Subject"] = notification.subject
        message[NOTIFICATION_HEADER] = str(notification.notification_id)
        message.set_content(_sentences(notification))
        with smtplib.SMTP(server.host, server.port, timeout=SENDING_TIMEOUT.total_seconds()) as connection:
            connection.send_message(message)


class SlackSender:
    """Posts a text to a Slack-shaped incoming webhook.

    Args:
        client: Sends it.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, notification: Notification) -> None:
        """See ``Sender.send``."""
        await _post(self._client, notification, {"text": f"{notification.subject}\n{_sentences(notification)}"})


class WebhookSender:
    """Posts the facts of the run as JSON.

    Args:
        client: Sends it.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, notification: Notification) -> None:
        """See ``Sender.send``."""
        await _post(self._client, notification, {"event": "pipeline_run_failed", **notification.body})


def new_client() -> httpx.AsyncClient:
    """The HTTP client for webhooks: no redirects, no proxy of the environment."""
    return httpx.AsyncClient(timeout=SENDING_TIMEOUT.total_seconds(), trust_env=False)


async def _post(client: httpx.AsyncClient, notification: Notification, body: Mapping[str, object]) -> None:
    try:
        async with asyncio.timeout(SENDING_TIMEOUT.total_seconds()):
            answer = await client.post(
                notification.target,
                json=body,
                headers={NOTIFICATION_HEADER: str(notification.notification_id)},
            )
    except Exception as error:
        # Whatever somebody's address makes the client raise, it must not keep others' notifications waiting.
        raise SendingError(type(error).__name__) from error
    if not answer.is_success:
        raise SendingError(f"it answered {answer.status_code}")


def _sentences(notification: Notification) -> str:
    facts = notification.body
    return (
        f"Run {facts['run_id']} of {facts['provider']} {facts['domain']} {facts['template_name']} failed after "
        f"{facts['retry_attempt']} retries.\n{facts['error_class']}: {facts['error_message']}"
    )


class Dispatcher:
    """Sends the notifications that wait. Several may work on one database.

    Args:
        pool: The service's connections.
        senders: A sender for each channel.
        retry_base: How long the second attempt waits; each further one twice as long.
        attempts: After so many a notification becomes a dead letter.
    """

    def __init__(
        self, pool: Pool, senders: Mapping[Channel, Sender], *, retry_base: timedelta, attempts: int
    ) -> None:
        self._pool = pool
        self._senders = senders
        self._retry_base = retry_base
        self._attempts = attempts

    async def send_waiting(self) -> int:
        """Try each notification that waits once.

        Returns:
            How many were tried.

        Raises:
            DatabaseUnavailableError: The database is away. What was sent meanwhile may be sent again.
        """
        tried = 0
        while leased := await notifications.lease(self._pool, SENT_AT_ONCE, LEASE):
            tried += len(leased)
            # One slow receiver does not keep the others waiting; the first error is told after all have ended.
            results = await asyncio.gather(*map(self._send, leased), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        return tried

    async def _send(self, notification: Notification) -> None:
        try:
            await self._senders[notification.channel].send(notification)
        except SendingError as error:
            _LOGGER.warning(
                "notification %d by %s, attempt %d of %d: %s",
                notification.notification_id,
                notification.channel,
                notification.attempts,
                self._attempts,
                error,
            )
            if notification.attempts >= self._attempts:
                await notifications.bury(self._pool, notification, str(error))
            else:
                delay = min(self._retry_base * 2 ** min(notification.attempts - 1, 20), LONGEST_DELAY)
                await notifications.postpone(self._pool, notification, delay)
        else:
            await notifications.mark_sent(self._pool, notification)
