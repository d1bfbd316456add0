"""What the broker's tests share: a client in memory, and a broker on a real socket."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

import stomp
import uvicorn
import websocket
from starlette.applications import Starlette
from stomp.exception import NotConnectedException
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.broker import Broker, PublishOutcome, websocket_routes
from testyard.lab.broker.frames import Frame, FrameParser
from testyard.lab.broker.session import Session

Value = TypeVar("Value")

VHOST = "5e1bc9df7bba4e788abb45d891e7b155"
LOGIN = "d92eaa222afd4ff6bebd931e866a32b6"
PASSCODE = "a-token"
QUEUE = "consumer_d92eaa222afd4ff6bebd931e866a32b6"
PATH = "/rmqws-stomp"
PATIENCE = timedelta(seconds=10)


def new_broker(**settings: object) -> Broker:
    """A broker with one user and one queue."""
    broker = Broker(**settings)
    broker.set_user(VHOST, LOGIN, lambda passcode: passcode == PASSCODE)
    broker.declare_queue(VHOST, QUEUE)
    return broker


def frame(command: str, body: str = "", **headers: str) -> str:
    """A frame as text; underscores in header names stand for hyphens. Nothing is escaped."""
    lines = [command, *(f"{name.replace('_', '-')}:{value}" for name, value in headers.items())]
    return "\n".join(lines) + f"\n\n{body}\0"


def publish(broker: Broker, *bodies: str) -> list[PublishOutcome]:
    """Publish to the queue."""
    return [broker.publish(VHOST, QUEUE, body, {}) for body in bodies]


def bodies(frames: list[Frame]) -> list[str]:
    """The bodies of frames that must all be messages."""
    assert {each.command for each in frames} <= {"MESSAGE"}, frames
    return [each.body.decode() for each in frames]


def flags(frames: list[Frame]) -> list[tuple[str, str]]:
    """Body and ``redelivered`` of messages."""
    return [(each.body.decode(), each.headers["redelivered"]) for each in frames]


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class MemoryClient:
    """A client of one session without a network: what it sends is handled at once."""

    def __init__(self, broker: Broker, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.aborted = False
        self.heart_beats = 0
        self._parser = FrameParser()
        self.session = Session(broker, self, clock=self.clock)

    def wake(self) -> None:
        """Nothing: the tests ask."""

    def reschedule(self) -> None:
        """Nothing: the tests ask."""

    def abort(self) -> None:
        self.aborted = True

    def send(self, octets: str | bytes) -> None:
        self.session.receive(octets.encode() if isinstance(octets, str) else octets)

    def received(self) -> list[Frame]:
        """Read everything that the session has to send."""
        frames = []
        while outgoing := self.session.take_outgoing():
            self.heart_beats += outgoing.octets == b"\n"
            self._parser.feed(outgoing.octets)
            while received := self._parser.next_frame():
                frames.append(received)
            self.session.handed_over(outgoing)
        return frames

    def ask(self, octets: str | bytes) -> Frame:
        """Send, and return the one frame that answers."""
        self.send(octets)
        (answer,) = self.received()
        return answer

    def refused(self, octets: str | bytes) -> Frame:
        """Send, and return the ERROR that must be the only answer and end the session."""
        answer = self.ask(octets)
        assert answer.command == "ERROR", answer
        assert self.session.finished
        return answer

    def login(self, **headers: str) -> MemoryClient:
        handshake = {"accept-version": "1.2", "host": VHOST, "login": LOGIN, "passcode": PASSCODE} | headers
        answer = self.ask(frame("CONNECT", **handshake))
        assert answer.command == "CONNECTED", answer
        return self

    def subscribe(self, identifier: str = "s", **headers: str) -> list[Frame]:
        self.send(frame("SUBSCRIBE", id=identifier, **{"destination": f"/queue/{QUEUE}"} | headers))
        return self.received()

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.session.check_timers()


class _Server(uvicorn.Server):
    """uvicorn that says when it has started and stops at once, where the original looks ten times a second."""

    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()
        self._has_started = started

    async def main_loop(self) -> None:
        self._has_started.set()
        await self.stop.wait()


class BrokerServer:
    """A broker behind uvicorn on a free loopback port, in a thread."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(PATIENCE.total_seconds()), "uvicorn did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._server.stop.set)
        self._thread.join(PATIENCE.total_seconds())
        assert not self._thread.is_alive(), "uvicorn did not stop"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        application = Starlette(routes=websocket_routes(self.broker, PATH))
        config = uvicorn.Config(application, lifespan="off", log_config=None, log_level="error")
        self._server = _Server(config, self._started)
        await self._server.serve(sockets=[self._socket])

    @property
    def connections(self) -> tuple[asyncio.Protocol, ...]:
        """uvicorn's own connections, to be touched on its thread only."""
        return tuple(self._server.server_state.connections)

    def call(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Call something of the broker on its own thread."""

        async def called() -> Value:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(PATIENCE.total_seconds())

    def publish(self, body: str, headers: Mapping[str, str] | None = None) -> object:
        return self.call(self.broker.publish, VHOST, QUEUE, body, headers or {})

    def wait_for(self, probe: Callable[[], Value], accepts: Callable[[Value], bool], what: str) -> Value:
        """Wait for something that the broker says of itself."""
        return wait_until(
            lambda: self.call(probe), accepts, Deadline(PATIENCE), what, interval=timedelta(milliseconds=5)
        )

    def wait_until_alone(self) -> None:
        """Wait until no client is connected."""
        self.wait_for(self.broker.connections, lambda connections: not connections, "no connection")


class StompClient(stomp.ConnectionListener):
    """The real client library's WebSocket connection, with what it heard in a queue."""

    def __init__(self, port: int, **settings: object) -> None:
        self.heard: queue.Queue[tuple[str, object]] = queue.Queue()
        self._sockets: list[websocket.WebSocket] = []
        self.connection = stomp.WSStompConnection(
            [("127.0.0.1", port)], ws_path=PATH, reconnect_attempts_max=1, **{"vhost": VHOST} | settings
        )
        self.connection.set_listener("test", self)

    def login(self, passcode: str = PASSCODE) -> StompClient:
        self.connection.connect(LOGIN, passcode, wait=True, headers={"accept-version": "1.2"})
        return self

    def subscribe(
        self, identifier: str = "1", *, destination: str = f"/queue/{QUEUE}", ack: str = "auto"
    ) -> StompClient:
        """Subscribe to an empty queue, and wait until the broker has done so."""
        self.connection.subscribe(destination, id=identifier, ack=ack, headers={"receipt": "subscribed"})
        assert self.next("receipt").headers["receipt-id"] == "subscribed"
        return self

    def next(self, kind: str) -> stomp.utils.Frame:
        """The next thing heard, which must be of this kind."""
        heard, frame = self.heard.get(timeout=PATIENCE.total_seconds())
        assert heard == kind, (heard, frame)
        return frame

    def close(self) -> None:
        """End the connection however far it came, so that no socket or thread is left."""
        with suppress(NotConnectedException):
            self.connection.disconnect()
        self.connection.transport.disconnect_socket()
        self.connection.transport.stop()
        for each in self._sockets:
            each.shutdown()

    def on_connecting(self, host_and_port: object) -> None:
        # stomp.py forgets its socket without closing it when the server closed the WebSocket first.
        self._sockets.append(self.connection.transport.socket)

    def on_message(self, frame: object) -> None:
        self.heard.put(("message", frame))

    def on_error(self, frame: object) -> None:
        self.heard.put(("error", frame))

    def on_receipt(self, frame: object) -> None:
        self.heard.put(("receipt", frame))

    def on_disconnected(self) -> None:
        self.heard.put(("disconnected", None))

    def on_heartbeat_timeout(self) -> None:
        self.heard.put(("heartbeat timeout", None))
