"""What every service of the bridge has: its tables, its publisher, its breakers, and what it tells of itself."""

from __future__ import annotations

import asyncio
import os
import secrets as secrets_module
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request

from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker
from testyard.lab.bridge.outbox import Outbox
from testyard.lab.bridge.probing import Ask, Probe
from testyard.lab.bridge.publisher import Publisher
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.tables import migrate, open_tables
from testyard.lab.bridge.tracing import Tracing, new_tracing
from testyard.lab.database import Pool, fetch

VERSION: Final = "1.0.0"
CANCELLED_AGAIN_AFTER: Final = timedelta(milliseconds=200)


@dataclass
class Node:
    """One process of one service.

    Attributes:
        service: Which service, such as ``orchestrator``.
        instance: The process, as envelopes and traces name it.
        settings: Of all services.
        pool: The tables.
        database_breaker: When nobody waits any more for the tables.
        publisher: Publishes the service's events.
        tracing: Tells what the process's part of each trace is.
        breakers: All of its breakers, by name.
        degraded_for: Are asked why else the service is degraded.
        unhealthy_for: Are asked why it cannot do its work at all.
    """

    service: str
    instance: str
    settings: Settings
    pool: Pool
    database_breaker: CircuitBreaker
    publisher: Publisher
    tracing: Tracing
    breakers: dict[str, CircuitBreaker] = field(default_factory=dict)
    _probing: list[asyncio.Task[None]] = field(default_factory=list)
    degraded_for: list[Callable[[], list[str]]] = field(default_factory=list)
    unhealthy_for: list[Callable[[], list[str]]] = field(default_factory=list)

    def new_breaker(self, breaker: CircuitBreaker) -> CircuitBreaker:
        """Have a breaker told by ``/health`` and ``/metrics``, and reset by an operator."""
        self.breakers[breaker.name] = breaker
        return breaker

    def trouble(self) -> list[str]:
        """Why the service is degraded; nothing when it is not."""
        reasons = self.publisher.trouble()
        reasons += [
            f"{name}: circuit breaker {breaker.state.value}, {breaker.transitions[-1].reason}"
            for name, breaker in self.breakers.items()
            if breaker is not self.publisher.breaker and breaker.state is not BreakerState.CLOSED
        ]
        return reasons + [reason for ask in self.degraded_for for reason in ask()]

    def failures(self) -> list[str]:
        """Why the service is unhealthy; nothing when it is not."""
        return [reason for ask in self.unhealthy_for for reason in ask()]

    def keep_probing(self, breaker: CircuitBreaker, ask: Ask) -> None:
        """Have a breaker's other side asked, once its time is over, until the node ends."""
        probe = Probe(breaker, ask)
        every = self.settings.bus.look_after
        self._probing.append(asyncio.create_task(probe.run(every), name=f"probe {breaker.name}"))

    async def stop_probing(self) -> None:
        """Ask nobody any more."""
        while pending := [task for task in self._probing if not task.done()]:
            for task in pending:
                task.cancel()
            # psycopg may lose a cancellation that comes together with an answer (Python 3.11).
            await asyncio.wait(pending, timeout=CANCELLED_AGAIN_AFTER.total_seconds())


def tracing_of(service: str, settings: Settings) -> Tracing:
    """The tracing of a new process of a service; says how the process is called.

    Args:
        service: Such as ``orchestrator``.
        settings: Of all services.
    """
    instance = f"{service}-{socket.gethostname()}-{os.getpid()}-{secrets_module.token_hex(2)}"
    return new_tracing(settings.tracing, service, instance, settings.environment)


@asynccontextmanager
async def open_node(tracing: Tracing, settings: Settings, secrets: Secrets) -> AsyncIterator[Node]:
    """Start what every service has: the tables are brought to this version, what waits is replayed.

    Args:
        tracing: Of the process, which it names.
        settings: Of all services.
        secrets: Of all services.

    Raises:
        DatabaseUnavailableError: The database is away.
    """
    service, instance = tracing.service, tracing.instance
    url = secrets.database_url.get_secret_value()
    await migrate(url)
    async with open_tables(url, settings.database, instance) as pool:
        breaker = CircuitBreaker("database", settings.database.breaker)
        outbox = Outbox(pool, breaker, service, settings.outbox_directory)
        async with (
            tracing,
            Publisher(
                settings, service, instance, outbox, signing_key=secrets.signing_key, tracing=tracing
            ) as publisher,
        ):
            node = Node(service, instance, settings, pool, breaker, publisher, tracing)
            node.new_breaker(breaker)
            node.new_breaker(publisher.breaker)
            node.keep_probing(breaker, lambda: fetch(pool, "SELECT 1"))
            try:
                yield node
            finally:
                await node.stop_probing()


operations = APIRouter()
"""What every service answers; the application keeps its ``Node`` as ``state.node``."""


def node_of(request: Request) -> Node:
    """The node of the application that a request came to."""
    node: Node = request.app.state.node
    return node


@operations.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Whether the service is healthy, and why not."""
    node = node_of(request)
    failures, trouble = node.failures(), node.trouble()
    return {
        "status": "unhealthy" if failures else "degraded" if trouble else "healthy",
        "reasons": failures + trouble,
        "service": node.service,
        "instance": node.instance,
        "version": VERSION,
        "breakers": {name: breaker.state.value for name, breaker in node.breakers.items()},
        "outbox": len(node.publisher.outbox),
    }


@operations.get("/breakers")
async def breakers(request: Request) -> dict[str, Any]:
    """Everything that the circuit breakers know."""
    return {name: breaker.metrics() for name, breaker in node_of(request).breakers.items()}


@operations.post("/breakers/{name}/reset")
async def reset_breaker(request: Request, name: str) -> dict[str, Any]:
    """Close a breaker, as an operator does who knows that the other side works again."""
    found = node_of(request).breakers.get(name)
    if found is None:
        known = ", ".join(node_of(request).breakers)
        raise HTTPException(404, f"There is no breaker {name!r}, expected one of {known}.")
    found.reset()
    return found.metrics()


@operations.get("/configuration")
async def configuration(request: Request) -> dict[str, Any]:
    """The settings that the service runs with; durations as ISO 8601, nothing secret among them."""
    return node_of(request).settings.model_dump(mode="json")
