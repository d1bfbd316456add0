"""How one service calls another: where it is, how long it may take, and what went wrong when it did."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import httpx

from testyard.core.json_client import trusted_certificates
from testyard.lab.bridge.discovery.client import DiscoveryClient, NobodyPassesError
from testyard.lab.bridge.settings import DiscoverySettings
from testyard.lab.bridge.tracing import NO_TRACING, Tracing


class UnreachableError(Exception):
    """Nobody answers, or there is nobody to ask."""


class RefusalError(Exception):
    """The service has answered that it will not, or cannot.

    Attributes:
        status: The HTTP status.
        body: The answer; None when it is not JSON.
    """

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"answered {status}")
        self.status = status
        self.body = body


class ServiceCalls:
    """Calls one service, wherever it is. It opens as many connections as there are calls at a time.

    Args:
        discovery: Where services are.
        service: Which one, as discovery names it.
        url: Where it is, if that is known.
        timeout: How long one call may take.
        tracing: Says which trace each call belongs to.
    """

    def __init__(
        self,
        discovery: DiscoverySettings,
        service: str,
        *,
        url: str | None,
        timeout: timedelta,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._discovery = None if url is not None else DiscoveryClient(discovery)
        self._service = service
        self._url = url
        self._timeout = timeout
        self._tracing = tracing
        # One connection each: what httpx does to share connections takes longer with every one that is open.
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.aclose()
        if self._discovery is not None:
            await self._discovery.__aexit__(kind, problem, trace)

    async def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Any:
        """Call the service once.

        Args:
            method: HTTP method.
            path: With its leading slash.
            headers: Of the request.
            options: As httpx takes them.

        Returns:
            The JSON of its answer.

        Raises:
            TimeoutError: It took too long.
            UnreachableError: It does not answer, or not in JSON.
            RefusalError: It answers with a status of 400 or more.
        """
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                url = await self._address()
                response = await self._send(method, f"{url}{path}", headers=headers, **options)
        except httpx.TimeoutException as problem:
            raise TimeoutError(f"{self._service} did not answer in time") from problem
        except httpx.HTTPError as problem:
            # It may be somewhere else by now.
            if self._discovery is not None:
                self._discovery.forget(self._service)
            raise UnreachableError(
                f"{self._service} does not answer: {str(problem) or type(problem).__name__}"
            ) from problem
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.status_code >= 400:
            raise RefusalError(response.status_code, body)
        if body is None:
            raise UnreachableError(f"what answers for {self._service} does not speak JSON")
        return body

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            return await client.request(method, url, **options)
        finally:
            self._idle.append(client)

    def _new_client(self) -> httpx.AsyncClient:
        transport = self._tracing.http_transport(
            trust_env=False, verify=trusted_certificates(), limits=httpx.Limits(max_connections=1)
        )
        client = httpx.AsyncClient(
            timeout=self._timeout.total_seconds(),
            trust_env=False,
            verify=trusted_certificates(),
            transport=transport,
        )
        self._clients.append(client)
        return client

    async def _address(self) -> str:
        if self._discovery is None:
            return self._url or ""
        try:
            located = await self._discovery.locate(self._service)
        except NobodyPassesError as problem:
            raise UnreachableError(str(problem)) from problem
        if located is None:
            raise UnreachableError(f"nobody knows where {self._service} is")
        return located.url
