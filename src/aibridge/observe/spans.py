"""The spans of an exchange: what is told of it to a tracer, under which names. docs/tracing.md lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

from aibridge.actor import Actor
from aibridge.clients import Client
from aibridge.errors import Fault
from aibridge.observe import gen_ai
from aibridge.providers import Provider
from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)
from aibridge.tracer import TRACE_CONTEXT, Attributes, Side, Span, Tracer
from aibridge.wire.dialect import Request, ToolCall, Turn
from aibridge.wire.tools import ToolResult

MOST_OF_INPUT = 100
"""Characters of a tool's arguments that are told without `contents` too."""

Headers = Sequence[tuple[str, str]]
RawHeaders = Sequence[tuple[bytes, bytes]]

_NAMES: Mapping[type[Record], str] = {
    Interception: "Intercept.RecordInterception",
    PromptUsage: "Intercept.RecordPromptUsage",
    TokenUsage: "Intercept.RecordTokenUsage",
    ToolUsage: "Intercept.RecordToolUsage",
    ModelThought: "Intercept.RecordModelThought",
    InterceptionEnded: "Intercept.RecordInterceptionEnded",
}


class Tool(Protocol):
    """A tool of an MCP server."""

    @property
    def name(self) -> str:
        """Its own name."""

    @property
    def server(self) -> str:
        """The server's name in the settings."""

    @property
    def server_url(self) -> str:
        """Where the server is."""


class Spans:
    """Is told how an exchange goes. This one keeps nothing of it; it is what there is where nobody traces."""

    def created(self, request: Request, client: Client, provider: Provider, *, recorded: bool) -> None:
        """What is asked is understood, and who is asked first; `recorded` says that contents are."""

    def recording(self, records: Sequence[Record]) -> None:
        """These records are about to be written."""

    def recorded(self, error: BaseException | None = None) -> None:
        """They are, or can not be."""

    def processing(self) -> None:
        """The exchange is about to be carried."""

    def asking(self) -> Headers:
        """A request is about to be sent upstream; returns the headers that tell which trace it belongs to."""
        return ()

    def retried(self, why: str) -> None:
        """It is sent once more."""

    def left(self, tried: Sequence[tuple[str, str]], provider: Provider | None) -> None:
        """Providers were asked in vain, each by its name with the reason, and then that one, if any."""

    def answered(self, status: int) -> None:
        """The head of its answer is there."""

    def turn(self, turn: Turn, *, cut: bool) -> None:
        """What the answer has shown; it is at its end, or was `cut`."""

    def calling(self, call: ToolCall, tool: Tool) -> None:
        """An injected tool is about to be called."""

    def called(self, call: ToolCall, result: ToolResult, error: str | None) -> None:
        """It has answered, or failed."""

    def outcome(self, ended: InterceptionEnded, *, own: bool) -> None:
        """How the exchange ended; `own` says that its error is told in the gateway's own words."""

    def close(self, error: BaseException | None = None) -> None:
        """The exchange is over."""


NO_SPANS = Spans()


class Observer:
    """Begins the spans of exchanges, where there is a tracer.

    Prompts, thoughts and what tools were asked and have answered are told only with `contents`; with `redacted`, and of
    providers whose contents are not recorded, nothing is told of them in any case. With `propagate`, providers are told
    which trace a request belongs to.
    """

    def __init__(
        self, tracer: Tracer | None, *, contents: bool = False, redacted: bool = False, propagate: bool = False
    ) -> None:
        self._tracer, self._contents, self._redacted, self._propagate = tracer, contents, redacted, propagate

    def intercept(
        self, exchange_id: str, provider: Provider, path: str, actor: Actor, headers: RawHeaders, began: float
    ) -> Spans:
        """An interception, which began at that time of `perf_counter`."""
        if self._tracer is None:
            return NO_SPANS
        told: dict[str, str | bool] = {
            "request_path": path,
            "interception_id": exchange_id,
            "user_id": actor.id,
            **_about(provider),
        }
        ago = perf_counter() - began
        root = self._tracer.start("Intercept", told, side="server", headers=_trace_context(headers), ago=ago)
        if root.recording:
            return _InterceptionSpans(
                root, told, quotes=not self._redacted, contents=self._contents, propagate=self._propagate
            )
        return _UnseenSpans(root) if self._propagate else NO_SPANS

    def passthrough(
        self, method: str, provider: Provider, path: str, url: str, actor: Actor, headers: RawHeaders
    ) -> Spans:
        """A request that is only proxied. Of its `url` upstream the query is not told: some clients put keys there."""
        if self._tracer is None:
            return NO_SPANS
        told = {
            "request_path": path,
            "user_id": actor.id,
            "provider": provider.name,
            "passthrough_url": path,
            "passthrough_upstream_url": url.partition("?")[0],
            "passthrough_method": method,
        }
        root = self._tracer.start("Passthrough", told, side="server", headers=_trace_context(headers))
        return _PassthroughSpan(root, propagate=self._propagate)


class _UnseenSpans(Spans):
    """Of an exchange that is not sampled; whoever is asked is told so."""

    def __init__(self, root: Span) -> None:
        self._root = root

    def asking(self) -> Headers:
        """See `Spans.asking`."""
        return self._root.context()


class _PassthroughSpan(Spans):
    def __init__(self, root: Span, *, propagate: bool) -> None:
        self._root, self._propagate = root, propagate

    def asking(self) -> Headers:
        """See `Spans.asking`."""
        return self._root.context() if self._propagate else ()

    def answered(self, status: int) -> None:
        """See `Spans.answered`."""
        self._root.set({"http.response.status_code": status})

    def close(self, error: BaseException | None = None) -> None:
        """See `Spans.close`."""
        self._root.end(*_told(error))


class _InterceptionSpans(Spans):
    def __init__(self, root: Span, told: Mapping[str, Any], *, quotes: bool, contents: bool, propagate: bool) -> None:
        self._root, self._common = root, dict(told)
        self._quotes, self._contents, self._propagate = quotes, contents, propagate
        self._creating = root.child("Intercept.CreateInterceptor", told)
        self._processing: Span | None = None
        self._upstream: Span | None = None
        self._recording: list[Span] = []
        self._calls: dict[int, Span] = {}
        self._asked: dict[str, Any] = {}
        self._prompt: Attributes = {}
        self._error: tuple[str | None, str | None] = (None, None)

    def created(self, request: Request, client: Client, provider: Provider, *, recorded: bool) -> None:
        """See `Spans.created`."""
        self._quotes = self._quotes and recorded
        self._contents = self._contents and self._quotes
        self._common |= {"model": request.model, "streaming": request.streaming, **_about(provider)}
        session = {"gen_ai.conversation.id": client.session_id} if client.session_id else {}
        self._asked = gen_ai.asked(request) | gen_ai.asked_of(provider) | session
        if self._contents and request.prompt is not None:
            self._prompt = gen_ai.prompted(request.prompt)
        self._root.set({**self._common, **self._asked})
        self._creating.set(self._common)
        self._creating.end()

    def recording(self, records: Sequence[Record]) -> None:
        """See `Spans.recording`."""
        self._recording = [self._child(self._root, _NAMES[type(record)]) for record in records]

    def recorded(self, error: BaseException | None = None) -> None:
        """See `Spans.recorded`."""
        for span in self._recording:
            span.end(*_told(error))
        self._recording = []

    def processing(self) -> None:
        """See `Spans.processing`."""
        self._processing = self._child(self._root, "Intercept.ProcessRequest")

    def asking(self) -> Headers:
        """See `Spans.asking`."""
        told = {**self._asked, **self._prompt}
        self._upstream = self._child(self._processing, "Intercept.ProcessRequest.Upstream", told, side="client")
        return self._upstream.context() if self._propagate else ()

    def retried(self, why: str) -> None:
        """See `Spans.retried`."""
        if self._upstream:
            self._upstream.event("retry", {"reason": why})

    def left(self, tried: Sequence[tuple[str, str]], provider: Provider | None) -> None:
        """See `Spans.left`."""
        if self._upstream is None:
            return
        for name, why in tried:
            self._upstream.event("left", {"provider": name, "reason": why})
        if provider:
            self._common |= _about(provider)
            self._asked |= gen_ai.asked_of(provider)
            for span in (self._root, self._processing, self._upstream):
                if span:
                    span.set(_about(provider) | gen_ai.asked_of(provider))

    def answered(self, status: int) -> None:
        """See `Spans.answered`."""
        if self._upstream:
            self._upstream.set({"http.response.status_code": status})
            self._upstream.event("answered", {})

    def turn(self, turn: Turn, *, cut: bool) -> None:
        """See `Spans.turn`."""
        if self._upstream is None:
            return
        self._upstream.set(gen_ai.answered(turn, cut=cut))
        if self._contents:
            self._upstream.set(gen_ai.said(turn))
        if turn.error:
            self._upstream.end(turn.error.type or "error")
        elif not cut:
            self._upstream.end()

    def calling(self, call: ToolCall, tool: Tool) -> None:
        """See `Spans.calling`."""
        told = gen_ai.tool(tool.name, call.id) | {
            "mcp_tool_name": tool.name,
            "mcp_server_name": tool.server,
            "mcp_server_url": tool.server_url,
        }
        if self._quotes:
            told["mcp_input"] = call.arguments[:MOST_OF_INPUT]
        if self._contents:
            told |= gen_ai.tool_called_with(call.arguments)
        span = self._child(self._processing, "Intercept.ProcessRequest.ToolCall", told, side="client")
        self._calls[id(call)] = span

    def called(self, call: ToolCall, result: ToolResult, error: str | None) -> None:
        """See `Spans.called`."""
        span = self._calls.pop(id(call), None)
        if span is None:  # it was never made
            return
        if self._contents:
            span.set(gen_ai.tool_said(result))
        span.end("tool_error" if error is not None else None, error if self._contents else None)

    def outcome(self, ended: InterceptionEnded, *, own: bool) -> None:
        """See `Spans.outcome`."""
        if ended.http_status is not None:
            self._root.set({"http.response.status_code": ended.http_status})
        if ended.status != "completed":
            # A provider's words may quote what it was sent.
            words = ended.error_message if own or self._contents else None
            self._error = (ended.error_type or ended.status, words)

    def close(self, error: BaseException | None = None) -> None:
        """See `Spans.close`."""
        told = _told(error) if error else self._error
        within = (*self._calls.values(), *self._recording, self._upstream, self._processing, self._creating)
        for span in (*within, self._root):
            if span:
                span.end(*told)

    def _child(self, parent: Span | None, name: str, told: Attributes | None = None, *, side: Side = "inside") -> Span:
        return (parent or self._root).child(name, {**self._common, **(told or {})}, side=side)


def _about(provider: Provider) -> dict[str, str | bool]:
    return {"provider": provider.name, "aws_bedrock": provider.type == "bedrock"}


def _trace_context(headers: RawHeaders) -> dict[str, str]:
    named = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)
    return {name: value for name, value in named if name in TRACE_CONTEXT}


def _told(error: BaseException | None) -> tuple[str | None, str | None]:
    """What is told of an error: of a fault the gateway's own words, of any other its name."""
    if error is None:
        return None, None
    if isinstance(error, Fault):
        return error.kind.name.lower(), error.message
    return type(error).__name__, None
