"""A TCP proxy whose connections can be cut, refused, silenced and delayed.

PyPI has no such server for Python: toxiproxy is a Go program, and the packages of its name are clients for it.
It works on plain sockets and not on asyncio's transports, as only so a fault is in force, for connections
that wait to be accepted too, when the call that switches it on returns.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import Enum

from anyio.from_thread import BlockingPortal

from testyard.lab.servers.loop_thread import LOOPBACK, LoopThread, loopback_listener

CHUNK_BYTES = 1 << 14
# More than this in one direction waits in the kernel's buffers, so that the sender notices.
MOST_HELD_BYTES = 1 << 22

# RFC 9293, section 3.10.7.4: closing with a linger time of zero sends RST instead of FIN.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Fault(Enum):
    """What a proxy can do to all its connections for a time."""

    REFUSING = "refusing"
    SILENT = "silent"
    LATE = "late"


class Direction(Enum):
    """Which way bytes go through a proxy."""

    TO_TARGET = "to target"
    TO_CLIENT = "to client"

    @property
    def opposite(self) -> Direction:
        """The other way."""
        return Direction.TO_CLIENT if self is Direction.TO_TARGET else Direction.TO_TARGET


BOTH_WAYS = frozenset(Direction)


class _End(Enum):
    """How a stream of bytes ends."""

    FINISHED = "finished"
    RESET = "reset"


class _Flow:
    """One direction of one connection: takes from a source and passes on to a sink, in order."""

    def __init__(self, link: _Link, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        self._link = link
        self._direction = direction
        self._source = source
        self._sink = sink
        self._held: deque[tuple[float, bytes | _End]] = deque()
        self._held_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reads = False
        self._writes = False
        self._ended = False
        self.passed_end = False

    def _receive(self) -> None:
        item: bytes | _End
        try:
            item = self._source.recv(CHUNK_BYTES) or _End.FINISHED
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            item = _End.RESET
        due = self._link.due()
        if isinstance(item, bytes):
            item = item if due or self._held else self._pass_on_at_once(item)
            if not item:
                return
            self._held_bytes += len(item)
        else:
            self._ended = True
        self._held.append((due, item))
        self.pass_on()

    def _pass_on_at_once(self, chunk: bytes) -> bytes:
        """The short way of what needs no holding; what the sink did not take."""
        try:
            sent = self._sink.send(chunk)
        except OSError:
            return chunk  # the long way meets it again, and knows what to do
        self._link.count(sent)
        return chunk[sent:]

    def hasten(self) -> None:
        """Let what is late be due now."""
        self._held = deque((0.0, item) for _, item in self._held)
        self.pass_on()

    def pass_on(self) -> None:
        """Pass on what is due, as far as the sink takes it, and watch for what comes next."""
        sink_is_full = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held and not sink_is_full and self._link.passes(self._direction):
            due, item = self._held[0]
            if due > self._link.loop.time():
                self._timer = self._link.loop.call_at(due, self.pass_on)
                break
            try:
                sink_is_full = not self._pass_on_first(item)
            except OSError:
                self._lose()
        if not self._link.closed:
            self._watch(writes=sink_is_full)

    def _pass_on_first(self, item: bytes | _End) -> bool:
        if item is _End.RESET:
            self._link.reset()
            return True
        if isinstance(item, _End):
            self._held.popleft()
            self._sink.shutdown(socket.SHUT_WR)
            self.passed_end = True
            self._link.close_when_finished()
            return True
        try:
            sent = self._sink.send(item)
        except (BlockingIOError, InterruptedError):
            return False
        self._link.count(sent)
        self._held_bytes -= sent
        if sent < len(item):
            self._held[0] = (self._held[0][0], item[sent:])
        else:
            self._held.popleft()
        return True

    def _lose(self) -> None:
        """What the sink no longer takes is lost; the other side hears that only where the way back passes."""
        self._held.clear()
        self._held_bytes = 0
        self._ended = True
        self._link.lose(self._direction)

    def _watch(self, *, writes: bool) -> None:
        reads = self._link.passes(self._direction) and not self._ended and self._held_bytes < MOST_HELD_BYTES
        if reads and not self._reads:
            self._link.loop.add_reader(self._source, self._receive)
        elif self._reads and not reads:
            self._link.loop.remove_reader(self._source)
        if writes and not self._writes:
            self._link.loop.add_writer(self._sink, self.pass_on)
        elif self._writes and not writes:
            self._link.loop.remove_writer(self._sink)
        self._reads, self._writes = reads, writes

    def stop(self) -> None:
        """Take and pass on nothing more."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._link.loop.remove_reader(self._source)
        self._link.loop.remove_writer(self._sink)


class _Link:
    """One connection of a client and the one to the target that belongs to it."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed = False
        self._proxy = proxy
        self._client = client
        self._target = socket.socket()
        for side in self._sides:
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._flows = (
            _Flow(self, Direction.TO_TARGET, client, self._target),
            _Flow(self, Direction.TO_CLIENT, self._target, client),
        )
        self._lost: Direction | None = None
        self._dials = False
        self._connected = False
        self.resume()

    @property
    def _sides(self) -> tuple[socket.socket, socket.socket]:
        return self._client, self._target

    def passes(self, direction: Direction) -> bool:
        """Whether bytes may be taken and passed on now."""
        return self._connected and not self.closed and direction not in self._proxy.silent

    def due(self) -> float:
        """When a chunk that comes now is to be passed on, on the loop's clock."""
        late = self._proxy.late
        return self.loop.time() + late.total_seconds() if late else 0.0

    def count(self, amount: int) -> None:
        """Count bytes that were passed on."""
        self._proxy.count(amount)

    def resume(self) -> None:
        """Do what the proxy's faults allow now: dial the target, or pass on, or stop passing on."""
        if self._lost:
            self.lose(self._lost)
        if self._dials:
            for flow in self._flows:
                flow.pass_on()
        elif not self._proxy.silent:  # a handshake needs both directions
            self._dials = True
            if self._target.connect_ex(self._proxy.target) in {0, errno.EINPROGRESS}:
                self.loop.add_writer(self._target, self._dialled)
            else:
                self.close()

    def _dialled(self) -> None:
        self.loop.remove_writer(self._target)
        match self._target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            case 0:
                self._connected = True
                self.resume()
            case errno.ECONNRESET:  # the target took the connection and has reset it already
                self.reset()
            case _:
                self.close()

    def hasten(self) -> None:
        """Let what is late be due now."""
        for flow in self._flows:
            flow.hasten()

    def close_when_finished(self) -> None:
        """Close when both sides have said that they will send no more."""
        if all(flow.passed_end for flow in self._flows):
            self.close()

    def lose(self, direction: Direction) -> None:
        """One side takes no more: end both connections, as soon as the sender may hear of it."""
        if self.passes(direction.opposite):
            self.reset()
        else:
            self._lost = direction

    def reset(self) -> None:
        """End both connections with RST."""
        if self.closed:
            return
        for side in self._sides:
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        """End both connections."""
        self.closed = True
        for flow in self._flows:
            flow.stop()
        for side in self._sides:
            side.close()
        self._proxy.forget(self)


class FaultProxy(LoopThread):
    """Forwards TCP connections to a target, and breaks them when asked.

    Every fault is in force when the call returns. Half-closed connections and resets are passed on; when the
    target does not answer, the client's connection is closed.

    Args:
        target_host: IPv4 address or name of the target.
        target_port: Its TCP port.
        shared: A running loop in another thread that serves several proxies; None starts one for this proxy.

    Attributes:
        host: The loopback address to connect to.
        port: The TCP port to connect to; 0 before ``start``.
        silent: The directions in which nothing is passed on now.

    Example:
        >>> with FaultProxy("127.0.0.1", 5432) as proxy:                       # doctest: +SKIP
        ...     connection = psycopg.connect(host=proxy.host, port=proxy.port)
        ...     proxy.cut()
        1
    """

    def __init__(self, target_host: str, target_port: int, *, shared: BlockingPortal | None = None) -> None:
        super().__init__(f"fault proxy before {target_host}:{target_port}", shared=shared)
        self.host = LOOPBACK
        self.port = 0
        self.target = (target_host, target_port)
        self.late = timedelta()
        self.silent: frozenset[Direction] = frozenset()
        self._forwarded = 0
        self._listener: socket.socket | None = None
        self._links: set[_Link] = set()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        host, port = self.target
        self.target = (socket.gethostbyname(host), port)
        # Bound and never listening: it keeps the port from being taken while connections are refused.
        with socket.socket() as reserved:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind((self.host, self.port))
            self.port = reserved.getsockname()[1]
            self._heal()
            try:
                yield
            finally:
                self._refuse()

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return self._portal.call(lambda: len(self._accept_waiting()))

    @property
    def bytes_forwarded(self) -> int:
        """Bytes passed on in both directions, of all connections since this proxy was made."""
        return self._portal.call(lambda: self._forwarded)

    @property
    def faults(self) -> frozenset[Fault]:
        """The faults in force; empty for a proxy that only forwards."""
        return self._portal.call(self._faults)

    def cut(self) -> int:
        """Reset every connection on both sides (RST); new ones are taken as before.

        Returns:
            How many connections of clients were reset.
        """
        return self._portal.call(self._cut)

    def refuse(self) -> int:
        """Refuse new connections and reset the old ones, until ``accept``.

        Returns:
            How many connections of clients were reset.
        """
        return self._portal.call(self._refuse)

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self._portal.call(self._listen)

    def silence(self, *directions: Direction) -> None:
        """Keep connections and take new ones, but pass on nothing, neither bytes nor ends, until ``speak``.

        The target hears of a new connection only when neither direction is silent: a TCP handshake needs both.

        Args:
            directions: The directions that fall silent, beside those that are; none given: both.
        """
        self._portal.call(lambda: self._set_silent(self.silent | (frozenset(directions) or BOTH_WAYS)))

    def speak(self, *directions: Direction) -> None:
        """Pass on again, first what was held back.

        Args:
            directions: The directions that are silent no more; none given: both.
        """
        self._portal.call(lambda: self._set_silent(self.silent - (frozenset(directions) or BOTH_WAYS)))

    def delay(self, late: timedelta) -> None:
        """Pass on what comes from now on later by this, in both directions; how connections end too.

        Args:
            late: How much later; zero ends the delay, and what is late is passed on at once.

        Raises:
            ValueError: The delay is negative.
        """
        if late < timedelta():
            message = f"A delay cannot be negative: {late}."
            raise ValueError(message)
        self._portal.call(self._set_delay, late)

    def heal(self) -> None:
        """End every fault."""
        self._portal.call(self._heal)

    def count(self, amount: int) -> None:
        """Count bytes that a link has passed on."""
        self._forwarded += amount

    def forget(self, link: _Link) -> None:
        """Count a connection no more; its link calls this when it is closed."""
        self._links.discard(link)

    def _faults(self) -> frozenset[Fault]:
        in_force = {
            Fault.REFUSING: self._listener is None,
            Fault.SILENT: bool(self.silent),
            Fault.LATE: bool(self.late),
        }
        return frozenset(fault for fault, holds in in_force.items() if holds)

    def _accept_waiting(self) -> list[_Link]:
        """Take what the kernel has accepted for us; the open connections."""
        loop = asyncio.get_running_loop()
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                break
            except ConnectionAbortedError:
                continue
            link = _Link(self, client, loop)
            if not link.closed:
                self._links.add(link)
        return list(self._links)

    def _cut(self) -> int:
        links = self._accept_waiting()
        for link in links:
            link.reset()
        return len(links)

    def _refuse(self) -> int:
        reset = self._cut()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        return reset

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = loopback_listener(self.port)
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._accept_waiting)

    def _set_silent(self, silent: frozenset[Direction]) -> None:
        self.silent = silent
        for link in self._accept_waiting():
            link.resume()

    def _set_delay(self, late: timedelta) -> None:
        self.late = late
        if not late:
            for link in self._accept_waiting():
                link.hasten()

    def _heal(self) -> None:
        self._listen()
        self._set_delay(timedelta())
        self._set_silent(frozenset())
