"""As many GETs per second as a server can answer, over a few kept-alive connections and raw sockets."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from testyard.lab.supervisor import listening_socket

BARE_SERVER = Path(__file__).with_name("bare_server.py")
CONNECTIONS = 4
BUFFER_SIZE = 1 << 20
# No answer of a server on this machine takes that long.
STALLED_SECONDS = 30.0
STATUS_LINE = b"HTTP/1.1 200 "
END_OF_HEADERS = b"\r\n\r\n"


@dataclass(frozen=True)
class Rate:
    """How fast a server answered.

    Attributes:
        requests: How many answers came.
        per_second: Answers per second of wall time.
        busy: The share of the wall time in which the server's process ran; about one when the server, and not
            the client, decided the rate.
        processor_time: Seconds of processor time that one answer cost the server.
    """

    requests: int
    per_second: float
    busy: float
    processor_time: float


class Target:
    """A server and one request to it.

    Args:
        name: For reports.
        address: Host and port.
        process: The server's process id.
        path: The path with its query.
        headers: Sent with every request.
    """

    def __init__(
        self, name: str, address: tuple[str, int], process: int, path: str, headers: dict[str, str]
    ) -> None:
        self.name = name
        self._address = address
        self._process = psutil.Process(process)
        lines = [f"GET {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode()

    def answer(self) -> bytes:
        """One whole answer, headers included."""
        with socket.create_connection(self._address, STALLED_SECONDS) as connection:
            connection.sendall(self._request)
            answer = b""
            while END_OF_HEADERS not in answer:
                answer += _received(connection)
            head = answer.partition(END_OF_HEADERS)[0]
            while len(answer) < len(head) + len(END_OF_HEADERS) + _content_length(head):
                answer += _received(connection)
        return answer

    def rate(self, requests: int) -> Rate:
        """Ask for many answers, every connection for its next one as soon as it has the one before.

        Args:
            requests: How many to wait for; those on the way then are not counted, but answered.
        """
        length = len(self.answer())
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            for _ in range(CONNECTIONS):
                connection = stack.enter_context(socket.create_connection(self._address))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, _Answers(connection, self._request, length))
            before, started = self._busy_seconds(), time.perf_counter()
            counted = self._count(selector, requests)
            wall = time.perf_counter() - started
            busy = self._busy_seconds() - before
            # The server answers what is on the way before the connections close, so that nothing of it is left.
            for key in selector.get_map().values():
                key.data.finish()
        return Rate(counted, counted / wall, busy / wall, busy / counted)

    def _count(self, selector: selectors.BaseSelector, requests: int) -> int:
        for key in selector.get_map().values():
            key.data.ask()
        counted = 0
        while counted < requests:
            ready = selector.select(STALLED_SECONDS)
            if not ready:
                message = f"{self.name} stopped answering after {counted} requests."
                raise TimeoutError(message)
            counted += sum(key.data.receive() for key, _ in ready)
        return counted

    def _busy_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class _Answers:
    """The answers on one connection: all have the same length, so only their first bytes are looked at."""

    def __init__(self, connection: socket.socket, request: bytes, length: int) -> None:
        self._connection = connection
        self._request = request
        self._length = length
        self._missing = 0
        self._buffer = memoryview(bytearray(BUFFER_SIZE))

    def ask(self) -> None:
        """Send the next request."""
        self._missing = self._length
        self._connection.sendall(self._request)

    def receive(self) -> bool:
        """Take what has come; True when it ended an answer, and the next one was asked for."""
        if not self._take():
            return False
        self.ask()
        return True

    def finish(self) -> None:
        """Take the rest of the present answer."""
        self._connection.settimeout(STALLED_SECONDS)
        while not self._take():
            pass

    def _take(self) -> bool:
        received = self._connection.recv_into(self._buffer)
        first = self._missing == self._length
        if not received or (first and bytes(self._buffer[: len(STATUS_LINE)]) != STATUS_LINE):
            message = f"The server answered {bytes(self._buffer[:received])[:200]!r}, expected 200."
            raise ConnectionError(message)
        self._missing -= received
        return self._missing <= 0


@contextmanager
def bare_starlette(body: Path) -> Iterator[tuple[tuple[str, int], int]]:
    """A bare Starlette server that answers with a file's bytes, in a process of its own.

    Yields:
        Its address and its process id.
    """
    with listening_socket("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        process = subprocess.Popen(
            [sys.executable, str(BARE_SERVER), str(listener.fileno()), str(body)],
            stdin=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
        )
    with process:  # closes its standard input at the end and waits for it
        yield address, process.pid


def _received(connection: socket.socket) -> bytes:
    received = connection.recv(BUFFER_SIZE)
    if not received:
        message = "The server closed the connection within an answer."
        raise ConnectionError(message)
    return received


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    message = f"The answer has no Content-Length: {head!r}"
    raise ValueError(message)
