"""One session's rules: handshake, frames, receipts, errors (STOMP 1.2, section by section)."""

from datetime import UTC, datetime, timedelta

import pytest
from broker_support import LOGIN, PASSCODE, QUEUE, VHOST, MemoryClient, frame, new_broker
from testyard.lab.broker import Broker
from testyard.lab.broker.outbox import OVERFLOW

HANDSHAKE = {"accept_version": "1.2", "host": VHOST, "login": LOGIN, "passcode": PASSCODE}


@pytest.fixture
def broker() -> Broker:
    return new_broker()


@pytest.fixture
def client(broker: Broker) -> MemoryClient:
    return MemoryClient(broker).login()


# ---- CONNECT, STOMP


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
@pytest.mark.parametrize("versions", ["1.2", "1.0,1.1,1.2", "1.1, 1.2", "1.2,2.0"])
def test_both_handshake_commands_agree_on_1_2(broker, command, versions):
    answer = MemoryClient(broker).ask(frame(command, **HANDSHAKE | {"accept_version": versions}))
    assert answer.command == "CONNECTED"
    assert answer.headers["version"] == "1.2"
    assert answer.headers["heart-beat"] == "10000,10000"
    assert answer.headers["session"].startswith("session-")


@pytest.mark.parametrize("versions", ["1.0,1.1", "1.20", "", "2.0"])
def test_no_common_version_is_refused_with_the_supported_ones(broker, versions):
    error = MemoryClient(broker).refused(frame("CONNECT", **HANDSHAKE | {"accept_version": versions}))
    assert error.headers["message"] == "Version mismatch"
    assert error.headers["version"] == "1.2"
    assert b"1.2" in error.body


def test_a_client_that_names_no_version_speaks_1_0(broker):
    error = MemoryClient(broker).refused(frame("CONNECT", host=VHOST, login=LOGIN, passcode=PASSCODE))
    assert error.headers["message"] == "Version mismatch"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"passcode": "wrong"}, f"Access refused for user '{LOGIN}'"),
        ({"passcode": ""}, f"Access refused for user '{LOGIN}'"),
        ({"login": "nobody"}, "Access refused for user 'nobody'"),
        ({"host": "elsewhere"}, "Virtual host 'elsewhere' access denied"),
    ],
)
def test_bad_credentials_are_refused_as_rabbitmq_refuses_them(broker, headers, text):
    client = MemoryClient(broker)
    error = client.refused(frame("CONNECT", **HANDSHAKE | headers))
    assert error.headers["message"] == "Bad CONNECT"
    assert error.body.decode().strip() == text
    assert PASSCODE not in error.body.decode()
    assert broker.connections() == []


def test_a_user_of_one_vhost_is_a_stranger_in_another(broker):
    broker.set_user("other", "somebody", lambda passcode: True)
    error = MemoryClient(broker).refused(frame("CONNECT", **HANDSHAKE | {"host": "other"}))
    assert b"Access refused" in error.body


def test_the_passcode_is_checked_anew_at_every_connect(broker):
    valid = {"first"}
    broker.set_user(VHOST, LOGIN, lambda passcode: passcode in valid)
    MemoryClient(broker).login(passcode="first")
    valid.clear()
    error = MemoryClient(broker).refused(frame("CONNECT", **HANDSHAKE | {"passcode": "first"}))
    assert b"Access refused" in error.body
    broker.remove_user(VHOST, LOGIN)
    valid.add("first")
    error = MemoryClient(broker).refused(frame("CONNECT", **HANDSHAKE | {"passcode": "first"}))
    assert b"Access refused" in error.body


def test_handshake_headers_are_not_unescaped(broker):
    broker.set_user(VHOST, "a:b\\c", lambda passcode: passcode == "c\\n:d")
    MemoryClient(broker).login(login="a:b\\c", passcode="c\\n:d")
    assert [connection.login for connection in broker.connections()] == ["a:b\\c"]


@pytest.mark.parametrize("value", ["10000", "a,b", "-1,0", "1,2,3", ""])
def test_a_malformed_heart_beat_is_refused(broker, value):
    error = MemoryClient(broker).refused(frame("CONNECT", **HANDSHAKE | {"heart_beat": value}))
    assert error.headers["message"] == "Invalid header"


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_a_second_handshake_is_refused(client, command):
    assert client.refused(frame(command, **HANDSHAKE)).headers["message"] == "Illegal command"


def test_the_handshake_gets_no_receipt(broker):
    assert MemoryClient(broker).ask(frame("CONNECT", receipt="1", **HANDSHAKE)).command == "CONNECTED"


@pytest.mark.parametrize(
    "command", ["SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT"]
)
def test_nothing_is_done_before_the_handshake(broker, command):
    headers = {"destination": "/queue/new", "id": "1", "transaction": "t", "receipt": "r"}
    error = MemoryClient(broker).refused(frame(command, **headers))
    assert error.headers["message"] == "Illegal command"
    assert error.headers["receipt-id"] == "r"


# ---- frames


@pytest.mark.parametrize("command", ["FOO", "send", "MESSAGE", "CONNECTED", "RECEIPT", "ERROR"])
def test_an_unknown_command_is_refused(client, command):
    error = client.refused(frame(command, receipt="77"))
    assert error.headers["message"] == "Bad command"
    assert error.headers["receipt-id"] == "77"
    assert command in error.body.decode()


@pytest.mark.parametrize(
    ("octets", "header"),
    [
        (frame("CONNECT", accept_version="1.2", login=LOGIN, passcode=PASSCODE), "host"),
        (frame("SEND"), "destination"),
        (frame("SUBSCRIBE", id="1"), "destination"),
        (frame("SUBSCRIBE", destination="/queue/a"), "id"),
        (frame("UNSUBSCRIBE"), "id"),
        (frame("ACK"), "id"),
        (frame("NACK", transaction="t"), "id"),
        (frame("BEGIN"), "transaction"),
        (frame("COMMIT"), "transaction"),
        (frame("ABORT", transaction=""), "transaction"),
    ],
)
def test_a_missing_header_is_refused(broker, octets, header):
    client = MemoryClient(broker)
    if not octets.startswith("CONNECT"):
        client.login()
    error = client.refused(octets)
    assert error.headers["message"] == "Missing header"
    assert f"'{header}'" in error.body.decode()


@pytest.mark.parametrize("command", ["SUBSCRIBE", "ACK", "BEGIN", "DISCONNECT"])
def test_only_send_may_have_a_body(client, command):
    octets = frame(command, "body", id="1", destination="/queue/a", transaction="t")
    assert client.refused(octets).headers["message"] == "Unexpected body"


def test_an_error_is_text_with_its_length(client):
    error = client.refused(frame("FOO"))
    assert error.headers["content-type"] == "text/plain"
    assert int(error.headers["content-length"]) == len(error.body)


def test_what_follows_an_error_is_ignored(broker, client):
    client.send("FOO\n\n\0" + frame("SEND", "lost", destination=f"/queue/{QUEUE}"))
    client.send(frame("SEND", "lost", destination=f"/queue/{QUEUE}"))
    assert [answer.command for answer in client.received()] == ["ERROR"]
    assert broker.queue_depth(VHOST, QUEUE) == 0


def test_frames_before_a_malformed_one_are_handled(broker, client):
    client.send(frame("SEND", "kept", destination=f"/queue/{QUEUE}", receipt="1") + "SEND\nbad\n\n\0")
    receipt, error = client.received()
    assert receipt.headers == {"receipt-id": "1"}
    assert error.headers["message"] == "Malformed header"
    assert "receipt-id" not in error.headers
    assert broker.queue_depth(VHOST, QUEUE) == 1


def test_one_message_may_hold_several_frames_and_a_frame_may_be_split(client):
    stream = (
        frame("BEGIN", transaction="t", receipt="1") + "\n\r\n" + frame("ABORT", transaction="t", receipt="2")
    ).encode()
    for start in range(0, len(stream), 7):
        client.send(stream[start : start + 7])
    assert [answer.headers["receipt-id"] for answer in client.received()] == ["1", "2"]


# ---- RECEIPT


def test_every_frame_with_a_receipt_header_gets_one(client, broker):
    broker.publish(VHOST, QUEUE, "one", {})
    broker.publish(VHOST, QUEUE, "two", {})
    first, second, _ = client.subscribe(ack="client-individual", receipt="a:b")
    steps = [
        frame("SEND", destination="/queue/other", receipt="send"),
        frame("BEGIN", transaction="t", receipt="begin"),
        frame("ACK", id=first.headers["ack"], transaction="t", receipt="ack"),
        frame("COMMIT", transaction="t", receipt="commit"),
        frame("UNSUBSCRIBE", id="s", receipt="unsubscribe"),
        frame("NACK", id=second.headers["ack"], receipt="nack"),
        frame("BEGIN", transaction="t", receipt="begin again"),
        frame("ABORT", transaction="t", receipt="abort"),
        frame("DISCONNECT", receipt="bye"),
    ]
    receipts = []
    for step in steps:
        answer = client.ask(step)
        assert answer.command == "RECEIPT"
        receipts.append(answer.headers["receipt-id"])
    assert receipts == ["send", "begin", "ack", "commit", "unsubscribe", "nack", "begin again", "abort", "bye"]


def test_receipt_ids_are_escaped(client):
    answer = client.ask(frame("BEGIN", transaction="t", receipt="a\\cb\\nc"))
    assert answer.headers["receipt-id"] == "a:b\nc"


def test_disconnect_is_answered_and_ends_the_session(client, broker):
    assert not client.session.finished
    assert client.ask(frame("DISCONNECT", receipt="77")).headers == {"receipt-id": "77"}
    assert client.session.finished
    client.send(frame("SEND", "late", destination=f"/queue/{QUEUE}"))
    assert broker.queue_depth(VHOST, QUEUE) == 0
    assert broker.connections() == []


def test_disconnect_without_receipt_ends_the_session_silently(client):
    client.send(frame("DISCONNECT"))
    assert client.received() == []
    assert client.session.finished


@pytest.mark.parametrize("last", ["BEGIN", "DISCONNECT"])
def test_a_client_that_reads_no_receipts_is_cut(client, last):
    padding = "x" * 16_000
    receipt = len(f"RECEIPT\nreceipt-id:{padding}\n\n\0")
    for _ in range(OVERFLOW // receipt):
        client.send(frame("BEGIN", transaction="t", receipt=padding) + frame("ABORT", transaction="t"))
    assert not client.aborted
    client.send(frame(last, transaction="t", receipt=padding))
    assert client.aborted
    assert client.session.finished
    assert client.session.next_timer() is None


# ---- SEND and SUBSCRIBE


def test_a_message_carries_what_the_sender_said_about_it(client):
    client.subscribe("my:id")
    headers = {
        "destination": f"/queue/{QUEUE}",
        "content_type": "application/json",
        "persistent": "true",
        "x_key": "a\\cb",
        "receipt": "r",
        "subscription": "forged",
        "message_id": "forged",
        "redelivered": "forged",
        "ack": "forged",
    }
    client.send(frame("SEND", "é", **headers))
    message, receipt = client.received()
    assert receipt.command == "RECEIPT"
    session = client.session.snapshot().id
    assert dict(message.headers) == {
        "subscription": "my:id",
        "destination": f"/queue/{QUEUE}",
        "message-id": f"T_my:id@@{session}@@1",
        "redelivered": "false",
        "content-type": "application/json",
        "persistent": "true",
        "x-key": "a:b",
        "content-length": "2",
    }
    assert message.body == "é".encode()


def test_a_body_may_contain_nul(client):
    client.subscribe()
    message = client.ask(frame("SEND", "a\0b", destination=f"/queue/{QUEUE}", content_length="3"))
    assert message.body == b"a\0b"


def test_queue_destinations_create_and_amq_ones_do_not(client, broker):
    client.send(frame("SEND", "1", destination="/queue/new"))
    client.send(frame("SEND", "2", destination="/amq/queue/new"))
    assert broker.queue_depth(VHOST, "new") == 2
    error = client.refused(frame("SEND", "3", destination="/amq/queue/missing"))
    assert error.headers["message"] == "not_found"
    assert error.body.decode().strip() == f"NOT_FOUND - no queue 'missing' in vhost '{VHOST}'"


def test_an_amq_subscription_needs_its_queue(client, broker):
    assert [m.command for m in client.subscribe("1", destination=f"/amq/queue/{QUEUE}", receipt="r")] == [
        "RECEIPT"
    ]
    error = client.refused(frame("SUBSCRIBE", id="2", destination="/amq/queue/missing", receipt="r"))
    assert error.headers["message"] == "not_found"
    assert error.headers["receipt-id"] == "r"


@pytest.mark.parametrize(
    ("destination", "summary"),
    [
        ("/queue/", "Invalid destination"),
        ("/queue/a/b", "Invalid destination"),
        ("/amq/queue/", "Invalid destination"),
        ("/topic/a", "Unknown destination"),
        ("/exchange/a", "Unknown destination"),
        ("/queue", "Unknown destination"),
        ("a", "Unknown destination"),
    ],
)
@pytest.mark.parametrize("command", ["SEND", "SUBSCRIBE"])
def test_other_destinations_are_refused(client, command, destination, summary):
    error = client.refused(frame(command, id="1", destination=destination))
    assert error.headers["message"] == summary


def test_a_slash_in_a_queue_name_is_escaped(client, broker):
    broker.declare_queue(VHOST, "a/b")
    client.subscribe(destination="/amq/queue/a%2Fb")
    broker.publish(VHOST, "a/b", "x", {})
    (message,) = client.received()
    assert message.headers["destination"] == "/queue/a%2Fb"


def test_a_subscription_id_is_unique_in_a_session(client, broker):
    client.subscribe("1")
    error = client.refused(frame("SUBSCRIBE", id="1", destination="/queue/other"))
    assert error.headers["message"] == "Duplicated subscription identifier"
    other = MemoryClient(broker).login()
    assert [answer.command for answer in other.subscribe("1", receipt="r")] == ["RECEIPT"]


def test_an_unsubscribed_id_may_be_used_again(client):
    client.subscribe("1")
    client.send(frame("UNSUBSCRIBE", id="1"))
    assert [answer.command for answer in client.subscribe("1", receipt="r")] == ["RECEIPT"]


def test_unsubscribe_needs_a_subscription(client):
    assert client.refused(frame("UNSUBSCRIBE", id="1")).headers["message"] == "No subscription found"


def test_nothing_is_delivered_after_unsubscribe(client, broker):
    client.subscribe("1")
    client.send(frame("UNSUBSCRIBE", id="1"))
    broker.publish(VHOST, QUEUE, "x", {})
    assert client.received() == []
    assert broker.queue_depth(VHOST, QUEUE) == 1


@pytest.mark.parametrize("headers", [{"ack": "sometimes"}, {"ack": ""}, {"prefetch_count": "many"}])
def test_malformed_subscription_headers_are_refused(client, headers):
    error = client.refused(frame("SUBSCRIBE", id="1", destination="/queue/a", **headers))
    assert error.headers["message"] == "Invalid header"


def test_a_deleted_queue_cancels_its_subscriptions(client, broker):
    client.subscribe("1")
    client.subscribe("2")
    broker.delete_queue(VHOST, QUEUE)
    (error,) = client.received()
    assert error.headers["message"] == "Server cancelled subscription"
    assert error.headers["subscription"] == "1"
    assert client.session.finished


def test_a_snapshot_says_who_is_connected(client, broker):
    client.subscribe("s1")
    client.clock.now += 60
    (connection,) = broker.connections()
    now = datetime.now(UTC)
    assert (connection.vhost, connection.login) == (VHOST, LOGIN)
    assert connection.subscriptions == {"s1": QUEUE}
    assert (connection.frames_received, connection.frames_sent) == (2, 1)
    assert timedelta(0) <= now - connection.connected_at < timedelta(seconds=10)
    assert timedelta(seconds=60) <= now - connection.last_heart_beat < timedelta(seconds=70)
    client.session.lost()
    assert broker.connections() == []


def test_a_removed_users_sessions_end(client, broker):
    broker.set_user(VHOST, "other", lambda passcode: True)
    other = MemoryClient(broker).login(login="other")
    broker.remove_user(VHOST, LOGIN)
    assert [answer.command for answer in client.received()] == ["ERROR"]
    assert client.session.finished
    assert [connection.login for connection in broker.connections()] == ["other"]
    assert other.received() == []
