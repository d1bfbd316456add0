"""A bare Starlette application whose PATCH tells what it got to every open WebSocket.

Run as ``python bare_publisher.py DESCRIPTOR``: an inherited listening socket. It ends when its standard input
does, as the doubles do.
"""

from __future__ import annotations

import asyncio
import json
import sys

from bare_server import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

ACCOUNT_PATH = "/api/account/"
EVENTS_PATH = "/events"


def application() -> Starlette:
    """The application."""
    listeners: set[WebSocket] = set()

    async def change(request: Request) -> JSONResponse:
        account = await request.json()
        for listener in listeners:
            await listener.send_text(json.dumps(account))
        return JSONResponse(account)

    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        listeners.add(websocket)
        async for _ in websocket.iter_text():
            pass
        listeners.discard(websocket)

    return Starlette(routes=[Route(ACCOUNT_PATH, change, methods=["PATCH"]), WebSocketRoute(EVENTS_PATH, listen)])


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), application()))
