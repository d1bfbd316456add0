"""How one service calls another: where it is, how long it may take, and what went wrong when it did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from testyard.core.json_client import trusted_certificates
from testyard.lab.bridge.discovery.client import DiscoveryClient, NobodyPassesError
from testyard.lab.bridge.settings import DiscoverySettings
from testyard.lab.bridge.tracing import NO_TRACING, Tracing

_KEPT_OPEN: Final = timedelta(seconds=2)
"""How long an idle connection is used again: for less than uvicorn waits (5 s), so that none meets its end."""


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
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
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
            options: As aiohttp takes them: ``json``, ``data``, ``params``.

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
                status, answer = await self._send(method, f"{url}{path}", headers or {}, options)
        except aiohttp.ClientError as problem:
            # It may be somewhere else by now.
            if self._discovery is not None:
                self._discovery.forget(self._service)
            raise UnreachableError(
                f"{self._service} does not answer: {str(problem) or type(problem).__name__}"
            ) from problem
        try:
            body = json.loads(answer)
        except ValueError:
            body = None
        if status >= 400:
            raise RefusalError(status, body)
        if body is None:
            raise UnreachableError(f"what answers for {self._service} does not speak JSON")
        return body

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> tuple[int, bytes]:
        if self._session is None:
            self._session = self._new_session()
        with self._tracing.client_span(method, url) as span:
            carried = {**headers, **dict(self._tracing.inject_headers())}
            async with self._session.request(
                method, url, headers=carried, allow_redirects=False, **options
            ) as response:
                span.answered(response.status)
                return response.status, await response.read()

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEPT_OPEN.total_seconds(), ssl=trusted_certificates()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
            # All of a call has one limit, which is the caller's.
            timeout=aiohttp.ClientTimeout(total=None),
        )

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
