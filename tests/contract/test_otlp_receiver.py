"""The lab's collector of traces against the real exporter: what is sent is what is kept."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from kafka_support import do, eventually
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags
from testyard.core.errors import NotMetError
from testyard.lab.bridge.recording import RecordingTracing
from testyard.lab.bridge.settings import TracingSettings
from testyard.lab.bridge.tracing import new_tracing
from testyard.lab.servers.loop_thread import NotRunningError
from testyard.lab.servers.otlp import OtlpReceiver

SOON = timedelta(seconds=10)
PROTOBUF = {"content-type": "application/x-protobuf"}
LINKED = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, is_remote=True)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    """A collector with nothing in it."""
    with OtlpReceiver() as receiver:
        yield receiver


def provider_to(receiver: OtlpReceiver, compression: Compression = Compression.NoCompression) -> TracerProvider:
    """A provider that sends each span when it ends."""
    exporter = OTLPSpanExporter(endpoint=f"{receiver.url}/v1/traces", compression=compression, timeout=5)
    resource = Resource.create({"service.name": "reducer", "service.instance.id": "reducer-1"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def tracing_to(receiver: OtlpReceiver) -> RecordingTracing:
    """A service's tracing that sends its spans here."""
    tracing = new_tracing(TracingSettings(keep=5000, otlp=receiver.url), "reducer", "reducer-1", "test")
    assert isinstance(tracing, RecordingTracing)
    return tracing


def post(receiver: OtlpReceiver, content: bytes, **headers: str) -> httpx.Response:
    """A request as no exporter makes it."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{receiver.url}/v1/traces", content=content, headers={**PROTOBUF, **given}, trust_env=False)


def by_id(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same spans in an order that does not depend on when they were sent."""
    return sorted(spans, key=lambda span: str(span["span_id"]))


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_a_span_is_kept_with_everything_that_was_sent(receiver: OtlpReceiver, compression: Compression) -> None:
    provider = provider_to(receiver, compression)
    tracer = provider.get_tracer("test")
    span = tracer.start_span("span", kind=SpanKind.SERVER, start_time=1_700_000_000_000_000_001)
    context = span.get_span_context()
    attributes = {"text": "ä", "whole": 2**40, "real": 1.5, "yes": True, "several": ["a", "b"]}
    with tracer.start_as_current_span("other", attributes=attributes, links=[Link(LINKED)]) as ending:
        ending.set_status(StatusCode.ERROR, "refused")
    span.end(1_700_000_000_000_000_009)
    provider.shutdown()
    other, _ = receiver.spans()
    assert receiver.spans(f"{context.trace_id:032x}") == [
        {
            "trace_id": f"{context.trace_id:032x}",
            "span_id": f"{context.span_id:016x}",
            "parent_id": None,
            "name": "span",
            "kind": "SERVER",
            "start_ns": 1_700_000_000_000_000_001,
            "end_ns": 1_700_000_000_000_000_009,
            "attributes": {},
            "links": [],
            "status": "UNSET",
            "status_message": None,
            "service": "reducer",
            "instance": "reducer-1",
            "environment": None,
        }
    ]
    assert (other["name"], other["attributes"]) == ("other", attributes)
    assert (other["status"], other["status_message"]) == ("ERROR", "refused")
    assert other["links"] == [{"trace_id": f"{LINKED.trace_id:032x}", "span_id": f"{LINKED.span_id:016x}"}]
    assert json.loads(json.dumps(receiver.spans())) == receiver.spans()


@pytest.mark.parametrize("kind", list(SpanKind))
def test_every_kind_of_span_is_told_by_its_name(receiver: OtlpReceiver, kind: SpanKind) -> None:
    provider = provider_to(receiver)
    provider.get_tracer("test").start_span("span", kind=kind).end()
    provider.shutdown()
    assert [span["kind"] for span in receiver.spans()] == [kind.name]


def test_a_service_sends_what_it_keeps(receiver: OtlpReceiver) -> None:
    async def scenario() -> RecordingTracing:
        async with tracing_to(receiver) as tracing:
            for number in range(700):
                with tracing.span("workflow", number=number), tracing.producer_span("topic", "key"):
                    pass
        return tracing

    tracing = do(scenario())
    assert len(receiver.spans()) == 1400
    assert by_id(receiver.spans()) == by_id(tracing.spans())
    assert {span["environment"] for span in receiver.spans()} == {"test"}
    assert receiver.requests < 100


def test_a_service_sends_spans_while_it_works(receiver: OtlpReceiver) -> None:
    async def scenario() -> None:
        async with tracing_to(receiver) as tracing:
            with tracing.span("workflow"):
                pass
            await eventually(lambda: len(receiver.spans()) == 1)

    do(scenario())


def test_a_service_sends_again_when_the_collector_is_back(receiver: OtlpReceiver) -> None:
    port = receiver.port

    async def scenario() -> RecordingTracing:
        async with tracing_to(receiver) as tracing:
            receiver.stop()

            def work_arrives() -> bool:
                with tracing.span("later"):
                    pass
                return "later" in {span["name"] for span in receiver.spans()}

            with tracing.span("sooner"):
                pass
            receiver.start()
            await eventually(work_arrives)
        return tracing

    tracing = do(scenario())
    assert receiver.port == port
    assert by_id(receiver.spans())[0] in tracing.spans()


def test_what_was_answered_with_an_error_is_sent_again_and_kept_once(receiver: OtlpReceiver) -> None:
    receiver.fail(1)
    provider = provider_to(receiver)
    provider.get_tracer("test").start_span("span").end()
    provider.shutdown()
    assert receiver.requests == 2
    assert [span["name"] for span in receiver.spans()] == ["span"]


def test_fail_keeps_nothing_and_zero_ends_it(receiver: OtlpReceiver) -> None:
    receiver.fail(10)
    assert post(receiver, b"").status_code == 503
    receiver.fail(0)
    assert post(receiver, b"").status_code == 200


def test_an_empty_request_is_answered_as_the_protocol_says(receiver: OtlpReceiver) -> None:
    answer = post(receiver, b"")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"\xff\xff\xff", {}, 400),
        (b"not gzip", {"content_encoding": "gzip"}, 400),
        (gzip.compress(b"")[:-4], {"content_encoding": "gzip"}, 400),
        (gzip.compress(b"\xff\xff\xff"), {"content_encoding": "gzip"}, 400),
        (b"", {"content_encoding": "br"}, 415),
        (b"{}", {"content_type": "application/json"}, 415),
    ],
    ids=["no protobuf", "no gzip", "cut gzip", "gzip of no protobuf", "another encoding", "JSON"],
)
def test_what_is_no_export_is_refused_with_the_reason(
    receiver: OtlpReceiver, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = post(receiver, content, **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/x-protobuf")
    assert Status.FromString(answer.content).message
    assert receiver.spans() == []


def test_other_signals_are_not_there(receiver: OtlpReceiver) -> None:
    answer = httpx.post(f"{receiver.url}/v1/metrics", content=b"", headers=PROTOBUF, trust_env=False)
    assert answer.status_code == 404


def test_a_span_is_waited_for(receiver: OtlpReceiver) -> None:
    provider = provider_to(receiver)
    tracer = provider.get_tracer("test")
    for name in ("first", "second", "second"):
        tracer.start_span(name, attributes={"flags": TraceFlags.SAMPLED}).end()
    provider.shutdown()
    found = receiver.wait_for(lambda span: bool(span["name"] == "second"), SOON)
    assert found == receiver.spans()[1]
    with pytest.raises(NotMetError, match="a span that matches"):
        receiver.wait_for(lambda span: bool(span["name"] == "third"), timedelta())
    receiver.clear()
    assert receiver.spans() == []


def test_a_receiver_that_is_not_running_says_so() -> None:
    with pytest.raises(NotRunningError, match="OTLP receiver is not running"):
        OtlpReceiver().fail(1)
