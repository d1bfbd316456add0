"""The service's HTTP interface, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI

from testyard.lab.bridge.node import VERSION, open_node, operations, tracing_of
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.stamping import problems
from testyard.lab.bridge.stamping.gate import Gate
from testyard.lab.bridge.stamping.hashing import Hasher
from testyard.lab.bridge.stamping.limits import RateLimits
from testyard.lab.bridge.stamping.metrics import Metrics
from testyard.lab.bridge.stamping.routes import router
from testyard.lab.bridge.stamping.service import Stamping
from testyard.lab.bridge.tracing import traces_router

SERVICE: Final = "metadata-stamping"


def create_app(settings: Settings, secrets: Secrets) -> FastAPI:
    """The application; its lifespan starts what it needs.

    Args:
        settings: Of all services.
        secrets: Of all services.

    Returns:
        The application, not yet started.

    Example:
        >>> application = create_app(settings, secrets)
        >>> async with application.router.lifespan_context(application):
        ...     await serve(application)
    """

    tracing = tracing_of(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(tracing, settings, secrets))
            stamping = Stamping(node, stack.enter_context(Hasher(settings.stamping.hash_threads)))
            stack.push_async_callback(stamping.table.close)
            application.state.node = node
            application.state.stamping = stamping
            yield

    application = FastAPI(
        title="Metadata stamping",
        version=VERSION,
        summary="Hashes files by BLAKE3, stamps them, and finds stamps again.",
        lifespan=lifespan,
        telemetry=tracing.telemetry,
    )
    application.state.metrics = Metrics()
    application.include_router(router)
    application.include_router(operations)
    application.include_router(traces_router(tracing))
    application.add_middleware(
        Gate, settings=settings.stamping, limits=RateLimits(), metrics=application.state.metrics
    )
    problems.install(application)
    return application
