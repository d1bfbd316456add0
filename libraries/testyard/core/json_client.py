"""A small JSON-over-HTTP client whose errors are written for QA and never show a secret."""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Self

import httpx

from testyard.core.errors import UserError
from testyard.core.redact import refuse_placeholder, secrets_in_use

Files = Mapping[str, tuple[str, bytes]]

# Enough to see DRF's validation errors; whole HTML error pages help nobody.
SHOWN_BODY_LENGTH = 500


@functools.cache
def trusted_certificates() -> ssl.SSLContext:
    """The certificates that HTTPS connections are checked against; loading them takes tens of milliseconds."""
    return httpx.create_ssl_context()


class UnreachableError(UserError):
    """Nothing answers at an address."""


class UnexpectedAnswerError(UserError):
    """An HTTP status other than the expected ones.

    Attributes:
        status: The HTTP status that came.
        body: The answer's text, shortened.
    """

    def __init__(self, message: str, status: int, body: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class JsonClient:
    """Calls one HTTP API as one caller.

    Args:
        base_url: Scheme, host and port; paths are given per call.
        headers: Sent with every request; their values are registered as secrets where ``secret`` says so.
        secret: The credential inside ``headers``, to be masked everywhere.
        name: How the API is called in messages, such as ``Waldur A``.
        timeout: For each request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        secret: str,
        name: str,
        timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        for header, value in headers.items():
            refuse_placeholder(value)
            if not (value.isascii() and value.isprintable()):
                message = (
                    f"{name}: the header {header} cannot be sent: its value has a character that is no printable "
                    "ASCII, such as a line end. Was it read from a file?"
                )
                raise UserError(message)
        secrets_in_use.add(secret)
        self.base_url = base_url
        self.name = name
        try:
            self._client = httpx.Client(
                base_url=base_url,
                headers=dict(headers),
                timeout=timeout.total_seconds(),
                verify=trusted_certificates(),
            )
        except httpx.InvalidURL as problem:
            message = f"{name}: {base_url!r} is no URL: {problem}."
            raise UserError(message) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: object | None = None,
        query: Mapping[str, Any] | None = None,
        files: Files | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request and return whatever answer comes.

        Raises:
            UnreachableError: No answer came; names the address and the reason.
            UserError: The body or the query holds ``<secret>`` where a secret's value was meant.
        """
        refuse_placeholder(json.dumps(dict(query or {}), default=str))
        try:
            request = self._client.build_request(
                method, path, json=body, params=query, files=files, headers=headers
            )
            if files is None:
                refuse_placeholder(request.content.decode())
            return self._client.send(request)
        except (httpx.RequestError, httpx.InvalidURL) as problem:
            message = f"{self.name} at {self.base_url} cannot be reached: {problem or type(problem).__name__}."
            raise UnreachableError(message) from None

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object | None = None,
        query: Mapping[str, Any] | None = None,
        files: Files | None = None,
        headers: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200, 201, 204),
    ) -> Any:
        """Send one request and return the JSON of an expected answer.

        Args:
            method: GET, POST…
            path: The path below the base URL.
            body: Sent as JSON.
            query: Query parameters; a list repeats its name.
            files: Sent as a form instead of JSON: for each field a file's name and content.
            headers: Added to the client's own; nothing secret.
            expect: The statuses that are fine.

        Returns:
            The answer's JSON, or None when it has no body.

        Raises:
            UnreachableError: No answer came.
            UnexpectedAnswerError: Another status came; quotes it and the start of the answer.
        """
        return self._json_of(
            self._expected(method, path, body=body, query=query, files=files, headers=headers, expect=expect)
        )

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """``GET`` a list page by page, as long as the answer's ``Link`` header names a next one."""
        page = 1
        while True:
            response = self._expected("GET", path, query={**query, "page": page}, expect=(200,))
            yield self._json_of(response)
            if "next" not in response.links:
                return
            page += 1

    def _expected(
        self,
        method: str,
        path: str,
        *,
        body: object | None = None,
        query: Mapping[str, Any] | None = None,
        files: Files | None = None,
        headers: Mapping[str, str] | None = None,
        expect: tuple[int, ...],
    ) -> httpx.Response:
        response = self.send(method, path, body=body, query=query, files=files, headers=headers)
        if response.status_code in expect:
            return response
        text = "an HTML page" if _is_page(response) else secrets_in_use.mask(response.text)[:SHOWN_BODY_LENGTH]
        expected = " or ".join(map(str, expect))
        message = (
            f"{self.name} answered {response.status_code} to {method} {response.request.url.path}, "
            f"expected {expected}: {text}"
        )
        raise UnexpectedAnswerError(message, response.status_code, text)

    def _json_of(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            found = response.headers.get("content-type", "no content type")
            message = (
                f"{self.name} answered {response.request.method} {response.request.url.path} with {found}, "
                f"expected JSON. Is {self.base_url} the API's address?"
            )
            raise UnexpectedAnswerError(message, response.status_code, f"{found}, expected JSON") from None

    def get(self, path: str, **query: Any) -> Any:
        """``GET`` with query parameters, expecting 200."""
        return self.call("GET", path, query=query or None, expect=(200,))

    def post(self, path: str, body: object | None = None) -> Any:
        """``POST`` a JSON body, expecting 200, 201 or 204."""
        return self.call("POST", path, body={} if body is None else body)


def _is_page(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).lower().startswith("text/html")
