"""A collector of traces in this process: takes what OTLP exporters send over HTTP, and keeps it.

Source: OpenTelemetry protocol 1.10, "OTLP/HTTP", binary protobuf encoding, plain or gzip. The JSON encoding,
metrics and logs are refused.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from testyard.lab.cluster.http_listener import HttpListener
from testyard.lab.servers.inbox import Inbox
from testyard.lab.servers.loop_thread import LOOPBACK, LoopThread, loopback_listener
from testyard.lab.spans import spans_in

TRACES_PATH: Final = "/v1/traces"
PROTOBUF: Final = "application/x-protobuf"
# google.rpc.Code
INVALID_ARGUMENT: Final = 3
UNAVAILABLE: Final = 14


class OtlpReceiver(LoopThread):
    """Takes spans and keeps them.

    Attributes:
        host: The loopback address to send to.
        port: The TCP port to send to; 0 before ``start``, and then always the same one.

    Example:
        >>> with OtlpReceiver() as receiver:                                   # doctest: +SKIP
        ...     settings = TracingSettings(otlp=receiver.url, keep=1000)
        ...     receiver.wait_for(lambda span: span["service"] == "reducer", timedelta(seconds=5))
    """

    def __init__(self) -> None:
        super().__init__("OTLP receiver")
        self.host = LOOPBACK
        self.port = 0
        self._inbox: Inbox[dict[str, Any]] = Inbox("span")
        self._requests = 0
        self._failures = 0

    @property
    def url(self) -> str:
        """Where to send to, without the path of traces: ``http://127.0.0.1:port``."""
        return f"http://{self.host}:{self.port}"

    @property
    def requests(self) -> int:
        """How many requests have come, whatever they were answered."""
        return self._requests

    def fail(self, times: int) -> None:
        """Answer the next requests with 503, and keep nothing of them.

        Args:
            times: How many; zero ends it.
        """
        self._portal.call(self._set_failures, times)

    def spans(self, trace_id: str | None = None) -> list[dict[str, Any]]:
        """The spans that are kept, in the order in which they came.

        Args:
            trace_id: Only those of this trace, 32 hexadecimal digits; None: all of them.

        Returns:
            Each as ``testyard.lab.spans.spans_in`` describes it.
        """
        return [span for span in self._inbox.items() if trace_id in {None, span["trace_id"]}]

    def wait_for(self, predicate: Callable[[dict[str, Any]], bool], within: timedelta) -> dict[str, Any]:
        """Wait for a span that a predicate accepts, come already or yet to come.

        Args:
            predicate: Says whether a span is the one waited for.
            within: Give up after this time.

        Returns:
            The first such span.

        Raises:
            NotMetError: There is none in time; lists the spans that did come.
        """
        return self._inbox.wait_for(predicate, within)

    def clear(self) -> None:
        """Forget the spans."""
        self._inbox.clear()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        listener = HttpListener(Starlette(routes=[Route(TRACES_PATH, self._receive, methods=["POST"])]))
        listening = loopback_listener(self.port)
        self.port = listening.getsockname()[1]
        await listener.open(listening)
        try:
            yield
        finally:
            listener.close()

    def _set_failures(self, times: int) -> None:
        self._failures = times

    async def _receive(self, request: Request) -> Response:
        content = await request.body()
        self._requests += 1
        if self._failures > 0:
            self._failures -= 1
            return _answer(
                HTTPStatus.SERVICE_UNAVAILABLE, Status(code=UNAVAILABLE, message="told to fail by the test")
            )
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        encoding = request.headers.get("content-encoding", "identity")
        if media_type != PROTOBUF or encoding not in {"identity", "gzip"}:
            message = f"expected {PROTOBUF}, plain or gzip, found {media_type or 'nothing'}, {encoding}"
            return _answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, Status(code=INVALID_ARGUMENT, message=message))
        try:
            plain = gzip.decompress(content) if encoding == "gzip" else content
            spans = list(spans_in(ExportTraceServiceRequest.FromString(plain)))
        except (OSError, EOFError, zlib.error, DecodeError) as problem:
            message = f"not an ExportTraceServiceRequest: {problem}"
            return _answer(HTTPStatus.BAD_REQUEST, Status(code=INVALID_ARGUMENT, message=message))
        for span in spans:
            self._inbox.add(span)
        return _answer(HTTPStatus.OK, ExportTraceServiceResponse())


def _answer(status: HTTPStatus, message: Message) -> Response:
    return Response(message.SerializeToString(), status, media_type=PROTOBUF)
