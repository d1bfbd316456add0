"""The services that were given to this process: they are asked for their health, and others are told of it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from testyard.lab.bridge.discovery.client import DiscoveryClient
from testyard.lab.bridge.discovery.services import Registration
from testyard.lab.bridge.events import HealthStatus, NodeHeartbeat, NodeIntrospection
from testyard.lab.bridge.node import VERSION, Node
from testyard.lab.bridge.topics import Route
from testyard.lab.waiting import elapse

_LOG: Final = logging.getLogger(__name__)


@dataclass
class Registered:
    """One process of a service.

    Attributes:
        registration: What it has told.
        with_consul: Whether Consul knows it.
        health: How it was when it was asked last.
        asked_at: When that was.
    """

    registration: Registration
    with_consul: bool = False
    health: HealthStatus = HealthStatus.UNKNOWN
    asked_at: datetime | None = None

    def answer(self) -> dict[str, Any]:
        """What the interface tells of it."""
        return {
            "id": self.registration.service_id,
            **self.registration.model_dump(mode="json"),
            "registered_with_consul": self.with_consul,
            "health_status": self.health.value,
            "last_heartbeat": self.asked_at.isoformat() if self.asked_at else None,
        }


class Registry:
    """Registers services and watches them.

    Args:
        node: Publishes what is to be told.
        discovery: Registers with Consul.
        http: Asks the services for their health.
    """

    def __init__(self, node: Node, discovery: DiscoveryClient, http: httpx.AsyncClient) -> None:
        self.services: dict[str, Registered] = {}
        self._node = node
        self._discovery = discovery
        self._http = http

    async def register(self, registration: Registration) -> Registered:
        """Take a process on, with Consul if that is there; the same one again changes what is told of it.

        Args:
            registration: The process.
        """
        registered = Registered(registration, await self._discovery.register(registration))
        await self._node.publisher.publish(
            Route.NODE_INTROSPECTION,
            NodeIntrospection(
                node_id=registration.service_id,
                node_type=registration.name,
                node_version=registration.meta.get("version", VERSION),
                capabilities={"tags": list(registration.tags)},
                endpoints={"http": registration.url, "health": f"{registration.url}/health"},
                metadata=dict(registration.meta),
            ),
            partition_key=registration.service_id,
        )
        # Nobody is told of the health of a process that nobody was told of.
        self.services[registration.service_id] = registered
        return registered

    async def deregister(self, service_id: str) -> bool:
        """Forget a process; Consul is asked to, too.

        Args:
            service_id: The process.

        Returns:
            Whether it was known.
        """
        known = self.services.pop(service_id, None)
        if known is not None:
            await self._discovery.deregister(service_id)
        return known is not None

    async def watch_for_ever(self) -> None:
        """Ask all services for their health again and again, and publish how they are."""
        while True:
            await elapse(self._node.settings.discovery.heartbeat)
            beats = [self._beat(each) for each in list(self.services.values())]
            for problem in await asyncio.gather(*beats, return_exceptions=True):
                if isinstance(problem, Exception):
                    _LOG.warning("a heartbeat could not be published: %s", problem)

    async def _beat(self, registered: Registered) -> None:
        registration = registered.registration
        if not registered.with_consul:
            registered.with_consul = await self._discovery.register(registration)
        registered.health = await self._health_of(registration)
        registered.asked_at = datetime.now(UTC)
        if registered.health is HealthStatus.UNHEALTHY:
            self._discovery.forget(registration.name)
        if self.services.get(registration.service_id) is not registered:
            return
        await self._node.publisher.publish(
            Route.NODE_HEARTBEAT,
            NodeHeartbeat(
                node_id=registration.service_id, health_status=registered.health, sent_at=registered.asked_at
            ),
            partition_key=registration.service_id,
        )

    async def _health_of(self, registration: Registration) -> HealthStatus:
        try:
            answer = await self._http.get(f"{registration.url}/health")
            body = answer.json() if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return HealthStatus.UNHEALTHY
        status = body.get("status") if isinstance(body, dict) else None
        return _HEALTH.get(str(status).lower(), HealthStatus.UNHEALTHY)


_HEALTH = {each.value.lower(): each for each in (HealthStatus.HEALTHY, HealthStatus.DEGRADED)}
