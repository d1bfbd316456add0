"""Tracing that is switched on: spans are kept in memory, and sent to a collector when there is one.

Source: OpenTelemetry semantic conventions 1.44, "Messaging spans", "Kafka" and "HTTP spans".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
from aiokafka.structs import ConsumerRecord
from fastapi.telemetry import TelemetryConfig
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from testyard.lab.bridge.outbox_file import Headers
from testyard.lab.bridge.settings import TracingSettings
from testyard.lab.bridge.tracing import CallSpan, Tracing
from testyard.lab.spans import spans_in

SCOPE: Final = "testyard.bridge"
TRACES_PATH: Final = "/v1/traces"
NOT_TRACED: Final = frozenset({"/health", "/metrics", "/breakers", "/configuration", "/traces"})
"""What is only asked about the service itself."""

SEND_AFTER: Final = timedelta(milliseconds=200)
SEND_TIMEOUT: Final = timedelta(seconds=1)
LAST_CHANCE: Final = timedelta(seconds=1)
"""How long after the end of the service spans are still sent; one request may be under way then."""
MOST_WAITING: Final = 4096
"""How many spans wait to be sent; the oldest ones go when there are more."""
MOST_AT_ONCE: Final = 512

_log = logging.getLogger(__name__)
_exporter_log = logging.getLogger(OTLPSpanExporter.__module__)


class RecordingTracing(Tracing):
    """The traces of one process.

    Args:
        settings: How many spans are kept, and where they are sent to.
        service: Which service the process is.
        instance: The process, as envelopes name it.
        environment: The first part of every topic's name.
    """

    on = True

    def __init__(self, settings: TracingSettings, service: str, instance: str, environment: str) -> None:
        super().__init__(service, instance)
        self._otlp = settings.otlp
        self._kept = InMemorySpanExporter(settings.keep)
        self._propagator = TraceContextTextMapPropagator()
        # Not the global one: a process may have several, as those of tests do.
        self._provider = TracerProvider(
            sampler=DEFAULT_ON,
            resource=Resource.create(
                {
                    "service.name": service,
                    "service.instance.id": instance,
                    "deployment.environment.name": environment,
                }
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self._tracer = self._provider.get_tracer(SCOPE)
        self._sending: _Sending | None = None

    async def __aenter__(self) -> Self:
        if self._otlp is not None:
            self._sending = _Sending(self._otlp)
            self._provider.add_span_processor(
                BatchSpanProcessor(
                    self._sending,
                    max_queue_size=MOST_WAITING,
                    max_export_batch_size=MOST_AT_ONCE,
                    schedule_delay_millis=SEND_AFTER / timedelta(milliseconds=1),
                )
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sending is not None:
            self._sending.end_within(LAST_CHANCE)
        await asyncio.to_thread(self._provider.shutdown)

    @property
    def telemetry(self) -> TelemetryConfig:
        return {
            "tracer_provider": self._provider,
            "tracing": True,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in NOT_TRACED,
        }

    def inject_headers(self) -> Headers:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return tuple(carrier.items())

    @contextmanager
    def span(self, name: str, **attributes: str | float) -> Iterator[None]:
        with self._lasting(self._tracer.start_span(name, attributes=attributes)):
            yield

    @contextmanager
    def producer_span(self, topic: str, key: str | None = None) -> Iterator[None]:
        attributes = _messaging("send", topic) | ({} if key is None else {"messaging.kafka.message.key": key})
        with self._lasting(
            self._tracer.start_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes)
        ):
            yield

    @contextmanager
    def consumer_span(self, record: ConsumerRecord, group: str | None = None) -> Iterator[None]:
        with self._lasting(self._start_consumer_span(record, group)):
            yield

    @contextmanager
    def consumer_spans(self, records: Sequence[ConsumerRecord], group: str | None = None) -> Iterator[None]:
        if not records:
            yield
            return
        spans = [self._start_consumer_span(record, group) for record in records]
        contexts = [span.get_span_context() for span in spans]
        if len({context.trace_id for context in contexts}) == 1:
            current = spans.pop()
        else:
            current = self._tracer.start_span(
                "process batch",
                context=Context(),
                kind=SpanKind.CONSUMER,
                attributes=_messaging("process", None, group) | {"messaging.batch.message_count": len(records)},
                links=[Link(context) for context in contexts],
            )
        with self._lasting(current, *spans):
            yield

    @contextmanager
    def client_span(self, method: str, url: str) -> Iterator[CallSpan]:
        parts = urlsplit(url)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "server.address": parts.hostname or "",
            # Neither the query nor the user, which may be secret.
            "url.full": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
        }
        if parts.port is not None:
            attributes["server.port"] = parts.port
        span = self._tracer.start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
        with self._lasting(span):
            yield _CallSpan(span)

    def spans(self, trace_id: str | None = None) -> list[dict[str, Any]]:
        kept = self._kept.get_finished_spans()
        if trace_id is not None:
            wanted = int(trace_id, 16)
            kept = tuple(it for it in kept if it.context is not None and it.context.trace_id == wanted)
        return list(spans_in(encode_spans(kept)))

    def _start_consumer_span(self, record: ConsumerRecord, group: str | None) -> Span:
        carrier = {name: value.decode("latin-1") for name, value in record.headers if value is not None}
        attributes = _messaging("process", record.topic, group) | {
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }
        if record.key is not None:
            attributes["messaging.kafka.message.key"] = record.key.decode(errors="replace")
        return self._tracer.start_span(
            f"process {record.topic}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
        )

    @contextmanager
    def _lasting(self, current: Span, *others: Span) -> Iterator[None]:
        """Let spans last as long as the ``with`` statement; what is in it belongs to the first one."""
        try:
            with use_span(current, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as problem:
            for span in (current, *others):
                span.set_status(StatusCode.ERROR, type(problem).__name__)
                span.set_attribute("error.type", type(problem).__name__)
            raise
        finally:
            for span in (*others, current):
                span.end()


class _CallSpan(CallSpan):
    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= 400:
            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", str(status))


class _Sending(SpanExporter):
    """Sends spans to a collector while there is time; says once that it is away, and once that it is back.

    Args:
        endpoint: The collector, with or without the path of traces.
    """

    def __init__(self, endpoint: str) -> None:
        session = requests.Session()
        session.trust_env = False
        self._endpoint = endpoint.rstrip("/").removesuffix(TRACES_PATH) + TRACES_PATH
        self._exporter: SpanExporter = OTLPSpanExporter(
            endpoint=self._endpoint,
            timeout=SEND_TIMEOUT.total_seconds(),
            compression=Compression.Gzip,
            session=session,
        )
        # It would say so again for every batch; adding the same filter twice is adding it once.
        _exporter_log.addFilter(_is_not_told)
        self._until: float | None = None
        self._away = False

    def end_within(self, duration: timedelta) -> None:
        """Begin no request any more after this time."""
        self._until = time.monotonic() + duration.total_seconds()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._until is not None and time.monotonic() > self._until:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            _log.warning("Spans cannot be sent to %s; they are dropped until they can be.", self._endpoint)
        if self._away and not away:
            _log.warning("Spans can be sent to %s again.", self._endpoint)
        self._away = away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _messaging(operation: str, topic: str | None, group: str | None = None) -> dict[str, str | int]:
    attributes: dict[str, str | int | None] = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
        "messaging.consumer.group.name": group,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _is_not_told(_record: logging.LogRecord) -> bool:
    return False
