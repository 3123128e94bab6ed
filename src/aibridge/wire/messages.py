"""Anthropic Messages.

Source: https://platform.claude.com/docs/en/api/messages and .../build-with-claude/streaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from aibridge.errors import Fault
from aibridge.wire import json_bytes, sse
from aibridge.wire.body import last_said, last_text, read_body
from aibridge.wire.counters import count, told, usage_of
from aibridge.wire.dialect import ProviderError, Reader, Request, SessionHints, Thought, ToolCall, Usage
from aibridge.wire.document import DocumentReader, error_in
from aibridge.wire.stream import StreamReader, end_event
from aibridge.wire.tools import OfferedTool

if TYPE_CHECKING:
    from aibridge.wire.merged.merge import Merge

_KNOWN = frozenset({"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"})


class Messages:
    """The dialect of `POST /v1/messages`."""

    name = "messages"
    keep_alive = sse.write(b'{"type": "ping"}', "ping")

    def parse(self, body: bytes) -> Request:
        """Read a request: nothing of it is changed."""
        members = read_body(_request, body)
        said = last_said(members.messages)
        content = bytes(said.content) if said else b""
        return Request(
            body,
            members.model,
            members.stream is True,
            prompt=last_text(content, "text") if said and said.role == "user" else None,
            correlating_tool_call_id=_answered_call(content),
            hints=_hints(members.metadata),
        )

    def stream_reader(self, request: Request) -> Reader:
        """A reader for an answer in server-sent events."""
        return MessageStream()

    def document_reader(self, request: Request, status: int) -> Reader:
        """A reader for an answer in one JSON document."""
        return MessageDocument(status)

    def merge(self, request: Request, tools: Sequence[OfferedTool]) -> Merge | None:
        """What makes one message of the turns, where the gateway offers tools; None where the request forbids them."""
        from aibridge.wire.merged import messages as merged

        return merged.MergedMessage.offering(request, tools)

    def error_body(self, fault: Fault, request_id: str) -> bytes:
        """A fault in the shape of https://platform.claude.com/docs/en/api/errors."""
        error = {"type": fault.provider_type or fault.said.anthropic_type, "message": fault.message}
        return json_bytes.encode({"type": "error", "error": error, "request_id": request_id})

    def error_event(self, fault: Fault, request_id: str, reader: Reader) -> bytes:
        """A fault as the event `error`."""
        return end_event(reader) + sse.write(self.error_body(fault, request_id), "error")


class _Body(msgspec.Struct):
    model: str
    stream: Any = None
    messages: list[msgspec.Raw] = []
    metadata: msgspec.Raw = msgspec.Raw()


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Result(msgspec.Struct):
    type: str = ""
    tool_use_id: str | None = None


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    thinking: str = ""


class _Delta(msgspec.Struct):
    partial_json: str = ""
    thinking: str = ""
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    type: str
    id: str | None = None
    content: list[_Block] = []
    usage: msgspec.Raw = msgspec.Raw()
    stop_reason: str | None = None
    error: Any = None


class _Start(msgspec.Struct):
    id: str | None = None
    usage: msgspec.Raw = msgspec.Raw()


class Event(msgspec.Struct):
    """The data of any event."""

    type: str
    index: int = 0
    delta: msgspec.Raw = msgspec.Raw(b"{}")
    content_block: _Block | None = None
    message: _Start | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: Any = None


_request = msgspec.json.Decoder(_Body)
_metadata = msgspec.json.Decoder(_Metadata)
_results = msgspec.json.Decoder(list[_Result])
_message = msgspec.json.Decoder(_Message)
_delta = msgspec.json.Decoder(_Delta)
_NO_HINTS = SessionHints()
_event = msgspec.json.Decoder(Event)


def _hints(metadata: msgspec.Raw) -> SessionHints:
    if not metadata:
        return _NO_HINTS
    try:
        return SessionHints(user_id=json_bytes.decode(_metadata, metadata).user_id)
    except msgspec.DecodeError:
        return _NO_HINTS


def _answered_call(content: bytes) -> str | None:
    if content.find(b"tool_result") < 0 and content.find(b"\\u") < 0:  # escaped, the word would look otherwise
        return None
    try:
        blocks = json_bytes.decode(_results, content)
    except msgspec.DecodeError:
        return None
    for block in reversed(blocks):
        if block.type == "tool_result":
            return block.tool_use_id
    return None


def _usage(counters: dict[str, Any]) -> Usage:
    return usage_of(
        count(counters.get("input_tokens")),
        count(counters.get("output_tokens")),
        count(counters.get("cache_read_input_tokens")),
        count(counters.get("cache_creation_input_tokens")),
        counters,
        _KNOWN,
    )


class MessageDocument(DocumentReader):
    """A whole message."""

    def _read(self, text: bytes) -> None:
        message, turn = json_bytes.decode(_message, text), self.turn
        if message.type == "error":
            turn.error = error_in({"error": message.error}) or ProviderError(None, None)
            return
        turn.response_id, turn.stop_reason, turn.complete = message.id, message.stop_reason, True
        if counters := told(message.usage):
            turn.usage, turn.provider_usage = _usage(counters), json_bytes.text_of(message.usage)
        for block in message.content:
            if block.type == "tool_use":
                turn.tool_calls.append(ToolCall(block.id, block.name, json_bytes.text_of(block.input), complete=True))
            elif block.type == "thinking":
                turn.thoughts.append(Thought("thinking", block.thinking))


class MessageStream(StreamReader[Event]):
    """A message in events: blocks may be open side by side, and counts are cumulative."""

    end_marks = (b"message_stop", b'"error"')

    def __init__(self) -> None:
        super().__init__(_event)
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, tuple[ToolCall, list[str]]] = {}
        self._thoughts: dict[int, list[str]] = {}

    def _read(self, event: Event) -> None:
        kind = event.type
        if kind == "content_block_delta":
            if event.index in self._calls:
                self._calls[event.index][1].append(json_bytes.decode(_delta, event.delta).partial_json)
            elif event.index in self._thoughts:
                self._thoughts[event.index].append(json_bytes.decode(_delta, event.delta).thinking)
        elif kind == "content_block_start" and event.content_block:
            self._open(event.index, event.content_block)
        elif kind == "content_block_stop":
            self._settle(event.index, complete=True)
        elif kind == "message_start" and event.message:
            self.turn.response_id = event.message.id or self.turn.response_id
            self._count(event.message.usage)
        elif kind == "message_delta":
            self.turn.stop_reason = json_bytes.decode(_delta, event.delta).stop_reason or self.turn.stop_reason
            self._count(event.usage)
        elif kind == "message_stop" and not self.turn.error:
            self.turn.complete = self.ended = True
        elif kind == "error":
            self.turn.error = error_in({"error": event.error}) or ProviderError(None, None)
            self.ended = True

    def _finish(self) -> None:
        for index in (*self._calls, *self._thoughts):
            self._settle(index, complete=False)

    def _count(self, usage: msgspec.Raw) -> None:
        """Counts are running totals: the last figure of each field stands."""
        if counters := told(usage):
            first = not self._usage
            self._usage.update((name, value) for name, value in counters.items() if value is not None)
            self.turn.usage = _usage(self._usage)
            self.turn.provider_usage = json_bytes.text_of(usage if first else json_bytes.encode(self._usage))

    def _open(self, index: int, block: _Block) -> None:
        if block.type == "tool_use":
            call = ToolCall(block.id, block.name, json_bytes.text_of(block.input))
            self.turn.tool_calls.append(call)
            self._calls[index] = call, []
        elif block.type == "thinking":
            self._thoughts[index] = [block.thinking]

    def _settle(self, index: int, *, complete: bool) -> None:
        if index in self._calls:
            call, pieces = self._calls.pop(index)
            call.arguments = "".join(pieces) or call.arguments
            call.complete = complete
        elif index in self._thoughts:
            self.turn.thoughts.append(Thought("thinking", "".join(self._thoughts.pop(index))))
