"""The webhook receiver: real HTTP clients post to it, and it keeps what it was sent."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from testyard.core.errors import NotMetError
from testyard.lab.servers.loop_thread import NotRunningError
from testyard.lab.servers.webhooks import WebhookReceiver

SOON = timedelta(seconds=5)
NOW = timedelta()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


def post(receiver: WebhookReceiver, path: str, content: object = None) -> httpx.Response:
    if isinstance(content, bytes):
        return httpx.post(receiver.url + path, content=content, trust_env=False)
    return httpx.post(receiver.url + path, json=content, trust_env=False)


def test_a_request_is_kept_with_everything_that_was_sent(receiver: WebhookReceiver) -> None:
    before = datetime.now(UTC)
    answer = httpx.post(
        f"{receiver.url}/hooks/run?attempt=1", json={"run": 17}, headers={"X-Signature": "abc"}, trust_env=False
    )
    assert (answer.status_code, answer.text) == (200, "ok")
    (delivery,) = receiver.deliveries()
    assert receiver.url == f"http://127.0.0.1:{receiver.port}"
    assert delivery.path == "/hooks/run"
    assert delivery.headers["x-signature"] == "abc"
    assert delivery.body == {"run": 17}
    assert delivery.status_given == 200
    assert before <= delivery.received_utc <= datetime.now(UTC)


@pytest.mark.parametrize(("content", "body"), [(b"run 17", "run 17"), (b"", ""), (b"\xff{", "\ufffd{")])
def test_a_body_that_is_not_json_is_kept_as_text(receiver: WebhookReceiver, content: bytes, body: str) -> None:
    assert post(receiver, "/", content).status_code == 200
    assert [delivery.body for delivery in receiver.deliveries()] == [body]


def test_another_method_is_refused(receiver: WebhookReceiver) -> None:
    assert httpx.get(f"{receiver.url}/hooks", trust_env=False).status_code == 405
    assert receiver.deliveries() == []


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        ({"text": "failed"}, 200, "ok"),
        ({"blocks": [{"type": "divider"}]}, 200, "ok"),
        ({"attachments": [{"fallback": "failed"}]}, 200, "ok"),
        ({"text": ""}, 400, "no_text"),
        ({"run": 17}, 400, "no_text"),
        (["failed"], 400, "invalid_payload"),
        (b"failed", 400, "invalid_payload"),
        (b"", 400, "invalid_payload"),
    ],
)
def test_slack_paths_answer_as_slack_does(
    receiver: WebhookReceiver, content: object, status: int, text: str
) -> None:
    answer = post(receiver, "/slack/T0/B0/X", content)
    assert (answer.status_code, answer.text) == (status, text)
    assert answer.headers["content-type"].startswith("text/plain")
    assert [delivery.status_given for delivery in receiver.deliveries("/slack/T0/B0/X")] == [status]


def test_fail_answers_that_many_with_the_status_and_keeps_them(receiver: WebhookReceiver) -> None:
    receiver.fail(2)
    statuses = [post(receiver, "/hook").status_code for _ in range(3)]
    assert statuses == [500, 500, 200]
    assert [delivery.status_given for delivery in receiver.deliveries()] == statuses


def test_fail_can_be_of_one_path_and_of_a_chosen_status(receiver: WebhookReceiver) -> None:
    receiver.fail(1, status=429, path="/slack/operators")
    receiver.fail(1, status=503, path="/b")
    assert post(receiver, "/a").status_code == 200
    assert post(receiver, "/b").status_code == 503
    assert post(receiver, "/slack/operators", {"text": "failed"}).status_code == 429
    assert post(receiver, "/slack/operators", {"text": "failed"}).status_code == 200
    assert [delivery.status_given for delivery in receiver.deliveries("/b")] == [503]


def test_fail_zero_and_clear_end_errors(receiver: WebhookReceiver) -> None:
    receiver.fail(5, path="/a")
    receiver.fail(0, path="/a")
    assert post(receiver, "/a").status_code == 200
    receiver.fail(5)
    receiver.clear()
    assert receiver.deliveries() == []
    assert post(receiver, "/a").status_code == 200
    assert len(receiver.deliveries()) == 1


def test_wait_for_finds_what_came_and_what_comes(receiver: WebhookReceiver) -> None:
    post(receiver, "/a", {"run": 1})
    post(receiver, "/a", {"run": 2})
    assert receiver.wait_for(lambda delivery: delivery.path == "/a", NOW).body == {"run": 1}
    sender = threading.Thread(target=post, args=(receiver, "/b", {"run": 3}))
    sender.start()
    assert receiver.wait_for(lambda delivery: delivery.path == "/b", SOON).body == {"run": 3}
    sender.join()


def test_wait_for_that_fails_lists_what_came(receiver: WebhookReceiver) -> None:
    post(receiver, "/another", {"run": 1})
    with pytest.raises(NotMetError, match=r"a delivery that matches.*/another"):
        receiver.wait_for(lambda delivery: delivery.path == "/this", NOW)


def test_many_clients_at_once_lose_no_request(receiver: WebhookReceiver) -> None:
    senders = [threading.Thread(target=post, args=(receiver, "/a", number)) for number in range(20)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert {delivery.body for delivery in receiver.deliveries()} == set(range(20))


def test_stop_ends_connections_thread_and_port_and_keeps_the_requests(receiver: WebhookReceiver) -> None:
    with httpx.Client(trust_env=False) as client:
        assert client.post(f"{receiver.url}/a").status_code == 200
        receiver.stop()
        receiver.stop()
        gc.collect()
        with pytest.raises(httpx.TransportError):
            client.post(f"{receiver.url}/a")
    assert not [thread for thread in threading.enumerate() if thread.name == "webhook receiver"]
    with pytest.raises(NotRunningError, match="webhook receiver is not running"):
        receiver.fail(1)
    assert len(receiver.deliveries()) == 1
