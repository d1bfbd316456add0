"""How every error becomes an answer in the one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from testyard.lab.bridge.breaker import CircuitOpenError
from testyard.lab.bridge.stamping.answers import DATABASE_RETRY_AFTER, ErrorCode, Problem, RefusedError, refusal
from testyard.lab.bridge.stamping.context import Context
from testyard.lab.bridge.stamping.gate import PREFIX, TOO_LARGE
from testyard.lab.database import DatabaseUnavailableError

_CODES: Final = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    TOO_LARGE: ErrorCode.MEMORY_ERROR,
}


def problems_of(found: Sequence[Any], where: str | None = None) -> list[Problem]:
    """What pydantic has found, in words.

    Args:
        found: Its errors.
        where: What their places are in, if they do not say so themselves.
    """
    return [
        Problem(
            code=ErrorCode.VALIDATION_ERROR,
            message=_message(each),
            field=".".join([*([where] if where else []), *map(str, each["loc"])]),
        )
        for each in found
    ]


def install(application: FastAPI) -> None:
    """Let an application answer every error below its prefix in the one shape."""

    @application.exception_handler(RefusedError)
    async def refuse(request: Request, error: RefusedError) -> Response:
        return refusal(error, _context(request))

    @application.exception_handler(RequestValidationError)
    async def refuse_values(request: Request, error: RequestValidationError) -> Response:
        problems = problems_of(error.errors())
        message = "; ".join(f"{each.field}: {each.message}" for each in problems)
        return await refuse(request, RefusedError(ErrorCode.VALIDATION_ERROR, message, problems=problems))

    @application.exception_handler(DatabaseUnavailableError)
    async def say_database_is_away(request: Request, error: DatabaseUnavailableError) -> Response:
        refused = RefusedError(
            ErrorCode.DATABASE_CONNECTION_FAILED, "the database is away", retry_after=DATABASE_RETRY_AFTER
        )
        return await refuse(request, refused)

    @application.exception_handler(CircuitOpenError)
    async def say_database_is_not_asked(request: Request, error: CircuitOpenError) -> Response:
        seconds = int(error.retry_after.total_seconds()) + DATABASE_RETRY_AFTER
        refused = RefusedError(ErrorCode.DATABASE_CONNECTION_FAILED, str(error), retry_after=seconds)
        return await refuse(request, refused)

    @application.exception_handler(psycopg.Error)
    async def say_database_refuses(request: Request, error: psycopg.Error) -> Response:
        message = f"the database refuses: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        refused = RefusedError(ErrorCode.DATABASE_OPERATION_FAILED, message, retry_after=DATABASE_RETRY_AFTER)
        return await refuse(request, refused)

    @application.exception_handler(MemoryError)
    async def say_memory_is_full(request: Request, error: MemoryError) -> Response:
        return await refuse(request, RefusedError(ErrorCode.MEMORY_ERROR, "there is not enough memory for this"))

    @application.exception_handler(HTTPException)
    async def refuse_request(request: Request, error: HTTPException) -> Response:
        if not request.url.path.startswith(f"{PREFIX}/"):
            return await http_exception_handler(request, error)
        code = _CODES.get(error.status_code, ErrorCode.VALIDATION_ERROR)
        response = await refuse(request, RefusedError(code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @application.exception_handler(Exception)
    async def say_internal_error(request: Request, error: Exception) -> Response:
        message = "internal error; the service's log says more"
        return await refuse(request, RefusedError(ErrorCode.INTERNAL_ERROR, message))


def _context(request: Request) -> Context | None:
    context: Context | None = request.scope.get("state", {}).get("context")
    return context


def _message(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "missing":
            return "a value is required"
        case "extra_forbidden":
            return "no such field exists"
        case "value_error":
            return str(error["ctx"]["error"])
        case "json_invalid":
            return f"the body is not JSON: {error.get('ctx', {}).get('error', 'malformed')}"
        case _:
            return str(error["msg"])
