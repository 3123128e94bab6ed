"""OpenTelemetry collectors on loopback, one for each transport of OTLP: they decode what arrives, and keep it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Seen:
    """A span that has arrived."""

    name: str
    trace_id: str
    id: str
    parent_id: str
    kind: str
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any]]]
    failed: bool
    message: str
    began: int
    ended: int
    """Both in nanoseconds."""


@dataclass
class Collector:
    """What has arrived so far."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """Of the last export, by lower-case names."""
    paths: list[str] = field(default_factory=list)
    """That exports over HTTP went to."""
    raw: bytes = b""
    """All that was sent, decompressed; for looking for what must not be there."""

    def named(self, name: str) -> list[Seen]:
        """The spans of a name, in the order in which they began."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.began)

    def one(self, name: str) -> Seen:
        """The only span of a name."""
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans {name}, one due; there are {sorted(s.name for s in self.spans)}"
        return found[0]

    def tree(self, root: Seen) -> Any:
        """A span's name, and the trees of its children, in the order in which they began."""
        children = sorted((span for span in self.spans if span.parent_id == root.id), key=lambda span: span.began)
        return (root.name, [self.tree(child) for child in children]) if children else root.name

    def take(self, request: ExportTraceServiceRequest, headers: Mapping[str, str]) -> None:
        """Keep what one export brings."""
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.raw += request.SerializeToString()
        for of_resource in request.resource_spans:
            self.resource = _decoded(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += [_seen(span) for span in of_scope.spans]


def _seen(span: Span) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        _decoded(span.attributes),
        [(event.name, _decoded(event.attributes)) for event in span.events],
        span.status.code == span.status.STATUS_CODE_ERROR,
        span.status.message,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _decoded(attributes: Any) -> dict[str, Any]:
    pairs: Sequence[KeyValue] = attributes
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


@contextmanager
def over_http() -> Iterator[Collector]:
    """A collector that takes OTLP over HTTP."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.paths.append(self.path)
            collector.take(ExportTraceServiceRequest.FromString(body), dict(self.headers.items()))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def over_grpc() -> Iterator[Collector]:
    """A collector that takes OTLP over gRPC."""
    collector = Collector()

    class Service(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
            collector.take(request, dict(context.invocation_metadata()))
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
