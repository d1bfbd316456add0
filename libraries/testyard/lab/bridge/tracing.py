"""What a service tells of the traces that it is part of: nothing, unless the settings ask for it.

A trace goes on from process to process by the header ``traceparent`` of requests and of Kafka records, also when a
record waits in an outbox meanwhile.

Source: W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Annotated, Any, Final, Self

from aiokafka.structs import ConsumerRecord
from fastapi import APIRouter, Query
from fastapi.telemetry import TelemetryConfig

from testyard.lab.bridge.outbox_file import Headers
from testyard.lab.bridge.settings import TracingSettings

TRACE_ID_PATTERN: Final = "^[0-9a-f]{32}$"

_NOTHING: Final = nullcontext()


class CallSpan:
    """The span of a request; this one is not kept."""

    def answered(self, status: int) -> None:
        """Tell how the request was answered.

        Args:
            status: The HTTP status.
        """


_NO_CALL: Final = nullcontext(CallSpan())


class Tracing:
    """The traces of one process; this one is switched off, and costs nothing.

    Attributes:
        service: Which service the process is.
        instance: The process, as envelopes name it.
        on: Whether there are spans.

    Example:
        >>> tracing = new_tracing(settings.tracing, "orchestrator", "orchestrator-1", "dev")
        >>> application = FastAPI(telemetry=tracing.telemetry)
        >>> application.include_router(traces_router(tracing))
        >>> async with tracing:
        ...     with tracing.producer_span("orders", "order-17"):
        ...         await producer.send("orders", value, headers=encoded(tracing.inject_headers()))
    """

    on = False

    def __init__(self, service: str, instance: str) -> None:
        self.service = service
        self.instance = instance

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what has not been sent, if that is quickly done."""

    @property
    def telemetry(self) -> TelemetryConfig:
        """For ``FastAPI(telemetry=…)``: whether each request is a span, which goes on with the caller's trace."""
        return {"tracing": False, "metrics": False, "logs": False}

    def inject_headers(self) -> Headers:
        """What a request or a record carries along, so that its receiver goes on with the present span's trace."""
        return ()

    def span(self, name: str, **attributes: str | float) -> AbstractContextManager[None]:
        """A part of the work of this process.

        Args:
            name: What it is, the same for all of its kind.
            attributes: What tells it from others of its kind.
        """
        return _NOTHING

    def producer_span(self, topic: str, key: str | None = None) -> AbstractContextManager[None]:
        """The publication of one record; its headers are to be injected while it lasts.

        Args:
            topic: Where it is published.
            key: Its key.
        """
        return _NOTHING

    def consumer_span(self, record: ConsumerRecord, group: str | None = None) -> AbstractContextManager[None]:
        """The processing of one record: a part of the trace that the record belongs to.

        Args:
            record: As it came from Kafka.
            group: The consumer group.
        """
        return _NOTHING

    def consumer_spans(
        self, records: Sequence[ConsumerRecord], group: str | None = None
    ) -> AbstractContextManager[None]:
        """The processing of several records at once: a span for each of them, each a part of its record's trace.

        What is published meanwhile belongs to the trace of the records, when that is one; else to a trace of its
        own, which is linked to all of them.

        Args:
            records: As they came from Kafka.
            group: The consumer group.
        """
        return _NOTHING

    def client_span(self, method: str, url: str) -> AbstractContextManager[CallSpan]:
        """A request to another service; its headers are to be injected while it lasts.

        Args:
            method: HTTP method.
            url: Of the request, whole.
        """
        return _NO_CALL

    def spans(self, trace_id: str | None = None) -> list[dict[str, Any]]:
        """The spans that have ended and are kept, in the order in which they ended.

        Args:
            trace_id: Only those of this trace, 32 hexadecimal digits; None: all of them.

        Returns:
            Each as ``testyard.lab.spans.spans_in`` describes it.
        """
        return []


NO_TRACING: Final = Tracing("", "")
"""For what belongs to no process, as parts of a service in a test do."""


def new_tracing(settings: TracingSettings, service: str, instance: str, environment: str) -> Tracing:
    """The tracing of one process; nothing that it needs is imported when it is off.

    Args:
        settings: Whether there is any.
        service: Which service the process is.
        instance: The process, as envelopes name it.
        environment: The first part of every topic's name.
    """
    if not settings.keep:
        return Tracing(service, instance)
    from testyard.lab.bridge.recording import RecordingTracing

    return RecordingTracing(settings, service, instance, environment)


def traces_router(tracing: Tracing) -> APIRouter:
    """What a service answers of its traces: ``GET /traces``.

    Args:
        tracing: The service's.
    """
    router = APIRouter()

    @router.get("/traces")
    async def traces(
        trace_id: Annotated[str | None, Query(pattern=TRACE_ID_PATTERN)] = None,
    ) -> dict[str, Any]:
        """The spans that are kept, of one trace or of all."""
        return {
            "service": tracing.service,
            "instance": tracing.instance,
            "tracing": tracing.on,
            "spans": tracing.spans(trace_id),
        }

    return router
