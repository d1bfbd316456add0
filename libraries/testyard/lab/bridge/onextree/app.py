"""OnexTree's HTTP interface. It has neither tables nor events; its tree is in memory.

Source: contract page "event-bus", 3.9.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from testyard.lab.bridge.node import VERSION, tracing_of
from testyard.lab.bridge.onextree.analysis import analyse
from testyard.lab.bridge.onextree.tree import MEGABYTE, QueryType, Tree, TreeError, read_tree
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.tracing import traces_router

SERVICE: Final = "onextree"
LONGEST_CONTEXT: Final = 4 * 1024 * 1024
LONGEST_QUERY: Final = 4096
MOST_RESULTS: Final = 10_000

router = APIRouter()


@dataclass
class Onextree:
    """The service.

    Attributes:
        settings: Of all services.
        tree: The project that was read last; None before the first one.
        generating: Held while a project is read: two at a time would only slow each other down.
        instance: The process.
    """

    settings: Settings
    tree: Tree | None = None
    generating: asyncio.Lock = field(default_factory=asyncio.Lock)
    instance: str = field(
        default_factory=lambda: f"{SERVICE}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    )


class Payload(BaseModel):
    """A body; a name that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Generation(Payload):
    """A project to read.

    Attributes:
        project_root: Its directory.
    """

    project_root: Annotated[str, Field(min_length=1)]


class Query(Payload):
    """What is looked for.

    Attributes:
        query: An extension, a part of a name, or a part of a path.
        query_type: Which of them; ``auto`` goes by its dots and slashes.
        limit: How many at most.
    """

    query: Annotated[str, Field(min_length=1, max_length=LONGEST_QUERY)]
    query_type: QueryType = QueryType.AUTO
    limit: int = Field(default=100, ge=1, le=MOST_RESULTS)


class IntelligenceRequest(Payload):
    """What something is to be said about.

    Attributes:
        context: A path, a content, a description.
        include_patterns: Whether to look for patterns in the project.
        include_relationships: Whether to look for what belongs together.
    """

    context: Annotated[str, Field(max_length=LONGEST_CONTEXT)]
    include_patterns: bool = True
    include_relationships: bool = True


def onextree_of(request: Request) -> Onextree:
    """The service of the application that a request came to."""
    onextree: Onextree = request.app.state.onextree
    return onextree


@router.get("/")
async def about() -> dict[str, Any]:
    """What this is."""
    return {"service": SERVICE, "version": VERSION, "description": "Knows the files of a project."}


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Whether the service is healthy, and which project it knows."""
    onextree = onextree_of(request)
    return {
        "status": "healthy",
        "reasons": [],
        "service": SERVICE,
        "instance": onextree.instance,
        "version": VERSION,
        "breakers": {},
        "tree_loaded": onextree.tree is not None,
        "total_files": onextree.tree.total_files if onextree.tree else 0,
    }


@router.get("/configuration")
async def configuration(request: Request) -> dict[str, Any]:
    """The settings that the service runs with; durations as ISO 8601, nothing secret among them."""
    return onextree_of(request).settings.model_dump(mode="json")


@router.post("/generate")
async def generate(request: Request, wanted: Generation) -> dict[str, Any]:
    """Read a project; the last one is known until the new one is."""
    onextree = onextree_of(request)
    largest = onextree.settings.onextree.largest_tree
    async with onextree.generating:
        try:
            tree = await asyncio.to_thread(read_tree, Path(wanted.project_root), largest)
        except (TreeError, ValueError) as problem:
            raise HTTPException(400, str(problem)) from None
        onextree.tree = tree
    return {
        "success": True,
        "total_files": tree.total_files,
        "total_directories": tree.total_directories,
        "total_size_mb": round(tree.total_size / MEGABYTE, 6),
        "generation_time_ms": tree.generation_time_ms,
    }


@router.post("/query")
async def query(request: Request, wanted: Query) -> dict[str, Any]:
    """Find files."""
    found = _tree_of(request).find(wanted.query, wanted.query_type)
    results = [each.answer() for each in found[: wanted.limit]]
    return {"results": results, "count": len(results), "total_matches": len(found)}


@router.get("/stats")
async def stats(request: Request) -> dict[str, Any]:
    """The project in numbers."""
    return _tree_of(request).stats()


@router.post("/intelligence")
async def intelligence(request: Request, wanted: IntelligenceRequest) -> dict[str, Any]:
    """What the project says about a piece of work."""
    return analyse(
        onextree_of(request).tree,
        wanted.context,
        include_patterns=wanted.include_patterns,
        include_relationships=wanted.include_relationships,
    )


def _tree_of(request: Request) -> Tree:
    tree = onextree_of(request).tree
    if tree is None:
        raise HTTPException(400, "No project was read yet: POST /generate first.")
    return tree


def create_app(settings: Settings) -> FastAPI:
    """The application; its lifespan starts it with no project.

    Args:
        settings: Of all services.
    """

    tracing = tracing_of(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        application.state.onextree = Onextree(settings)
        async with tracing:
            yield

    application = FastAPI(
        title="OnexTree",
        version=VERSION,
        summary="Knows the files of a project.",
        lifespan=lifespan,
        telemetry=tracing.telemetry,
    )
    application.include_router(router)
    application.include_router(traces_router(tracing))
    return application
