"""A stand-in for Consul: the part of one agent's HTTP API that service discovery needs, health checks included.

No package manager has the real one: PyPI, npm, Maven Central and Debian have clients of it. The answers are those
that Consul's HTTP API v1 documents, as of Consul 1.21: "Service - Agent", "Check - Agent", "Health", "Catalog" and
"Status", with blocking queries; without ACLs, namespaces, filters and every check that is not an HTTP check. It is
different in these ways:

- One agent is the whole datacentre: what it knows the catalogue knows at once.
- A check is made for the first time at once, not at a random moment of its first interval.
- Intervals may be shorter than a second.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

import anyio
import httpx
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from testyard.core.json_client import trusted_certificates
from testyard.lab.servers.consul_definitions import CheckDefinition, CheckStatus, ServiceDefinition, go_duration
from testyard.lab.servers.loop_thread import LOOPBACK, LoopThread, loopback_listener
from testyard.lab.waiting import elapse

NODE: Final = "testyard"
DATACENTRE: Final = "dc1"
DEFAULT_CHECK_TIMEOUT: Final = timedelta(seconds=10)
LARGEST_OUTPUT: Final = 4096
DEFAULT_WAIT: Final = timedelta(minutes=5)
LONGEST_WAIT: Final = timedelta(minutes=10)
RAFT_PORT: Final = 8300


@dataclass
class _Check:
    check_id: str
    name: str
    definition: CheckDefinition
    status: CheckStatus
    output: str = ""
    create_index: int = 0
    modify_index: int = 0


@dataclass
class _Service:
    service_id: str
    definition: ServiceDefinition
    checks: list[_Check] = field(default_factory=list)
    create_index: int = 0
    modify_index: int = 0

    @property
    def name(self) -> str:
        return self.definition.name or ""

    @property
    def passing(self) -> bool:
        return all(check.status is CheckStatus.PASSING for check in self.checks)


class ConsulDouble(LoopThread):
    """One agent, which is also the only server of its datacentre.

    Attributes:
        host: The loopback address it answers on.
        port: The TCP port; 0 before ``start``, and then always the same one.

    Example:
        >>> with ConsulDouble() as consul:                                     # doctest: +SKIP
        ...     settings = DiscoverySettings(consul=consul.url)
    """

    def __init__(self) -> None:
        super().__init__("Consul")
        self.host = LOOPBACK
        self.port = 0
        self._node_id = str(uuid4())
        self._services: dict[str, _Service] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._has_leader = True
        self._index = 1
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """Where its API is, without ``/v1``."""
        return f"http://{self.host}:{self.port}"

    def lose_leader(self) -> None:
        """Let the cluster be without a leader: what needs one is refused."""
        self._portal.call(self._set_leader, False)

    def elect_leader(self) -> None:
        """Let the cluster have a leader again."""
        self._portal.call(self._set_leader, True)

    def _set_leader(self, has_leader: bool) -> None:
        self._has_leader = has_leader

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        self._changed = asyncio.Event()
        listener = loopback_listener(self.port)
        self.port = listener.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=self._routes(), exception_handlers={HTTPException: _refuse}),
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        client = httpx.AsyncClient(trust_env=False, verify=trusted_certificates())
        async with client as self._http, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(server.serve, sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True
                # Who waits for a change need not wait any longer.
                self._note()
                await self._end_checks(list(self._tasks))
                # A restarted agent without a data directory knows nothing.
                self._services.clear()

    def _routes(self) -> list[Route]:
        return [
            Route("/v1/status/leader", self._leader),
            Route("/v1/agent/service/register", self._register, methods=["PUT"]),
            Route("/v1/agent/service/deregister/{service_id}", self._deregister, methods=["PUT"]),
            Route("/v1/agent/services", self._agent_services),
            Route("/v1/agent/checks", self._agent_checks),
            Route("/v1/catalog/services", self._catalog_services),
            Route("/v1/catalog/service/{name}", self._catalog_service),
            Route("/v1/health/service/{name}", self._health_service),
            Route("/v1/health/checks/{name}", self._health_checks),
        ]

    # ---- status

    async def _leader(self, _: Request) -> Response:
        return _json(f"{self.host}:{RAFT_PORT}" if self._has_leader else "")

    def _need_leader(self) -> None:
        if not self._has_leader:
            raise HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR, "No cluster leader")

    # ---- agent

    async def _register(self, request: Request) -> Response:
        try:
            definition = ServiceDefinition.read(json.loads(await request.body()))
        except (ValueError, ValidationError) as problem:
            reason = str(problem).splitlines()[0]
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"Request decode failed: {reason}") from None
        if not definition.name:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "Missing service name")
        service = _Service(definition.service_id or definition.name, definition)
        service.checks = _checks_of(service)
        _check_definitions(service.checks)
        await self._end_checks([service.service_id])
        known = self._services.get(service.service_id)
        self._services[service.service_id] = service
        self._note()
        service.create_index = known.create_index if known else self._index
        service.modify_index = self._index
        for check in service.checks:
            check.create_index = check.modify_index = self._index
        self._tasks[service.service_id] = [
            asyncio.create_task(self._check_for_ever(check, service), name=check.check_id)
            for check in service.checks
            if check.definition.http is not None
        ]
        return PlainTextResponse("")

    async def _deregister(self, request: Request) -> Response:
        service_id = request.path_params["service_id"]
        if service_id not in self._services:
            message = (
                f"Unknown service ID {json.dumps(service_id)}. Ensure that the service ID is passed, not the "
                "service name."
            )
            raise HTTPException(HTTPStatus.NOT_FOUND, message)
        await self._end_checks([service_id])
        self._services.pop(service_id, None)
        self._note()
        return PlainTextResponse("")

    async def _agent_services(self, _: Request) -> Response:
        return _json({each.service_id: self._agent_service(each) for each in self._services.values()})

    async def _agent_checks(self, _: Request) -> Response:
        return _json({check["CheckID"]: check for each in self._services.values() for check in self._checks(each)})

    # ---- catalogue and health

    async def _catalog_services(self, request: Request) -> Response:
        await self._change_after(request)
        tags: dict[str, list[str]] = {"consul": []}
        for each in self._services.values():
            known = tags.setdefault(each.name, [])
            known += [tag for tag in each.definition.tags or [] if tag not in known]
        return self._indexed(tags)

    async def _catalog_service(self, request: Request) -> Response:
        await self._change_after(request)
        found = self._named(request)
        return self._indexed([self._catalog_entry(each) for each in found])

    async def _health_service(self, request: Request) -> Response:
        await self._change_after(request)
        found = self._named(request)
        if _is_asked_for(request, "passing"):
            found = [each for each in found if each.passing]
        entries = [
            {
                "Node": self._node(),
                "Service": self._agent_service(each),
                "Checks": [self._serf_health(), *self._checks(each)],
            }
            for each in found
        ]
        return self._indexed(entries)

    async def _health_checks(self, request: Request) -> Response:
        await self._change_after(request)
        return self._indexed([check for each in self._named(request) for check in self._checks(each)])

    def _named(self, request: Request) -> list[_Service]:
        wanted = set(request.query_params.getlist("tag"))
        return [
            each
            for each in self._services.values()
            if each.name == request.path_params["name"] and wanted <= set(each.definition.tags or [])
        ]

    async def _change_after(self, request: Request) -> None:
        """A blocking query: wait until there is something newer than what the caller knows."""
        self._need_leader()
        query = request.query_params
        try:
            known = int(query.get("index", 0))
            wait = min(go_duration(query["wait"]) if "wait" in query else DEFAULT_WAIT, LONGEST_WAIT)
        except ValueError as problem:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"Invalid wait or index: {problem}") from None
        if known <= 0:
            return
        try:
            async with asyncio.timeout(wait.total_seconds()):
                while self._index <= known and self._running is not None:
                    await self._changed.wait()
        except TimeoutError:
            pass

    def _note(self) -> None:
        """Something has changed."""
        self._index += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _indexed(self, content: object) -> Response:
        headers = {"X-Consul-Index": str(self._index), "X-Consul-KnownLeader": "true", "X-Consul-LastContact": "0"}
        return _json(content, headers)

    # ---- checks

    async def _check_for_ever(self, check: _Check, service: _Service) -> None:
        interval = go_duration(check.definition.interval or "")
        while True:
            status, output = await self._made(check.definition)
            if status is not check.status:
                self._note()
                check.modify_index = service.modify_index = self._index
            check.status, check.output = status, output
            await elapse(interval)

    async def _made(self, definition: CheckDefinition) -> tuple[CheckStatus, str]:
        url, method = definition.http or "", definition.method or "GET"
        timeout = go_duration(definition.timeout) if definition.timeout else DEFAULT_CHECK_TIMEOUT
        headers = [(name, value) for name, values in (definition.header or {}).items() for value in values]
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                answer = await self._http.request(
                    method, url, headers=headers, content=definition.body, timeout=None
                )
        except (httpx.HTTPError, TimeoutError) as problem:
            return CheckStatus.CRITICAL, f'{method.title()} "{url}": {str(problem) or "context deadline exceeded"}'
        status = (
            CheckStatus.PASSING
            if answer.is_success
            else CheckStatus.WARNING
            if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
            else CheckStatus.CRITICAL
        )
        text = answer.text[:LARGEST_OUTPUT]
        return status, f"HTTP {method} {url}: {answer.status_code} {answer.reason_phrase} Output: {text}"

    async def _end_checks(self, services: Iterable[str]) -> None:
        tasks = [task for service_id in services for task in self._tasks.pop(service_id, [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # ---- what the answers are made of

    def _node(self) -> dict[str, Any]:
        return {
            "ID": self._node_id,
            "Node": NODE,
            "Address": self.host,
            "Datacenter": DATACENTRE,
            "TaggedAddresses": {"lan": self.host, "wan": self.host},
            "Meta": {"consul-network-segment": ""},
            "CreateIndex": 1,
            "ModifyIndex": 1,
        }

    def _agent_service(self, service: _Service) -> dict[str, Any]:
        definition = service.definition
        return {
            "ID": service.service_id,
            "Service": service.name,
            "Tags": definition.tags or [],
            "Address": definition.address or "",
            "TaggedAddresses": definition.tagged_addresses or {},
            "Meta": definition.meta or {},
            "Port": definition.port or 0,
            "Weights": definition.weights or {"Passing": 1, "Warning": 1},
            "EnableTagOverride": bool(definition.enable_tag_override),
            "Datacenter": DATACENTRE,
            "CreateIndex": service.create_index,
            "ModifyIndex": service.modify_index,
        }

    def _catalog_entry(self, service: _Service) -> dict[str, Any]:
        own = self._agent_service(service)
        node = self._node()
        return {
            **{name: node[name] for name in ("ID", "Node", "Address", "Datacenter", "TaggedAddresses")},
            "NodeMeta": node["Meta"],
            "ServiceID": own["ID"],
            "ServiceName": own["Service"],
            **{
                f"Service{name}": own[name]
                for name in ("Tags", "Address", "TaggedAddresses", "Meta", "Port", "Weights", "EnableTagOverride")
            },
            "CreateIndex": own["CreateIndex"],
            "ModifyIndex": own["ModifyIndex"],
        }

    def _checks(self, service: _Service) -> list[dict[str, Any]]:
        return [
            {
                "Node": NODE,
                "CheckID": check.check_id,
                "Name": check.name,
                "Status": check.status.value,
                "Notes": check.definition.notes or "",
                "Output": check.output,
                "ServiceID": service.service_id,
                "ServiceName": service.name,
                "ServiceTags": service.definition.tags or [],
                "Type": "http" if check.definition.http else "",
                "Interval": check.definition.interval or "",
                "Timeout": check.definition.timeout or "",
                "Definition": {},
                "CreateIndex": check.create_index,
                "ModifyIndex": check.modify_index,
            }
            for check in service.checks
        ]

    def _serf_health(self) -> dict[str, Any]:
        return {
            "Node": NODE,
            "CheckID": "serfHealth",
            "Name": "Serf Health Status",
            "Status": CheckStatus.PASSING.value,
            "Notes": "",
            "Output": "Agent alive and reachable",
            "ServiceID": "",
            "ServiceName": "",
            "ServiceTags": [],
            "Type": "",
            "Interval": "",
            "Timeout": "",
            "Definition": {},
            "CreateIndex": 1,
            "ModifyIndex": 1,
        }


def _checks_of(service: _Service) -> list[_Check]:
    """The checks of a service, with the names that Consul gives those that have none."""
    definition = service.definition
    given = [*([definition.check] if definition.check else []), *(definition.checks or [])]
    several = len(given) > 1
    return [
        _Check(
            check_id=each.check_id or f"service:{service.service_id}{f':{number}' if several else ''}",
            name=each.name or f"Service '{service.name}' check",
            definition=each,
            # What was not checked yet is not taken for well.
            status=each.status or CheckStatus.CRITICAL,
        )
        for number, each in enumerate(given, start=1)
    ]


def _check_definitions(checks: Iterable[_Check]) -> None:
    for check in checks:
        definition = check.definition
        if definition.http is None:
            message = "Invalid check: this stand-in makes HTTP checks only"
            raise HTTPException(HTTPStatus.BAD_REQUEST, message)
        try:
            for duration in (definition.interval or "0s", definition.timeout or "0s"):
                go_duration(duration)
        except ValueError as problem:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"Request decode failed: {problem}") from None
        if not definition.interval or not go_duration(definition.interval):
            message = "Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"
            raise HTTPException(HTTPStatus.BAD_REQUEST, message)


def _is_asked_for(request: Request, name: str) -> bool:
    """A switch in the query: there is enough, unless it says that it is false."""
    value = request.query_params.get(name)
    return value is not None and value.lower() not in {"0", "f", "false"}


def _json(content: object, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(content, headers=dict(headers or {}))


async def _refuse(_: Request, error: Exception) -> Response:
    """Consul refuses in plain text."""
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    return PlainTextResponse(detail, status)
