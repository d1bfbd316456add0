"""What every request of the service needs: one object, made at start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from testyard.lab.database import Pool
from testyard.lab.pipelines.runner import Runner
from testyard.lab.pipelines.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of a running service.

    Args:
        settings: What it was started with.
        pool: Connections to its database.
        runner: Executes what ``/scheduler/process`` takes.
    """

    settings: Settings
    pool: Pool
    runner: Runner


async def service_of(request: Request) -> Service:
    """The service that answers a request; asynchronous, as FastAPI hands everything else to a thread."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceOf = Annotated[Service, Depends(service_of)]
