"""Transactions, and what does not fit into a queue."""

import pytest
from broker_support import QUEUE, VHOST, MemoryClient, bodies, flags, frame, new_broker, publish
from testyard.lab.broker import Broker
from testyard.lab.broker.transactions import MAX_ACTIONS, MAX_TRANSACTIONS


@pytest.fixture
def broker() -> Broker:
    return new_broker(max_queue_length=100)


@pytest.fixture
def client(broker: Broker) -> MemoryClient:
    return MemoryClient(broker).login()


def send(body: str, queue: str = QUEUE, **headers: str) -> str:
    return frame("SEND", body, destination=f"/queue/{queue}", **headers)


def test_sends_of_a_transaction_appear_at_commit(broker, client):
    client.send(frame("BEGIN", transaction="t") + send("1", transaction="t") + send("2", transaction="t"))
    client.send(send("outside"))
    assert broker.queue_depth(VHOST, QUEUE) == 1
    client.send(frame("COMMIT", transaction="t"))
    messages = client.subscribe()
    assert bodies(messages) == ["outside", "1", "2"]
    assert all("transaction" not in message.headers for message in messages)


def test_sends_of_an_aborted_transaction_never_appear(broker, client):
    client.send(frame("BEGIN", transaction="t") + send("1", transaction="t") + frame("ABORT", transaction="t"))
    assert broker.queue_depth(VHOST, QUEUE) == 0
    assert client.refused(frame("COMMIT", transaction="t")).headers["message"] == "Bad transaction"


def test_a_lost_connection_aborts_its_transactions(broker, client):
    client.send(frame("BEGIN", transaction="t") + send("1", transaction="t"))
    client.session.lost()
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_acknowledgements_of_a_transaction_count_at_commit(broker, client):
    publish(broker, "1", "2")
    first, second = client.subscribe(ack="client-individual")
    client.send(frame("BEGIN", transaction="t"))
    client.send(frame("ACK", id=first.headers["ack"], transaction="t"))
    client.send(frame("NACK", id=second.headers["ack"], transaction="t"))
    assert client.received() == []
    assert broker.queue_depth(VHOST, QUEUE) == 2
    client.send(frame("COMMIT", transaction="t"))
    assert flags(client.received()) == [("2", "true")]
    assert broker.queue_depth(VHOST, QUEUE) == 1


def test_acknowledgements_of_an_aborted_transaction_do_not_count(broker, client):
    publish(broker, "1")
    (message,) = client.subscribe(ack="client")
    client.send(frame("BEGIN", transaction="t") + frame("ACK", id=message.headers["ack"], transaction="t"))
    client.send(frame("ABORT", transaction="t"))
    assert broker.queue_depth(VHOST, QUEUE) == 1
    client.send(frame("ACK", id=message.headers["ack"]))
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_a_commit_that_fails_changes_nothing(broker, client):
    publish(broker, "1", "2")
    first, second = client.subscribe(ack="client")
    client.send(frame("BEGIN", transaction="t") + send("3", transaction="t"))
    client.send(frame("ACK", id=first.headers["ack"], transaction="t"))
    client.send(frame("ACK", id=second.headers["ack"]))
    assert broker.queue_depth(VHOST, QUEUE) == 0
    assert client.refused(frame("COMMIT", transaction="t")).headers["message"] == "Invalid header"
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_a_message_is_acknowledged_once_in_a_transaction(broker, client):
    publish(broker, "1")
    (message,) = client.subscribe(ack="client-individual")
    acknowledge = frame("ACK", id=message.headers["ack"], transaction="t")
    client.send(frame("BEGIN", transaction="t") + acknowledge + acknowledge)
    assert client.refused(frame("COMMIT", transaction="t")).headers["message"] == "Invalid header"
    assert flags(MemoryClient(broker).login().subscribe()) == [("1", "true")]


def test_transactions_of_a_session_are_independent(broker, client):
    client.send(frame("BEGIN", transaction="a") + frame("BEGIN", transaction="b"))
    client.send(send("1", transaction="a") + send("2", transaction="b") + frame("ABORT", transaction="a"))
    client.send(frame("COMMIT", transaction="b"))
    assert bodies(client.subscribe()) == ["2"]


def test_a_transaction_cannot_begin_twice(client):
    client.send(frame("BEGIN", transaction="t"))
    assert client.refused(frame("BEGIN", transaction="t")).headers["message"] == "Bad transaction"


def test_a_transactions_name_may_be_used_again(client):
    client.send(frame("BEGIN", transaction="t") + frame("COMMIT", transaction="t"))
    assert client.ask(frame("BEGIN", transaction="t", receipt="r")).command == "RECEIPT"


@pytest.mark.parametrize(
    "octets", [frame("COMMIT", transaction="t"), frame("ABORT", transaction="t"), send("x", transaction="t")]
)
def test_an_unknown_transaction_is_refused(broker, client, octets):
    assert client.refused(octets).headers["message"] == "Bad transaction"
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_an_acknowledgement_in_an_unknown_transaction_is_refused(broker, client):
    publish(broker, "1")
    (message,) = client.subscribe(ack="client")
    error = client.refused(frame("ACK", id=message.headers["ack"], transaction="t"))
    assert error.headers["message"] == "Bad transaction"


def test_transactions_are_bounded(client):
    for number in range(MAX_TRANSACTIONS):
        client.send(frame("BEGIN", transaction=str(number)))
    assert client.received() == []
    assert client.refused(frame("BEGIN", transaction="x")).headers["message"] == "Transaction limit exceeded"


def test_a_transactions_actions_are_bounded(client):
    client.send(frame("BEGIN", transaction="t") + send("x", transaction="t") * MAX_ACTIONS)
    assert client.received() == []
    assert client.refused(send("x", transaction="t")).headers["message"] == "Transaction too large"


def test_a_transactions_octets_are_bounded(client):
    client.send(frame("BEGIN", transaction="t") + send("x" * (4 * 1024 * 1024), transaction="t") * 4)
    assert client.received() == []
    assert client.refused(send("x", transaction="t")).headers["message"] == "Transaction too large"


def test_a_full_queue_refuses_send(broker, client):
    publish(broker, *["x"] * 100)
    error = client.refused(send("one too many", receipt="r"))
    assert error.headers["message"] == "resource_limit_exceeded"
    assert error.headers["receipt-id"] == "r"
    assert broker.rejected_count(VHOST, QUEUE) == 1
    assert broker.queue_depth(VHOST, QUEUE) == 100


def test_a_transaction_that_does_not_fit_publishes_nothing(broker, client):
    publish(broker, *["x"] * 99)
    client.send(frame("BEGIN", transaction="t") + send("1", "other", transaction="t"))
    client.send(send("2", transaction="t") + send("3", transaction="t"))
    assert client.refused(frame("COMMIT", transaction="t")).headers["message"] == "resource_limit_exceeded"
    assert broker.queue_depth(VHOST, QUEUE) == 99
    assert broker.queue_depth(VHOST, "other") == 0
    assert broker.rejected_count(VHOST, QUEUE) == 2


def test_acknowledgements_of_a_transaction_make_room_for_its_sends(broker, client):
    publish(broker, *["x"] * 100)
    first, *_ = client.subscribe(ack="client-individual")
    client.send(frame("BEGIN", transaction="t") + send("new", transaction="t"))
    client.send(frame("ACK", id=first.headers["ack"], transaction="t"))
    client.send(frame("COMMIT", transaction="t"))
    assert bodies(client.received()) == ["new"]
    assert broker.queue_depth(VHOST, QUEUE) == 100
