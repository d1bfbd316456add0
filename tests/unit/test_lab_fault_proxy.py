"""The fault proxy: every fault is seen from the client's and from the target's side, and ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest
from anyio.from_thread import start_blocking_portal
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.servers.fault_proxy import Direction, Fault, FaultProxy
from testyard.lab.servers.loop_thread import NotRunningError

SOON = 5.0
QUIET = 0.15
LATE = timedelta(milliseconds=120)


class Line:
    """A proxy between clients and a target that a test plays itself."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.target = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.target.settimeout(SOON)
        self.proxy = stack.enter_context(FaultProxy(*self.target.getsockname()))

    def dial(self) -> socket.socket:
        return self._stack.enter_context(socket.create_connection((self.proxy.host, self.proxy.port), SOON))

    def answer(self) -> socket.socket:
        connection, _ = self.target.accept()
        connection.settimeout(SOON)
        return self._stack.enter_context(connection)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        return self.dial(), self.answer()


@pytest.fixture
def line() -> Iterator[Line]:
    with ExitStack() as stack:
        yield Line(stack)


def read(side: socket.socket, amount: int) -> bytes:
    received = bytearray()
    while len(received) < amount:
        chunk = side.recv(amount - len(received))
        assert chunk, f"the connection ended after {bytes(received[-80:])!r}"
        received += chunk
    return bytes(received)


def hears_nothing(side: socket.socket) -> bool:
    side.settimeout(QUIET)
    try:
        side.recv(1)
    except TimeoutError:
        return True
    finally:
        side.settimeout(SOON)
    return False


def talk(client: socket.socket, server: socket.socket) -> None:
    """Show that bytes go both ways."""
    client.sendall(b"question")
    assert read(server, 8) == b"question"
    server.sendall(b"answer")
    assert read(client, 6) == b"answer"


def fill(side: socket.socket) -> int:
    """Send until nothing more is taken; how many bytes were taken."""
    side.settimeout(QUIET)
    sent = 0
    while sent < 1 << 28:
        try:
            sent += side.send(bytes(1 << 16))
        except TimeoutError:
            return sent
    raise AssertionError("the sender was never stopped")


def test_bytes_go_both_ways_and_are_counted(line: Line) -> None:
    talk(*line.connect())
    assert line.proxy.bytes_forwarded == 14
    assert line.proxy.connections == 1
    assert line.proxy.faults == frozenset()


def test_many_connections_are_kept_apart(line: Line) -> None:
    pairs = [line.connect() for _ in range(50)]
    for number, (client, _) in enumerate(pairs):
        client.sendall(b"%04d" % number)
    assert [read(server, 4) for _, server in pairs] == [b"%04d" % number for number in range(50)]
    assert line.proxy.connections == 50


def test_more_than_any_buffer_arrives_unchanged_while_both_send(line: Line) -> None:
    client, server = line.connect()
    payload = bytes(range(256)) * 65536
    senders = [threading.Thread(target=side.sendall, args=(payload,)) for side in (client, server)]
    received: dict[socket.socket, bytes] = {}
    readers = [
        threading.Thread(target=lambda side=side: received.update({side: read(side, len(payload))}))
        for side in (client, server)
    ]
    for thread in senders + readers:
        thread.start()
    for thread in senders + readers:
        thread.join()
    assert received[client] == payload
    assert received[server] == payload
    assert line.proxy.bytes_forwarded == 2 * len(payload)


def test_a_reader_that_does_not_read_stops_the_sender(line: Line) -> None:
    client, server = line.connect()
    sent = fill(client)
    assert read(server, sent) == bytes(sent)


def test_a_half_close_is_passed_on_and_the_answer_still_arrives(line: Line) -> None:
    client, server = line.connect()
    client.sendall(b"all")
    client.shutdown(socket.SHUT_WR)
    assert read(server, 3) == b"all"
    assert server.recv(1) == b""
    assert line.proxy.connections == 1
    server.sendall(b"answer")
    assert read(client, 6) == b"answer"
    server.close()
    assert client.recv(1) == b""
    wait_until(lambda: line.proxy.connections, lambda count: count == 0, Deadline(timedelta(seconds=SOON)), "end")


@pytest.mark.parametrize("resetting", ["client", "server"])
def test_a_reset_by_one_side_reaches_the_other(line: Line, resetting: str) -> None:
    client, server = line.connect()
    from_side, to_side = (client, server) if resetting == "client" else (server, client)
    from_side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    from_side.close()
    with pytest.raises(ConnectionResetError):
        to_side.recv(1)


def test_a_target_that_is_down_closes_the_clients_connection(line: Line) -> None:
    line.target.close()
    client = line.dial()
    assert client.recv(1) == b""
    assert line.proxy.connections == 0


def test_cut_resets_both_sides_and_takes_new_connections(line: Line) -> None:
    pairs = [line.connect() for _ in range(3)]
    assert line.proxy.cut() == 3
    for side in [side for pair in pairs for side in pair]:
        with pytest.raises(ConnectionResetError):
            side.recv(1)
    assert line.proxy.connections == 0
    assert line.proxy.cut() == 0
    talk(*line.connect())


def test_cut_reaches_a_connection_that_waits_to_be_accepted(line: Line) -> None:
    # Inside the proxy's own thread, so that it cannot accept before it cuts.
    client, count = line.proxy._portal.call(lambda: (line.dial(), line.proxy._cut()))
    assert count == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_refuse_resets_old_connections_and_refuses_new_ones_until_accept(line: Line) -> None:
    client, server = line.connect()
    assert line.proxy.refuse() == 1
    assert line.proxy.faults == {Fault.REFUSING}
    for side in (client, server):
        with pytest.raises(ConnectionResetError):
            side.recv(1)
    with pytest.raises(ConnectionRefusedError):
        line.dial()
    line.target.settimeout(QUIET)
    with pytest.raises(TimeoutError):
        line.answer()
    line.target.settimeout(SOON)
    line.proxy.accept()
    assert line.proxy.faults == frozenset()
    talk(*line.connect())


def test_the_port_stays_reserved_while_connections_are_refused(line: Line) -> None:
    line.proxy.refuse()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((line.proxy.host, line.proxy.port))
    line.proxy.refuse()
    line.proxy.accept()
    line.proxy.accept()
    talk(*line.connect())


def test_silence_holds_back_both_directions_until_speak(line: Line) -> None:
    client, server = line.connect()
    talk(client, server)
    line.proxy.silence()
    assert line.proxy.faults == {Fault.SILENT}
    client.sendall(b"question")
    server.sendall(b"answer")
    assert hears_nothing(server)
    assert hears_nothing(client)
    assert line.proxy.connections == 1
    assert line.proxy.bytes_forwarded == 14
    line.proxy.speak()
    assert read(server, 8) == b"question"
    assert read(client, 6) == b"answer"
    talk(client, server)


def test_silence_takes_new_connections_of_which_the_target_hears_only_after_speak(line: Line) -> None:
    line.proxy.silence()
    client = line.dial()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    line.target.settimeout(QUIET)
    with pytest.raises(TimeoutError):
        line.answer()
    line.target.settimeout(SOON)
    line.proxy.speak()
    server = line.answer()
    assert read(server, 8) == b"question"
    assert server.recv(1) == b""


def test_silence_hides_that_a_side_has_gone(line: Line) -> None:
    client, server = line.connect()
    line.proxy.silence()
    server.close()
    assert hears_nothing(client)
    line.proxy.speak()
    assert client.recv(1) == b""


def test_a_silent_connection_can_be_cut(line: Line) -> None:
    client, server = line.connect()
    line.proxy.silence()
    client.sendall(b"lost")
    assert line.proxy.cut() == 1
    line.proxy.speak()
    for side in (client, server):
        with pytest.raises(ConnectionResetError):
            side.recv(1)


def test_delay_makes_both_directions_late_by_that(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(LATE)
    assert line.proxy.faults == {Fault.LATE}
    for sender, receiver in ((client, server), (server, client)):
        started = time.monotonic()
        sender.sendall(b"late")
        assert read(receiver, 4) == b"late"
        assert LATE.total_seconds() <= time.monotonic() - started < SOON


def test_delay_is_of_each_chunk_not_of_their_sum_and_keeps_their_order(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(LATE)
    started = time.monotonic()
    for number in range(100):
        client.sendall(b"%04d" % number)
        wait_until(lambda: line.proxy.connections, bool, Deadline(timedelta(seconds=SOON)), "a turn of the loop")
    client.shutdown(socket.SHUT_WR)
    assert read(server, 400) == b"".join(b"%04d" % number for number in range(100))
    assert server.recv(1) == b""
    assert LATE.total_seconds() <= time.monotonic() - started < 20 * LATE.total_seconds()


def test_zero_ends_the_delay_and_what_is_late_arrives_at_once(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(timedelta(hours=1))
    client.sendall(b"late")
    assert hears_nothing(server)
    line.proxy.delay(timedelta())
    assert line.proxy.faults == frozenset()
    assert read(server, 4) == b"late"
    talk(client, server)


def test_a_reset_is_as_late_as_bytes(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(LATE)
    started = time.monotonic()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    assert time.monotonic() - started >= LATE.total_seconds()


def test_a_delay_that_holds_much_stops_the_sender_and_loses_nothing(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(timedelta(hours=1))
    sent = fill(client)
    line.proxy.delay(timedelta())
    assert read(server, sent) == bytes(sent)


def test_a_negative_delay_is_refused(line: Line) -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        line.proxy.delay(-LATE)
    assert line.proxy.faults == frozenset()


def test_heal_ends_every_fault(line: Line) -> None:
    line.proxy.refuse()
    line.proxy.silence()
    line.proxy.delay(timedelta(hours=1))
    assert line.proxy.faults == set(Fault)
    line.proxy.heal()
    assert line.proxy.faults == frozenset()
    talk(*line.connect())


def test_stop_ends_connections_thread_and_port_and_start_begins_anew_on_the_same_port(line: Line) -> None:
    client, server = line.connect()
    line.proxy.silence()
    port = line.proxy.port
    line.proxy.stop()
    line.proxy.stop()
    for side in (client, server):
        with pytest.raises(ConnectionResetError):
            side.recv(1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fault proxy")]
    with pytest.raises(ConnectionRefusedError):
        line.dial()
    with pytest.raises(NotRunningError, match=r"fault proxy before 127\.0\.0\.1:\d+ is not running"):
        line.proxy.cut()
    line.proxy.start()
    line.proxy.start()
    assert line.proxy.port == port
    assert line.proxy.faults == frozenset()
    talk(*line.connect())


def test_a_proxy_that_cannot_start_leaves_nothing_running(line: Line) -> None:
    line.proxy.stop()
    with socket.create_server((line.proxy.host, line.proxy.port)), pytest.raises(OSError, match="in use"):
        line.proxy.start()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fault proxy")]
    with pytest.raises(NotRunningError):
        line.proxy.cut()


@pytest.mark.parametrize("silent", list(Direction))
def test_one_direction_can_be_silent_while_the_other_speaks(line: Line, silent: Direction) -> None:
    client, server = line.connect()
    talk(client, server)
    line.proxy.silence(silent)
    assert line.proxy.faults == {Fault.SILENT}
    assert line.proxy.silent == {silent}
    unheard, heard = (client, server) if silent is Direction.TO_TARGET else (server, client)
    unheard.sendall(b"unheard")
    heard.sendall(b"heard")
    assert read(unheard, 5) == b"heard"
    assert hears_nothing(heard)
    line.proxy.speak(silent)
    assert line.proxy.faults == frozenset()
    assert read(heard, 7) == b"unheard"
    talk(client, server)


def test_directions_fall_silent_and_speak_one_by_one(line: Line) -> None:
    client, server = line.connect()
    line.proxy.silence(Direction.TO_TARGET)
    line.proxy.silence(Direction.TO_CLIENT)
    assert line.proxy.silent == set(Direction)
    line.proxy.speak(Direction.TO_TARGET)
    assert line.proxy.silent == {Direction.TO_CLIENT}
    client.sendall(b"question")
    assert read(server, 8) == b"question"
    server.sendall(b"answer")
    assert hears_nothing(client)
    line.proxy.speak()
    assert read(client, 6) == b"answer"


@pytest.mark.parametrize("silent", list(Direction))
def test_a_handshake_needs_both_directions(line: Line, silent: Direction) -> None:
    line.proxy.silence(silent)
    client = line.dial()
    line.target.settimeout(QUIET)
    with pytest.raises(TimeoutError):
        line.answer()
    line.target.settimeout(SOON)
    line.proxy.speak()
    talk(client, line.answer())


def test_a_reset_is_hidden_where_the_way_back_is_silent(line: Line) -> None:
    client, server = line.connect()
    line.proxy.silence(Direction.TO_CLIENT)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    client.sendall(b"to nobody")
    assert hears_nothing(client)
    client.sendall(b"to nobody either")
    assert hears_nothing(client)
    line.proxy.speak()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_proxies_can_share_one_thread(line: Line) -> None:
    with (
        start_blocking_portal(name="shared") as portal,
        FaultProxy(*line.target.getsockname(), shared=portal) as one,
        FaultProxy(*line.target.getsockname(), shared=portal) as other,
    ):
        one.silence()
        with socket.create_connection((other.host, other.port), SOON) as client:
            talk(client, line.answer())
        assert (one.faults, other.faults) == ({Fault.SILENT}, frozenset())
        names = [thread.name for thread in threading.enumerate()]
        assert "shared" in names
        assert len([name for name in names if name.startswith("fault proxy")]) == 1
