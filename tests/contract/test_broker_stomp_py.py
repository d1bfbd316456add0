"""The broker against the client that the Waldur site agent uses: stomp.py over a real WebSocket."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import websocket
from broker_support import LOGIN, PASSCODE, PATH, QUEUE, VHOST, BrokerServer, StompClient, frame, new_broker
from stomp.exception import ConnectFailedException
from testyard.lab.broker import PublishOutcome

DESTINATION = f"/queue/{QUEUE}"
RECORDINGS = Path(__file__).parents[1] / "data" / "waldur"
HEART_BEAT = timedelta(milliseconds=100)


@pytest.fixture
def server(broker_server: BrokerServer) -> BrokerServer:
    return broker_server


@pytest.fixture
def new_client(server: BrokerServer) -> Iterator[Callable[..., StompClient]]:
    clients: list[StompClient] = []

    def create(**settings: object) -> StompClient:
        clients.append(StompClient(server.port, **settings))
        return clients[-1]

    yield create
    for client in clients:
        client.close()


@pytest.mark.parametrize("recording", ["unified", "legacy"])
def test_messages_arrive_as_from_rabbitmq(server, new_client, recording):
    """Every header of the frames recorded from RabbitMQ, but for the session's id."""
    client = new_client().login()
    numbers: Counter[str] = Counter()
    for recorded in json.loads((RECORDINGS / f"hybrid_stomp_{recording}_frames.json").read_text())["frames"]:
        headers = recorded["headers"]
        queue, subscription = headers["destination"].removeprefix("/queue/"), headers["subscription"]
        server.call(server.broker.declare_queue, VHOST, queue)
        if subscription not in numbers:
            client.subscribe(subscription, destination=f"/amq/queue/{queue}")
        numbers[subscription] += 1
        own = ("x-message-id", "durable", "auto-delete", "persistent", "content-type")
        body = recorded["body_raw"]
        server.call(server.broker.publish, VHOST, queue, body, {name: headers[name] for name in own})
        message = client.next("message")
        identifier = message.headers.pop("message-id")
        assert re.fullmatch(rf"T_{subscription}@@session-[\w-]{{22}}@@{numbers.total()}", identifier)
        assert re.fullmatch(rf"T_{subscription}@@session-[\w-]{{22}}@@[0-9]+", headers.pop("message-id"))
        assert message.headers == headers
        assert message.body == body


def test_the_agents_own_frames_are_understood(server):
    """Octet by octet what agent 1.0.7 sends (contract, section 4), without a subprotocol."""
    connection = websocket.create_connection(f"ws://127.0.0.1:{server.port}{PATH}", timeout=5)
    assert connection.getsubprotocol() is None
    connection.send(
        "STOMP\naccept-version:1.2\nheart-beat:10000,10000\n"
        f"host:{VHOST}\nlogin:{LOGIN}\npasscode:{PASSCODE}\n\n\0"
    )
    opcode, connected = connection.recv_data()
    assert opcode == websocket.ABNF.OPCODE_TEXT
    assert connected.startswith(b"CONNECTED\nversion:1.2\nheart-beat:10000,10000\n")
    connection.send(f"SUBSCRIBE\nack:auto\ndestination:/amq/queue/{QUEUE}\nid:{QUEUE}\n\n\0")
    connection.send("\n")
    connection.send("DISCONNECT\nreceipt:4f1c\n\n\0")
    assert connection.recv() == "RECEIPT\nreceipt-id:4f1c\n\n\0"
    assert connection.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    connection.shutdown()


def test_the_subprotocol_is_agreed(server):
    connection = websocket.create_connection(
        f"ws://127.0.0.1:{server.port}{PATH}", timeout=5, subprotocols=["v10.stomp", "v12.stomp"]
    )
    assert connection.getsubprotocol() == "v12.stomp"
    connection.shutdown()


def test_plain_http_is_told_to_upgrade(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", PATH)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")


def test_a_refused_login_says_so(new_client):
    client = new_client()
    with pytest.raises(ConnectFailedException):
        client.login("revoked")
    error = client.next("error")
    assert error.headers["message"] == "Bad CONNECT"
    assert error.body == f"Access refused for user '{LOGIN}'\n"
    assert client.next("disconnected") is None


def test_send_and_receive_with_receipt_and_escapes(new_client):
    client = new_client().login()
    client.connection.subscribe(DESTINATION, id="1")
    client.connection.send(DESTINATION, "Gruß: €\n", receipt="r:1", headers={"x-y": "a:\nb\\c"})
    message = client.next("message")
    assert (message.body, message.headers["x-y"]) == ("Gruß: €\n", "a:\nb\\c")
    assert client.next("receipt").headers["receipt-id"] == "r:1"


def test_client_individual_redelivers_what_was_not_acknowledged(server, new_client):
    first = new_client().login()
    first.subscribe(ack="client-individual")
    assert server.publish("a") is PublishOutcome.DELIVERED
    server.publish("b")
    server.publish("c")
    messages = [first.next("message") for _ in range(3)]
    first.connection.ack(messages[1].headers["ack"], receipt="acked")
    first.next("receipt")
    first.connection.disconnect(receipt="bye")
    first.next("disconnected")
    assert first.next("receipt").headers["receipt-id"] == "bye"
    second = new_client().login()
    second.connection.subscribe(DESTINATION, id="1", ack="client")
    again = [second.next("message") for _ in range(2)]
    assert [(message.body, message.headers["redelivered"]) for message in again] == [("a", "true"), ("c", "true")]
    second.connection.ack(again[1].headers["ack"], receipt="both")
    second.next("receipt")
    assert server.call(server.broker.queue_depth, VHOST, QUEUE) == 0


def test_nack_brings_a_message_back(server, new_client):
    client = new_client().login()
    client.subscribe(ack="client-individual")
    server.publish("a")
    message = client.next("message")
    assert message.headers["redelivered"] == "false"
    client.connection.nack(message.headers["ack"])
    assert client.next("message").headers["redelivered"] == "true"


def test_transactions_commit_and_abort(server, new_client):
    client = new_client().login()
    client.connection.subscribe(DESTINATION, id="1")
    aborted = client.connection.begin()
    client.connection.send(DESTINATION, "aborted", transaction=aborted)
    client.connection.abort(aborted)
    committed = client.connection.begin()
    client.connection.send(DESTINATION, "1", transaction=committed)
    client.connection.send(DESTINATION, "2", transaction=committed)
    client.connection.send(DESTINATION, "outside")
    assert client.next("message").body == "outside"
    client.connection.commit(committed)
    assert [client.next("message").body for _ in range(2)] == ["1", "2"]


def test_an_error_ends_the_connection(server, new_client):
    client = new_client().login()
    client.connection.subscribe("/amq/queue/missing", id="1")
    assert client.next("error").headers["message"] == "not_found"
    client.next("disconnected")
    server.wait_until_alone()


def test_unsubscribe_leaves_messages_in_the_queue(server, new_client):
    client = new_client().login()
    client.subscribe()
    client.connection.unsubscribe("1", headers={"receipt": "u"})
    client.next("receipt")
    assert server.publish("x") is PublishOutcome.QUEUED


def test_a_dropped_connection_is_noticed_and_loses_nothing(server, new_client):
    client = new_client().login()
    client.subscribe(ack="client-individual")
    server.publish("before")
    client.next("message")

    def drop_and_publish() -> tuple[int, PublishOutcome]:
        return server.broker.drop_connections(VHOST), server.broker.publish(VHOST, QUEUE, "after", {})

    assert server.call(drop_and_publish) == (1, PublishOutcome.QUEUED)
    client.next("disconnected")
    again = new_client().login()
    again.connection.subscribe(DESTINATION, id="1")
    messages = [again.next("message") for _ in range(2)]
    assert [(m.body, m.headers["redelivered"]) for m in messages] == [("before", "true"), ("after", "false")]


def test_a_drop_cuts_the_connection_without_a_close(server):
    connection = websocket.create_connection(f"ws://127.0.0.1:{server.port}{PATH}", timeout=5)
    connection.send(frame("CONNECT", accept_version="1.2", host=VHOST, login=LOGIN, passcode=PASSCODE))
    connection.recv()
    assert server.call(server.broker.drop_connections) == 1
    with pytest.raises((ConnectionResetError, websocket.WebSocketConnectionClosedException)):
        connection.recv()
    connection.shutdown()


def test_a_client_that_vanishes_is_forgotten(server):
    raw = websocket.create_connection(f"ws://127.0.0.1:{server.port}{PATH}", timeout=5)
    raw.send(frame("CONNECT", accept_version="1.2", host=VHOST, login=LOGIN, passcode=PASSCODE))
    raw.recv()
    raw.sock.shutdown(socket.SHUT_RDWR)
    raw.sock.close()
    server.wait_until_alone()
    assert server.publish("x") is PublishOutcome.QUEUED


def test_a_message_written_to_a_closing_connection_is_not_lost(server, new_client):
    client = new_client().login().subscribe()

    def publish_and_close() -> PublishOutcome:
        outcome = server.broker.publish(VHOST, QUEUE, "kept", {})
        for connection in server.connections:
            connection.transport.close()
        return outcome

    assert server.call(publish_and_close) is PublishOutcome.DELIVERED
    client.next("disconnected")
    server.wait_until_alone()
    assert server.call(server.broker.queue_depth, VHOST, QUEUE) == 1


def test_what_silence_held_back_is_sent_when_it_ends(server):
    client = websocket.create_connection(f"ws://127.0.0.1:{server.port}{PATH}", timeout=5)
    client.send(frame("CONNECT", accept_version="1.2", host=VHOST, login=LOGIN, passcode=PASSCODE))
    client.recv()
    server.call(setattr, server.broker, "silent_heart_beats", True)
    client.send(frame("BEGIN", transaction="t", receipt="held"))
    server.wait_for(lambda: server.broker.connections()[0].frames_received, lambda count: count == 2, "the BEGIN")
    client.settimeout(0.05)
    with pytest.raises(websocket.WebSocketTimeoutException):
        client.recv()
    client.settimeout(5)
    server.call(setattr, server.broker, "silent_heart_beats", False)
    assert client.recv() == "RECEIPT\nreceipt-id:held\n\n\0"
    client.shutdown()


def test_a_slow_reader_leaves_messages_in_the_queue_and_gets_them_all(server):
    """Its sockets and the session hold a bounded part; the rest waits in the queue."""
    body, count = "x" * 64 * 1024, 300
    slow = websocket.create_connection(
        f"ws://127.0.0.1:{server.port}{PATH}",
        timeout=10,
        skip_utf8_validation=True,
        sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 65536),),
    )
    slow.send(frame("CONNECT", accept_version="1.2", host=VHOST, login=LOGIN, passcode=PASSCODE))
    slow.recv()
    slow.send(frame("SUBSCRIBE", id="1", destination=DESTINATION, receipt="r"))
    assert slow.recv().startswith("RECEIPT")
    outcomes = [server.publish(f"{number:03}{body}") for number in range(count)]
    assert outcomes[-1] is PublishOutcome.QUEUED
    assert server.call(server.broker.queue_depth, VHOST, QUEUE) > count / 2
    received = [slow.recv().partition("\n\n")[2][:3] for _ in range(count)]
    assert received == [f"{number:03}" for number in range(count)]
    slow.shutdown()


def test_competing_clients_share_a_queue(server, new_client):
    clients = [new_client().login() for _ in range(2)]
    for client in clients:
        client.subscribe()
    for number in range(6):
        server.publish(str(number))
    received = [[client.next("message").body for _ in range(3)] for client in clients]
    assert received == [["0", "2", "4"], ["1", "3", "5"]]


# ---- heart-beats, at a hundredth of the agent's interval


@pytest.fixture
def beating() -> Iterator[BrokerServer]:
    with BrokerServer(new_broker(server_heart_beat=HEART_BEAT)) as server:
        yield server


def test_heart_beats_keep_an_idle_connection(beating):
    """The server's real time: a raw client counts what arrives while it sends its own."""
    client = websocket.create_connection(f"ws://127.0.0.1:{beating.port}{PATH}", timeout=5)
    client.send(
        frame("CONNECT", accept_version="1.2", host=VHOST, login=LOGIN, passcode=PASSCODE, heart_beat="0,100")
    )
    assert "heart-beat:100,100" in client.recv()
    assert [client.recv() for _ in range(5)] == ["\n"] * 5
    client.shutdown()


def test_stomp_py_stays_connected_while_both_sides_beat(beating):
    client = StompClient(beating.port, heartbeats=(300, 300)).login()
    (before,) = beating.call(beating.broker.connections)
    beating.wait_for(
        lambda: beating.broker.connections()[0].last_heart_beat - before.connected_at,
        lambda age: age > timedelta(milliseconds=500),
        "a second heart-beat of the client",
    )
    assert client.connection.is_connected()
    client.close()
    assert [kind for kind, _ in client.heard.queue] == ["disconnected"]


def test_stomp_py_notices_silence_and_gets_its_messages_after_it(beating):
    client = StompClient(beating.port, heartbeats=(400, 100)).login()
    client.subscribe()
    beating.call(setattr, beating.broker, "silent_heart_beats", True)
    assert beating.publish("held") is PublishOutcome.QUEUED
    kinds = {client.heard.get(timeout=10)[0] for _ in range(2)}
    assert kinds == {"heartbeat timeout", "disconnected"}
    # stomp.py keeps the TCP connection of its timeout half open; the broker gives it up for want of heart-beats.
    beating.wait_until_alone()
    client.close()
    beating.call(setattr, beating.broker, "silent_heart_beats", False)
    again = StompClient(beating.port).login()
    again.connection.subscribe(DESTINATION, id="1")
    assert again.next("message").body == "held"
    again.close()


def test_a_silent_client_is_disconnected(beating):
    client = websocket.create_connection(f"ws://127.0.0.1:{beating.port}{PATH}", timeout=5)
    client.send(
        frame("CONNECT", accept_version="1.2", host=VHOST, login=LOGIN, passcode=PASSCODE, heart_beat="100,0")
    )
    assert client.recv().startswith("CONNECTED")
    assert client.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    client.shutdown()
    beating.wait_until_alone()


def test_no_thread_or_connection_outlives_a_server():
    before = set(threading.enumerate())
    with BrokerServer(new_broker()) as server:
        client = StompClient(server.port).login()
    client.next("disconnected")
    client.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) <= before
