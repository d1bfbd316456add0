"""How the doubles of the providers refuse a request; each writes it into the error body of its own API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


class RefusedError(Exception):
    """A provider refuses a request.

    Args:
        status: HTTP status.
        code: The provider's code for it, such as ``not_found``, ``notFound`` or ``AuthFailure``.
        message: Its text.
        details: What the provider's API says beside the code; only Google's does.
        headers: HTTP header fields that come with it.
    """

    def __init__(
        self, status: int, code: str, message: str, details: str = "", *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details
        self.headers = headers


def answering(
    handler: Handler, check: Callable[[Request], None], say: Callable[[RefusedError], Response]
) -> Handler:
    """A handler for those requests alone that pass a check.

    Args:
        handler: Answers them; may refuse too.
        check: Refuses the others.
        say: What the provider answers when something was refused.
    """

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            check(request)
            return await handler(request)
        except RefusedError as problem:
            return say(problem)

    return answer
