"""The mailbox: real SMTP clients send to it, and it keeps what it took."""

from __future__ import annotations

import gc
import smtplib
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from urllib.parse import urlsplit

import pytest
from testyard.core.errors import NotMetError
from testyard.lab.servers.loop_thread import NotRunningError
from testyard.lab.servers.mailbox import Mailbox

SOON = timedelta(seconds=5)
NOW = timedelta()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        yield mailbox


def send(mailbox: Mailbox, subject: str = "failed", html: str | None = None) -> None:
    message = EmailMessage()
    message["From"] = "service@lab.example"
    message["To"] = "first@lab.example, second@lab.example"
    message["Subject"] = subject
    message["X-Run"] = "17"
    message.set_content("Größe: 3\n")
    if html:
        message.add_alternative(html, subtype="html")
    address = urlsplit(mailbox.url)
    assert address.hostname is not None
    assert address.port is not None
    with smtplib.SMTP(address.hostname, address.port, timeout=5) as client:
        client.send_message(message)


def test_a_mail_is_kept_with_everything_that_was_sent(mailbox: Mailbox) -> None:
    before = datetime.now(UTC)
    send(mailbox, "Pipeline „Nacht“ failed", html="<p>not this</p>")
    (mail,) = mailbox.messages()
    assert mailbox.url == f"smtp://127.0.0.1:{mailbox.port}"
    assert mail.sender == "service@lab.example"
    assert mail.recipients == ("first@lab.example", "second@lab.example")
    assert mail.subject == "Pipeline „Nacht“ failed"
    assert mail.text == "Größe: 3\n"
    assert mail.headers["x-run"] == "17"
    assert before <= mail.received_utc <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("content", "subject", "text"),
    [
        (b"", "", ""),
        (b"no header at all\r\n", "", "no header at all\n"),
        (b"Subject: one\r\nSubject: two\r\n\r\nbody\r\n", "one", "body\n"),
        (b"Content-Type: application/pdf\r\n\r\n%PDF\r\n", "", ""),
    ],
)
def test_odd_mail_is_kept_too(mailbox: Mailbox, content: bytes, subject: str, text: str) -> None:
    with smtplib.SMTP(mailbox.host, mailbox.port, timeout=5) as client:
        client.sendmail("a@lab.example", ["b@lab.example"], content)
    (mail,) = mailbox.messages()
    assert (mail.subject, mail.text) == (subject, text)


def test_fail_refuses_that_many_with_451_and_counts_them(mailbox: Mailbox) -> None:
    mailbox.fail(2)
    for _ in range(2):
        with pytest.raises(smtplib.SMTPDataError) as refusal:
            send(mailbox)
        assert refusal.value.smtp_code == 451
    assert mailbox.messages() == []
    send(mailbox, "third time")
    assert [mail.subject for mail in mailbox.messages()] == ["third time"]
    assert mailbox.refused == 2


def test_fail_zero_and_clear_take_mail_again(mailbox: Mailbox) -> None:
    mailbox.fail(5)
    mailbox.fail(0)
    send(mailbox)
    mailbox.fail(1)
    with pytest.raises(smtplib.SMTPDataError):
        send(mailbox)
    mailbox.fail(1)
    mailbox.clear()
    assert mailbox.messages() == []
    assert mailbox.refused == 0
    send(mailbox, "after")
    assert [mail.subject for mail in mailbox.messages()] == ["after"]


def test_wait_for_finds_what_came_and_what_comes(mailbox: Mailbox) -> None:
    send(mailbox, "first")
    send(mailbox, "second")
    assert mailbox.wait_for(lambda mail: "s" in mail.subject, NOW).subject == "first"
    sender = threading.Thread(target=send, args=(mailbox, "third"))
    sender.start()
    assert mailbox.wait_for(lambda mail: mail.subject == "third", SOON).subject == "third"
    sender.join()


def test_wait_for_that_fails_lists_what_came(mailbox: Mailbox) -> None:
    send(mailbox, "another subject")
    with pytest.raises(NotMetError, match=r"a mail that matches.*another subject"):
        mailbox.wait_for(lambda mail: mail.subject == "this", NOW)


def test_many_clients_at_once_lose_no_mail(mailbox: Mailbox) -> None:
    subjects = [f"number {number}" for number in range(20)]
    senders = [threading.Thread(target=send, args=(mailbox, subject)) for subject in subjects]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sorted(mail.subject for mail in mailbox.messages()) == sorted(subjects)


def test_stop_ends_connections_thread_and_port_and_keeps_the_mail(mailbox: Mailbox) -> None:
    send(mailbox)
    with socket.create_connection((mailbox.host, mailbox.port), 5) as client:
        assert client.recv(200).startswith(b"220 ")
        mailbox.stop()
        mailbox.stop()
        assert client.recv(1) == b""
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "mailbox"]
    with pytest.raises(ConnectionRefusedError):
        send(mailbox)
    with pytest.raises(NotRunningError, match="mailbox is not running"):
        mailbox.fail(1)
    assert len(mailbox.messages()) == 1
