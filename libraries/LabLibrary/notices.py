"""Keywords about who is told of failed pipelines: the mailbox and the webhook receiver of the lab."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError
from testyard.core.tables import html_table

from LabLibrary.world import World

MAIL_COLUMNS = ("received_utc", "recipients", "subject", "text")
CALL_COLUMNS = ("received_utc", "path", "status_given", "body")

Notice = dict[str, Any]


class NoticeKeywords:
    """The mailbox and the webhook receiver of the lab."""

    _world: World

    # Mail.

    @keyword(tags=["Assertion", "Wait", "Evidence"])
    def mail_should_arrive(
        self, address: str, *, about: str = "", times: int = 1, within: timedelta = timedelta(seconds=10)
    ) -> list[Notice]:
        """Wait until mail has arrived in the lab's mailbox, and check that it is not more than expected.

        Args:
            address: To whom; the mailbox takes mail for every address.
            about: What its subject or its text contains; mail about anything when empty.
            times: How many mails.
            within: Give up after this time.

        Returns:
            The mails as mappings: sender, recipients, subject, text, headers, received_utc.

        Raises:
            NotMetError: Fewer in time, or more; tells how many.

        Example:
            | ${mails} = | Mail Should Arrive | operators@acme.example | about=${run} |
        """
        what = f"mail to {address}{_about(about)}"
        return _wait_for(lambda: self._mails(address, about), times, within, what, MAIL_COLUMNS)

    @keyword(tags=["Assertion", "Evidence"])
    def no_mail_should_have_arrived(self, address: str, *, about: str = "") -> None:
        """Check that no mail has arrived. It does not wait: let something arrive that was sent later first.

        Args:
            address: To whom.
            about: What its subject or its text would contain; mail about anything when empty.

        Raises:
            NotMetError: There is some; tells how much.

        Example:
            | Mail Should Arrive | operators@acme.example | about=${later} |
            | No Mail Should Have Arrived | operators@acme.example | about=${retried} |
        """
        _check_none(self._mails(address, about), f"mail to {address}{_about(about)}", MAIL_COLUMNS)

    @keyword(tags=["Fault"])
    def the_mailbox_refuses_mail(self, *, times: int) -> None:
        """Answer the next messages with 451, which a sender may try again (RFC 5321), until the test ends.

        Args:
            times: How many.

        Example:
            | The Mailbox Refuses Mail | times=2 |
        """
        mailbox = self._world.pipeline_lab().mailbox
        self._world.will_undo("the mailbox", partial(mailbox.fail, 0))
        mailbox.fail(times)
        logger.info(f"The mailbox refuses mail {times} times")

    def _mails(self, address: str, about: str) -> list[Notice]:
        return [
            asdict(mail)
            for mail in self._world.pipeline_lab().mailbox.messages()
            if address in mail.recipients and about in f"{mail.subject}\n{mail.text}"
        ]

    # Webhooks.

    @keyword(tags=["Getter"])
    def address_of_the_webhook_receiver(self, path: str) -> str:
        """The URL to which webhooks are posted. Below `/slack/` the receiver answers as Slack does.

        Args:
            path: Any path, with its leading slash.

        Example:
            | ${url} = | Address Of The Webhook Receiver | /slack/operators |
        """
        return f"{self._world.webhooks().url}{path}"

    @keyword(tags=["Assertion", "Wait", "Evidence"])
    def webhook_should_be_called(
        self, path: str, *, about: str = "", times: int = 1, within: timedelta = timedelta(seconds=10)
    ) -> list[Notice]:
        """Wait until a webhook of the lab was called, and check that it was not called more often than expected.

        Args:
            path: Which, with its leading slash.
            about: What the body contains; calls about anything when empty.
            times: How many calls, also those that were answered with an error.
            within: Give up after this time.

        Returns:
            The calls as mappings: path, headers (names in lower case), body, received_utc, status_given.

        Raises:
            NotMetError: Fewer in time, or more; tells how many.

        Example:
            | ${calls} = | Webhook Should Be Called | /hooks/acme | about=${run} | times=3 |
        """
        what = f"calls of {path}{_about(about)}"
        return _wait_for(lambda: self._calls(path, about), times, within, what, CALL_COLUMNS)

    @keyword(tags=["Assertion", "Evidence"])
    def webhook_should_not_have_been_called(self, path: str, *, about: str = "") -> None:
        """Check that a webhook was not called. It does not wait: let something arrive that was sent later first.

        Args:
            path: Which, with its leading slash.
            about: What the body would contain; calls about anything when empty.

        Raises:
            NotMetError: It was; tells how often.

        Example:
            | Webhook Should Be Called | /hooks/acme | about=${later} |
            | Webhook Should Not Have Been Called | /hooks/acme | about=${retried} |
        """
        _check_none(self._calls(path, about), f"calls of {path}{_about(about)}", CALL_COLUMNS)

    @keyword(tags=["Fault"])
    def the_webhook_receiver_fails(self, path: str, *, times: int, status: int = 500) -> None:
        """Answer the next calls of a webhook with an error, until the test ends.

        Args:
            path: Which, with its leading slash.
            times: How many calls.
            status: The HTTP status of the answer.

        Example:
            | The Webhook Receiver Fails | /hooks/acme | times=2 |
        """
        receiver = self._world.webhooks()
        self._world.will_undo(("the webhook receiver", path), partial(receiver.fail, 0, path=path))
        receiver.fail(times, status, path)
        logger.info(f"The webhook receiver answers {path} with {status} {times} times")

    def _calls(self, path: str, about: str) -> list[Notice]:
        return [
            asdict(call)
            for call in self._world.webhooks().deliveries(path)
            if about in json.dumps(call.body, ensure_ascii=False)
        ]


def _about(text: str) -> str:
    return f" about {text!r}" if text else ""


def _wait_for(
    read: Callable[[], list[Notice]], times: int, within: timedelta, what: str, columns: Sequence[str]
) -> list[Notice]:
    """Wait for as many as expected; more fail at once."""
    try:
        wait_until(lambda: len(read()), lambda count: count >= times, Deadline(within), f"{times} x {what}")
    finally:
        found = read()
        _draw(found, what, columns)
    if len(found) > times:
        message = f"There were {len(found)} x {what}, expected {times}."
        raise NotMetError(message)
    return found


def _check_none(found: list[Notice], what: str, columns: Sequence[str]) -> None:
    _draw(found, what, columns)
    if found:
        message = f"There were {len(found)} x {what}, expected none."
        raise NotMetError(message)


def _draw(notices: list[Notice], what: str, columns: Sequence[str]) -> None:
    rows = [tuple(notice[column] for column in columns) for notice in notices]
    logger.info(html_table(f"{len(rows)} x {what}", columns, rows), html=True)
