"""Where a standby's PostgreSQL receives its WAL through: the agent's own end of the replication.

``primary_conninfo`` always names the relay, and the agent tells the relay whom to pass on to. So "stop receiving"
is done when the call returns, whatever PostgreSQL does at that moment: no acknowledgement can leave the node any
more. Changing ``primary_conninfo`` would not do, as nothing tells when the startup process has read it.

Who is attached is so for one connection: when that ends, or cannot be made, the next one is held until the agent
is told again whom to follow. The address that it was told may belong to another reign by then, or to a standby.

A connection that cannot be passed on now is held until it can. As PostgreSQL asks for one only after it has read
and replayed all the WAL that is on its disk, a held connection also proves that (``WaitForWALToBecomeAvailable``
in PostgreSQL's xlogrecovery.c: streaming is the last source that it tries).
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from testyard.lab.cluster.database.plan import Endpoint
from testyard.lab.cluster.database.timing import happens

# A connection that ends sooner than this after it was passed on has met nobody who serves it.
SHORT_LIVED_SECONDS = 1.0


class _Side(asyncio.Protocol):
    """One side of a connection: what it receives goes to the other, or waits for it."""

    def __init__(self, relay: Relay, other: _Side | None = None) -> None:
        self._relay = relay
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.received = bytearray()
        self.received_bytes = 0
        self.is_open = False
        self.made = asyncio.get_running_loop().time()
        self.joined = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        self.is_open = True
        if self.other is None:
            self._relay.hold(self)

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self.other is None or self.other.transport is None:
            self.received += data
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other and self.other.transport and self.other.is_open:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self.other and self.other.transport:
            self.other.transport.abort()
        self._relay.forget(self)

    def abort(self) -> None:
        """End it at once; what waits to be sent is dropped."""
        if self.transport:
            self.transport.abort()


class Relay:
    """Passes a standby's replication on to the primary that the agent follows, or to nobody.

    Attributes:
        port: Where it listens.
        rejections: How many connections one after the other the last target has answered and then ended soon.
    """

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._target: Endpoint | None = None
        self._last_target: Endpoint | None = None
        self._held: set[_Side] = set()
        self._passed_on: set[_Side] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._is_holding = asyncio.Event()
        self.port = 0
        self.rejections = 0

    async def open(self, host: str) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self), host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything; safe to call again."""
        self.detach()
        self.drop()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await asyncio.gather(*self._dials, return_exceptions=True)

    @property
    def target(self) -> Endpoint | None:
        """Whom it passes on to; None when nobody is attached, or the connection was lost."""
        return self._target

    def attach(self, target: Endpoint) -> None:
        """Pass one connection on to this address: what is held, or what comes first."""
        if target == self._target:
            return
        self.detach()
        if target != self._last_target:
            self.rejections = 0
        self._target = self._last_target = target
        for side in list(self._held):
            self._dial(side)

    def detach(self) -> None:
        """Pass on nothing more; in force when this returns."""
        self._target = None
        for task in self._dials:
            task.cancel()
        for side in list(self._passed_on):
            self._passed_on.discard(side)
            side.abort()
            if side.other:
                side.other.abort()

    def drop(self) -> None:
        """End what is held too: the server that asked for it has ended."""
        for side in list(self._held):
            self.forget(side)
            side.abort()

    async def is_holding(self, within: float) -> bool:
        """Whether a connection is held, or comes within so many seconds."""
        return await happens(self._is_holding, within)

    def was_asked_for(self, seconds_ago: float) -> bool:
        """Whether a connection has been open for so many seconds."""
        now = asyncio.get_running_loop().time()
        return any(now - side.made > seconds_ago for side in self._held | self._passed_on)

    def hold(self, side: _Side) -> None:
        """Keep a connection, and pass it on if there is anybody to pass it on to."""
        self._held.add(side)
        self._is_holding.set()
        if self._target is not None:
            self._dial(side)

    def forget(self, side: _Side) -> None:
        """A connection has ended."""
        if side in self._passed_on:
            self._passed_on.discard(side)
            self._target = None
            if asyncio.get_running_loop().time() - side.joined < SHORT_LIVED_SECONDS:
                self.rejections += bool(side.other and side.other.received_bytes)
            else:
                self.rejections = 0
        self._release(side)

    def _dial(self, side: _Side) -> None:
        task = asyncio.create_task(self._pass_on(side))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _pass_on(self, side: _Side) -> None:
        """Connect a held connection with the target."""
        assert self._target is not None
        upstream = _Side(self, side)
        try:
            with suppress(OSError):
                await asyncio.get_running_loop().create_connection(lambda: upstream, *self._target)
        except asyncio.CancelledError:
            upstream.abort()
            raise
        if upstream.is_open and side.is_open:
            self._join(side, upstream)
        else:
            upstream.abort()
            self._target = None

    def _join(self, side: _Side, upstream: _Side) -> None:
        assert upstream.transport is not None
        upstream.transport.write(bytes(side.received))
        side.other = upstream
        side.joined = asyncio.get_running_loop().time()
        self._release(side)
        self._passed_on.add(side)

    def _release(self, side: _Side) -> None:
        self._held.discard(side)
        if not self._held:
            self._is_holding.clear()
