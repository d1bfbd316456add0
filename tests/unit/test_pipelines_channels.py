"""Failure notifications: sent to real receivers, tried again, and given up into the dead letters."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import httpx
import pytest
from pipelines_support import World
from testyard.lab.pipelines.channels import (
    NOTIFICATION_HEADER,
    Dispatcher,
    EmailSender,
    SendingError,
    SlackSender,
    WebhookSender,
    new_client,
)
from testyard.lab.pipelines.records import Channel, Notification
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.settings import SmtpServer
from testyard.lab.pipelines.store import notifications
from testyard.lab.servers.mailbox import Mailbox
from testyard.lab.servers.webhooks import WebhookReceiver

pytestmark = pytest.mark.anyio

AT_ONCE = timedelta()
ATTEMPTS = 3


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Takes webhooks."""
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """Takes mail."""
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Sends webhooks."""
    async with new_client() as client:
        yield client


def _dispatcher(
    world: World, client: httpx.AsyncClient, mailbox: Mailbox | None = None, retry_base: timedelta = AT_ONCE
) -> Dispatcher:
    server = None if mailbox is None else SmtpServer(host=mailbox.host, port=mailbox.port)
    senders = {
        Channel.EMAIL: EmailSender(server),
        Channel.SLACK: SlackSender(client),
        Channel.WEBHOOK: WebhookSender(client),
    }
    return Dispatcher(world.pool, senders, retry_base=retry_base, attempts=ATTEMPTS)


async def _fail_a_run(world: World) -> str:
    run = await world.run()
    await world.fail(await world.claim_one(), error_class=ErrorClass.AUTHENTICATION_FAILED)
    return run.run_id


async def test_each_channel_gets_one_notification_of_a_failed_run(
    world: World, client: httpx.AsyncClient, receiver: WebhookReceiver, mailbox: Mailbox
):
    await world.customer()
    await world.channel("webhook", f"{receiver.url}/hook")
    await world.channel("slack", f"{receiver.url}/slack/qa")
    await world.channel("email", "qa@example.com")
    run_id = await _fail_a_run(world)
    dispatchers = [_dispatcher(world, client, mailbox) for _ in range(4)]
    assert sum(await asyncio.gather(*(dispatcher.send_waiting() for dispatcher in dispatchers))) == 3
    (hook,) = receiver.deliveries("/hook")
    assert isinstance(hook.body, dict)
    assert (hook.body["event"], hook.body["run_id"]) == ("pipeline_run_failed", run_id)
    assert (hook.body["error_class"], hook.body["error_message"]) == ("AUTHENTICATION_FAILED", "it failed")
    (slack,) = receiver.deliveries("/slack/qa")
    assert isinstance(slack.body, dict)
    assert list(slack.body) == ["text"]
    assert run_id in slack.body["text"]
    (mail,) = mailbox.messages()
    assert mail.recipients == ("qa@example.com",)
    assert mail.subject == "Pipeline run failed: acme-GCP-COST-cost_billing"
    assert run_id in mail.text
    ids = {hook.headers[NOTIFICATION_HEADER.lower()], mail.headers[NOTIFICATION_HEADER.lower()]}
    assert len(ids) == 2
    assert await dispatchers[0].send_waiting() == 0, "nothing is sent twice"


async def test_a_receiver_that_fails_at_first_is_tried_again(
    world: World, client: httpx.AsyncClient, receiver: WebhookReceiver, mailbox: Mailbox
):
    await world.customer()
    await world.channel("webhook", f"{receiver.url}/hook")
    await world.channel("email", "qa@example.com")
    await _fail_a_run(world)
    receiver.fail(2)
    mailbox.fail(1)
    assert await _dispatcher(world, client, mailbox).send_waiting() == 5
    assert [delivery.status_given for delivery in receiver.deliveries("/hook")] == [500, 500, 200]
    assert (len(mailbox.messages()), mailbox.refused) == (1, 1)
    assert await notifications.dead_letters(world.pool, "acme") == []


async def test_after_the_last_attempt_it_is_a_dead_letter(
    world: World, client: httpx.AsyncClient, receiver: WebhookReceiver
):
    await world.customer()
    await world.channel("webhook", f"{receiver.url}/secret-path")
    await world.channel("slack", "http://127.0.0.1:1/secret-path")
    await world.channel("email", "qa@example.com")
    run_id = await _fail_a_run(world)
    receiver.fail(100, status=503)
    assert await _dispatcher(world, client).send_waiting() == 3 * ATTEMPTS
    letters = {letter.channel: letter for letter in await notifications.dead_letters(world.pool, "acme")}
    assert {channel: letter.last_error for channel, letter in letters.items()} == {
        Channel.WEBHOOK: "it answered 503",
        Channel.SLACK: "ConnectError",
        Channel.EMAIL: "the service was started without an SMTP server",
    }
    assert {(letter.run_id, letter.attempts) for letter in letters.values()} == {(run_id, ATTEMPTS)}
    assert len(receiver.deliveries("/secret-path")) == ATTEMPTS
    assert await world.rows("SELECT FROM notifications") == []


async def test_the_delay_between_attempts_doubles(world: World, client: httpx.AsyncClient):
    await world.customer()
    await world.channel("webhook", "http://127.0.0.1:1/")
    await _fail_a_run(world)
    dispatcher = _dispatcher(world, client, retry_base=timedelta(minutes=10))
    waits = "SELECT not_before - clock_timestamp() AS wait FROM notifications"
    for minutes in (10, 20):
        assert await dispatcher.send_waiting() == 1
        (row,) = await world.rows(waits)
        assert timedelta(minutes=minutes - 1) < row["wait"] <= timedelta(minutes=minutes)
        assert await dispatcher.send_waiting() == 0, "it waits"
        await world.execute("UPDATE notifications SET not_before = clock_timestamp()")


async def test_what_a_killed_sender_had_taken_is_sent_by_another(
    world: World, client: httpx.AsyncClient, receiver: WebhookReceiver
):
    await world.customer()
    await world.channel("webhook", f"{receiver.url}/hook")
    await _fail_a_run(world)
    (taken,) = await notifications.lease(world.pool, 10, timedelta(minutes=1))
    dispatcher = _dispatcher(world, client)
    assert await dispatcher.send_waiting() == 0, "it is leased"
    await world.execute("UPDATE notifications SET not_before = clock_timestamp()")
    (again,) = await notifications.lease(world.pool, 10, AT_ONCE)
    assert not await notifications.mark_sent(world.pool, taken), "it is another sender's now"
    assert not await notifications.postpone(world.pool, taken, timedelta(hours=1))
    assert not await notifications.bury(world.pool, taken, "too late")
    assert again.attempts == taken.attempts + 1
    assert await dispatcher.send_waiting() == 1
    assert len(receiver.deliveries("/hook")) == 1


async def test_redirects_are_not_followed(client: httpx.AsyncClient, receiver: WebhookReceiver):
    notification = Notification(1, "acme", "r", Channel.WEBHOOK, f"{receiver.url}/hook", "s", {}, 1)
    receiver.fail(1, status=302)
    with pytest.raises(SendingError, match="it answered 302"):
        await WebhookSender(client).send(notification)


async def test_an_address_that_is_none_is_a_failure_like_any_other(client: httpx.AsyncClient):
    for target in ("http://[", "nonsense", "http://127.0.0.1:99999/"):
        notification = Notification(1, "acme", "r", Channel.WEBHOOK, target, "s", {}, 1)
        with pytest.raises(SendingError):
            await WebhookSender(client).send(notification)
