"""The public side as an ASGI application: who calls, what answers, and a journal entry for every request."""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from testyard.lab.waldur.exchange import HTML_TYPE, ApiError, Reply, Request, json_reply
from testyard.lab.waldur.faults import Fault
from testyard.lab.waldur.journal import Journal, masked
from testyard.lab.waldur.model import User
from testyard.lab.waldur.routing import Endpoint, Route, resolve
from testyard.lab.waldur.world import World

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

STOMP_PATH = "/rmqws-stomp"
_log = logging.getLogger(__name__)
_LOGIN_PATH = "/api-auth/password/"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_NOT_FOUND_PAGE = (
    b'\n<!doctype html>\n<html lang="en">\n<head>\n  <title>Not Found</title>\n</head>\n<body>\n'
    b"  <h1>Not Found</h1><p>The requested resource was not found on this server.</p>\n</body>\n</html>\n"
)
_NO_STOMP_PAGE = b'<!doctype html><html lang="en"><head><title>Waldur</title></head><body></body></html>'
_ANONYMOUS = "anonymous"
_INVALID_TOKEN = "invalid token"
_HIDDEN_IN_QUERY = ("token", "password", "passcode", "secret")


class PublicApplication:
    """Serves ``/api/``, ``/api-auth/password/`` and, through the broker, ``/rmqws-stomp``.

    Args:
        world: The instance.
        endpoints: The REST interface by collection.
        log_in: Handler of ``/api-auth/password/``.
        journal: Where every request is noted.
        stomp: The broker's application for the STOMP path.
    """

    def __init__(
        self,
        world: World,
        endpoints: Mapping[str, Endpoint],
        log_in: Callable[[World, Request], Reply],
        journal: Journal,
        stomp: Application,
    ) -> None:
        self._world = world
        self._endpoints = endpoints
        self._login_route = Route(Endpoint("Token", public=True), {"POST": log_in})
        self._journal = journal
        self._stomp = stomp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter_ns()
        path: str = scope["path"]
        headers = _headers(scope)
        delay = self._world.faults.latency(path)
        if delay is not None:
            await self._hold_up(delay)
        body: Any = None
        if path == STOMP_PATH and Fault.NO_STOMP not in self._world.faults:
            caller, status = _ANONYMOUS, await self._serve_stomp(scope, receive, send)
        else:
            content = await read_body(receive) if scope["method"] in _WITH_BODY else b""
            caller, user, refusal = self._caller(headers)
            reply, body = self._answer(scope, headers, content, user, refusal)
            status = reply.status
            if content:
                await asyncio.sleep(0)  # what was published goes out before the answer, not behind it
            await send_reply(send, reply, with_body=scope["method"] != "HEAD")
        self._note(scope, started, status=status, caller=caller, body=body)

    async def _hold_up(self, delay: timedelta) -> None:
        """Wait that long, or until the fault is switched off."""
        pause = asyncio.ensure_future(asyncio.sleep(delay.total_seconds()))
        held_up = self._world.faults.held_up
        held_up.add(pause)
        try:
            await asyncio.wait({pause})
        finally:
            pause.cancel()
            held_up.discard(pause)

    def _answer(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        content: bytes,
        user: User | None,
        refusal: ApiError | None,
    ) -> tuple[Reply, Any]:
        """The reply, and the body of the request for the journal."""
        path: str = scope["path"]
        if path == STOMP_PATH:
            return Reply(200, _NO_STOMP_PAGE, [HTML_TYPE]), None
        route = self._login_route if path == _LOGIN_PATH else resolve(self._endpoints, path)
        if route is None:
            if not path.endswith("/") and resolve(self._endpoints, path + "/") is not None:
                return Reply(301, b"", [(b"location", f"{path}/".encode())]), None
            return Reply(404, _NOT_FOUND_PAGE, [HTML_TYPE]), None
        body: Any = None
        try:
            if refusal is not None:
                raise refusal
            if user is None and not route.endpoint.public:
                raise ApiError(401, {"detail": "Authentication credentials were not provided."})
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            if method == "OPTIONS":
                return Reply(200, b"", [(b"allow", route.allow.encode())]), None
            handler = route.methods.get(method)
            if handler is None:
                raise ApiError(405, {"detail": f'Method "{scope["method"]}" not allowed.'})
            if route.identifier is None or route.child_identifier is None:
                raise ApiError(404, {"detail": f"No {route.endpoint.kind} matches the given query."})
            body = _parse(content)
            request = Request(
                method=method,
                path=path,
                base=f"{scope['scheme']}://{headers.get(b'host', b'localhost').decode('latin-1')}",
                query_string=scope["query_string"],
                user=user,
                remote_address=scope["client"][0] if scope.get("client") else "",
                body=body,
                identifier=route.identifier,
                child_identifier=route.child_identifier,
            )
            reply = handler(self._world, request)
        except ApiError as error:
            reply = json_reply(error.body, error.status)
        except Exception as error:
            _report(scope, error)
            reply = Reply(500, b"<h1>Server Error (500)</h1>", [HTML_TYPE])
        reply.headers.append((b"allow", route.allow.encode()))
        return reply, body

    def _caller(self, headers: Mapping[bytes, bytes]) -> tuple[str, User | None, ApiError | None]:
        """The caller's name for the journal, the user, and why the token is refused if it is."""
        kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() not in ("token", "bearer"):
            return _ANONYMOUS, None, None
        user = next(iter(self._world.store.users.where("token", token.strip()).values()), None)
        if user is None or self._world.faults.revokes(user.uuid):
            return _INVALID_TOKEN, None, ApiError(401, {"detail": "Invalid token."})
        if not user.is_active:
            return user.username, None, ApiError(401, {"detail": "User inactive or deleted."})
        return user.username, user, None

    async def _serve_stomp(self, scope: Scope, receive: Receive, send: Send) -> int:
        status = 0

        async def watching(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self._stomp(scope, receive, watching)
        return status

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a WebSocket to the broker; ``receive`` goes as it is, the broker finds the TCP connection by it."""
        started = time.perf_counter_ns()
        scope["method"] = "GET"
        if scope["path"] != STOMP_PATH or Fault.NO_STOMP in self._world.faults:
            await send({"type": "websocket.close", "code": 1000})
            self._note(scope, started, status=403, caller=_ANONYMOUS)
            return
        self._note(scope, started, status=101, caller=_ANONYMOUS)
        await self._stomp(scope, receive, send)

    def _note(self, scope: Scope, started: int, *, status: int, caller: str, body: Any = None) -> None:
        headers = _headers(scope)
        self._journal.append(
            kind="request",
            method=scope["method"],
            path=scope["path"],
            query=_visible_query(scope["query_string"]),
            status=status,
            caller=caller,
            user_agent=headers.get(b"user-agent", b"").decode("latin-1"),
            milliseconds=round((time.perf_counter_ns() - started) / 1e6, 3),
            **({"body": masked(body)} if body is not None and scope["method"] in _WITH_BODY else {}),
        )


def _headers(scope: Scope) -> Mapping[bytes, bytes]:
    return dict(scope["headers"])


async def read_body(receive: Receive) -> bytes:
    """Read the whole body of a request."""
    content = b""
    while True:
        message = await receive()
        content += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return content


async def send_reply(send: Send, reply: Reply, *, with_body: bool = True) -> None:
    """Send a reply with its length."""
    length = (b"content-length", str(len(reply.body)).encode())
    await send({"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, length]})
    await send({"type": "http.response.body", "body": reply.body if with_body else b""})


def _parse(content: bytes) -> dict[str, Any]:
    if not content.strip():
        return {}
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ApiError(400, {"detail": f"JSON parse error - {error}"}) from error
    if not isinstance(value, dict):
        message = f"Invalid data. Expected a dictionary, but got {type(value).__name__}."
        raise ApiError(400, {"non_field_errors": [message]})
    return value


def _visible_query(raw: bytes) -> str:
    text = raw.decode("latin-1")
    if not any(word in text.lower() for word in _HIDDEN_IN_QUERY):
        return text
    return urlencode(masked_pairs(parse_qsl(text, keep_blank_values=True)))


def masked_pairs(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Query parameters in which the value of every one that names a secret is replaced."""
    return [(name, str(masked({name: value})[name])) for name, value in pairs]


def _report(scope: Scope, error: Exception) -> None:
    """One line about a defect of the double itself."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    _log.error("%s %s: %s: %s (%s)", scope["method"], scope["path"], type(error).__name__, error, where)
