"""Something in front of a server that does TLS, for servers that cannot."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from testyard.core.loop_thread import LoopThread

# What a client of PostgreSQL asks before TLS begins (protocol, "SSL Session Encryption"), and the answer.
POSTGRESQL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
POSTGRESQL_ANSWER = b"S"
PATIENCE = 10


@dataclass
class Relay:
    """A relay that runs.

    Attributes:
        port: What it listens on, on the loopback interface.
        clients: The subject of each client's certificate, or ``nobody``.
    """

    port: int
    clients: list[str] = field(default_factory=list)


@contextmanager
def tls_relay(context: ssl.SSLContext, host: str, port: int, *, asked_first: bool = False) -> Iterator[Relay]:
    """Take TLS connections and hand on what they carry.

    Args:
        context: The server's side of TLS.
        host: Where to hand on to.
        port: The TCP port there.
        asked_first: Whether clients ask for TLS before it begins, as those of PostgreSQL do.
    """
    loop = LoopThread("relay")
    serving: set[asyncio.Task[None]] = set()
    relay = Relay(0)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        await close(writer)

    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        if asked_first:
            assert await reader.readexactly(len(POSTGRESQL_REQUEST)) == POSTGRESQL_REQUEST
            writer.write(POSTGRESQL_ANSWER)
        try:
            await writer.start_tls(context)
        except OSError:
            await close(writer)
            return
        certificate = writer.get_extra_info("peercert")
        relay.clients.append(str(certificate["subject"]) if certificate else "nobody")
        to, answer = await asyncio.open_connection(host, port)
        await asyncio.gather(pass_on(reader, answer), pass_on(to, writer))

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    async def end(server: asyncio.Server) -> None:
        server.close()
        if serving:
            await asyncio.wait(serving, timeout=PATIENCE)

    server = loop.run(listen())
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        loop.run(end(server))
        loop.stop()
