"""How the manager talks to an agent: a line of JSON there, a line of JSON back, on a connection of its own.

A request is ``{"token": TOKEN, "command": NAME, ...}``; the answer is ``{"result": {...}}``, or ``{"refused":
"why", "term": 7}`` from an agent that knows a higher term than the one of the request. A link between the two may
be silent in either direction, so each call has a deadline; a request that was held back may arrive long after
that, and its term, or for a lease the agent's own clock, tells that it is stale.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from testyard.core.errors import UserError
from testyard.lab.cluster.database.plan import Endpoint

LONGEST_LINE = 1 << 20
# How long a client may take to say what it wants.
REQUEST_SECONDS = 10.0

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class SilentError(Exception):
    """An agent did not answer in time."""


class AbsentError(SilentError):
    """Nobody listens where an agent should be."""


class RefusedError(UserError):
    """An agent does not do what it is asked.

    Args:
        reason: Why.
        term: The highest term that it knows.
    """

    def __init__(self, reason: str, term: int = 0) -> None:
        super().__init__(reason)
        self.term = term


async def ask(endpoint: Endpoint, token: str, within: timedelta, command: str, **content: Any) -> dict[str, Any]:
    """Ask an agent.

    Args:
        endpoint: Where it is.
        token: What it knows its manager by.
        within: Give up after this time.
        command: What to do.
        content: What belongs to it.

    Returns:
        Its answer.

    Raises:
        SilentError: No answer in time; ``AbsentError`` when that was clear at once.
        RefusedError: It does not do it.
    """
    writer = None
    try:
        async with asyncio.timeout(within.total_seconds()):
            reader, writer = await asyncio.open_connection(*endpoint, limit=LONGEST_LINE)
            writer.write(json.dumps({"token": token, "command": command, **content}).encode() + b"\n")
            line = await reader.readline()
    except TimeoutError:
        message = "no answer in time"
        raise SilentError(message) from None
    except (OSError, ValueError) as problem:
        raise AbsentError(str(problem)) from None
    finally:
        if writer is not None:
            writer.transport.abort()
    if not line.endswith(b"\n"):
        message = "the connection ended"
        raise AbsentError(message)
    answer: dict[str, Any] = json.loads(line)
    if "refused" in answer:
        raise RefusedError(answer["refused"], answer.get("term", 0))
    result: dict[str, Any] = answer["result"]
    return result


class AgentServer:
    """The agent's side.

    Args:
        token: What a manager has to show.
        handle: Answers a request; may raise ``RefusedError``.
    """

    def __init__(self, token: str, handle: Handler) -> None:
        self._token = token
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[Any]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen; gives the port."""
        self._server = await asyncio.start_server(self._converse, host, port, limit=LONGEST_LINE)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop to listen and end every conversation; safe to call again."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None
        self._conversations.add(conversation)
        try:
            with suppress(OSError, TimeoutError, ValueError):
                async with asyncio.timeout(REQUEST_SECONDS):
                    line = await reader.readline()
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        finally:
            self._conversations.discard(conversation)
            writer.close()

    async def _answer(self, line: bytes) -> Mapping[str, Any]:
        request = json.loads(line)
        if not hmac.compare_digest(str(request.get("token")), self._token):
            return {"refused": "the token is wrong"}
        try:
            return {"result": await self._handle(request)}
        except RefusedError as refusal:
            return {"refused": str(refusal), "term": refusal.term}
        except (UserError, OSError) as problem:
            return {"refused": str(problem)}
