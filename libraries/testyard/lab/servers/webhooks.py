"""An HTTP server that keeps what is posted to it, below ``/slack/`` with the answers of a Slack incoming webhook.

Source of Slack's answers: its page "Sending messages using incoming webhooks" and its changelog of 2016-05-17;
a JSON payload that says nothing is answered ``no_text`` (as GitLab's issue 332611 recorded it).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from testyard.lab.servers.inbox import Inbox
from testyard.lab.servers.loop_thread import LOOPBACK, LoopThread, loopback_listener

SLACK_PATH = "/slack/"
# One of these makes a message; Slack takes ``text`` for the fallback when there is another one.
SLACK_CONTENT = ("text", "blocks", "attachments")


@dataclass(frozen=True)
class Delivery:
    """One request that was received, whatever it was answered.

    Attributes:
        path: Its path, without the query.
        headers: Its header fields by name in lower case.
        body: The decoded JSON when it is JSON, else the text.
        received_utc: When it was complete.
        status_given: The HTTP status of the answer.
    """

    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: object
    received_utc: datetime
    status_given: int


@dataclass
class _Failure:
    """Requests that are to be answered with an error."""

    times: int
    status: int
    path: str | None


class WebhookReceiver(LoopThread):
    """Takes POST requests on every path and keeps them.

    Attributes:
        host: The loopback address to post to.
        port: The TCP port to post to; 0 before ``start``.

    Example:
        >>> with WebhookReceiver() as receiver:                                # doctest: +SKIP
        ...     notify(f"{receiver.url}/slack/operators")
        ...     receiver.deliveries("/slack/operators")[0].body
        {'text': 'Pipeline nightly failed'}
    """

    def __init__(self) -> None:
        super().__init__("webhook receiver")
        self.host = LOOPBACK
        self.port = 0
        self._inbox: Inbox[Delivery] = Inbox("delivery")
        self._failures: list[_Failure] = []

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        listener = loopback_listener(self.port)
        self.port = listener.getsockname()[1]
        routes = [Route("/{path:path}", self._receive, methods=["POST"])]
        server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes),
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(server.serve, sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True

    async def _receive(self, request: Request) -> PlainTextResponse:
        content = await request.body()
        path = request.url.path
        answer = self._failure(path) or (_slack_answer(content) if path.startswith(SLACK_PATH) else _answer("ok"))
        self._inbox.add(
            Delivery(
                path=path,
                headers=dict(request.headers),
                body=_decoded(content),
                received_utc=datetime.now(UTC),
                status_given=answer.status_code,
            )
        )
        return answer

    def _failure(self, path: str) -> PlainTextResponse | None:
        for failure in self._failures:
            if failure.times > 0 and failure.path in {None, path}:
                failure.times -= 1
                return _answer(HTTPStatus(failure.status).phrase, failure.status)
        return None

    @property
    def url(self) -> str:
        """Where to post to, without a path: ``http://127.0.0.1:port``."""
        return f"http://{self.host}:{self.port}"

    def fail(self, times: int, status: int = 500, path: str | None = None) -> None:
        """Answer the next requests with an error; they are kept all the same.

        Args:
            times: How many; zero ends what was asked for this path.
            status: The HTTP status of the answer.
            path: Only requests to this path, with its leading slash; None is every path.
        """
        self._portal.call(self._set_failure, _Failure(times, HTTPStatus(status), path))

    def _set_failure(self, failure: _Failure) -> None:
        self._failures = [other for other in self._failures if other.path != failure.path] + [failure]

    def deliveries(self, path: str | None = None) -> list[Delivery]:
        """The requests that are kept, oldest first.

        Args:
            path: Only those to this path; None is every path.
        """
        return [delivery for delivery in self._inbox.items() if path in {None, delivery.path}]

    def clear(self) -> None:
        """Forget the requests, and the errors that are still to be given."""
        self._portal.call(self._clear)

    def _clear(self) -> None:
        self._inbox.clear()
        self._failures.clear()

    def wait_for(self, predicate: Callable[[Delivery], bool], within: timedelta) -> Delivery:
        """Wait for a request that a predicate accepts, come already or yet to come.

        Args:
            predicate: Says whether a request is the one waited for.
            within: Give up after this time.

        Returns:
            The oldest such request.

        Raises:
            NotMetError: There is none in time; lists the requests that did come.
        """
        return self._inbox.wait_for(predicate, within)


def _answer(text: str, status: int = 200) -> PlainTextResponse:
    return PlainTextResponse(text, status)


def _decoded(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


def _slack_answer(content: bytes) -> PlainTextResponse:
    payload = _decoded(content)
    if not isinstance(payload, dict):
        return _answer("invalid_payload", 400)
    if not any(payload.get(key) for key in SLACK_CONTENT):
        return _answer("no_text", 400)
    return _answer("ok")
