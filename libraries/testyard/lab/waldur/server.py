"""The process: two listening sockets, their servers, and the end when the parent has gone."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

from testyard.lab.waldur.app import Application, Receive, Scope, Send
from testyard.lab.waldur.control import ControlApplication
from testyard.lab.waldur.instance import Handshake, Instance

_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


class StartError(Exception):
    """The double cannot start; the text is one line for the tester."""


def read_handshake(descriptor: int) -> Handshake:
    """Read the first line of standard input.

    Args:
        descriptor: File descriptor of standard input; nothing is read beyond the line.

    Raises:
        StartError: The line is not the expected JSON object.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        character = os.read(descriptor, 1)
        if not character:
            break
        line += character
    try:
        values = json.loads(line)
        return Handshake(str(values["staff_token"]), str(values["control_token"]))
    except (ValueError, KeyError, TypeError):
        expected = '{"staff_token": "...", "control_token": "..."}'
        raise StartError(f"the first line of standard input must be {expected}") from None


class Listener:
    """A uvicorn HTTP server on one socket, without its signal handling and main loop.

    Args:
        application: What it serves.
        listening: A bound, listening TCP socket; the listener owns it.
        websockets: Whether it takes WebSocket upgrades.
    """

    def __init__(self, application: Application, listening: socket.socket, *, websockets: bool) -> None:
        self._config = uvicorn.Config(
            application,
            interface="asgi3",
            http="httptools",
            ws="websockets-sansio" if websockets else "none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._state = ServerState()
        self._state.default_headers = [(b"server", b"testyard")]
        # Accepted connections inherit it; without it they would keep close() from reserving the port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._address = listening.getsockname()
        self._waiting: socket.socket | None = listening
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Take connections; after ``close``, on the same port as before."""
        if self._waiting is None:
            return
        loop = asyncio.get_running_loop()
        if not self._config.loaded:
            self._config.load()
        self._server = await loop.create_server(self._protocol, sock=self._waiting, backlog=_BACKLOG)
        self._waiting = None

    async def close(self) -> None:
        """Refuse connections: close the listening socket, the idle connections and those that become idle.

        A socket that is bound but does not listen keeps the port from being taken meanwhile.
        """
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._waiting = _bind(self._address)
        for connection in list(self._state.connections):
            connection.shutdown()

    def abort(self) -> None:
        """Close the socket and cut every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._waiting is not None:
            self._waiting.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection; new ones are taken as before."""
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if isinstance(transport, asyncio.Transport):
                transport.abort()

    def _protocol(self) -> asyncio.Protocol:
        factory: Callable[..., asyncio.Protocol] = self._config.http_protocol_class
        return factory(config=self._config, server_state=self._state, app_state={})


class Renewable:
    """One Waldur instance after the other under the same addresses, each with an empty world.

    Args:
        make: Makes an instance.
    """

    def __init__(self, make: Callable[[], Instance]) -> None:
        self._make = make
        self._instance = make()
        self._listener: Listener | None = None
        self._control: ControlApplication | None = None

    def stand_behind(self, listener: Listener) -> None:
        """Say where the public side is served."""
        self._listener = listener
        self._control = self._instance.control(listener, self.renew)

    async def public(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the public side of the instance of the moment."""
        await self._instance.public(scope, receive, send)

    async def control(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the control API of the instance of the moment."""
        assert self._control is not None
        await self._control(scope, receive, send)

    def renew(self) -> None:
        """Cut every connection to the public side and begin anew, as a new process would."""
        assert self._listener is not None
        self._listener.cut()
        self._instance.close()
        self._instance = self._make()
        self.stand_behind(self._listener)

    def close(self) -> None:
        """Close the journals."""
        self._instance.close()


async def serve(
    name: str,
    public: socket.socket,
    control: socket.socket,
    directory: Path,
    handshake: Handshake,
    *,
    ignore_interrupt: bool,
) -> None:
    """Run one Waldur instance until standard input ends or SIGTERM comes.

    Args:
        name: The instance's name, e.g. ``A``.
        public: Listening socket of the REST interface and STOMP.
        control: Listening socket of the control API.
        directory: Where the journals go; it exists and is removed at the end.
        handshake: The secrets.
        ignore_interrupt: Whether Ctrl-C is left to the parent.
    """
    renewable = Renewable(lambda: Instance(name, directory, handshake))
    public_listener = Listener(renewable.public, public, websockets=True)
    renewable.stand_behind(public_listener)
    control_listener = Listener(renewable.control, control, websockets=False)
    over = asyncio.Event()
    _watch_for_end(over, ignore_interrupt=ignore_interrupt)
    try:
        await public_listener.open()
        await control_listener.open()
        await over.wait()
    finally:
        public_listener.abort()
        control_listener.abort()
        renewable.close()
        shutil.rmtree(directory, ignore_errors=True)


def _watch_for_end(over: asyncio.Event, *, ignore_interrupt: bool) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    if ignore_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGINT, over.set)

    def wait_for_parent() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait_for_parent, name="parent watch", daemon=True).start()


def _bind(address: tuple[str, int]) -> socket.socket:
    # asyncio sends without delay only where the socket says that it is TCP, and what is accepted inherits that.
    bound = socket.socket(proto=socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on a port of one's own choice.

    Raises:
        StartError: The port is taken or the host is not of this machine; names both.
    """
    try:
        listening = _bind((host, port))
        listening.listen()
    except OSError as error:
        raise StartError(f"cannot listen on port {port} of {host}: {error.strerror}") from error
    return listening
