"""A uvicorn HTTP server without its main loop and its signal handling, which can be opened and closed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class HttpListener:
    """Serves one application on one socket.

    Args:
        application: What it serves.
        tls: The certificate and key to speak HTTPS with; None is HTTP.
    """

    def __init__(self, application: ASGIApp, tls: ssl.SSLContext | None = None) -> None:
        self._config = uvicorn.Config(
            application,
            interface="asgi3",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
        )
        self._tls = tls
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    @property
    def is_open(self) -> bool:
        """Whether it takes connections."""
        return self._server is not None

    async def open(self, listening: socket.socket) -> None:
        """Take connections.

        Args:
            listening: A bound, listening TCP socket; it is the listener's from now on.
        """
        if not self._config.loaded:
            self._config.load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=listening, ssl=self._tls)

    def close(self) -> None:
        """Refuse connections, and end those that are idle or become so; safe to call again."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self._state.connections):
            connection.shutdown()

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self._config.http_protocol_class
        return make(self._config, self._state, {})
