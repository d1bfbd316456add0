"""What the service answers when it refuses: one shape for everything, without any secret in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.constants import REF_TEMPLATE
from fastapi.responses import JSONResponse
from psycopg.errors import ForeignKeyViolation
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from testyard.lab.database import DatabaseUnavailableError
from testyard.lab.pipelines.payloads import PATTERNS_IN_WORDS

DATABASE_RETRY_AFTER: Final = 1
"""Seconds after which a client may try again when the database is away."""
# What stands in these fields, or in fields nobody knows, may be a secret: it is never quoted.
_HIDDEN_FIELDS: Final = frozenset({"credentials", "target", "parameters", "default_parameters", "api_key"})
_LONGEST_QUOTE: Final = 80
_TITLES: Final[Mapping[int, str]] = {
    400: "The body is not JSON.",
    401: "The key is missing, unknown, revoked or expired.",
    403: "The key is good, but not for this.",
    404: "There is no such thing, or it is another customer's.",
    409: "It contradicts what is there.",
    413: "The body is too large.",
    422: "A value is not what is expected.",
    429: "The quota is exceeded.",
    503: "The database is away.",
}
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait.",
        "schema": {"type": "integer", "minimum": 0},
        "required": True,
    }
}


class FieldProblem(BaseModel):
    """One value that was refused.

    Args:
        field: Where: ``body.schedule``, ``query.limit``, ``path.customer_id``.
        got: What was found; never the value of a field that can hold a secret.
        expected: What is accepted.
    """

    field: str
    got: str
    expected: str


class Refusal(BaseModel):
    """The body of every answer that is not a success.

    Args:
        detail: One sentence.
        errors: The values that were refused, if it was for values.
    """

    detail: str
    errors: list[FieldProblem] | None = Field(default=None)


class RefusedError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        detail: One sentence for the caller; no secrets.
        problems: The values that are wrong.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        problems: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})


_REFUSAL: Final = {
    "application/json": {"schema": {"$ref": REF_TEMPLATE.format(model=Refusal.__name__)}},
}


def not_found(kind: str, identifier: str) -> RefusedError:
    """The answer for what is not there, or is another customer's: nobody can tell which.

    Args:
        kind: E.g. ``run``.
        identifier: Its id, as it was asked for.
    """
    return RefusedError(404, f"there is no {kind} {identifier}")


def refused_field(field: str, got: str, expected: str) -> RefusedError:
    """The answer for one value of the body that only the service's own rules refuse.

    Args:
        field: The field's name.
        got: What was found.
        expected: What is accepted.
    """
    problem = FieldProblem(field=f"body.{field}", got=got, expected=expected)
    return RefusedError(422, f"{problem.field}: {expected}", problems=[problem])


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route declares in OpenAPI: the given refusals, and those that every route has.

    Args:
        statuses: HTTP statuses besides 422 and 503.
    """
    declared: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, 422, 503}):
        declared[status] = {"description": _TITLES[status], "content": _REFUSAL}
        if status in (429, 503):
            declared[status]["headers"] = _RETRY_AFTER
    # FastAPI builds a validator for each model of each route, which takes longer than all the rest. One for each
    # route is enough for the schema that the others refer to.
    declared[503]["model"] = Refusal
    return declared


def with_body(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``refusals`` for a route that reads a body.

    Args:
        statuses: HTTP statuses besides 400, 413, 422 and 503.
    """
    return refusals(400, 413, *statuses)


def install(application: FastAPI) -> None:
    """Let an application answer every error in the one shape.

    Args:
        application: The application.
    """

    @application.exception_handler(RefusedError)
    async def refuse_knowingly(_: Request, error: RefusedError) -> JSONResponse:
        return refuse(error.status, error.detail, error.problems, error.headers)

    @application.exception_handler(DatabaseUnavailableError)
    async def say_database_is_away(_: Request, __: DatabaseUnavailableError) -> JSONResponse:
        return refuse(503, "the database is away", headers={"Retry-After": str(DATABASE_RETRY_AFTER)})

    @application.exception_handler(ForeignKeyViolation)
    async def say_customer_is_gone(_: Request, __: ForeignKeyViolation) -> JSONResponse:
        return refuse(404, "the customer has been deleted meanwhile")

    @application.exception_handler(RequestValidationError)
    async def refuse_values(_: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(each["type"] == "json_invalid" for each in found):
            return refuse(400, f"the body is not JSON: {found[0].get('ctx', {}).get('error', 'malformed')}")
        problems = [_problem(each) for each in found]
        return refuse(422, "; ".join(f"{each.field}: {each.expected}" for each in problems), problems)

    @application.exception_handler(HTTPException)
    async def refuse_request(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # Each route knows only its own methods.
            headers["Allow"] = ", ".join(_methods_of(application, request.url.path))
        return refuse(error.status_code, str(error.detail), headers=headers)

    @application.exception_handler(500)
    async def say_internal_error(_: Request, __: Exception) -> JSONResponse:
        return refuse(500, "internal error; the service's log says more")


def refuse(
    status: int,
    detail: str,
    problems: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer of a refusal.

    Args:
        status: HTTP status.
        detail: One sentence.
        problems: The values that are wrong.
        headers: Further headers.
    """
    refusal = Refusal(detail=detail, errors=list(problems) or None)
    return JSONResponse(refusal.model_dump(exclude_none=True), status, dict(headers or {}))


def _methods_of(application: FastAPI, path: str) -> list[str]:
    paths: dict[str, dict[str, Any]] = application.openapi()["paths"]
    # A path that stands there as it is comes before one with a parameter in its place.
    for template in sorted(paths, key=lambda each: each.count("{")):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return sorted(method.upper() for method in paths[template])
    return ["GET", "HEAD"]


def _problem(error: Mapping[str, Any]) -> FieldProblem:
    location = [str(part) for part in error["loc"]]
    return FieldProblem(
        field=_printable(".".join(location)), got=_quoted(error, location), expected=_expectation(error)
    )


def _expectation(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "missing":
            return "a value is required"
        case "extra_forbidden":
            return "no such field exists"
        case "value_error":
            return str(error["ctx"]["error"])
        case "string_pattern_mismatch":
            return PATTERNS_IN_WORDS[error["ctx"]["pattern"]]
        case _:
            return str(error["msg"])


def _quoted(error: Mapping[str, Any], location: Sequence[str]) -> str:
    value = error.get("input")
    if error["type"] == "missing":
        return "nothing"
    if isinstance(value, bytes):
        return "a body that is not declared as application/json"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if error["type"] == "extra_forbidden" or len(location) < 2 or _HIDDEN_FIELDS.intersection(location):
        return f"a value of type {type(value).__name__} (not shown)"
    text = _printable(str(value))
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}... ({len(text)} characters)"


def _printable(text: str) -> str:
    # Halves of surrogate pairs come in by JSON's \u and cannot go out as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
