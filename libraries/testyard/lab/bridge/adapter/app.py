"""The adapter's HTTP interface: how it is, and what it has done.

Source: contract page "event-bus", 3.5.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request

from testyard.lab.bridge.adapter.service import Adapter
from testyard.lab.bridge.node import VERSION, open_node, operations, tracing_of
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.tracing import traces_router

SERVICE: Final = "database-adapter"

router = APIRouter()


@router.get("/metrics")
async def metrics(request: Request) -> dict[str, Any]:
    """How much was stored, dead-lettered and skipped, how late, and how far behind the adapter is."""
    adapter: Adapter = request.app.state.adapter
    return adapter.metrics()


def create_app(settings: Settings, secrets: Secrets) -> FastAPI:
    """The application; its lifespan stores events.

    Args:
        settings: Of all services.
        secrets: Of all services.
    """

    tracing = tracing_of(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with open_node(tracing, settings, secrets) as node:
            adapter = Adapter(node, secrets.signing_key)
            application.state.node, application.state.adapter = node, adapter
            async with adapter.running():
                yield

    application = FastAPI(
        title="Database adapter", version=VERSION, lifespan=lifespan, telemetry=tracing.telemetry
    )
    for each in (router, operations, traces_router(tracing)):
        application.include_router(each)
    return application
