"""Talks to the datacentre's control API: HTTP and JSON on loopback, with a bearer token."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use

SHOWN_BODY_LENGTH: Final = 300


class DatacentreGoneError(UserError):
    """Nothing listens at the datacentre's address: it has ended, and its nodes with it."""


class DatacentreError(UserError):
    """The datacentre refused, or does not answer.

    Attributes:
        status: The HTTP status; 0 when no answer came.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """The control API of one datacentre.

    Args:
        address: Such as ``http://127.0.0.1:40000``.
        token: The bearer token.
        timeout: For each request.

    Raises:
        UserError: The address is none.
    """

    def __init__(self, address: str, token: str, timeout: timedelta) -> None:
        parts = urlsplit(address)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            message = f"the datacentre's address must be http://HOST:PORT, got {address!r}"
            raise UserError(message)
        secrets_in_use.add(token)
        self.address = address
        self._host, self._port = parts.hostname, parts.port
        self._token = token
        self._timeout = timeout.total_seconds()

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """Send one request and return its answer's JSON; None when it has none.

        Raises:
            DatacentreGoneError: Nothing listens at the address.
            DatacentreError: It refused or did not answer in time.
        """
        return self._answer(self._send(method, path, body), f"{method} {path}")

    def call_all(self, method: str, paths: Iterable[str]) -> None:
        """Send several requests at once, then wait for all answers.

        Raises:
            DatacentreGoneError: Nothing listens at the address.
            DatacentreError: One was refused or not answered in time.
        """
        under_way = [(path, self._send(method, path)) for path in paths]
        for path, connection in under_way:
            self._answer(connection, f"{method} {path}")

    def _send(self, method: str, path: str, body: object | None = None) -> HTTPConnection:
        connection = HTTPConnection(self._host, self._port, timeout=self._timeout)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
        except ConnectionRefusedError:
            message = f"the datacentre at {self.address} is not there any more, and neither are its nodes"
            raise DatacentreGoneError(message) from None
        except OSError as problem:
            message = f"the datacentre at {self.address} cannot be reached: {problem}"
            raise DatacentreError(message) from None
        return connection

    def _answer(self, connection: HTTPConnection, what: str) -> Any:
        try:
            response = connection.getresponse()
            status, text = response.status, response.read().decode(errors="replace")
        except (OSError, HTTPException) as problem:
            message = (
                f"the datacentre at {self.address} did not answer {what}: {problem or type(problem).__name__}"
            )
            raise DatacentreError(message) from None
        finally:
            connection.close()
        try:
            content = json.loads(text) if text else None
        except ValueError:
            shown = secrets_in_use.mask(text)[:SHOWN_BODY_LENGTH]
            message = f"the datacentre answered {status} to {what}, with something that is not JSON: {shown!r}"
            raise DatacentreError(message, status) from None
        if status >= 400:
            reason = content.get("error") if isinstance(content, dict) else None
            message = f"the datacentre answered {status} to {what}: {reason or 'it gives no reason'}"
            raise DatacentreError(message, status)
        return content
