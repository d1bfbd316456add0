"""What the service answers: one shape for everything, and a code for everything that it refuses.

Source: contract page "event-bus", 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python
from starlette.requests import Request
from starlette.responses import Response

from testyard.lab.bridge.stamping.context import Context
from testyard.lab.bridge.stamping.json_text import json_bytes

DATABASE_RETRY_AFTER: Final = 1
"""Seconds after which a client may ask again when the database is away."""


class Status(Enum):
    """How a request went."""

    SUCCESS = "success"
    PARTIAL = "partial"
    ERROR = "error"


class ErrorCode(Enum):
    """Why a request is refused."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    INVALID_HASH_FORMAT = "INVALID_HASH_FORMAT"
    STAMP_NOT_FOUND = "STAMP_NOT_FOUND"
    STAMP_NOT_FOUND_IN_NAMESPACE = "STAMP_NOT_FOUND_IN_NAMESPACE"
    EMPTY_BATCH_REQUEST = "EMPTY_BATCH_REQUEST"
    PROTOCOL_COMPLIANCE_FAILED = "PROTOCOL_COMPLIANCE_FAILED"
    NAMESPACE_INVALID = "NAMESPACE_INVALID"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    OPERATION_ID_CONFLICT = "OPERATION_ID_CONFLICT"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    DATABASE_CONNECTION_FAILED = "DATABASE_CONNECTION_FAILED"
    DATABASE_OPERATION_FAILED = "DATABASE_OPERATION_FAILED"
    MEMORY_ERROR = "MEMORY_ERROR"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    INTERNAL_ERROR = "INTERNAL_ERROR"

    @property
    def http_status(self) -> int:
        """The HTTP status that goes with it."""
        return _HTTP_STATUS[self]


_HTTP_STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.VALIDATION_ERROR: 422,
    ErrorCode.INVALID_HASH_FORMAT: 400,
    ErrorCode.STAMP_NOT_FOUND: 404,
    ErrorCode.STAMP_NOT_FOUND_IN_NAMESPACE: 404,
    ErrorCode.EMPTY_BATCH_REQUEST: 400,
    ErrorCode.PROTOCOL_COMPLIANCE_FAILED: 422,
    ErrorCode.NAMESPACE_INVALID: 400,
    ErrorCode.VERSION_MISMATCH: 409,
    ErrorCode.OPERATION_ID_CONFLICT: 409,
    ErrorCode.RATE_LIMIT_EXCEEDED: 429,
    ErrorCode.DATABASE_CONNECTION_FAILED: 503,
    ErrorCode.DATABASE_OPERATION_FAILED: 503,
    ErrorCode.MEMORY_ERROR: 507,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.INTERNAL_ERROR: 500,
}


class Problem(BaseModel):
    """One thing that is wrong.

    Attributes:
        code: What sort of problem.
        message: One sentence.
        field: Where: ``body.namespace``; None when it is about the whole request.
    """

    model_config = ConfigDict(frozen=True)

    code: ErrorCode
    message: str
    field: str | None = None


class RefusedError(Exception):
    """A request that is refused.

    Args:
        code: Why.
        message: One sentence for the caller.
        field: Where the problem is.
        problems: All problems when there are several.
        retry_after: Seconds after which the caller may try again.
        data: What the answer tells all the same.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        field: str | None = None,
        *,
        problems: Sequence[Problem] = (),
        retry_after: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.problems = tuple(problems) or (Problem(code=code, message=message, field=field),)
        self.retry_after = retry_after
        self.data = data


def answer(
    request: Request,
    data: Mapping[str, Any],
    message: str,
    *,
    status: Status = Status.SUCCESS,
    problems: Sequence[Problem] = (),
    **metadata: Any,
) -> Response:
    """The answer of a request that was done, as a whole or in part.

    Args:
        request: The request.
        data: What it is about.
        message: One sentence.
        status: How it went.
        problems: What was refused of it.
        metadata: How the answer came about.
    """
    content = {"status": status.value, "data": data, "error": _told(problems), "message": message}
    return _response(200, content, context_of(request), metadata)


def refusal(error: RefusedError, context: Context | None) -> Response:
    """The answer of a request that was refused.

    Args:
        error: Why.
        context: What is known of the request; None when nothing is.
    """
    content = {
        "status": Status.ERROR.value,
        "data": error.data,
        "error": _told(error.problems),
        "message": error.message,
    }
    response = _response(error.code.http_status, content, context, {})
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def context_of(request: Request) -> Context:
    """What the headers of a request say."""
    context: Context = request.scope["state"]["context"]
    return context


def _told(problems: Sequence[Problem]) -> list[Any]:
    return [to_jsonable_python(each) for each in problems]


def _response(
    http_status: int, content: Mapping[str, Any], context: Context | None, metadata: Mapping[str, Any]
) -> Response:
    known = {} if context is None else {"request_id": context.request_id, "correlation_id": context.correlation_id}
    return Response(
        json_bytes({**content, "metadata": {**known, **metadata}}), http_status, media_type="application/json"
    )
