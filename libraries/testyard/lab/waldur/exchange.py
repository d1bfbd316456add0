"""One HTTP exchange of the double: request, reply, and the errors that Django REST framework answers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from testyard.lab.waldur.identifiers import parse_identifier
from testyard.lab.waldur.model import User

Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
HTML_TYPE = (b"content-type", b"text/html; charset=utf-8")
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def to_json(value: object) -> bytes:
    """Serialise to compact UTF-8 JSON."""
    return _ENCODER.encode(value).encode()


class ApiError(Exception):
    """A refusal: its status and its JSON body are what the real server sends."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def not_found(kind: str) -> ApiError:
    """404 of an object that does not exist or that the caller may not see (sample ``order_404``)."""
    return ApiError(404, {"detail": f"No {kind} matches the given query."})


def forbidden(detail: str = "You do not have permission to perform this action.") -> ApiError:
    """403 of an object that the caller may see but not act on."""
    return ApiError(403, {"detail": detail})


def wrong_state(valid: Iterable[str]) -> ApiError:
    """409 of an operation in the wrong state (sample ``order_approve_wrong_state_error``)."""
    return ApiError(409, {"detail": f"Valid states for operation: {', '.join(valid)}."})


def invalid(**errors: str) -> ApiError:
    """400 with one message per field."""
    return ApiError(400, {name: [message] for name, message in errors.items()})


@lru_cache(maxsize=256)
def parse_query(raw: bytes) -> Mapping[str, Sequence[str]]:
    """Parse a query string into every value of every parameter, in the order sent."""
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        values.setdefault(name, []).append(value)
    return values


@dataclass(slots=True)
class Request:
    """A request whose caller is known and whose body has been parsed."""

    method: str
    path: str
    base: str
    query_string: bytes
    user: User | None
    remote_address: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    identifier: str = ""
    """UUID in the path, 32 hexadecimal digits."""
    child_identifier: str = ""
    """UUID after a nested collection, e.g. of a plan under an offering."""

    @property
    def caller(self) -> User:
        """The authenticated user; the application lets nobody else reach a handler that asks."""
        if self.user is None:
            raise ApiError(401, {"detail": "Authentication credentials were not provided."})
        return self.user

    @property
    def query(self) -> Mapping[str, Sequence[str]]:
        """Every value of every query parameter."""
        return parse_query(self.query_string)

    def parameter(self, name: str) -> str | None:
        """The last value of a query parameter; None when absent or blank, as django-filter takes it."""
        values = self.query.get(name)
        return (values[-1] or None) if values else None

    def parameters(self, name: str) -> Sequence[str]:
        """All non-blank values of a repeated query parameter."""
        return [value for value in self.query.get(name, ()) if value]

    def number(self, name: str) -> float | None:
        """A query parameter that is a number.

        Raises:
            ApiError: 400 when it is not.
        """
        text = self.parameter(name)
        try:
            return None if text is None else float(text)
        except ValueError:
            raise invalid(**{name: "Enter a number."}) from None

    def moment(self, name: str) -> datetime | None:
        """A query parameter that is an instant in ISO 8601; without a zone it is UTC.

        Raises:
            ApiError: 400 when it is not.
        """
        text = self.parameter(name)
        try:
            moment = datetime.fromisoformat(text) if text else None
        except ValueError:
            raise invalid(**{name: "Enter a valid date/time."}) from None
        return moment and moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)

    def identifiers(self, name: str) -> frozenset[str] | None:
        """The UUIDs of a repeated filter, or None when the filter is absent.

        Raises:
            ApiError: 400 when a value is not a UUID.
        """
        values = self.parameters(name)
        if not values:
            return None
        parsed = [parse_identifier(value) for value in values]
        if None in parsed:
            raise invalid(**{name: "Enter a valid UUID."})
        return frozenset(value for value in parsed if value)

    def url(self, collection: str, identifier: str) -> str:
        """The address of an object of this instance, under the host name the client used."""
        return f"{self.base}/api/{collection}/{identifier}/"


@dataclass(slots=True)
class Reply:
    """What goes back: status, body and the headers that the handler knows."""

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=list)


def json_reply(value: object, status: int = 200) -> Reply:
    """A reply with a JSON body."""
    return Reply(status, to_json(value), [JSON_TYPE])


def created(value: Mapping[str, Any]) -> Reply:
    """A 201 with the new object and, when it has an address, its ``Location``."""
    headers = [JSON_TYPE]
    if isinstance(value.get("url"), str):
        headers.append((b"location", value["url"].encode()))
    return Reply(201, to_json(value), headers)


def empty(status: int = 200) -> Reply:
    """A reply without a body, as DRF sends for ``Response(status=...)``."""
    return Reply(status)
