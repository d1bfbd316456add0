"""Finding services by Consul's HTTP API, and without it.

Source: contract page "event-bus", 3.10; Consul's HTTP API v1, "Service - Agent", "Health" and "Status".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import httpx
from cachetools import LRUCache, TTLCache
from pydantic import TypeAdapter, ValidationError

from testyard.core.json_client import trusted_certificates
from testyard.lab.bridge.breaker import BreakerSettings, CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.discovery.services import (
    ConsulEntry,
    ConsulStatus,
    Instance,
    Located,
    Registration,
    Source,
)
from testyard.lab.bridge.settings import DiscoverySettings

KEEPS_FOR: Final = timedelta(seconds=1)
"""How long an answer is good, unless the address turns out not to be."""
KEEPS_SERVICES: Final = 1000
PATIENCE: Final = timedelta(milliseconds=100)
"""How long a new answer is waited for when there is an older one."""

_ENTRIES: Final = TypeAdapter(list[ConsulEntry])
_CATALOG: Final = TypeAdapter(dict[str, tuple[str, ...]])


class NobodyPassesError(Exception):
    """Consul knows a service, and none of its processes passes its health check."""


class ConsulError(Exception):
    """Consul did not answer, or not as it should."""


class DiscoveryClient:
    """Registers and finds services. Without Consul every service is where the settings say.

    Args:
        settings: Where Consul is, and where services are without it.

    Example:
        >>> async with DiscoveryClient(settings) as discovery:
        ...     found = await discovery.locate("metadata-stamping-service")
    """

    def __init__(self, settings: DiscoverySettings) -> None:
        # Consul is asked again as often as services are: it is not waited for longer than one of them.
        self.breaker = CircuitBreaker(
            "consul", BreakerSettings(failures=5, open_for=settings.heartbeat, successes=1)
        )
        self._settings = settings
        self._http = httpx.AsyncClient(
            base_url=settings.consul or "",
            timeout=settings.timeout.total_seconds(),
            trust_env=False,
            verify=trusted_certificates(),
        )
        self._young: TTLCache[str, Located] = TTLCache(KEEPS_SERVICES, KEEPS_FOR.total_seconds())
        self._old: LRUCache[str, Located] = LRUCache(KEEPS_SERVICES)
        self._looking: dict[str, asyncio.Task[Located | None]] = {}
        self._tasks: set[asyncio.Task[Located | None]] = set()
        self._turn: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self._http.aclose()

    async def register(self, registration: Registration) -> bool:
        """Let Consul know a process, and ask for its health from now on.

        Args:
            registration: The process.

        Returns:
            Whether Consul knows it now; False without Consul.
        """
        body = registration.to_consul(self._settings.heartbeat, self._settings.timeout)
        done = await self._put("/v1/agent/service/register", body)
        self.forget(registration.name)
        return done

    async def deregister(self, service_id: str) -> bool:
        """Let Consul forget a process.

        Args:
            service_id: The process.

        Returns:
            Whether Consul has known and forgotten it.
        """
        done = await self._put(f"/v1/agent/service/deregister/{service_id}", None)
        for name in [*self._old, *self._looking]:
            self.forget(name)
        return done

    async def discover(self, name: str) -> list[Instance]:
        """The processes of a service whose health checks all pass.

        Args:
            name: Which service.

        Returns:
            None at all also when Consul does not answer, or not as it should.
        """
        try:
            return await self._passing(name)
        except ConsulError:
            return []

    async def locate(self, name: str, *, fresh: bool = False) -> Located | None:
        """Where to reach a service; processes that pass take turns.

        Args:
            name: Which service.
            fresh: Whether to ask although the last answer is young, as it has turned out to be wrong.

        Returns:
            An address of Consul's, or of the settings when Consul does not answer or does not know the service;
            None when the settings do not know it either. When Consul takes its time, the last answer.

        Raises:
            NobodyPassesError: Consul knows it, and that nobody there is well.
        """
        if fresh:
            self.forget(name)
        young = self._young.get(name)
        if young is not None:
            return young
        looking = self._looking.get(name)
        if looking is None:
            looking = self._looking[name] = asyncio.create_task(self._locate(name), name=f"locate {name}")
            self._tasks.add(looking)
            looking.add_done_callback(partial(self._located, name))
        old = self._old.get(name)
        # Who gives up waiting does not end what others wait for, and what the breaker is to count.
        done, _ = await asyncio.wait([looking], timeout=None if old is None else PATIENCE.total_seconds())
        return looking.result() if done else old

    def _located(self, name: str, looking: asyncio.Task[Located | None]) -> None:
        self._tasks.discard(looking)
        failed = looking.cancelled() or looking.exception() is not None
        # What was asked before the address turned out to be wrong may say the same again.
        if self._looking.get(name) is not looking:
            return
        del self._looking[name]
        located = None if failed else looking.result()
        if located is None:
            self.forget(name)
        else:
            self._young[name] = self._old[name] = located

    def forget(self, name: str) -> None:
        """Ask again the next time: the address that was given does not answer."""
        for kept in (self._young, self._old, self._looking):
            kept.pop(name, None)

    async def health(self) -> ConsulStatus:
        """How Consul is: unhealthy without a leader, unavailable when it does not answer."""
        try:
            leader = await self._get("/v1/status/leader", {})
        except ConsulError as problem:
            answered = isinstance(problem.__cause__, httpx.HTTPStatusError | ValueError)
            return ConsulStatus.UNHEALTHY if answered else ConsulStatus.UNAVAILABLE
        has_leader = isinstance(leader, str) and leader != ""
        return ConsulStatus.HEALTHY if has_leader else ConsulStatus.UNHEALTHY

    async def services(self) -> tuple[dict[str, tuple[str, ...]], Source]:
        """Every service with its tags: those of Consul, else those of the settings."""
        try:
            catalog = await self._get("/v1/catalog/services", {})
            return _CATALOG.validate_python(catalog), Source.CONSUL
        except (ConsulError, ValidationError):
            return dict.fromkeys(self._settings.fallback, ()), Source.FALLBACK

    async def _locate(self, name: str) -> Located | None:
        try:
            passing = await self._passing(name)
            if passing:
                turn = self._turn[name] = self._turn.get(name, -1) + 1
                return Located(name=name, url=passing[turn % len(passing)].url, source=Source.CONSUL)
            if await self._entries(name, {}):
                raise NobodyPassesError(f"Consul knows {name}, and none of its health checks passes.")
            reason = "Consul does not know it"
        except ConsulError as problem:
            reason = str(problem)
        url = self._settings.fallback.get(name)
        return None if url is None else Located(name=name, url=url, source=Source.FALLBACK, reason=reason)

    async def _passing(self, name: str) -> list[Instance]:
        entries = await self._entries(name, {"passing": "true"})
        return [entry.instance() for entry in entries if entry.passing]

    async def _entries(self, name: str, query: Mapping[str, str]) -> list[ConsulEntry]:
        try:
            return _ENTRIES.validate_python(await self._get(f"/v1/health/service/{name}", query))
        except ValidationError as problem:
            raise ConsulError(f"Consul's answer is not understood: {problem.errors()[0]['msg']}") from problem

    async def _get(self, path: str, query: Mapping[str, str]) -> Any:
        response = await self._send("GET", path, params=query)
        try:
            return response.json()
        except ValueError as problem:
            raise ConsulError("Consul's answer is not JSON") from problem

    async def _put(self, path: str, body: object) -> bool:
        try:
            await self._send("PUT", path, json=body)
        except ConsulError:
            return False
        return True

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        if self._settings.consul is None:
            raise ConsulError("there is no Consul in the settings")
        try:
            with self.breaker.call():
                response = await self._http.request(method, path, **options)
        except CircuitOpenError as problem:
            raise ConsulError(str(problem)) from problem
        except httpx.HTTPError as problem:
            raise ConsulError(f"Consul does not answer: {str(problem) or type(problem).__name__}") from problem
        try:
            return response.raise_for_status()
        except httpx.HTTPStatusError as problem:
            raise ConsulError(f"Consul answers {response.status_code}: {response.text[:200]}") from problem
