"""The WebSocket endpoint over a socket, frame by frame; and what it does on a server that is not uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websocket
from broker_support import LOGIN, PASSCODE, PATH, QUEUE, VHOST, BrokerServer, frame, new_broker
from starlette.applications import Starlette
from testyard.lab.broker import Broker, websocket_routes
from websocket import ABNF, WebSocket

CONNECT = frame("CONNECT", accept_version="1.2", host=VHOST, login=LOGIN, passcode=PASSCODE)


@pytest.fixture
def dial(broker_server: BrokerServer) -> Iterator[Callable[..., WebSocket]]:
    connections: list[WebSocket] = []

    def connect(*, login: bool = True, **settings: object) -> WebSocket:
        url = f"ws://127.0.0.1:{broker_server.port}{PATH}"
        connections.append(websocket.create_connection(url, timeout=10, **settings))
        if login:
            connections[-1].send(CONNECT)
            assert connections[-1].recv().startswith("CONNECTED\n")
        return connections[-1]

    yield connect
    for connection in connections:
        connection.shutdown()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v10.stomp", "v11.stomp", "v12.stomp"], "v12.stomp"),
        (["v12.stomp"], "v12.stomp"),
        (None, None),
    ],
)
def test_the_subprotocol_is_stomp_1_2_or_none(dial, offered, chosen):
    assert dial(subprotocols=offered).getsubprotocol() == chosen


def test_text_and_binary_are_understood_and_text_is_sent(dial):
    client = dial(login=False)
    client.send_binary(CONNECT.encode())
    opcode, data = client.recv_data()
    assert (opcode, data[:10]) == (ABNF.OPCODE_TEXT, b"CONNECTED\n")
    client.send_binary(frame("BEGIN", transaction="t", receipt="1").encode())
    assert client.recv_data() == (ABNF.OPCODE_TEXT, b"RECEIPT\nreceipt-id:1\n\n\0")
    client.send(frame("ABORT", transaction="t", receipt="é"))
    assert client.recv() == "RECEIPT\nreceipt-id:é\n\n\0"


def test_a_frame_may_be_split_within_a_character(dial):
    octets = frame("BEGIN", transaction="t", receipt="€").encode()
    middle = octets.index("€".encode()) + 1
    client = dial()
    client.send_binary(octets[:middle])
    client.send_binary(octets[middle:])
    assert client.recv() == "RECEIPT\nreceipt-id:€\n\n\0"


def test_several_frames_in_one_message_are_answered_one_by_one(dial):
    client = dial(login=False)
    client.send(CONNECT + "\n" + frame("BEGIN", transaction="t", receipt="1") + "\n\n")
    assert client.recv().startswith("CONNECTED\n")
    assert client.recv() == "RECEIPT\nreceipt-id:1\n\n\0"


def test_a_body_that_is_not_text_is_sent_as_binary(dial):
    client = dial()
    client.send(frame("SUBSCRIBE", id="1", destination=f"/queue/{QUEUE}"))
    client.send_binary(f"SEND\ndestination:/queue/{QUEUE}\n\n".encode() + b"\xff\0")
    opcode, data = client.recv_data()
    assert opcode == ABNF.OPCODE_BINARY
    assert data.endswith(b"\ncontent-length:1\n\n\xff\0")


@pytest.mark.parametrize("octets", ["FOO\n\n\0", frame("CONNECT", accept_version="1.2", host=VHOST, login="x")])
def test_an_error_is_followed_by_the_end(dial, octets):
    client = dial(login=False)
    client.send(octets)
    assert client.recv().startswith("ERROR\n")
    assert client.recv_data() == (ABNF.OPCODE_CLOSE, b"\x03\xe8STOMP session ended")


def test_disconnect_is_followed_by_the_end(dial):
    client = dial()
    client.send(frame("DISCONNECT", receipt="bye"))
    assert client.recv() == "RECEIPT\nreceipt-id:bye\n\n\0"
    assert client.recv_data()[0] == ABNF.OPCODE_CLOSE


def test_the_end_of_a_connection_is_noticed(dial, broker_server):
    client = dial()
    assert len(broker_server.call(broker_server.broker.connections)) == 1
    client.close()
    broker_server.wait_until_alone()


class AsgiClient:
    """A server reduced to ASGI: nothing to cut, and sending never waits."""

    def __init__(self, broker: Broker, on_send: Callable[[dict[str, Any]], None] = lambda message: None) -> None:
        self.sent: list[dict[str, Any]] = []
        self._application = Starlette(routes=websocket_routes(broker, PATH))
        self._incoming = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": CONNECT}]
        self._on_send = on_send

    def converse(self, *texts: str) -> list[dict[str, Any]]:
        """Say these, until the application ends the conversation."""
        self._incoming += [{"type": "websocket.receive", "text": text} for text in texts]
        scope = {
            "type": "websocket",
            "path": PATH,
            "headers": [],
            "query_string": b"",
            "subprotocols": ["v11.stomp"],
        }
        asyncio.run(asyncio.wait_for(self._application(scope, self._receive, self._send), 10))
        return self.sent

    async def _receive(self) -> dict[str, Any]:
        if not self._incoming:
            await asyncio.Event().wait()
        return self._incoming.pop(0)

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self._on_send(message)


def test_a_server_that_hides_its_connections_closes_them_instead():
    broker = new_broker()

    def drop(message: dict[str, Any]) -> None:
        if message.get("text", "").startswith("CONNECTED"):
            assert broker.drop_connections() == 1
            assert broker.connections() == []

    accepted, connected, closed = AsgiClient(broker, drop).converse()
    assert accepted == {"type": "websocket.accept", "subprotocol": None, "headers": []}
    assert connected["type"] == "websocket.send"
    assert closed["type"] == "websocket.close"


@pytest.mark.parametrize("gone_at", ["websocket.accept", "websocket.send", "websocket.close"])
def test_a_client_that_is_gone_is_no_error(gone_at):
    broker = new_broker()

    def vanish(message: dict[str, Any]) -> None:
        if message["type"] == gone_at:
            raise OSError

    sent = AsgiClient(broker, vanish).converse(frame("DISCONNECT"))
    assert sent[-1]["type"] == gone_at
    assert broker.connections() == []


def test_a_long_queue_leaves_time_for_others():
    """What a client that reads fast gets must not hold up the event loop until its queue is empty."""
    broker = new_broker()
    for _ in range(500):
        broker.publish(VHOST, QUEUE, "x", {})
    turns: list[int] = []

    def deliver(message: dict[str, Any]) -> None:
        if message.get("text", "").startswith("MESSAGE"):
            asyncio.get_running_loop().call_soon(turns.append, broker.queue_depth(VHOST, QUEUE))
        if "@@500\n" in message.get("text", ""):
            assert len(turns) > 250
            broker.drop_connections()

    AsgiClient(broker, deliver).converse(frame("SUBSCRIBE", id="1", destination=f"/queue/{QUEUE}"))
    assert len(turns) == 500
