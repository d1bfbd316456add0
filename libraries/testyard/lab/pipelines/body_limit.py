"""Refuses bodies that are too large, before they are read.

Starlette's own limit answers in plain text, and the service refuses in one shape.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from testyard.lab.pipelines.errors import refuse


class BodyLimit:
    """ASGI middleware.

    Args:
        app: What it stands before.
        largest: Bytes of a body at most.
    """

    def __init__(self, app: ASGIApp, *, largest: int) -> None:
        self._app = app
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body is not too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._announced(scope) > self._largest:
            await refuse(413, self._reason)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._largest:
                # The application's handler turns it into the answer.
                raise HTTPException(413, self._reason)
            return message

        await self._app(scope, counted, send)

    @property
    def _reason(self) -> str:
        return f"the body is too large; expected at most {self._largest} bytes"

    @staticmethod
    def _announced(scope: Scope) -> int:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        # A server checks it; without one it counts as not announced.
        return int(length) if length.isdigit() else 0
