"""How the lab's services serve HTTP: on a socket that is there already, until they are told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from testyard.core.errors import UserError
from testyard.lab.children import listening_socket
from testyard.lab.waiting import call_when_input_ends

GRACEFUL_END: Final = timedelta(seconds=5)


class _Server(uvicorn.Server):
    """Says when it is ready, and leaves signals to this module: uvicorn would die of them after its work."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the address."""
        await super().startup(sockets)
        for each in sockets or []:
            host, port = each.getsockname()[:2]
            sys.stdout.write(f"http://{host}:{port}\n")
        sys.stdout.flush()


def listen(host: str, port: int, inherited: int | None = None) -> socket.socket:
    """The socket that a service takes requests on.

    Args:
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        inherited: The descriptor of a listening socket, instead of host and port.

    Raises:
        UserError: The port is taken, or there is no such address.
    """
    if inherited is not None:
        return socket.socket(fileno=inherited)
    try:
        return listening_socket(host, port)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on port {port} of {host}: {error}") from None


async def serve(application: FastAPI, listening: socket.socket, *, end_with_stdin: bool) -> None:
    """Serve until SIGTERM or SIGINT, or until standard input ends; prints the address when it takes requests.

    Args:
        application: What to serve; its lifespan is run.
        listening: From ``listen``.
        end_with_stdin: Whether to end when standard input does.
    """
    server = _Server(
        uvicorn.Config(
            application,
            # Not whichever is installed: what the lab does must not depend on it.
            loop="asyncio",
            http=HttpToolsProtocol,
            ws="none",
            # This function runs the lifespan itself: what goes wrong in it is then told in one line.
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=round(GRACEFUL_END.total_seconds()),
        )
    )
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, end)

    if end_with_stdin:
        call_when_input_ends(end)
    async with application.router.lifespan_context(application):
        await server.serve([listening])
