"""The broker's own interface: queues, users, what becomes of a published message."""

import pytest
from broker_support import LOGIN, QUEUE, VHOST, MemoryClient, frame, new_broker
from testyard.lab.broker import Broker, PublishOutcome, QueueNotFoundError
from testyard.lab.broker.queues import MAX_QUEUE_BYTES


def test_a_message_for_no_queue_reaches_nobody():
    broker = new_broker()
    assert broker.publish(VHOST, "missing", "x", {}) is PublishOutcome.NO_QUEUE
    assert broker.publish("missing", QUEUE, "x", {}) is PublishOutcome.NO_QUEUE


def test_declaring_a_queue_again_keeps_its_messages():
    broker = Broker()
    broker.declare_queue("v", "q")
    broker.publish("v", "q", "x", {})
    broker.declare_queue("v", "q")
    assert broker.queue_depth("v", "q") == 1


def test_a_deleted_queue_is_gone_with_its_messages():
    broker = new_broker()
    broker.publish(VHOST, QUEUE, "x", {})
    broker.delete_queue(VHOST, QUEUE)
    assert broker.publish(VHOST, QUEUE, "x", {}) is PublishOutcome.NO_QUEUE
    broker.declare_queue(VHOST, QUEUE)
    assert broker.queue_depth(VHOST, QUEUE) == 0
    broker.delete_queue(VHOST, "missing")
    broker.delete_queue("missing", QUEUE)


def test_asking_about_a_missing_queue_is_an_error_not_zero():
    broker = new_broker()
    for ask in (broker.queue_depth, broker.rejected_count):
        with pytest.raises(QueueNotFoundError, match="no queue 'missing'"):
            ask(VHOST, "missing")
        with pytest.raises(QueueNotFoundError, match="in vhost 'missing'"):
            ask("missing", QUEUE)


def test_queues_outlive_users_and_connections():
    broker = new_broker()
    client = MemoryClient(broker).login()
    client.send(frame("SEND", "kept", destination="/queue/new"))
    client.session.lost()
    broker.remove_user(VHOST, LOGIN)
    broker.remove_user(VHOST, LOGIN)
    broker.remove_user("missing", LOGIN)
    assert broker.queue_depth(VHOST, "new") == 1


def test_a_queue_holds_ten_thousand_messages_and_counts_what_it_rejects():
    broker = new_broker()
    outcomes = [broker.publish(VHOST, QUEUE, "x", {}) for _ in range(10_002)]
    assert outcomes.count(PublishOutcome.QUEUED) == 10_000
    assert outcomes[10_000:] == [PublishOutcome.REJECTED] * 2
    assert broker.queue_depth(VHOST, QUEUE) == 10_000
    assert broker.rejected_count(VHOST, QUEUE) == 2


def test_unacknowledged_messages_count_against_the_bound():
    broker = new_broker(max_queue_length=2)
    client = MemoryClient(broker).login()
    client.subscribe(ack="client")
    outcomes = [broker.publish(VHOST, QUEUE, "x", {}) for _ in range(3)]
    assert outcomes == [PublishOutcome.DELIVERED] * 2 + [PublishOutcome.REJECTED]
    _, second = client.received()
    client.send(frame("ACK", id=second.headers["ack"]))
    assert broker.publish(VHOST, QUEUE, "x", {}) is PublishOutcome.DELIVERED


def test_a_queue_is_bounded_in_octets_too():
    broker = new_broker()
    body = "x" * (MAX_QUEUE_BYTES // 4)
    assert [broker.publish(VHOST, QUEUE, body, {}) for _ in range(4)] == [PublishOutcome.QUEUED] * 4
    assert broker.publish(VHOST, QUEUE, "x", {}) is PublishOutcome.REJECTED
    broker.delete_queue(VHOST, QUEUE)
    broker.declare_queue(VHOST, QUEUE)
    assert broker.publish(VHOST, QUEUE, "x", {}) is PublishOutcome.QUEUED


def test_delivered_messages_free_their_octets():
    broker = new_broker()
    client = MemoryClient(broker).login()
    client.subscribe()
    body = "x" * (MAX_QUEUE_BYTES // 16)
    for _ in range(20):
        assert broker.publish(VHOST, QUEUE, body, {}) is PublishOutcome.DELIVERED
        assert len(client.received()) == 1


def test_published_headers_are_passed_on_and_cannot_be_forged():
    broker = new_broker()
    client = MemoryClient(broker).login()
    headers = {"durable": "true", "x-message-id": "1:2", "destination": "/queue/forged", "content-length": "1"}
    broker.publish(VHOST, QUEUE, '{"é": 1}', headers)
    headers.clear()
    (message,) = client.subscribe()
    assert message.body.decode() == '{"é": 1}'
    assert message.headers["durable"] == "true"
    assert message.headers["x-message-id"] == "1:2"
    assert message.headers["destination"] == f"/queue/{QUEUE}"
    assert message.headers["content-length"] == str(len(message.body))


@pytest.mark.parametrize("headers", [{"a": "b\0"}, {"a\0": "b"}, {"": "b"}])
def test_a_header_that_no_frame_can_carry_is_refused_before_it_is_queued(headers):
    broker = new_broker()
    with pytest.raises(ValueError, match="header"):
        broker.publish(VHOST, QUEUE, "x", headers)
    assert broker.queue_depth(VHOST, QUEUE) == 0
