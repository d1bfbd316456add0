"""Who gets which message when: acknowledgement, redelivery, back-pressure, imposed faults."""

import pytest
from broker_support import LOGIN, QUEUE, VHOST, MemoryClient, bodies, flags, frame, new_broker, publish
from testyard.lab.broker import Broker, PublishOutcome
from testyard.lab.broker.outbox import HIGH_WATER


@pytest.fixture
def broker() -> Broker:
    return new_broker(max_queue_length=100)


@pytest.fixture
def client(broker: Broker) -> MemoryClient:
    return MemoryClient(broker).login()


# ---- ack:auto


def test_waiting_messages_are_delivered_in_order_on_subscribe(broker, client):
    assert publish(broker, "1", "2", "3") == [PublishOutcome.QUEUED] * 3
    messages = client.subscribe()
    assert bodies(messages) == ["1", "2", "3"]
    assert all("ack" not in message.headers for message in messages)
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_a_message_for_a_consumer_is_delivered_at_once(broker, client):
    client.subscribe()
    assert publish(broker, "1") == [PublishOutcome.DELIVERED]
    assert bodies(client.received()) == ["1"]


def test_messages_not_given_to_the_transport_return_when_the_connection_ends(broker, client):
    client.subscribe()
    publish(broker, "1", "2", "3")
    outgoing = client.session.take_outgoing()
    client.session.handed_over(outgoing)
    client.session.lost()
    assert broker.queue_depth(VHOST, QUEUE) == 2
    assert flags(MemoryClient(broker).login().subscribe()) == [("2", "false"), ("3", "false")]


def test_a_message_that_the_transport_refused_is_delivered_again(broker, client):
    client.subscribe()
    publish(broker, "1")
    client.session.take_outgoing()
    client.session.lost()
    assert flags(MemoryClient(broker).login().subscribe()) == [("1", "true")]


def test_disconnect_returns_what_was_not_sent(broker, client):
    client.subscribe()
    publish(broker, "1", "2")
    assert client.ask(frame("DISCONNECT", receipt="r")).command == "RECEIPT"
    assert flags(MemoryClient(broker).login().subscribe()) == [("1", "false"), ("2", "false")]


def test_a_message_being_sent_during_disconnect_is_not_delivered_twice(broker, client):
    client.subscribe()
    publish(broker, "1")
    outgoing = client.session.take_outgoing()
    client.send(frame("DISCONNECT"))
    client.session.handed_over(outgoing)
    client.session.lost()
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_unsubscribe_returns_what_was_not_sent(broker, client):
    client.subscribe("1")
    publish(broker, "a", "b")
    client.send(frame("UNSUBSCRIBE", id="1"))
    assert client.received() == []
    assert flags(client.subscribe("2")) == [("a", "false"), ("b", "false")]


def test_an_auto_delivery_cannot_be_acknowledged(broker, client):
    client.subscribe()
    publish(broker, "1")
    (message,) = client.received()
    error = client.refused(frame("ACK", id=message.headers["message-id"]))
    assert error.headers["message"] == "Invalid header"


# ---- ack:client and ack:client-individual


def test_client_individual_settles_one_message(broker, client):
    publish(broker, "1", "2", "3")
    _, second, _ = client.subscribe(ack="client-individual")
    assert second.headers["ack"] == second.headers["message-id"]
    client.send(frame("ACK", id=second.headers["ack"]))
    assert broker.queue_depth(VHOST, QUEUE) == 2
    client.session.lost()
    assert flags(MemoryClient(broker).login().subscribe()) == [("1", "true"), ("3", "true")]


def test_client_settles_all_up_to_a_message_of_that_subscription(broker, client):
    broker.declare_queue(VHOST, "other")
    client.subscribe("o", ack="client", destination="/queue/other")
    client.subscribe("s", ack="client")
    broker.publish(VHOST, "other", "earlier", {})
    publish(broker, "1", "2", "3")
    (target,) = (message for message in client.received() if message.body == b"2")
    client.send(frame("ACK", id=target.headers["ack"]))
    assert broker.queue_depth(VHOST, QUEUE) == 1
    assert broker.queue_depth(VHOST, "other") == 1
    client.session.lost()
    assert flags(MemoryClient(broker).login().subscribe()) == [("3", "true")]


def test_nack_requeues_one_message_with_client_individual(broker, client):
    publish(broker, "1", "2", "3")
    _, second, _ = client.subscribe(ack="client-individual")
    client.send(frame("NACK", id=second.headers["ack"]))
    (again,) = client.received()
    assert flags([again]) == [("2", "true")]
    assert again.headers["ack"] != second.headers["ack"]
    assert broker.queue_depth(VHOST, QUEUE) == 3
    assert client.refused(frame("ACK", id=second.headers["ack"])).command == "ERROR"


def test_nack_requeues_all_up_to_a_message_with_client(broker, client):
    publish(broker, "1", "2", "3")
    _, second, _ = client.subscribe(ack="client")
    client.send(frame("NACK", id=second.headers["ack"]))
    assert flags(client.received()) == [("1", "true"), ("2", "true")]


def test_nack_without_requeue_discards(broker, client):
    publish(broker, "1", "2")
    first, _ = client.subscribe(ack="client-individual")
    client.send(frame("NACK", id=first.headers["ack"], requeue="false"))
    assert client.received() == []
    assert broker.queue_depth(VHOST, QUEUE) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_requeued_message_keeps_its_place(broker, client, order):
    publish(broker, "1", "2", "3", "4")
    messages = client.subscribe(ack="client-individual", prefetch_count="2")
    client.send(frame("UNSUBSCRIBE", id="s"))
    for index in order:
        client.send(frame("NACK", id=messages[index].headers["ack"]))
    assert bodies(MemoryClient(broker).login().subscribe()) == ["1", "2", "3", "4"]


def test_a_message_returned_late_goes_before_newer_ones_that_wait(broker, client):
    publish(broker, "1", "2", "3")
    assert bodies(client.subscribe(ack="client", prefetch_count="2")) == ["1", "2"]
    other = MemoryClient(broker).login()
    (third,) = other.subscribe(ack="client-individual", prefetch_count="1")
    publish(broker, "4")
    client.session.lost()
    assert broker.queue_depth(VHOST, QUEUE) == 4
    other.send(frame("ACK", id=third.headers["ack"]))
    assert flags(other.received()) == [("1", "true")]
    other.session.lost()
    assert flags(MemoryClient(broker).login().subscribe()) == [("1", "true"), ("2", "true"), ("4", "false")]


def test_a_message_goes_to_another_consumer_after_nack(broker, client):
    other = MemoryClient(broker).login()
    client.subscribe(ack="client-individual")
    other.subscribe(ack="client-individual")
    publish(broker, "1")
    (message,) = client.received()
    client.send(frame("NACK", id=message.headers["ack"]))
    assert client.received() == []
    assert flags(other.received()) == [("1", "true")]


@pytest.mark.parametrize("command", ["ACK", "NACK"])
def test_an_unknown_acknowledgement_is_refused(broker, client, command):
    publish(broker, "1")
    client.subscribe(ack="client")
    error = client.refused(frame(command, id="T_s@@session-x@@1", receipt="r"))
    assert error.headers["message"] == "Invalid header"
    assert error.headers["receipt-id"] == "r"
    assert broker.queue_depth(VHOST, QUEUE) == 1


def test_a_message_is_acknowledged_once(broker, client):
    publish(broker, "1")
    (message,) = client.subscribe(ack="client")
    client.send(frame("ACK", id=message.headers["ack"]))
    assert client.refused(frame("ACK", id=message.headers["ack"])).headers["message"] == "Invalid header"


def test_another_sessions_message_cannot_be_acknowledged(broker, client):
    publish(broker, "1")
    (message,) = client.subscribe(ack="client")
    other = MemoryClient(broker).login()
    assert other.refused(frame("ACK", id=message.headers["ack"])).headers["message"] == "Invalid header"


def test_a_message_not_sent_yet_cannot_be_acknowledged(broker, client):
    client.subscribe(ack="client")
    publish(broker, "1")
    session = client.session.snapshot().id
    assert client.refused(frame("ACK", id=f"T_s@@{session}@@1")).headers["message"] == "Invalid header"


def test_what_was_delivered_can_be_acknowledged_after_unsubscribe(broker, client):
    publish(broker, "1", "2")
    first, _ = client.subscribe(ack="client-individual")
    client.send(frame("UNSUBSCRIBE", id="s"))
    client.send(frame("ACK", id=first.headers["ack"]))
    assert broker.queue_depth(VHOST, QUEUE) == 1
    client.session.lost()
    assert flags(MemoryClient(broker).login().subscribe()) == [("2", "true")]


def test_an_error_returns_what_was_not_acknowledged(broker, client):
    publish(broker, "1")
    client.subscribe(ack="client")
    client.refused("FOO\n\n\0")
    assert flags(MemoryClient(broker).login().subscribe()) == [("1", "true")]


def test_prefetch_bounds_what_is_unacknowledged(broker, client):
    publish(broker, "1", "2", "3")
    first, second = client.subscribe(ack="client-individual", prefetch_count="2")
    assert bodies([first, second]) == ["1", "2"]
    client.send(frame("ACK", id=second.headers["ack"]))
    assert bodies(client.received()) == ["3"]


# ---- competing consumers


def test_consumers_of_a_queue_take_turns(broker):
    clients = [MemoryClient(broker).login() for _ in range(3)]
    for each in clients:
        each.subscribe()
    publish(broker, *"abcdefg")
    assert [bodies(each.received()) for each in clients] == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_a_consumer_that_cannot_take_more_is_passed_over(broker, client):
    client.subscribe(ack="client", prefetch_count="1")
    other = MemoryClient(broker).login()
    other.subscribe()
    publish(broker, *"abcd")
    assert bodies(client.received()) == ["a"]
    assert bodies(other.received()) == ["b", "c", "d"]


def test_a_vhosts_queues_are_its_own(broker, client):
    broker.set_user("other", LOGIN, lambda passcode: True)
    broker.declare_queue("other", QUEUE)
    stranger = MemoryClient(broker).login(host="other")
    stranger.subscribe()
    client.subscribe()
    publish(broker, "x")
    assert stranger.received() == []
    assert bodies(client.received()) == ["x"]


# ---- back-pressure


def test_a_client_that_does_not_read_leaves_messages_in_the_queue(broker, client):
    client.subscribe()
    body = "x" * (HIGH_WATER // 8)
    outcomes = publish(broker, *[body] * 100)
    assert outcomes[:7] == [PublishOutcome.DELIVERED] * 7
    assert set(outcomes[8:]) == {PublishOutcome.QUEUED}
    waiting = 0
    while (outgoing := client.session.take_outgoing()) is not None:
        waiting += len(outgoing.octets)
    assert waiting < 2 * HIGH_WATER


def test_a_client_that_reads_again_gets_everything_in_order(broker, client):
    client.subscribe()
    body = "x" * (HIGH_WATER // 8)
    publish(broker, *[f"{number:02}{body}" for number in range(50)])
    assert [text[:2] for text in bodies(client.received())] == [f"{number:02}" for number in range(50)]
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_what_unsubscribe_takes_back_makes_room(broker, client):
    client.subscribe("1")
    publish(broker, *["x" * (HIGH_WATER // 8)] * 20)
    client.send(frame("UNSUBSCRIBE", id="1"))
    assert client.session.take_outgoing() is None
    assert len(client.subscribe("2")) == 20


def test_a_long_queue_does_not_starve_another_subscription(broker, client):
    broker.declare_queue(VHOST, "short")
    client.subscribe("long")
    client.subscribe("short", destination="/queue/short")
    publish(broker, *["x" * (HIGH_WATER // 8)] * 60)
    broker.publish(VHOST, "short", "here", {})
    order = [message.headers["subscription"] for message in client.received()]
    assert order.index("short") < 40


# ---- imposed faults


def test_silence_keeps_messages_in_the_queue(broker, client):
    client.subscribe()
    broker.silent_heart_beats = True
    assert publish(broker, "1", "2") == [PublishOutcome.QUEUED] * 2
    assert client.received() == []
    assert [connection.login for connection in broker.connections()] == [LOGIN]
    broker.silent_heart_beats = False
    assert flags(client.received()) == [("1", "false"), ("2", "false")]


def test_silence_holds_back_what_was_about_to_be_sent(broker, client):
    client.subscribe()
    publish(broker, "1")
    client.send(frame("BEGIN", transaction="t", receipt="r"))
    broker.silent_heart_beats = True
    assert client.received() == []
    broker.silent_heart_beats = False
    assert [answer.command for answer in client.received()] == ["MESSAGE", "RECEIPT"]


def test_what_silence_held_back_returns_to_the_queue_when_the_client_leaves(broker, client):
    client.subscribe()
    publish(broker, "1")
    broker.silent_heart_beats = True
    publish(broker, "2")
    client.session.lost()
    broker.silent_heart_beats = False
    assert flags(MemoryClient(broker).login().subscribe()) == [("1", "false"), ("2", "false")]


def test_silence_stops_heart_beats(broker):
    client = MemoryClient(broker).login(**{"heart-beat": "0,10000"})
    broker.silent_heart_beats = True
    for _ in range(10):
        client.pass_time(10)
    client.received()
    assert (client.heart_beats, client.session.finished) == (0, False)
    broker.silent_heart_beats = False
    client.pass_time(10)
    client.received()
    assert client.heart_beats == 1


def test_a_client_that_connects_into_silence_is_let_in_and_hears_no_more(broker):
    broker.silent_heart_beats = True
    client = MemoryClient(broker).login()
    assert client.subscribe(receipt="r") == []
    publish(broker, "1")
    assert client.received() == []
    broker.silent_heart_beats = False
    assert sorted(answer.command for answer in client.received()) == ["MESSAGE", "RECEIPT"]


def test_silence_does_not_hide_a_refused_login(broker):
    broker.silent_heart_beats = True
    answer = MemoryClient(broker).refused(frame("CONNECT", accept_version="1.2", host=VHOST, login="nobody"))
    assert b"Access refused" in answer.body


def test_dropped_connections_are_cut_and_lose_nothing(broker, client):
    broker.set_user("other", LOGIN, lambda passcode: True)
    other = MemoryClient(broker).login(host="other")
    publish(broker, "1", "2")
    client.subscribe(ack="client")
    assert broker.drop_connections(VHOST) == 1
    assert client.aborted
    assert client.received() == []
    assert not other.aborted
    assert publish(broker, "3") == [PublishOutcome.QUEUED]
    again = MemoryClient(broker).login()
    assert flags(again.subscribe()) == [("1", "true"), ("2", "true"), ("3", "false")]
    assert broker.drop_connections() == 2
    assert broker.drop_connections() == 0
    assert broker.connections() == []
