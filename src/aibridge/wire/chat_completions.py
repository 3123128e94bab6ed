"""OpenAI Chat Completions.

Source: https://platform.openai.com/docs/api-reference/chat and .../chat-streaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from aibridge.errors import Fault
from aibridge.wire import json_bytes, openai, sse
from aibridge.wire.body import last_said, last_text, read_body
from aibridge.wire.counters import told
from aibridge.wire.dialect import ProviderError, Reader, Request, SessionHints, ToolCall, Usage
from aibridge.wire.document import DocumentReader, error_in
from aibridge.wire.stream import StreamReader, end_event
from aibridge.wire.tools import OfferedTool

if TYPE_CHECKING:
    from aibridge.wire.merged.merge import Merge

DONE = b"[DONE]"


class ChatCompletions:
    """The dialect of `POST /v1/chat/completions`; not every server knows the option by which a stream tells usage."""

    name = "chat_completions"
    keep_alive = b": keep-alive\n\n"

    def __init__(self, *, ask_for_usage: bool = True) -> None:
        self._ask_for_usage = ask_for_usage

    def parse(self, body: bytes) -> Request:
        """Read a request. That of a stream is made to ask for usage, where the client did not: nothing else changes."""
        members = read_body(_request, body)
        streaming = members.stream is True
        said = last_said(members.messages)
        withholds_usage = self._ask_for_usage and streaming and not _asks_for_usage(members.stream_options)
        return Request(
            _ask_for_usage(body, members.stream_options) if withholds_usage else body,
            members.model,
            streaming,
            prompt=last_text(said.content, "text") if said and said.role == "user" else None,
            correlating_tool_call_id=said.tool_call_id if said and said.role == "tool" else None,
            hints=SessionHints(prompt_cache_key=members.prompt_cache_key),
            withholds_usage=withholds_usage,
        )

    def stream_reader(self, request: Request) -> Reader:
        """A reader for an answer in server-sent events."""
        return WithholdingChatStream() if request.withholds_usage else ChatStream()

    def document_reader(self, request: Request, status: int) -> Reader:
        """A reader for an answer in one JSON document."""
        return ChatDocument(status)

    def merge(self, request: Request, tools: Sequence[OfferedTool]) -> Merge | None:
        """What makes one message of the turns, where the gateway offers tools; None where the request forbids them."""
        from aibridge.wire.merged import chat_completions as merged

        return merged.MergedCompletion.offering(request, tools)

    def error_body(self, fault: Fault, request_id: str) -> bytes:
        """A fault as OpenAI tells one."""
        return openai.error_body(fault)

    def error_event(self, fault: Fault, request_id: str, reader: Reader) -> bytes:
        """A fault as a chunk that holds `error`, which the official SDKs raise."""
        return end_event(reader) + sse.write(openai.error_body(fault))


class _Body(msgspec.Struct):
    model: str
    stream: Any = None
    messages: list[msgspec.Raw] = []
    stream_options: dict[str, Any] | None = None
    prompt_cache_key: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None
    input: str | None = None  # of a custom tool


class Call(msgspec.Struct):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Function | None = None


class _Said(msgspec.Struct):
    tool_calls: list[Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct):
    """A completion, or a chunk of one."""

    id: str | None = None
    object: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: Any = None


class _AnyChoice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_AnyChoice]
    usage: dict[str, Any]


_chunk = msgspec.json.Decoder(_Chunk)
_request = msgspec.json.Decoder(_Body)
_completion = msgspec.json.Decoder(Completion)


def _says_nothing(event: bytes) -> bool:
    """A chunk tells of usage alone, though it has choices: so does LiteLLM, where OpenAI's has none."""
    try:
        choices = json_bytes.decode(_chunk, sse.data_of(event)).choices
    except (msgspec.DecodeError, RecursionError):
        return False
    return not any(choice.finish_reason or any((choice.delta or {}).values()) for choice in choices)


def _asks_for_usage(options: dict[str, Any] | None) -> bool:
    return bool(options and options.get("include_usage"))


def _ask_for_usage(body: bytes, options: dict[str, Any] | None) -> bytes:
    span = json_bytes.member_spans(body).get("stream_options") if options else None
    if not span:
        return json_bytes.set_member(body, "stream_options", b'{"include_usage":true}')
    asking = json_bytes.set_member(body[slice(*span)], "include_usage", b"true")
    return body[: span[0]] + asking + body[span[1] :]


def _usage(counters: dict[str, Any]) -> Usage:
    return openai.usage_of(counters, "prompt_tokens", "completion_tokens")


class ChatDocument(DocumentReader):
    """A whole completion."""

    def _read(self, text: bytes) -> None:
        completion, turn = json_bytes.decode(_completion, text), self.turn
        if completion.choices is None:
            turn.error = error_in({"error": completion.error}) or ProviderError(
                "unreadable_answer", "it has no choices"
            )
            return
        turn.response_id, turn.complete = completion.id, True
        if counters := told(completion.usage):
            turn.usage, turn.provider_usage = _usage(counters), json_bytes.text_of(completion.usage)
        for choice in completion.choices:
            turn.stop_reason = turn.stop_reason or choice.finish_reason
            for call in (choice.message and choice.message.tool_calls) or ():
                called = call.function or call.custom or _Function()
                arguments = called.arguments or called.input or ""
                turn.tool_calls.append(ToolCall(call.id or "", called.name or "", arguments, complete=True))


class ChatStream(StreamReader[Completion]):
    """A completion in chunks. It is whole once a choice has finished and the stream has come to its end."""

    end_marks = (DONE, b'"error"')

    def __init__(self) -> None:
        super().__init__(_completion)
        self._told: dict[str, Any] = {}  # the counters of the last event
        self._calls: list[tuple[ToolCall, list[str]]] = []
        self._by_index: dict[tuple[int, int], int] = {}
        """Which call a piece is of, by the index of its choice and its own."""
        self._pieces_of: list[int] = []
        """Which call each piece in the first choice of the last event is of, counted from 0."""

    def _read(self, event: Completion) -> None:
        turn = self.turn
        self._told = told(event.usage)
        if event.error:
            turn.error = error_in({"error": event.error})
            self.ended = True
            return
        turn.response_id = turn.response_id or event.id
        if self._told:
            turn.usage, turn.provider_usage = _usage(self._told), json_bytes.text_of(event.usage)
        for choice in event.choices or ():
            turn.stop_reason = choice.finish_reason or turn.stop_reason
            if choice.delta and choice.delta.tool_calls:
                calls = [self._add(choice.index, piece) for piece in choice.delta.tool_calls]
                if event.choices and choice is event.choices[0]:
                    self._pieces_of = calls

    def _read_other(self, data: bytes) -> None:
        if data.strip() == DONE:
            self._finish()
            self.ended = True

    def _finish(self) -> None:
        """Settle the calls; some servers leave out `[DONE]`."""
        self.turn.complete = self.turn.stop_reason is not None and not self.turn.error
        for call, pieces in self._calls:
            call.arguments = "".join(pieces)
            call.complete = self.turn.complete

    def _add(self, choice: int, piece: Call) -> int:
        number = self._number_of(choice, piece)
        if number == len(self._calls):
            call = ToolCall("", "")
            self._calls.append((call, []))
            self.turn.tool_calls.append(call)
        call, pieces = self._calls[number]
        call.id = piece.id or call.id
        if called := piece.function or piece.custom:
            call.name += called.name or ""
            pieces.append(called.arguments or called.input or "")
        return number

    def _number_of(self, choice: int, piece: Call) -> int:
        """Which call a piece is of, or the next number for a new one.

        Servers that number nothing send calls whole, one after the other; some number all of them 0.
        """
        if piece.index is None:
            return len(self._calls) if piece.id else max(len(self._calls) - 1, 0)
        number = self._by_index.get((choice, piece.index), len(self._calls))
        if number < len(self._calls) and piece.id and self._calls[number][0].id not in ("", piece.id):
            number = len(self._calls)
        self._by_index[choice, piece.index] = number
        return number


class WithholdingChatStream(ChatStream):
    """The same, but for the chunk of usage that the client did not ask for: it is kept from the client."""

    rewrites = True
    between_events = True  # for the client gets whole events only

    def feed(self, data: bytes) -> bytes:
        """Read what came; events are for the client once they are whole."""
        return b"".join([event for event in self._splitter.feed(data) if self._passes(event)])

    def close(self) -> bytes:
        """Read an event that nothing ended; the client is spared the piece of one that was cut."""
        rest = self._splitter.rest()
        passed = rest if rest and self._passes(rest) and self._is_whole else b""
        self._finish()
        return passed

    def _passes(self, event: bytes) -> bool:
        self._is_usage, self._is_whole = False, True
        self._take(event)
        return not (self._is_usage or (self._told and _says_nothing(event)))

    def _read(self, event: Completion) -> None:
        super()._read(event)
        self._is_usage = event.choices == [] and bool(self._told)

    def _read_other(self, data: bytes) -> None:
        self._is_whole = data.strip() in (b"", DONE)
        super()._read_other(data)
