"""The interface below ``/api/v1/metadata-stamping``.

Source: contract page "event-bus", 3.8.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, UploadFile
from pydantic import ValidationError
from starlette.responses import Response

from testyard.lab.bridge.node import VERSION, Node, node_of
from testyard.lab.bridge.stamping.answers import (
    ErrorCode,
    Problem,
    RefusedError,
    Status,
    answer,
    context_of,
)
from testyard.lab.bridge.stamping.gate import PREFIX
from testyard.lab.bridge.stamping.metrics import Metrics
from testyard.lab.bridge.stamping.payloads import (
    MOST_LISTED,
    BatchRequest,
    ProtocolRequest,
    StampRequest,
    ValidateRequest,
    is_namespace,
)
from testyard.lab.bridge.stamping.problems import problems_of
from testyard.lab.bridge.stamping.protocol import violations
from testyard.lab.bridge.stamping.records import (
    HASH_ALGORITHM,
    METADATA_VERSION,
    PROTOCOL_VERSION,
    stamps_in,
)
from testyard.lab.bridge.stamping.service import Stamped, Stamping, operation_of, performance

_FILE_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")

router = APIRouter(prefix=PREFIX, tags=["metadata stamping"])


def stamping_of(request: Request) -> Stamping:
    """What stamps in the application that a request came to."""
    stamping: Stamping = request.app.state.stamping
    return stamping


@router.post("/stamp")
async def stamp(request: Request, wanted: StampRequest) -> Response:
    """Stamp a file."""
    context = context_of(request)
    operation = operation_of(wanted, context)
    context.namespace, context.operation_id = operation.namespace, operation.op_id
    stamped = await stamping_of(request).stamp(operation)
    return answer(request, stamped.answer(), _how_it_went(stamped), **_how_it_is_kept(stamped))


@router.post("/batch")
async def batch(request: Request, wanted: BatchRequest) -> Response:
    """Stamp several files; one that is refused does not keep the others from being stamped."""
    most = request.app.state.node.settings.stamping.largest_batch
    if not wanted.items:
        raise RefusedError(ErrorCode.EMPTY_BATCH_REQUEST, "the batch has no items", "body.items")
    if len(wanted.items) > most:
        message = f"the batch has {len(wanted.items)} items, expected at most {most}"
        raise RefusedError(ErrorCode.VALIDATION_ERROR, message, "body.items")
    began = time.perf_counter()
    results = await asyncio.gather(*(_item(request, index, item) for index, item in enumerate(wanted.items)))
    successful = [result["data"] for result in results if result["success"]]
    problems = [problem for result in results for problem in result.pop("problems")]
    failed = len(results) - len(successful)
    durations = [data["performance_metrics"]["execution_time_ms"] for data in successful]
    data = {
        "total": len(results),
        "successful": len(successful),
        "failed": failed,
        "success_rate": len(successful) / len(results),
        "average_execution_time_ms": sum(durations) / len(durations) if durations else 0.0,
        "execution_time_ms": (time.perf_counter() - began) * 1000,
        "results": results,
    }
    status = Status.SUCCESS if not failed else Status.PARTIAL if successful else Status.ERROR
    return answer(
        request, data, f"{len(successful)} of {len(results)} files stamped", status=status, problems=problems
    )


async def _item(request: Request, index: int, item: object) -> dict[str, Any]:
    try:
        wanted = StampRequest.model_validate(item)
        operation = operation_of(wanted, context_of(request))
        stamped = await stamping_of(request).stamp(operation)
    except ValidationError as error:
        problems = problems_of(error.errors(), f"body.items.{index}")
    except RefusedError as error:
        where = f"body.items.{index}"
        problems = [
            each.model_copy(update={"field": (each.field or where).replace("body", where, 1)})
            for each in error.problems
        ]
    else:
        return {"index": index, "success": True, "data": stamped.answer(), "problems": []}
    return {"index": index, "success": False, "error": problems, "problems": problems}


@router.post("/hash")
async def hash_file(request: Request, file: UploadFile) -> Response:
    """Hash a file; ``execution_time_ms`` is that of the hash alone."""
    cpu_began = time.process_time_ns()
    hashed = await stamping_of(request).hasher.of_file(file.file, file.size or 0)
    cpu_milliseconds = (time.process_time_ns() - cpu_began) / 1e6
    data = {
        "file_hash": hashed.digest,
        "hash_algorithm": HASH_ALGORITHM,
        "file_name": file.filename,
        "file_size_bytes": hashed.size,
        "performance_metrics": performance(hashed.milliseconds, cpu_milliseconds, hashed.size),
    }
    return answer(request, data, "hashed")


@router.post("/validate")
async def validate(request: Request, wanted: ValidateRequest) -> Response:
    """Check a stamped content: every stamp at its beginning has to have the hash of what follows them."""
    expected = None if wanted.expected_hash is None else _file_hash(wanted.expected_hash, "body.expected_hash")
    found, content = stamps_in(wanted.content)
    hashed = await stamping_of(request).hasher.of_bytes(content.encode())
    stamps = [
        {
            "stamp_type": each.stamp_type.value,
            "file_hash": each.file_hash,
            "leading": each.leading,
            "matches": each.file_hash == hashed.digest,
        }
        for each in found
    ]
    leading = [each for each in stamps if each["leading"]]
    is_valid = bool(leading) and all(each["matches"] for each in leading) and expected in {None, hashed.digest}
    data = {
        "is_valid": is_valid,
        "stamps_found": len(stamps),
        "current_hash": hashed.digest,
        "expected_hash": expected,
        "details": stamps,
        "validation_time_ms": hashed.milliseconds,
    }
    return answer(request, data, "the stamp fits the content" if is_valid else "no stamp that fits the content")


@router.post("/validate-protocol")
async def validate_protocol(request: Request, wanted: ProtocolRequest) -> Response:
    """Check the O.N.E. v0.1 fields of a stamp."""
    fields = _fields(wanted)
    level = wanted.validation_level
    missed = violations(fields, level)
    data = {"is_compliant": not missed, "validation_level": level.value, "stamp_data": fields}
    if missed:
        problems = [
            Problem(
                code=ErrorCode.PROTOCOL_COMPLIANCE_FAILED,
                message=f"{check.field} is expected to be {check.expected}",
                field=f"stamp_data.{check.field}",
            )
            for check in missed
        ]
        message = f"the stamp does not follow the protocol: {', '.join(check.field for check in missed)}"
        raise RefusedError(ErrorCode.PROTOCOL_COMPLIANCE_FAILED, message, problems=problems, data=data)
    return answer(request, data, "the stamp follows the protocol")


def _fields(wanted: ProtocolRequest) -> Mapping[str, Any]:
    if (wanted.content is None) == (wanted.stamp_data is None):
        message = "expected either a content or stamp_data"
        raise RefusedError(ErrorCode.VALIDATION_ERROR, message, "body.content")
    if wanted.stamp_data is not None:
        return wanted.stamp_data
    found, _ = stamps_in(wanted.content or "")
    if not found:
        message = "the content has no stamp"
        raise RefusedError(ErrorCode.PROTOCOL_COMPLIANCE_FAILED, message, "body.content")
    return {"file_hash": found[0].file_hash, **(found[0].fields or {})}


@router.get("/stamp/{file_hash}")
async def find(request: Request, file_hash: str, namespace: str | None = None) -> Response:
    """Find a stamp by the hash of its content: in the table, or among those that are not there yet."""
    wanted = _file_hash(file_hash, "path.file_hash")
    namespace = namespace or context_of(request).namespace
    if namespace is not None:
        _check_namespace(namespace, "query.namespace")
    stamping = stamping_of(request)
    began = time.perf_counter()
    found, source = await stamping.table.find(wanted), "database"
    if found is None:
        found, source = stamping.known.find(wanted), "memory"
    took = (time.perf_counter() - began) * 1000
    if found is None:
        raise RefusedError(ErrorCode.STAMP_NOT_FOUND, f"there is no stamp of {wanted}", "path.file_hash")
    if namespace is not None and found.namespace != namespace:
        message = f"there is no stamp of {wanted} in the namespace {namespace}"
        raise RefusedError(ErrorCode.STAMP_NOT_FOUND_IN_NAMESPACE, message, "query.namespace")
    return answer(request, found.answer(), "found", source=source, query_time_ms=took)


@router.get("/namespace/{namespace}")
async def of_namespace(
    request: Request,
    namespace: str,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """The stamps of a namespace that the table has, oldest first."""
    _check_namespace(namespace, "path.namespace")
    began = time.perf_counter()
    found, total = await stamping_of(request).table.of_namespace(namespace, limit, offset)
    took = (time.perf_counter() - began) * 1000
    data = {
        "namespace": namespace,
        "total": total,
        "limit": limit,
        "offset": offset,
        "stamps": [record.answer() for record in found],
    }
    return answer(request, data, f"{len(found)} of {total} stamps", source="database", query_time_ms=took)


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether the service is healthy, and why not."""
    node = node_of(request)
    reasons = node.trouble()
    data = {
        "status": "degraded" if reasons else "healthy",
        "reasons": reasons,
        "service": node.service,
        "version": VERSION,
        "protocol_version": PROTOCOL_VERSION,
        "metadata_version": METADATA_VERSION,
        "breakers": {name: breaker.state.value for name, breaker in node.breakers.items()},
    }
    return answer(
        request, data, "degraded: it stamps, but not all that it needs is there" if reasons else "healthy"
    )


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What the service has done so far."""
    return answer(request, _metrics(request), "since the start of the process")


def _metrics(request: Request) -> dict[str, Any]:
    node: Node = node_of(request)
    counted: Metrics = request.app.state.metrics
    return {
        **counted.summary(),
        "stamps_in_memory": len(stamping_of(request).known),
        "database_breaker": node.database_breaker.metrics(),
        **node.publisher.metrics(),
    }


def _file_hash(text: str, field: str) -> str:
    if not _FILE_HASH.fullmatch(text):
        raise RefusedError(ErrorCode.INVALID_HASH_FORMAT, "a hash is expected to be 64 hexadecimal digits", field)
    return text.lower()


def _check_namespace(namespace: str, field: str) -> None:
    if not is_namespace(namespace):
        message = "the namespace is expected to be letters, digits, dots, hyphens and underscores"
        raise RefusedError(ErrorCode.NAMESPACE_INVALID, message, field)


def _how_it_went(stamped: Stamped) -> str:
    if stamped.kept_in is not None:
        return f"stamped; the table keeps the stamp that this content has in the namespace {stamped.kept_in}"
    return "stamped before: this is that stamp" if stamped.again else "stamped"


def _how_it_is_kept(stamped: Stamped) -> dict[str, Any]:
    return {"stamped_before": stamped.again, "kept_in_namespace": stamped.kept_in or stamped.record.namespace}
