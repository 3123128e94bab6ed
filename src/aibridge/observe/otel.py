"""Spans by OpenTelemetry. Imported only where tracing is configured; needs `opentelemetry-api`.

Nothing of OpenTelemetry's global state is used: not its tracer provider, not its current span.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aibridge.tracer import Attributes, Side, Span

_KINDS: Mapping[Side, SpanKind] = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "inside": SpanKind.INTERNAL,
}
_propagator = TraceContextTextMapPropagator()


class OpenTelemetry:
    """A tracer (see `aibridge.tracer.Tracer`) whose spans go where an OpenTelemetry tracer's do."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        side: Side = "inside",
        headers: Mapping[str, str] | None = None,
        ago: float = 0.0,
    ) -> Span:
        """See `Tracer.start`; `headers` by their lower-case names."""
        parent = _propagator.extract(headers, Context()) if headers else Context()
        return _Span(self._tracer, parent, name, attributes, side, time_ns() - int(ago * 1e9))


class _Span:
    def __init__(
        self,
        tracer: trace.Tracer,
        parent: Context,
        name: str,
        attributes: Attributes | None,
        side: Side,
        began: int | None = None,
    ) -> None:
        self._tracer = tracer
        self._span = tracer.start_span(name, parent, _KINDS[side], attributes, start_time=began)
        self._context = trace.set_span_in_context(self._span, parent)
        self._ended = False

    @property
    def recording(self) -> bool:
        """See `Span.recording`."""
        return self._span.is_recording()

    def child(self, name: str, attributes: Attributes | None = None, *, side: Side = "inside") -> Span:
        """See `Span.child`."""
        return _Span(self._tracer, self._context, name, attributes, side)

    def set(self, attributes: Attributes) -> None:
        """See `Span.set`."""
        if not self._ended:
            self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes) -> None:
        """See `Span.event`."""
        self._span.add_event(name, attributes)

    def end(self, error: str | None = None, message: str | None = None) -> None:
        """See `Span.end`."""
        if self._ended:
            return
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, message))
        self._ended = True
        self._span.end()

    def context(self) -> list[tuple[str, str]]:
        """See `Span.context`."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, self._context)
        return [*carrier.items()]
