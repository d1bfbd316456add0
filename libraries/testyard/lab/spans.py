"""Spans as the lab tells them in JSON: the same form whether a service kept them or sent them by OTLP.

Source: OpenTelemetry protocol, ``opentelemetry/proto/trace/v1/trace.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

# Span.SpanKind and Status.StatusCode, by their numbers.
KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES: Final = ("UNSET", "OK", "ERROR")


def spans_in(request: ExportTraceServiceRequest) -> Iterator[dict[str, Any]]:
    """Each span that an export request carries.

    Args:
        request: As an exporter sends it.

    Yields:
        ``trace_id``, ``span_id``, ``parent_id`` (None: the trace begins here), ``name``, ``kind``, ``start_ns``
        and ``end_ns`` since 1970, ``attributes``, ``links``, ``status`` with ``status_message``, and of the
        process ``service``, ``instance`` and ``environment``; JSON values, ids in hexadecimal.
    """
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        process = {
            "service": resource.get("service.name"),
            "instance": resource.get("service.instance.id"),
            "environment": resource.get("deployment.environment.name"),
        }
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _span(span) | process


def _span(span: Span) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex() or None,
        "name": span.name,
        "kind": KINDS[span.kind],
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "attributes": _attributes(span.attributes),
        "links": [{"trace_id": it.trace_id.hex(), "span_id": it.span_id.hex()} for it in span.links],
        "status": STATUSES[span.status.code],
        "status_message": span.status.message or None,
    }


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(it) for it in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case "bytes_value":
            return value.bytes_value.hex()
        case kind:
            return getattr(value, kind)
