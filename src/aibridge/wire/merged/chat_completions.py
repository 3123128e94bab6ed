"""Merging the turns of OpenAI Chat Completions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.body import last_text, texts
from aibridge.wire.chat_completions import DONE, Call, ChatCompletions, ChatDocument, ChatStream, Completion
from aibridge.wire.dialect import Reader, Request
from aibridge.wire.merged.merge import (
    Answered,
    Merge,
    MergedDocument,
    MergedStream,
    Remembered,
    Trail,
    added,
    data_of,
    recalled,
)
from aibridge.wire.merged.results import text_of
from aibridge.wire.tools import OfferedTool, OfferedTools


class _Function(msgspec.Struct):
    name: str = ""


class _Tool(msgspec.Struct):
    function: _Function | None = None
    custom: _Function | None = None


class _Message(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"null")
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    message: msgspec.Raw


class _Document(msgspec.Struct):
    choices: list[_Choice] = []
    usage: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    delta: dict[str, Any] | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Delta] = []


_document = msgspec.json.Decoder(_Document)
_message = msgspec.json.Decoder(_Message)
_tools = msgspec.json.Decoder(list[_Tool] | None)
_call = msgspec.json.Decoder(_Tool)
_chunk = msgspec.json.Decoder(_Chunk)
_chunks = msgspec.json.Decoder(list[_Chunk])


class _SaidBefore(msgspec.Struct, gc=False):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")
    tool_calls: list[Call] | None = None


class _Hidden(msgspec.Struct):
    """What the client was shown, and the messages that it was made of."""

    content: str
    calls: list[tuple[str, str, str]]
    """Ids, names and arguments: some servers number their calls anew in every answer."""
    messages: list[msgspec.Raw]


_asked = msgspec.json.Decoder(list[_SaidBefore])
_said_before = msgspec.json.Decoder(_SaidBefore)
_hidden = msgspec.json.Decoder(_Hidden)

_EMPTY_DELTA = re.compile(rb'"delta"\s*:\s*\{\s*\}')

_NOT_JOINED = frozenset({"role", "id", "type", "index"})
"""Members of deltas that are told whole, by some servers more than once."""


@lru_cache(maxsize=16)
def _fragment(tools: OfferedTools) -> bytes:
    """The tools as elements of a request's `tools`."""
    return b",".join(
        b'{"type":"function","function":{"name":%b,"description":%b,"parameters":%b}}'
        % (json_bytes.encode(tool.name), json_bytes.encode(tool.description), tool.input_schema)
        for tool in tools
    )


class MergedCompletion(Merge):
    """One completion: the first turn's id, the last one's finish reason, the text and the client's calls of all."""

    history = "messages"
    tools_first = False  # the provider then still finds the client's own, as a prefix, in its cache
    broken_off = frozenset({"length", "content_filter"})

    def __init__(self, request: Request, tools: Sequence[OfferedTool]) -> None:
        super().__init__(request, tools)
        self.id: str | None = None
        self.texts: list[str] = []
        self.calls: list[bytes] = []
        """The client's own calls in the document."""
        self.shown_calls = 0

    def stream_reader(self) -> Reader:
        """A reader for the next turn's answer in server-sent events."""
        return _StreamReader(self)

    def document_reader(self) -> Reader:
        """A reader for the next turn's answer in one JSON document."""
        return _DocumentReader(self)

    def keep_alive(self) -> bytes:
        """A comment."""
        return ChatCompletions.keep_alive

    def restore(self, remembered: Mapping[str, bytes]) -> None:
        """Put the turns in place of each message that was made of them."""
        if not remembered:
            return
        messages = self._elements()
        restored: dict[int, bytes] = {}
        for place, keys in enumerate(self._conversation.keys):
            if hidden := recalled(_hidden, remembered, keys):
                message = json_bytes.decode(_said_before, messages[place])
                if hidden.content == _text_of(message) and hidden.calls == _calls_of(message):
                    restored[place] = b",".join(bytes(turn) for turn in hidden.messages)
        self._replace(restored)

    def remembered(self) -> Remembered | None:
        """The messages of all turns, and the results of hidden calls."""
        messages = self._said if self.answered_last else [*self._said, *self._last_said]
        if len(messages) < 2:
            return None
        own = [(call.id, call.name, _in_one_form(call.arguments)) for call in self._own_calls]
        text = "".join(self.texts)
        trail = self._conversation.trail.copy()
        trail.add("assistant", [text])
        keys = [call_id for call_id, _, _ in own] or ([trail.place] if text else [])
        told = _Hidden(text, own, [msgspec.Raw(message) for message in messages])
        return Remembered(keys, json_bytes.encode(told)) if keys else None

    def _read_history(self, trail: Trail) -> list[list[str]]:
        keys: list[list[str]] = []
        for message in json_bytes.decode(_asked, self._member(self.history) or b"[]"):
            keys.append([])
            if message.role == "user":
                trail.add("user", [last_text(message.content, "text", lenient=True) or ""])
            elif message.role == "assistant":
                text = _text_of(message)
                trail.add("assistant", [text])
                keys[-1] = [call.id or "" for call in message.tool_calls or ()] or ([trail.place] if text else [])
        return keys

    def _may_offer(self) -> bool:
        """The request does not forbid tools, nor asks for several answers or for functions of the old kind.

        With a predicted output the provider takes no tools.
        Source: https://platform.openai.com/docs/guides/predicted-outputs
        """
        excluded = self._value("functions") or self._value("prediction")
        return super()._may_offer() and not excluded and self._value("n") in (None, 1)

    def _names_taken(self) -> frozenset[str]:
        tools = json_bytes.decode(_tools, self._member("tools") or b"null") or ()
        called = [tool.function or tool.custom for tool in tools]
        return frozenset(function.name for function in called if function)

    @property
    def _fragment(self) -> bytes:
        return _fragment(self.tools)

    def _results(self, answered: Sequence[Answered]) -> list[bytes]:
        return [
            json_bytes.encode({"role": "tool", "tool_call_id": call.id, "content": text_of(result)})
            for call, result in answered
        ]


class _DocumentReader(MergedDocument, ChatDocument):
    def __init__(self, merge: MergedCompletion) -> None:
        super().__init__()
        self._merge = merge

    def _read(self, text: bytes) -> None:
        super()._read(text)
        merge, turn = self._merge, self.turn
        document = json_bytes.decode(_document, text)
        if not turn.complete or not document.choices:
            return
        said = bytes(document.choices[0].message)
        message = json_bytes.decode(_message, said)
        merge.id = merge.id or turn.response_id
        calls = [bytes(call) for call in message.tool_calls or ()]
        own = [call for call in calls if not self._is_hidden(call)]
        merge.took(turn, [_with_calls(said, own) if merge.is_broken_off(turn) else said], document.usage)
        merge.texts.append(_text_of(message))
        merge.calls += own
        if merge.waiting:
            merge.held, self._passed = partial(self._merged, text, said), b""
        elif merge.turns > 1 or len(own) < len(calls):
            self._passed = self._merged(text, said)

    def _is_hidden(self, call: bytes) -> bool:
        function = json_bytes.decode(_call, call).function
        return function is not None and function.name in self._merge.names

    def _merged(self, text: bytes, message: bytes) -> bytes:
        merge = self._merge
        content = "".join(merge.texts)
        message = json_bytes.set_member(message, "content", json_bytes.encode(content or None))
        message = _with_calls(message, merge.calls)

        def edit(choice: bytes) -> bytes:
            choice = json_bytes.set_member(choice, "message", message)
            return json_bytes.set_member(choice, "finish_reason", b'"stop"') if merge.goes_on else choice

        usage, told = json_bytes.encode(merge.usage()), json_bytes.encode(merge.id)
        return json_bytes.edit(_edit_choice(text, edit), {"usage": usage, "id": told})


class _StreamReader(MergedStream[Completion], ChatStream):
    """A turn's chunks: pieces of hidden calls are taken out, and the end is held until it is known to be one."""

    def __init__(self, merge: MergedCompletion) -> None:
        super().__init__()
        self._merge = merge
        self._numbers: dict[int, int | None] = {}  # a call's index to the client, by its place among all calls
        self._nameless: dict[int, list[Mapping[str, Any]]] = {}  # what came of a call before its name
        self._chunks: list[bytes] = []  # read again where they become part of a conversation
        self._call_deltas: dict[int, list[Mapping[str, Any]]] = {}
        self._usage: dict[str, Any] | None = None
        self._end: list[bytes] = []
        self._usage_chunk = b""
        self._took = False

    def close(self) -> bytes:
        passed = super().close()
        if self.turn.complete and not self._took:
            passed += self._end_turn(b"")
        return passed

    def _read(self, event: Completion) -> None:
        super()._read(event)
        if event.error:
            return
        self._usage = self._told or self._usage
        if not event.choices:
            if self._told:
                self._usage_chunk, self._passed = self._event, b""
            return
        choice, merge = event.choices[0], self._merge
        merge.id = merge.id or event.id
        self._chunks.append(self._event)
        calls = choice.delta.tool_calls if choice.delta else None
        if event.object and not (calls or choice.finish_reason or self._end or merge.turns):
            return  # text of the first turn, which passes as it came
        data = data_of(self._event)
        edited = self._fit(data, event)
        if calls:
            edited = self._edit_calls(edited, calls, _delta_of(data)["tool_calls"])
        if choice.finish_reason:
            if _says_something(edited):  # which must not wait for the end
                self._passed = sse.write(_edit_choice(edited, _unfinished))
                self._end.append(sse.write(_edit_delta(edited, lambda _: b"{}")))
            else:
                self._end.append(self._event if edited == data else sse.write(edited))
                self._passed = b""
        elif _is_empty(edited):
            self._passed = b""
        elif edited != data:
            self._passed = sse.write(edited)

    def _fit(self, data: bytes, event: Completion) -> bytes:
        """A chunk as one of the whole message's."""
        merge = self._merge
        if not event.object:  # OpenAI's SDK passes over chunks that do not say what they are
            data = json_bytes.set_member(data, "object", b'"chat.completion.chunk"')
        if merge.turns:
            data = json_bytes.replace_member(data, "id", json_bytes.encode(event.id), json_bytes.encode(merge.id))
            if b'"role"' in data or b"\\u" in data:  # it may be escaped
                data = _edit_delta(data, lambda delta: json_bytes.without_member(delta, "role"))
            if self._told:  # counters that come with the text are running totals, of all turns now
                data = json_bytes.set_member(data, "usage", json_bytes.encode(added(merge.usage(), self._told)))
        return data

    def _read_other(self, data: bytes) -> None:
        super()._read_other(data)
        if data.strip() == DONE:  # without a finished choice it is no end
            self._passed = self._end_turn(self._event) if self.turn.complete else b""

    def _edit_calls(self, data: bytes, pieces: Sequence[Call], told: Sequence[Mapping[str, Any]]) -> bytes:
        """A chunk without its pieces of hidden calls, and those of others numbered on."""
        merge = self._merge
        shown: list[tuple[int, int]] = []  # place in this chunk, index to the client
        whole: dict[int, bytes] = {}  # at such a place, all that came of a call by now
        for place, (piece, index) in enumerate(zip(pieces, self._pieces_of, strict=True)):
            if index not in self._numbers:
                called = piece.function or piece.custom
                if not (called and called.name):  # whose call it is will be known later
                    self._nameless.setdefault(index, []).append(told[place])
                    continue
                hidden = called.name in merge.names
                self._numbers[index] = None if hidden else merge.shown_calls
                merge.shown_calls += not hidden
                if before := self._nameless.pop(index, None):
                    self._call_deltas[index] = before
                    whole[place] = json_bytes.encode(_joined([*before, told[place]]))
            number = self._numbers[index]
            self._call_deltas.setdefault(index, []).append(told[place])
            if number is not None:
                shown.append((place, number))

        def edit(delta: bytes) -> bytes:
            calls = json_bytes.decode(_message, delta).tool_calls or []
            kept = [
                bytes(calls[place])
                if pieces[place].index == number and place not in whole
                else json_bytes.set_member(whole.get(place, bytes(calls[place])), "index", str(number).encode())
                for place, number in shown
            ]
            if kept == [bytes(call) for call in calls]:
                return delta
            if not kept:
                return json_bytes.without_member(delta, "tool_calls")
            return json_bytes.set_member(delta, "tool_calls", b"[%b]" % b",".join(kept))

        return _edit_delta(data, edit)

    def _end_turn(self, done: bytes) -> bytes:
        """All chunks of the turn are there; what of its end the client gets now."""
        merge = self._merge
        self._took = True
        goes_back = merge.turns > 0 or None in self._numbers.values()
        said = self._said() if goes_back else None  # else the message is at its end, and the client has all of it
        if said:
            merge.texts.append("".join(texts(json_bytes.encode(said["content"]), "text", lenient=True)))
        merge.took(self.turn, [json_bytes.encode(said)] if said else [], self._usage)
        if merge.waiting:
            merge.held = partial(self._end_of_all, done)
            return b""
        return self._end_of_all(done)

    def _end_of_all(self, done: bytes) -> bytes:
        """The end of the completion that was made of all turns."""
        merge, end = self._merge, b"".join(self._end)
        if merge.goes_on:
            end = b"".join(sse.write(_edit_choice(data_of(chunk), _stopped)) for chunk in self._end)
        if self._usage_chunk and not merge.request.withholds_usage:
            end += self._usage_of_all(self._usage_chunk)
        return end + (sse.write(DONE) if done and (merge.turns > 1 or merge.goes_on) else done)

    def _said(self) -> dict[str, Any]:
        """The turn's message: it goes back to the provider whole, with what only that provider knows of."""
        deltas = _deltas_of([data_of(chunk) for chunk in self._chunks])
        said = {"role": "assistant", "content": None} | _joined(deltas, without="tool_calls")
        said["content"] = said["content"] or None
        runs = not self._merge.is_broken_off(self.turn)
        told_of = [deltas for index, deltas in self._call_deltas.items() if runs or self._numbers[index] is not None]
        if told_of:
            calls = [{"type": "function"} | _joined(deltas) for deltas in told_of]
            said["tool_calls"] = [{name: call[name] for name in call if name != "index"} for call in calls]
        return said

    def _usage_of_all(self, chunk: bytes) -> bytes:
        merge = self._merge
        if merge.turns == 1:
            return chunk
        usage, told = json_bytes.encode(merge.usage()), json_bytes.encode(merge.id)
        return sse.write(json_bytes.edit(data_of(chunk), {"usage": usage, "id": told}))


def _delta_of(data: bytes) -> dict[str, Any]:
    return json_bytes.decode(_chunk, data).choices[0].delta or {}


def _deltas_of(chunks: Sequence[bytes]) -> list[dict[str, Any]]:
    """The deltas of chunks, but for those that can not be decoded."""
    try:
        told = json_bytes.decode(_chunks, b"[%b]" % b",".join(chunks))
        return [chunk.choices[0].delta or {} for chunk in told if chunk.choices]
    except (msgspec.DecodeError, RecursionError):
        return [told for chunk in chunks for told in _deltas_of([chunk])] if len(chunks) > 1 else []


def _text_of(message: _SaidBefore | _Message) -> str:
    """Its text; some servers say it, as clients may, in parts."""
    return "".join(texts(message.content, "text", lenient=True))


def _calls_of(message: _SaidBefore) -> list[tuple[str, str, str]]:
    return [
        (call.id or "", called.name or "", _in_one_form(called.arguments or called.input or ""))
        for call in message.tool_calls or ()
        if (called := call.function or call.custom)
    ]


def _in_one_form(arguments: str) -> str:
    """The same for arguments that are the same: some clients decode them, and encode them anew."""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments


def _joined(deltas: Sequence[Mapping[str, Any]], without: str = "") -> dict[str, Any]:
    """The object that was told in deltas: its texts and lists go on, of anything else the last stands."""
    told: dict[str, list[Any]] = {}
    for delta in deltas:
        for name, value in delta.items():
            if value is not None and name != without:
                told.setdefault(name, []).append(value)
    return {name: values[-1] if name in _NOT_JOINED else _join(values) for name, values in told.items()}


def _join(values: list[Any]) -> Any:
    kind = type(values[0])
    if any(type(value) is not kind for value in values):
        return values[-1]
    if kind is str:
        return "".join(values)
    if kind is list:
        return [element for value in values for element in value]
    return _joined(values) if kind is dict else values[-1]


def _with_calls(message: bytes, calls: Sequence[bytes]) -> bytes:
    """A message with these tool calls, and no others."""
    if not calls:
        return json_bytes.without_member(message, "tool_calls")
    return json_bytes.set_member(message, "tool_calls", b"[%b]" % b",".join(calls))


def _stopped(choice: bytes) -> bytes:
    return json_bytes.set_member(choice, "finish_reason", b'"stop"')


def _unfinished(choice: bytes) -> bytes:
    return json_bytes.set_member(choice, "finish_reason", b"null")


def _edit_choice(data: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """A completion or chunk with its only choice edited."""
    begin, end = json_bytes.member_spans(data)["choices"]
    first, last = data.index(b"{", begin), data.rindex(b"}", begin, end) + 1
    return data[:first] + edit(data[first:last]) + data[last:]


def _edit_delta(data: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """A chunk with the delta of its only choice edited."""

    def edit_choice(choice: bytes) -> bytes:
        span = json_bytes.member_spans(choice).get("delta")
        return choice[: span[0]] + edit(choice[slice(*span)]) + choice[span[1] :] if span else choice

    return _edit_choice(data, edit_choice)


def _says_something(data: bytes) -> bool:
    """There is more in a chunk's delta than its role."""
    delta = json_bytes.decode(_chunk, data).choices[0].delta or {}
    return any(value for name, value in delta.items() if name != "role")


def _is_empty(data: bytes) -> bool:
    """Nothing is left in a chunk's delta."""
    if not _EMPTY_DELTA.search(data):
        return False
    begin, end = json_bytes.member_spans(data)["choices"]
    choice = data[data.index(b"{", begin) : data.rindex(b"}", begin, end) + 1]
    span = json_bytes.member_spans(choice).get("delta")
    return span is not None and not json_bytes.member_spans(choice[slice(*span)])
