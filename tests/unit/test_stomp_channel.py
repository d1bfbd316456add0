"""A channel captures what its queue delivers, says whether it is connected, and fails in words."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import stomp
from broker_support import LOGIN, PASSCODE, PATH, PATIENCE, QUEUE, VHOST, BrokerServer
from stomp.exception import StompException
from testyard.core.deadline import Deadline
from testyard.core.errors import NotMetError, UserError
from testyard.core.journal import Journal
from testyard.stomp.capture import EventCapture
from testyard.stomp.channel import Channel, open_channel
from testyard.stomp.connection_watch import LISTENER_NAME

ORDER = {"object_type": "order", "order_uuid": "d629d5e45567425da9cdbdc1af67b32c", "order_state": "done"}
CANARY = "feed0000feed1111feed2222feed3333feed4444"
BRIEFLY = timedelta(milliseconds=20)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    kept = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(kept)


@pytest.fixture
def journal() -> Iterator[Journal]:
    with closing(Journal()) as journal:
        yield journal


class Connection:
    """As much of a stomp.py connection as a channel uses."""

    def __init__(self, *, connected: bool) -> None:
        self.connected = connected
        self.disconnects = 0
        self.listeners: dict[str, Any] = {}
        self.transport = SimpleNamespace(receiver_thread=None)

    def set_listener(self, name: str, listener: Any) -> None:
        self.listeners[name] = listener

    def lose(self) -> None:
        """Tell that the connection is gone, as stomp.py does."""
        self.connected = False
        self.listeners[LISTENER_NAME].on_disconnected()

    def receive_with(self, thread: threading.Thread) -> None:
        """Connect, with a thread that receives, as stomp.py does."""
        self.transport.receiver_thread = thread
        self.listeners[LISTENER_NAME].on_connecting(("127.0.0.1", 1))
        self.connected = True

    def is_connected(self) -> bool:
        return self.connected

    def disconnect(self) -> None:
        self.connected = False
        self.disconnects += 1


@pytest.fixture
def channel(journal: Journal) -> Channel:
    return Channel("source", EventCapture("source", journal), Connection(connected=True), "q1")


def frame(body: Any, **headers: str) -> SimpleNamespace:
    return SimpleNamespace(body=body if isinstance(body, str) else json.dumps(body), headers=headers)


# ---- without a network


def test_a_channel_without_a_connection_is_not_connected(journal):
    channel = Channel("source", EventCapture("source", journal))
    assert channel.is_connected is False
    channel.close()


def test_a_channel_is_connected_when_its_client_believes_so(channel):
    assert channel.is_connected is True
    channel.connection.connected = False
    assert channel.is_connected is False


def test_a_failed_wait_for_the_connection_says_so(channel):
    channel.connection.connected = False
    expected = r"Waited \S+ s for source to be connected; the last value was False\."
    with pytest.raises(NotMetError, match=expected):
        channel.wait_until_connected(Deadline(BRIEFLY))


def test_a_failed_wait_for_the_connections_end_says_so(channel):
    expected = r"Waited \S+ s for source to be disconnected; the last value was True\."
    with pytest.raises(NotMetError, match=expected):
        channel.wait_until_disconnected(Deadline(BRIEFLY))


def test_waiting_for_the_connection_ends_when_it_is_so(channel):
    channel.wait_until_connected(Deadline(timedelta()))
    channel.connection.connected = False
    channel.wait_until_disconnected(Deadline(timedelta()))


def test_a_connection_that_was_replaced_at_once_is_gone(channel):
    first = channel.wait_until_connected(Deadline(timedelta()))
    channel.connection.lose()
    channel.connection.connected = True
    channel.wait_until_disconnected(Deadline(timedelta()), first)


def test_that_an_earlier_connection_is_gone_says_nothing_about_the_present_one(channel):
    channel.connection.lose()
    channel.connection.connected = True
    present = channel.wait_until_connected(Deadline(timedelta()))
    for connection in (present, None):
        with pytest.raises(NotMetError, match="source to be disconnected"):
            channel.wait_until_disconnected(Deadline(BRIEFLY), connection)


def test_a_client_that_tells_of_a_loss_but_is_connected_has_lost_nothing(channel):
    channel.connection.listeners[LISTENER_NAME].on_disconnected()
    assert channel.losses == 0


def test_a_channel_is_connected_only_when_its_earlier_receiver_has_ended(channel):
    over = threading.Event()
    earlier, present = threading.Thread(target=over.wait), threading.Thread(target=over.wait)
    earlier.start()
    channel.connection.receive_with(earlier)
    channel.wait_until_connected(Deadline(timedelta()))
    channel.connection.lose()
    present.start()
    channel.connection.receive_with(present)
    try:
        with pytest.raises(NotMetError, match="source to be connected"):
            channel.wait_until_connected(Deadline(BRIEFLY))
    finally:
        over.set()
        earlier.join()
        present.join()
    assert channel.wait_until_connected(Deadline(timedelta())) == 1


def test_closing_disconnects_once(channel):
    channel.close()
    channel.close()
    assert channel.connection.disconnects == 1


@pytest.mark.parametrize("others", [(), ("offering", "agent"), ("offering", "agent", True)])
def test_a_handler_captures_and_takes_whatever_the_agent_passes(channel, others):
    channel.handler()(frame(ORDER, destination="/queue/q1"), *others)
    (event,) = channel.capture.events
    assert event.body == ORDER
    assert event.headers == {"destination": "/queue/q1"}


def test_a_wrapping_handler_captures_first_and_passes_everything_on(channel):
    seen: list[tuple[object, ...]] = []

    def own(*arguments: object) -> None:
        seen.append((len(channel.capture.events), *arguments))

    told = frame(ORDER)
    channel.wrapping(own)(told, "offering", "agent")
    assert seen == [(1, told, "offering", "agent")]


def test_what_the_agents_own_handler_raises_is_not_hidden_and_its_event_is_kept(channel):
    def own(_frame: object) -> None:
        """Takes one argument too few, as agent 1.0.7 does."""

    with pytest.raises(TypeError, match="positional argument"):
        channel.wrapping(own)(frame(ORDER), "offering", "agent", True)
    assert len(channel.capture.events) == 1


def published(body: dict[str, Any], *queues: str) -> dict[str, Any]:
    return {"body": body, "queues": list(queues)}


def test_what_was_published_and_has_not_arrived_is_lost(channel):
    first, second = ORDER | {"order_state": "executing"}, ORDER
    channel.capture.add(json.dumps(first), {})
    assert channel.lost([published(first, "q1"), published(second, "q1", "q2")]) == [second]


def test_what_went_to_other_queues_is_not_lost(channel):
    assert channel.lost([published(ORDER, "q2"), published(ORDER)]) == []


def test_what_was_published_twice_must_arrive_twice(channel):
    twice = [published(ORDER, "q1"), published(ORDER, "q1")]
    assert channel.lost(twice) == [ORDER, ORDER]
    channel.capture.add(json.dumps(ORDER), {})
    assert channel.lost(twice) == [ORDER]
    channel.capture.add(json.dumps(ORDER), {})
    assert channel.lost(twice) == []


def test_what_arrived_more_often_than_published_hides_no_loss(channel):
    other = ORDER | {"order_state": "erred"}
    for _ in range(3):
        channel.capture.add(json.dumps(ORDER), {})
    assert channel.lost([published(ORDER, "q1"), published(other, "q1")]) == [other]


def test_the_connection_is_not_in_the_channels_repr(channel):
    assert "Connection" not in repr(channel)


# ---- over a real WebSocket


@pytest.fixture
def opened(broker_server: BrokerServer, journal: Journal) -> Iterator[Callable[..., Channel]]:
    """Opens channels to the broker, and closes them."""
    channels: list[Channel] = []

    def opened(**changes: Any) -> Channel:
        options: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": broker_server.port,
            "path": PATH,
            "vhost": VHOST,
            "login": LOGIN,
            "passcode": PASSCODE,
            "queue": QUEUE,
            "use_tls": False,
            "within": PATIENCE,
        }
        channel = open_channel("mine", journal, **options | changes)
        channels.append(channel)
        return channel

    yield opened
    for channel in channels:
        channel.close()
        channel.wait_until_disconnected(Deadline(PATIENCE))


def test_what_is_published_to_the_queue_is_captured(opened, broker_server):
    channel = opened()
    assert channel.is_connected
    assert channel.queue == QUEUE
    broker_server.publish(json.dumps(ORDER))
    event = channel.capture.wait_for(lambda told: told.body == ORDER, Deadline(PATIENCE), "The order")
    assert event.channel == "mine"
    assert event.headers["subscription"] == QUEUE


def test_what_was_waiting_in_the_queue_is_captured_too(opened, broker_server):
    broker_server.publish("waiting")
    opened().capture.wait_for(lambda told: told.body == {"text": "waiting"}, Deadline(PATIENCE), "What waited")


class Reconnecting(stomp.ConnectionListener):
    """Connects again as soon as the connection is gone, as the site agent's listener does, with its name."""

    NAME = "waldur-listener"

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.closing = False

    def on_disconnected(self) -> None:
        if not self.closing:
            with suppress(StompException):
                self.connection.connect(LOGIN, PASSCODE, wait=True, headers={"accept-version": "1.2"})


@pytest.fixture
def reconnecting(opened) -> Iterator[Callable[..., Channel]]:
    """Opens channels whose clients connect again at once, until the test ends."""
    listeners: list[Reconnecting] = []

    def reconnecting(**changes: Any) -> Channel:
        channel: Channel = opened(**changes)
        listeners.append(Reconnecting(channel.connection))
        channel.connection.set_listener(Reconnecting.NAME, listeners[-1])
        return channel

    yield reconnecting
    for listener in listeners:
        listener.closing = True


def test_a_cut_connection_is_gone_though_the_client_has_another_one(reconnecting, broker_server):
    channel = reconnecting()
    first = channel.wait_until_connected(Deadline(PATIENCE))
    broker_server.call(broker_server.broker.drop_connections)
    broker_server.wait_for(broker_server.broker.connections, bool, "another connection")
    channel.wait_until_disconnected(Deadline(PATIENCE), first)
    assert (first, channel.wait_until_connected(Deadline(PATIENCE))) == (0, 1)


def test_two_channels_keep_their_events_apart(opened, broker_server):
    broker_server.call(broker_server.broker.declare_queue, VHOST, "other")
    mine, other = opened(), opened(queue="other")
    broker_server.publish("for mine")
    mine.capture.wait_for(bool, Deadline(PATIENCE), "Mine")
    assert other.capture.events == []


def test_a_closed_channel_is_disconnected_and_its_thread_ends(opened):
    before = set(threading.enumerate())
    channel = opened()
    threads = set(threading.enumerate()) - before
    assert threads
    channel.close()
    channel.wait_until_disconnected(Deadline(PATIENCE))
    for thread in threads:
        thread.join(PATIENCE.total_seconds())
    assert not [thread.name for thread in threads if thread.is_alive()]


def test_a_refused_passcode_is_said_with_the_brokers_words_and_not_shown(opened):
    with pytest.raises(UserError) as caught:
        opened(passcode=CANARY)
    message = str(caught.value)
    assert message.startswith("STOMP connection mine to 127.0.0.1:")
    assert PATH in message
    assert "Access refused" in message or "Bad CONNECT" in message
    assert CANARY not in message
    assert caught.value.__cause__ is None


def test_a_refused_connection_leaves_no_thread_behind(opened):
    before = set(threading.enumerate())
    with pytest.raises(UserError):
        opened(passcode=CANARY)
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(PATIENCE.total_seconds())
    assert not [thread.name for thread in left if thread.is_alive()]


def test_nobody_listening_is_said_with_the_address_and_the_reason(opened):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError) as caught:
        opened(port=port)
    assert f"STOMP connection mine to 127.0.0.1:{port}{PATH} failed" in str(caught.value)
    assert "refused" in str(caught.value)


def test_a_path_without_stomp_is_said(opened):
    with pytest.raises(UserError) as caught:
        opened(path="/elsewhere")
    assert "/elsewhere failed" in str(caught.value)
    assert "404" in str(caught.value)


def test_a_server_that_never_answers_is_given_up_in_time(opened):
    # Accepts the connection, as listening sockets do, and says nothing.
    deadline = Deadline(PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match=r"within 0\.2 s"):
        opened(port=silent.getsockname()[1], within=timedelta(seconds=0.2))
    assert deadline.elapsed < timedelta(seconds=3)


def test_a_lost_secret_is_refused_before_anything_is_sent(opened):
    with pytest.raises(UserError, match="'<secret>'"):
        opened(passcode="<secret>")


def test_stomp_logs_no_passcode_at_any_level(opened, broker_server):
    lines: list[str] = []

    class Records(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    broker_server.call(broker_server.broker.set_user, VHOST, LOGIN, CANARY.__eq__)
    logger, handler = logging.getLogger("stomp.py"), Records()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        opened(passcode=CANARY)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    text = "\n".join(lines)
    assert "passcode:***" in text
    assert CANARY not in text
