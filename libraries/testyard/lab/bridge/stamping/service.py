"""Stamping: the same content in the same namespace always has the same stamp, and every stamping is published.

The database adapter stores stamps, from the events of this service. A stamp is therefore made whether the table
can be reached or not; when it can, a stamp that was made before, by whichever process, is the one that is given.
"""

from __future__ import annotations

import asyncio
import mimetypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg

from testyard.lab.bridge.breaker import CircuitOpenError
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.stamping.answers import ErrorCode, RefusedError
from testyard.lab.bridge.stamping.context import Context
from testyard.lab.bridge.stamping.hashing import Hasher
from testyard.lab.bridge.stamping.json_text import json_bytes
from testyard.lab.bridge.stamping.known import KnownStamps
from testyard.lab.bridge.stamping.payloads import StampRequest, is_namespace
from testyard.lab.bridge.stamping.records import (
    DEFAULT_NAMESPACE,
    METADATA_VERSION,
    PROTOCOL_VERSION,
    StampRecord,
    bare,
    stamp_id,
    stamp_text,
    stamps_in,
)
from testyard.lab.bridge.stamping.store import Key, StampTable
from testyard.lab.bridge.topics import Route
from testyard.lab.database import DatabaseUnavailableError

LOOKS_FOR_EARLIER_STAMPS: Final = timedelta(milliseconds=250)
"""How long stamping waits for the table to say whether there is a stamp already; then it goes on without."""
LARGEST_METADATA: Final = 256 * 1024
"""Bytes of metadata and intelligence as JSON: more would not fit into an event."""

DATABASE_AWAY: Final = (DatabaseUnavailableError, CircuitOpenError, psycopg.Error)


@dataclass(frozen=True)
class Operation:
    """What is to be done, with everything that the headers add to the request.

    Attributes:
        request: The file.
        namespace: Whose it is.
        op_id: Which operation this is.
        given: Whether the caller has named the operation, and not the service.
        correlation_id: Which workflow it belongs to.
    """

    request: StampRequest
    namespace: str
    op_id: UUID
    given: bool
    correlation_id: UUID | None


@dataclass(frozen=True)
class Stamped:
    """A file that was stamped.

    Attributes:
        operation: What was asked for.
        record: The stamp, the first one of this content.
        content: The file without stamps.
        milliseconds: How long stamping took, without publishing.
        cpu_milliseconds: How much of it the processor has worked, for this and other requests.
        kept_in: The namespace whose stamp the table keeps, if that is another one.
        again: Whether the content was stamped before.
    """

    operation: Operation
    record: StampRecord
    content: str
    milliseconds: float
    cpu_milliseconds: float
    kept_in: str | None
    again: bool

    @property
    def stamp(self) -> str:
        """The stamp, as this operation wants it."""
        return stamp_text(self.record, self.operation.request.options.stamp_type)

    @property
    def stamped_content(self) -> str:
        """The file with its stamp."""
        return f"{self.stamp}\n{self.content}"

    def check(self) -> None:
        """Check that the stamp is the one that was asked for and, if wanted, that it is read again.

        Raises:
            RefusedError: It is not.
        """
        request = self.operation.request
        if self.record.version != request.version:
            message = (
                f"the stamp of this content has version {self.record.version}, not {request.version}: a stamp is "
                "not changed any more"
            )
            raise RefusedError(ErrorCode.VERSION_MISMATCH, message, "body.version")
        if request.options.validate_integrity:
            found, rest = stamps_in(self.stamped_content)
            if not found or found[0].file_hash != self.record.file_hash or rest != self.content:
                message = "the stamped content is not read as this content with this stamp"
                raise RefusedError(ErrorCode.INTERNAL_ERROR, message, "body.content")

    def answer(self) -> dict[str, Any]:
        """What the interface tells of it."""
        return {
            "success": True,
            "stamp_id": self.record.stamp_id,
            "file_hash": self.record.file_hash,
            "stamped_content": self.stamped_content,
            "stamp": self.stamp,
            "stamp_type": self.operation.request.options.stamp_type.value,
            "performance_metrics": performance(
                self.milliseconds, self.cpu_milliseconds, self.record.file_size_bytes
            ),
            "created_at": self.record.created_at,
            "op_id": self.operation.op_id,
            "namespace": self.record.namespace,
            "version": self.record.version,
            "protocol_version": self.record.protocol_version,
            "metadata_version": self.record.metadata_version,
        }


class Stamping:
    """Stamps files.

    Args:
        node: The service's tables and publisher.
        hasher: Hashes.
    """

    def __init__(self, node: Node, hasher: Hasher) -> None:
        self.hasher = hasher
        self.table = StampTable(node.pool, node.database_breaker)
        self.known = KnownStamps(node.settings.stamping.cached_stamps)
        self._publisher = node.publisher

    async def stamp(self, operation: Operation) -> Stamped:
        """Stamp a file and publish that.

        Raises:
            RefusedError: It cannot be stamped so.
            KafkaError: It cannot be published.
            OSError: Neither Kafka, nor the outbox can take the event.
        """
        began, cpu_began = time.perf_counter_ns(), time.process_time_ns()
        request = operation.request
        content = bare(request.content)
        as_bytes = content.encode()
        hashed = await self.hasher.of_bytes(as_bytes)
        new = _new_record(operation, hashed.digest, len(as_bytes))
        await self._look_for_earlier(operation, hashed.digest)
        # Nothing waits from here to where the stamp is remembered: of two at a time, one is the first.
        self._check_operation(operation, hashed.digest)
        again = self.known.find_by_id(new.stamp_id) is not None
        record = self.known.remember(new)
        self.known.note(operation.op_id, hashed.digest)
        first = self.known.find(hashed.digest) or record
        stamped = Stamped(
            operation,
            record,
            content,
            milliseconds=(time.perf_counter_ns() - began) / 1e6,
            cpu_milliseconds=(time.process_time_ns() - cpu_began) / 1e6,
            kept_in=first.namespace if first.namespace != record.namespace else None,
            again=again,
        )
        stamped.check()
        await self._publish(stamped)
        return stamped

    async def _look_for_earlier(self, operation: Operation, file_hash: str) -> None:
        """Get to know what the table knows, if it is soon told."""
        keys: list[Key] = []
        if self.known.find(file_hash) is None:
            keys.append(file_hash)
        if operation.given and self.known.content_of(operation.op_id) is None:
            keys.append(operation.op_id)
        found = await self._found_soon(keys) if keys else []
        for record in found:
            self.known.remember(record)
            if record.op_id is not None and self.known.content_of(record.op_id) is None:
                self.known.note(record.op_id, record.file_hash)

    async def _found_soon(self, keys: Sequence[Key]) -> list[StampRecord]:
        futures = [self.table.looking_for(key) for key in keys]
        # Waiting does not cancel them: others may wait for them, too.
        done, _ = await asyncio.wait(futures, timeout=LOOKS_FOR_EARLIER_STAMPS.total_seconds())
        answers = [future.result() for future in done if not future.cancelled() and future.exception() is None]
        return [record for record in answers if record is not None]

    def _check_operation(self, operation: Operation, file_hash: str) -> None:
        content = self.known.content_of(operation.op_id)
        if content is not None and content != file_hash:
            message = f"the operation {operation.op_id} has stamped another content"
            raise RefusedError(ErrorCode.OPERATION_ID_CONFLICT, message, "body.op_id")

    async def _publish(self, stamped: Stamped) -> None:
        record, operation = stamped.record, stamped.operation
        event = record.event(operation.request.file_path, operation.op_id, stamped.milliseconds)
        try:
            await self._publisher.publish(
                Route.METADATA_STAMPED,
                event,
                correlation_id=operation.correlation_id,
                partition_key=record.file_hash,
            )
        except BaseException:
            self.known.forget(record)
            raise


def operation_of(request: StampRequest, context: Context) -> Operation:
    """Put a request and its headers together.

    Raises:
        RefusedError: They say different things, or ask for what the service does not do.
    """
    _agree(request.protocol_version, context.protocol_version, PROTOCOL_VERSION, "protocol_version")
    _agree(request.metadata_version, context.metadata_version, METADATA_VERSION, "metadata_version")
    namespace = request.namespace or context.namespace or DEFAULT_NAMESPACE
    if not is_namespace(namespace) or (context.namespace or namespace) != namespace:
        message = (
            "the namespace is expected to be letters, digits, dots, hyphens and underscores"
            if not is_namespace(namespace)
            else f"the body says {namespace} and the header X-Namespace says {context.namespace}"
        )
        raise RefusedError(ErrorCode.NAMESPACE_INVALID, message, "body.namespace")
    given = request.op_id or context.operation_id
    if given is not None and (context.operation_id or given) != given:
        message = f"the body says {given} and the header X-Operation-ID says {context.operation_id}"
        raise RefusedError(ErrorCode.OPERATION_ID_CONFLICT, message, "body.op_id")
    size = len(json_bytes([request.metadata, request.intelligence_data]))
    if size > LARGEST_METADATA:
        message = f"metadata and intelligence_data are {size} bytes, expected at most {LARGEST_METADATA}"
        raise RefusedError(ErrorCode.VALIDATION_ERROR, message, "body.metadata")
    return Operation(request, namespace, given or uuid4(), given is not None, context.correlation_id)


def performance(milliseconds: float, cpu_milliseconds: float, size: int) -> dict[str, Any]:
    """How fast something was done.

    Args:
        milliseconds: How long it took.
        cpu_milliseconds: How much of it the processor has worked.
        size: Bytes that it was done with.

    Returns:
        With a grade: A is less than 2 ms, B less than 10 ms, as the document asks of hashing and of queries.
    """
    grade = "A" if milliseconds < 2 else "B" if milliseconds < 10 else "C"
    return {
        "execution_time_ms": milliseconds,
        "file_size_bytes": size,
        "cpu_usage_percent": round(100 * cpu_milliseconds / milliseconds, 1) if milliseconds else 0.0,
        "performance_grade": grade,
    }


def _agree(said: str | None, header: str | None, supported: str, field: str) -> None:
    for value in (said, header):
        if value is not None and value != supported:
            message = f"{field} {value} is not supported, only {supported}"
            raise RefusedError(ErrorCode.VERSION_MISMATCH, message, f"body.{field}")


def _new_record(operation: Operation, file_hash: str, size: int) -> StampRecord:
    request = operation.request
    content_type = request.content_type or mimetypes.guess_type(request.file_path)[0]
    kept = {"metadata": request.metadata} if request.options.include_metadata else {}
    return StampRecord(
        stamp_id=stamp_id(operation.namespace, file_hash),
        file_hash=file_hash,
        file_path=request.file_path,
        file_size_bytes=size,
        content_type=content_type,
        stamp_data={"stamp_type": request.options.stamp_type.value, "hash_algorithm": "BLAKE3", **kept},
        protocol_version=PROTOCOL_VERSION,
        intelligence_data=request.intelligence_data,
        version=request.version,
        op_id=operation.op_id,
        namespace=operation.namespace,
        metadata_version=METADATA_VERSION,
        created_at=datetime.now(UTC),
    )
