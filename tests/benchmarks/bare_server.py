"""A bare Starlette application that answers every request for orders with the same bytes.

Run as ``python bare_server.py DESCRIPTOR BODY``: an inherited listening socket, and a file with the bytes. It ends
when its standard input does, as the doubles do.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ORDERS_PATH = "/api/marketplace-orders/"


def application(body: bytes) -> Starlette:
    """The application for one body."""

    async def answer(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    return Starlette(routes=[Route(ORDERS_PATH, answer)])


async def serve(descriptor: int, application: Starlette) -> None:
    """Let an application answer on an inherited listening socket until standard input ends."""
    # The double's own choices, so that only the applications differ.
    config = uvicorn.Config(application, http="httptools", lifespan="off", access_log=False, log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([socket.socket(fileno=descriptor)]))
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), application(Path(sys.argv[2]).read_bytes())))
