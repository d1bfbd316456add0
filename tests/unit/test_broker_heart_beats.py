"""Heart-beats both ways and the other timers of a session, on a clock of the test's own."""

from datetime import timedelta

import pytest
from broker_support import LOGIN, PASSCODE, QUEUE, VHOST, MemoryClient, frame, new_broker
from testyard.lab.broker import Broker

HANDSHAKE = {"accept_version": "1.2", "host": VHOST, "login": LOGIN, "passcode": PASSCODE}


@pytest.fixture
def broker() -> Broker:
    return new_broker()


@pytest.fixture
def client(broker: Broker) -> MemoryClient:
    return MemoryClient(broker).login()


def beating(client_offer: str, server: timedelta = timedelta(milliseconds=100)) -> MemoryClient:
    return MemoryClient(new_broker(server_heart_beat=server)).login(**{"heart-beat": client_offer})


@pytest.mark.parametrize(
    ("offer", "server_ms", "first_beat", "closed"),
    [
        ("0,0", 100, None, None),
        ("0,50", 100, 0.05, None),
        ("0,400", 100, 0.2, None),
        ("50,0", 100, None, 0.2),
        ("400,50", 100, 0.05, 0.8),
        ("400,400", 0, None, None),
    ],
)
def test_heart_beats_are_negotiated_for_each_direction(offer, server_ms, first_beat, closed):
    client = beating(offer, timedelta(milliseconds=server_ms))
    beats, end = [], None
    for step in range(1, 201):
        client.pass_time(0.01)
        client.received()
        if client.heart_beats > len(beats):
            beats.append(step / 100)
        if client.session.finished:
            end = step / 100
            break
    assert (beats[0] if beats else None) == pytest.approx(first_beat, abs=0.011)
    assert end == pytest.approx(closed, abs=0.011)


def test_the_connected_frame_offers_the_servers_heart_beats():
    broker = new_broker(server_heart_beat=timedelta(milliseconds=250))
    answer = MemoryClient(broker).ask(frame("CONNECT", **HANDSHAKE))
    assert answer.headers["heart-beat"] == "250,250"


def test_the_server_sends_an_end_of_line_in_every_interval():
    client = beating("0,100")
    for beats in range(1, 6):
        client.pass_time(client.session.next_timer())
        client.received()
        assert client.heart_beats == beats
    assert client.clock.now - 1000 <= 0.1 * 5


def test_a_frame_counts_as_heart_beat():
    client = beating("0,100")
    client.pass_time(0.04)
    client.ask(frame("BEGIN", transaction="t", receipt="r"))
    client.pass_time(0.04)
    client.received()
    assert client.heart_beats == 0
    client.pass_time(0.04)
    client.received()
    assert client.heart_beats == 1


def test_heart_beats_do_not_pile_up_before_a_client_that_does_not_read():
    client = beating("0,100")
    for _ in range(10):
        client.pass_time(0.1)
    client.received()
    assert client.heart_beats == 1


@pytest.mark.parametrize("octets", ["\n", "\r\n", frame("BEGIN", transaction="t"), "SEND\n"])
def test_any_octet_keeps_a_client_alive(octets):
    client = beating("100,0")
    client.pass_time(0.19)
    client.send(octets)
    client.pass_time(0.19)
    assert not client.session.finished
    client.pass_time(0.02)
    assert client.session.finished


def test_a_silent_clients_messages_return_to_the_queue():
    broker = new_broker(server_heart_beat=timedelta(milliseconds=100))
    client = MemoryClient(broker).login(**{"heart-beat": "100,0"})
    client.subscribe(ack="client")
    broker.publish(VHOST, QUEUE, "x", {})
    client.received()
    other = MemoryClient(broker).login()
    other.subscribe()
    client.pass_time(0.21)
    assert client.received() == []
    assert [(m.body, m.headers["redelivered"]) for m in other.received()] == [(b"x", "true")]


def test_nothing_more_is_sent_to_a_client_that_fell_silent():
    client = beating("100,0")
    client.send(frame("BEGIN", transaction="t", receipt="r"))
    client.pass_time(0.21)
    assert client.session.finished
    assert client.received() == []


def test_a_client_that_promised_nothing_may_be_silent():
    client = beating("0,100")
    client.pass_time(3600)
    assert not client.session.finished


def test_no_timer_runs_without_heart_beats():
    assert beating("0,0").session.next_timer() is None


def test_a_client_must_log_in_in_time(broker):
    client = MemoryClient(broker)
    client.pass_time(9.9)
    assert not client.session.finished
    client.pass_time(0.2)
    assert client.session.finished


def test_a_client_that_does_not_read_its_error_is_cut(client):
    client.send("FOO\n\n\0")
    client.pass_time(9.9)
    assert not client.aborted
    client.pass_time(0.2)
    assert client.aborted
    assert client.session.finished
