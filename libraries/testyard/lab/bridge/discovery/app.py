"""The discovery service's HTTP interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import httpx
from fastapi import APIRouter, FastAPI, HTTPException, Request

from testyard.core.json_client import trusted_certificates
from testyard.lab.bridge.discovery.client import DiscoveryClient, NobodyPassesError
from testyard.lab.bridge.discovery.registry import Registry
from testyard.lab.bridge.discovery.services import Registration
from testyard.lab.bridge.node import VERSION, open_node, operations, tracing_of
from testyard.lab.bridge.settings import Secrets, Settings
from testyard.lab.bridge.tracing import traces_router

SERVICE: Final = "discovery"

router = APIRouter()


def registry_of(request: Request) -> Registry:
    """The registry of the application that a request came to."""
    registry: Registry = request.app.state.registry
    return registry


def discovery_of(request: Request) -> DiscoveryClient:
    """What asks Consul in the application that a request came to."""
    discovery: DiscoveryClient = request.app.state.discovery
    return discovery


@router.get("/services/{name}")
async def locate(request: Request, name: str, fresh: bool = False) -> dict[str, Any]:
    """Where a service is. Who was told a wrong address asks with ``fresh=true``."""
    began = time.perf_counter()
    try:
        located = await discovery_of(request).locate(name, fresh=fresh)
    except NobodyPassesError as problem:
        raise HTTPException(503, str(problem)) from None
    if located is None:
        raise HTTPException(404, f"Nobody knows the service {name}.")
    return {**located.model_dump(mode="json"), "duration_ms": (time.perf_counter() - began) * 1000}


@router.get("/services")
async def services(request: Request) -> dict[str, Any]:
    """All services by name with their tags, and the processes that were registered here."""
    known, source = await discovery_of(request).services()
    registered = [each.answer() for each in registry_of(request).services.values()]
    return {"services": known, "source": source.value, "registered": registered}


@router.post("/services", status_code=201)
async def register(request: Request, registration: Registration) -> dict[str, Any]:
    """Take a process on: it is registered with Consul, and watched."""
    return (await registry_of(request).register(registration)).answer()


@router.delete("/services/{service_id}")
async def deregister(request: Request, service_id: str) -> dict[str, Any]:
    """Forget a process."""
    if not await registry_of(request).deregister(service_id):
        raise HTTPException(404, f"No process {service_id} is registered here.")
    return {"id": service_id, "deregistered": True}


@router.get("/consul")
async def consul(request: Request) -> dict[str, Any]:
    """How Consul is."""
    status = await discovery_of(request).health()
    return {"status": status.value, "address": request.app.state.node.settings.discovery.consul}


def create_app(settings: Settings, secrets: Secrets) -> FastAPI:
    """The application; its lifespan watches the services that are given to it.

    Args:
        settings: Of all services.
        secrets: Of all services.
    """

    tracing = tracing_of(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(tracing, settings, secrets))
            discovery = await stack.enter_async_context(DiscoveryClient(settings.discovery))
            node.new_breaker(discovery.breaker)
            timeout = settings.discovery.timeout.total_seconds()
            http = await stack.enter_async_context(
                httpx.AsyncClient(timeout=timeout, trust_env=False, verify=trusted_certificates())
            )
            registry = Registry(node, discovery, http)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            watching = tasks.create_task(registry.watch_for_ever(), name="heartbeats")
            stack.callback(watching.cancel)
            application.state.node = node
            application.state.discovery = discovery
            application.state.registry = registry
            yield

    application = FastAPI(
        title="Discovery",
        version=VERSION,
        summary="Tells where services are.",
        lifespan=lifespan,
        telemetry=tracing.telemetry,
    )
    application.include_router(router)
    application.include_router(operations)
    application.include_router(traces_router(tracing))
    return application
