"""STOMP over WebSocket: carries sessions of a broker on a Starlette application.

Source: RFC 6455 for WebSocket; the subprotocol names ``v10.stomp`` to ``v12.stomp`` are those of RabbitMQ's web
STOMP plug-in. Frames may be split over messages or share one; the broker itself sends one frame a message, as text
unless the body is not UTF-8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, runtime_checkable

import anyio
import anyio.lowlevel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from testyard.lab.broker.broker import Broker
from testyard.lab.broker.session import Session

SUBPROTOCOL = "v12.stomp"


def websocket_routes(broker: Broker, path: str = "/rmqws-stomp") -> list[BaseRoute]:
    """The routes that serve a broker.

    Args:
        broker: The broker.
        path: Where clients connect.

    Returns:
        The WebSocket endpoint, and on the same path 426 for plain HTTP.

    Example:
        >>> from starlette.applications import Starlette
        >>> application = Starlette(routes=websocket_routes(Broker()))
    """
    return [WebSocketRoute(path, _Endpoint(broker)), Route(path, _upgrade_required, methods=["GET"])]


async def _upgrade_required(request: Request) -> Response:
    return PlainTextResponse(
        "This is a WebSocket endpoint.\n", 426, headers={"Connection": "Upgrade", "Upgrade": "websocket"}
    )


class _Endpoint:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        offered = scope.get("subprotocols", [])
        try:
            await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        except OSError:
            return
        await _Link(self._broker, websocket, _connection_of(receive)).serve()


@runtime_checkable
class _Connection(Protocol):
    """What is needed of a TCP connection, whichever event loop made it."""

    def abort(self) -> None: ...

    def is_closing(self) -> bool: ...


def _connection_of(receive: Receive) -> _Connection | None:
    """The TCP connection: ASGI has no way to cut it, but uvicorn's protocol, whose method this is, holds it."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    return transport if isinstance(transport, _Connection) else None


class _Link:
    """One WebSocket connection and its session."""

    def __init__(self, broker: Broker, websocket: WebSocket, connection: _Connection | None) -> None:
        self._websocket = websocket
        self._connection = connection
        self._something_to_send = asyncio.Event()
        self._other_timer = asyncio.Event()
        self._disconnected = False
        self._session = Session(broker, self)

    def wake(self) -> None:
        self._something_to_send.set()

    def reschedule(self) -> None:
        self._other_timer.set()

    def abort(self) -> None:
        # Without the TCP connection at hand the server closes the WebSocket when serve() returns.
        if self._connection is not None:
            self._disconnected = True
            self._connection.abort()

    @property
    def _closing(self) -> bool:
        """Whether writing would lose what is written without an error."""
        return self._connection is not None and self._connection.is_closing()

    async def serve(self) -> None:
        """Carry the session until either side ends it."""
        try:
            async with anyio.create_task_group() as tasks:
                for duty in (self._read, self._write, self._keep_time):
                    tasks.start_soon(self._until_over, duty, tasks.cancel_scope)
        finally:
            self._session.lost()
        if not self._disconnected and not self._closing:
            with suppress(WebSocketDisconnect):
                await self._websocket.close(1000, "STOMP session ended")

    async def _until_over(self, duty: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        try:
            await duty()
        except WebSocketDisconnect:
            self._disconnected = True
        finally:
            scope.cancel()

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._disconnected = True
                return
            text = message.get("text")
            self._session.receive(message["bytes"] if text is None else text.encode())

    async def _write(self) -> None:
        while not self._session.finished:
            outgoing = self._session.take_outgoing()
            if outgoing is None:
                await self._something_to_send.wait()
                self._something_to_send.clear()
                continue
            if self._closing:
                return
            try:
                text = outgoing.octets.decode()
            except UnicodeDecodeError:
                await self._websocket.send_bytes(outgoing.octets)
            else:
                await self._websocket.send_text(text)
            self._session.handed_over(outgoing)
            # Sending does not yield while the socket accepts; one busy client must not hold up the others.
            await anyio.lowlevel.checkpoint()

    async def _keep_time(self) -> None:
        while True:
            with anyio.move_on_after(self._session.next_timer()):
                await self._other_timer.wait()
            self._other_timer.clear()
            self._session.check_timers()
