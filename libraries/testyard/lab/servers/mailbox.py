"""An SMTP server that keeps what it is sent, by aiosmtpd (RFC 5321; no TLS, no authentication)."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from weakref import WeakSet

from aiosmtpd.smtp import SMTP, Envelope, Session

from testyard.lab.servers.inbox import Inbox
from testyard.lab.servers.loop_thread import LOOPBACK, LoopThread, loopback_listener

# RFC 5321, section 4.2.3: 451 is a failure that a client may try again; RFC 3463 gives it 4.3.0.
TAKEN = "250 2.0.0 OK"
REFUSED = "451 4.3.0 Requested action aborted: local error in processing"


@dataclass(frozen=True)
class Mail:
    """One message that was taken.

    Attributes:
        sender: Address of ``MAIL FROM``.
        recipients: Addresses of every ``RCPT TO``.
        subject: The decoded subject; empty when there is none.
        text: The decoded text, of ``text/plain`` rather than ``text/html``, lines ended by a line feed; empty
            when there is neither.
        headers: Decoded header fields by name in lower case; the first of each name.
        received_utc: When it was taken.
    """

    sender: str
    recipients: tuple[str, ...]
    subject: str
    text: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    received_utc: datetime


class Mailbox(LoopThread):
    """Takes mail for every address and keeps it.

    Attributes:
        host: The loopback address to send to.
        port: The TCP port to send to; 0 before ``start``.

    Example:
        >>> with Mailbox() as mailbox:                                         # doctest: +SKIP
        ...     notify(mailbox.url)
        ...     mailbox.wait_for(lambda mail: "failed" in mail.subject, timedelta(seconds=5)).recipients
        ('operator@customer.example',)
    """

    def __init__(self) -> None:
        super().__init__("mailbox")
        self.host = LOOPBACK
        self.port = 0
        self._inbox: Inbox[Mail] = Inbox("mail")
        self._to_refuse = 0
        self._refused = 0
        self._sessions: WeakSet[SMTP] = WeakSet()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        listener = loopback_listener(self.port)
        self.port = listener.getsockname()[1]
        server = await asyncio.get_running_loop().create_server(self._new_session, sock=listener)
        try:
            yield
        finally:
            server.close()
            # From Python 3.12 on, wait_closed waits for open connections too.
            for session in self._sessions:
                if isinstance(session.transport, asyncio.Transport):
                    session.transport.abort()
            await server.wait_closed()

    def _new_session(self) -> SMTP:
        # With a host name given, aiosmtpd does not ask the machine's resolver for one.
        session = SMTP(
            self, enable_SMTPUTF8=True, hostname="mailbox.lab", ident="testyard", loop=asyncio.get_running_loop()
        )
        self._sessions.add(session)
        return session

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        """Take or refuse one message; aiosmtpd calls this.

        Returns:
            The SMTP reply.
        """
        if self._to_refuse:
            self._to_refuse -= 1
            self._refused += 1
            return REFUSED
        self._inbox.add(_mail(envelope))
        return TAKEN

    @property
    def url(self) -> str:
        """Where to send mail: ``smtp://127.0.0.1:port``."""
        return f"smtp://{self.host}:{self.port}"

    @property
    def refused(self) -> int:
        """How many attempts were answered 451 since the start or the last ``clear``."""
        return self._refused

    def fail(self, times: int) -> None:
        """Answer the next messages with 451 and do not keep them.

        Args:
            times: How many; zero takes mail again.
        """
        self._portal.call(self._set_to_refuse, times)

    def _set_to_refuse(self, times: int) -> None:
        self._to_refuse = times

    def messages(self) -> list[Mail]:
        """The mail that is kept, oldest first."""
        return self._inbox.items()

    def clear(self) -> None:
        """Forget the mail, the count of refused attempts, and what is still to be refused."""
        self._portal.call(self._clear)

    def _clear(self) -> None:
        self._inbox.clear()
        self._to_refuse = self._refused = 0

    def wait_for(self, predicate: Callable[[Mail], bool], within: timedelta) -> Mail:
        """Wait for mail that a predicate accepts, come already or yet to come.

        Args:
            predicate: Says whether a mail is the one waited for.
            within: Give up after this time.

        Returns:
            The oldest such mail.

        Raises:
            NotMetError: There is none in time; lists the mail that did come.
        """
        return self._inbox.wait_for(predicate, within)


def _mail(envelope: Envelope) -> Mail:
    content = envelope.original_content or b""
    message = email.message_from_bytes(content, _class=EmailMessage, policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    headers: dict[str, str] = {}
    for name, value in message.items():
        headers.setdefault(name.lower(), str(value))
    return Mail(
        sender=envelope.mail_from or "",
        recipients=tuple(envelope.rcpt_tos),
        subject=headers.get("subject", ""),
        text=body.get_content().replace("\r\n", "\n") if body is not None else "",
        headers=headers,
        received_utc=datetime.now(UTC),
    )
