"""What every request of the interface goes through: its headers, its client's limit, its size, and the clock."""

from __future__ import annotations

import time
from http import HTTPMethod
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from testyard.lab.bridge.settings import StampingSettings
from testyard.lab.bridge.stamping.answers import ErrorCode, RefusedError, refusal
from testyard.lab.bridge.stamping.context import Context, HeaderError, read_context
from testyard.lab.bridge.stamping.limits import RateLimits
from testyard.lab.bridge.stamping.metrics import Metrics

PREFIX: Final = "/api/v1/metadata-stamping"
LARGEST_BODY: Final = 64 * 1024 * 1024
"""Bytes of a request's body."""
HASH: Final = "hash"
UNLIMITED: Final = frozenset({"health", "metrics"})
TOO_LARGE: Final = 507


class Gate:
    """ASGI middleware.

    Args:
        app: What it stands before.
        settings: How many requests a client may make.
        limits: Counts them.
        metrics: Counts the answers.
        largest_body: Bytes of a body at most.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: StampingSettings,
        limits: RateLimits,
        metrics: Metrics,
        largest_body: int = LARGEST_BODY,
    ) -> None:
        self._app = app
        self._settings = settings
        self._limits = limits
        self._metrics = metrics
        self._largest_body = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that is not refused before it is read."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        operation = _operation(scope)
        context: Context | None = None
        status = 500

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if context is not None:
                    message = {**message, "headers": [*message["headers"], *context.headers()]}
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            context = read_context(headers)
            scope.setdefault("state", {})["context"] = context
            self._admit(scope, operation)
            self._check_size(int(headers.get("content-length", "0")))
            await self._app(scope, self._counting(receive), tell)
        except HeaderError as problem:
            refused = RefusedError(ErrorCode.VALIDATION_ERROR, str(problem), f"header.{problem.header}")
            await refusal(refused, context)(scope, receive, tell)
        except RefusedError as problem:
            await refusal(problem, context)(scope, receive, tell)
        finally:
            self._metrics.count(operation, status, (time.perf_counter() - began) * 1000)

    def _admit(self, scope: Scope, operation: str) -> None:
        if operation in UNLIMITED:
            return
        client = (scope.get("client") or ("unknown",))[0]
        settings = self._settings
        most = settings.hashes_per_minute if operation == HASH else settings.requests_per_minute
        refused_for = self._limits.refused_for(client, operation, most)
        if refused_for:
            message = f"{client} has made {most} requests of this kind in the last minute, which is the limit"
            raise RefusedError(
                ErrorCode.RATE_LIMIT_EXCEEDED, message, retry_after=int(refused_for.total_seconds()) + 1
            )

    @property
    def _too_large(self) -> str:
        return f"the body is too large; expected at most {self._largest_body} bytes"

    def _check_size(self, size: int) -> None:
        if size > self._largest_body:
            raise RefusedError(ErrorCode.MEMORY_ERROR, self._too_large)

    def _counting(self, receive: Receive) -> Receive:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._largest_body:
                # What reads a body makes a bad request of any other exception.
                raise HTTPException(
                    TOO_LARGE, f"the body is too large; expected at most {self._largest_body} bytes"
                )
            return message

        return counted


def _operation(scope: Scope) -> str:
    """What a request is for: the first part of its path after the prefix; its own kind for what may not be."""
    name: str = scope["path"].removeprefix(f"{PREFIX}/").partition("/")[0]
    if name == "stamp":
        return "stamp" if scope["method"] == HTTPMethod.POST else "query"
    return name if name in _KINDS else "other"


_KINDS: Final = frozenset({"validate", HASH, "batch", "validate-protocol", "namespace", *UNLIMITED})
