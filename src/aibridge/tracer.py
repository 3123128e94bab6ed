"""What is needed of a tracer: spans that have a name, attributes, children and an end. It is not told which one it is.

`aibridge.observe.otel` makes one of an OpenTelemetry tracer; a host may bring any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

Attributes: TypeAlias = Mapping[str, "str | bool | int | float | Sequence[str]"]

TRACE_CONTEXT = frozenset({"traceparent", "tracestate", "baggage"})
"""Headers by which a request tells of which trace it is a part, in lower case."""

Side: TypeAlias = Literal["server", "client", "inside"]
"""Whether a span is about being asked, about asking somebody else, or about neither."""


class Span(Protocol):
    """Some work, from its beginning to its end."""

    @property
    def recording(self) -> bool:
        """Somebody will see it; if not, it need not be told anything."""

    def child(self, name: str, attributes: Attributes | None = None, *, side: Side = "inside") -> Span:
        """Work that is a part of this one, and begins now."""

    def set(self, attributes: Attributes) -> None:
        """Tell more of it."""

    def event(self, name: str, attributes: Attributes) -> None:
        """Tell of something that happens now."""

    def end(self, error: str | None = None, message: str | None = None) -> None:
        """It is over, and has failed where `error` names the sort of its failure. Only the first end counts."""

    def context(self) -> list[tuple[str, str]]:
        """The headers by which a request tells that it is a part of this (https://www.w3.org/TR/trace-context/)."""


class Tracer(Protocol):
    """Where spans come from."""

    def start(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        side: Side = "inside",
        headers: Mapping[str, str] | None = None,
        ago: float = 0.0,
    ) -> Span:
        """Work that began `ago` seconds before now, as a part of what the `headers` of a request name, if they do."""


class NoTracer:
    """Spans that nobody sees. It is both a tracer and its only span."""

    recording = False

    def start(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        side: Side = "inside",
        headers: Mapping[str, str] | None = None,
        ago: float = 0.0,
    ) -> Span:
        """See `Tracer.start`."""
        return self

    def child(self, name: str, attributes: Attributes | None = None, *, side: Side = "inside") -> Span:
        """See `Span.child`."""
        return self

    def set(self, attributes: Attributes) -> None:
        """See `Span.set`."""

    def event(self, name: str, attributes: Attributes) -> None:
        """See `Span.event`."""

    def end(self, error: str | None = None, message: str | None = None) -> None:
        """See `Span.end`."""

    def context(self) -> list[tuple[str, str]]:
        """See `Span.context`."""
        return []


NO_TRACER = NoTracer()
