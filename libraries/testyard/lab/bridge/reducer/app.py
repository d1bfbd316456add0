"""The reducer's HTTP interface: how it is, and how much it has done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request

from testyard.lab.bridge.node import VERSION, open_node, operations, tracing_of
from testyard.lab.bridge.reducer.service import Reducer
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.tracing import traces_router

SERVICE: Final = "reducer"

router = APIRouter()


@router.get("/metrics")
async def metrics(request: Request) -> dict[str, Any]:
    """How much was reduced."""
    reducer: Reducer = request.app.state.reducer
    return reducer.metrics()


def create_app(settings: Settings, secrets: Secrets) -> FastAPI:
    """The application; its lifespan reduces.

    Args:
        settings: Of all services.
        secrets: Of all services.
    """

    tracing = tracing_of(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with open_node(tracing, settings, secrets) as node:
            reducer = Reducer(node, secrets.signing_key)
            application.state.node, application.state.reducer = node, reducer
            async with reducer.running():
                yield

    application = FastAPI(title="Reducer", version=VERSION, lifespan=lifespan, telemetry=tracing.telemetry)
    for each in (router, operations, traces_router(tracing)):
        application.include_router(each)
    return application
