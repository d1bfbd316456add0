"""The metadata stamping service, as other services call it. Who calls decides on breakers and repetitions.

Source: contract page "event-bus", 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from aiohttp import FormData
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testyard.lab.bridge.calls import RefusalError, ServiceCalls, UnreachableError
from testyard.lab.bridge.discovery.services import STAMPING
from testyard.lab.bridge.events import FILE_HASH_PATTERN
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.tracing import NO_TRACING, Tracing

PREFIX: Final = "/api/v1/metadata-stamping"


class StampingError(Exception):
    """Stamping did not succeed."""


class StampingUnavailableError(StampingError):
    """The service does not answer, or cannot work now: later it may."""


class StampingTimeoutError(StampingError, TimeoutError):
    """The service took too long: the file may be stamped, or not."""


class StampingRefusedError(StampingError):
    """The service works, and refuses this request: it would again.

    Attributes:
        code: Why, such as ``NAMESPACE_INVALID``.
        status: The HTTP status.
    """

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status


class Stamp(BaseModel):
    """A stamp.

    Attributes:
        stamp_id: The same one for the same content in the same namespace.
        file_hash: BLAKE3 of the content, 64 hexadecimal digits.
        stamp: As it stands in the file.
        stamp_type: ``lightweight`` or ``rich``.
        stamped_content: The file with its stamp.
        namespace: Whose it is.
        op_id: Which operation has stamped.
        version: Of the stamp.
        metadata_version: Of the O.N.E. metadata.
        created_at: When the content was stamped first.
        performance_metrics: How long it took, and how large the file is.
    """

    model_config = ConfigDict(frozen=True)

    stamp_id: UUID
    file_hash: str = Field(pattern=FILE_HASH_PATTERN)
    stamp: str
    stamp_type: str
    stamped_content: str
    namespace: str
    op_id: UUID
    version: int
    metadata_version: str
    created_at: datetime
    performance_metrics: dict[str, Any]


class Hash(BaseModel):
    """A hash.

    Attributes:
        file_hash: BLAKE3, 64 hexadecimal digits.
        file_size_bytes: Of what.
        performance_metrics: How long it took.
    """

    model_config = ConfigDict(frozen=True)

    file_hash: str = Field(pattern=FILE_HASH_PATTERN)
    file_size_bytes: int
    performance_metrics: dict[str, Any]


class StampingClient:
    """Calls the metadata stamping service.

    Args:
        settings: Of all services: where it is found.
        url: Where it is, if that is known.
        timeout: How long a call may take; that of the orchestrator when not given.
        headers: Says what every request carries along: the trace it belongs to.
        tracing: Says which trace each call belongs to.

    Example:
        >>> async with StampingClient(settings) as stamping:
        ...     stamp = await stamping.stamp("# Readme", "README.md")
    """

    def __init__(
        self,
        settings: Settings,
        *,
        url: str | None = None,
        timeout: timedelta | None = None,
        headers: Callable[[], Mapping[str, str]] = dict,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        timeout = timeout or settings.orchestrator.stamping_timeout
        self._calls = ServiceCalls(settings.discovery, STAMPING, url=url, timeout=timeout, tracing=tracing)
        self._headers = headers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, problem, trace)

    async def ask(self) -> None:
        """Ask whether the stamping service is there; raises whatever says that it is not."""
        await self._calls.call("GET", "/health")

    async def stamp(
        self,
        content: str,
        file_path: str,
        namespace: str | None = None,
        correlation_id: UUID | None = None,
        *,
        op_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        intelligence_data: Mapping[str, Any] | None = None,
        stamp_type: str = "lightweight",
    ) -> Stamp:
        """Have a file stamped.

        Args:
            content: What is in it.
            file_path: Which file.
            namespace: Whose it is; the service's own when not given.
            correlation_id: Which workflow it belongs to.
            op_id: Which operation this is; a new one when not given.
            metadata: Goes along with the stamp.
            intelligence_data: What OnexTree has to say.
            stamp_type: ``lightweight`` or ``rich``.

        Raises:
            StampingUnavailableError: The service does not answer, or cannot work now.
            StampingTimeoutError: It took too long.
            StampingRefusedError: It refuses.
        """
        body: dict[str, Any] = {"content": content, "file_path": file_path, "options": {"stamp_type": stamp_type}}
        given = {
            "namespace": namespace,
            "op_id": None if op_id is None else str(op_id),
            "metadata": metadata,
            "intelligence_data": intelligence_data,
        }
        body |= {name: value for name, value in given.items() if value is not None}
        with _understood():
            return Stamp.model_validate(await self._data("/stamp", correlation_id, json=body))

    async def hash_(self, content: bytes | str, file_path: str = "content") -> Hash:
        """Have a content hashed.

        Args:
            content: What is in the file; text as UTF-8.
            file_path: How the file is called.

        Raises:
            StampingUnavailableError: The service does not answer, or cannot work now.
            StampingTimeoutError: It took too long.
            StampingRefusedError: It refuses.
        """
        as_bytes = content.encode() if isinstance(content, str) else content
        form = FormData()
        form.add_field("file", as_bytes, filename=file_path)
        with _understood():
            return Hash.model_validate(await self._data("/hash", None, data=form))

    async def _data(self, path: str, correlation_id: UUID | None, **options: Any) -> Any:
        headers = dict(self._headers())
        if correlation_id is not None:
            headers["X-Correlation-ID"] = str(correlation_id)
        try:
            answer = await self._calls.call("POST", f"{PREFIX}{path}", headers=headers, **options)
        except TimeoutError as problem:
            raise StampingTimeoutError(str(problem) or "metadata stamping timeout") from problem
        except UnreachableError as problem:
            raise StampingUnavailableError(str(problem)) from problem
        except RefusalError as problem:
            raise _error_of(problem) from problem
        return answer.get("data") if isinstance(answer, dict) else None


def _error_of(refusal: RefusalError) -> StampingError:
    body = refusal.body if isinstance(refusal.body, dict) else {}
    errors = body.get("error")
    code = str(errors[0].get("code")) if errors and isinstance(errors[0], dict) else "UNKNOWN"
    message = str(body.get("message") or refusal)
    if refusal.status >= 500:
        return StampingUnavailableError(f"{code}: {message}")
    return StampingRefusedError(code, message, refusal.status)


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StampingUnavailableError(f"the answer is not understood: {where}: {first['msg']}") from problem
