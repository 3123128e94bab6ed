"""Merging the turns of OpenAI Chat Completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.chat_completions import DONE, Call, ChatCompletions, ChatDocument, ChatStream, Completion
from aibridge.wire.dialect import Reader, Request, ToolCall
from aibridge.wire.merged.merge import Answered, Merge, Remembered, added, digest
from aibridge.wire.merged.results import text_of
from aibridge.wire.tools import OfferedTool


class _Function(msgspec.Struct):
    name: str = ""


class _Tool(msgspec.Struct):
    function: _Function | None = None
    custom: _Function | None = None


class _Members(msgspec.Struct):
    tools: list[_Tool] | None = None
    tool_choice: Any = None
    functions: Any = None
    n: int | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    message: msgspec.Raw


class _Document(msgspec.Struct):
    choices: list[_Choice]
    usage: dict[str, Any] | None = None


class _Text(msgspec.Struct):
    content: str | None = None


class _Delta(msgspec.Struct):
    delta: _Text | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Delta] = []
    usage: dict[str, Any] | None = None


_members = msgspec.json.Decoder(_Members)
_document = msgspec.json.Decoder(_Document)
_message = msgspec.json.Decoder(_Message)
_call = msgspec.json.Decoder(_Tool)
_chunk = msgspec.json.Decoder(_Chunk)


class _Id(msgspec.Struct):
    id: str = ""


class _SaidBefore(msgspec.Struct):
    role: str = ""
    content: Any = None
    tool_calls: list[_Id] | None = None


class _History(msgspec.Struct):
    messages: list[_SaidBefore] = []


class _Hidden(msgspec.Struct):
    """What the client was shown, and the messages that it was made of."""

    content: str
    calls: list[str]
    messages: list[msgspec.Raw]


_history = msgspec.json.Decoder(_History)
_hidden = msgspec.json.Decoder(_Hidden)


def may_offer(body: bytes) -> bool:
    """The request does not forbid tools, nor asks for several answers or for functions of the old kind."""
    try:
        members = json_bytes.decode(_members, body)
    except msgspec.DecodeError:
        return False
    choice = members.tool_choice
    restricted = choice == "none" or (isinstance(choice, dict) and choice.get("type") == "allowed_tools")
    return not restricted and not members.functions and members.n in (None, 1)


@lru_cache(maxsize=16)
def _fragment(tools: tuple[OfferedTool, ...]) -> bytes:
    """The tools as elements of a request's `tools`."""
    return b",".join(
        b'{"type":"function","function":{"name":%b,"description":%b,"parameters":%b}}'
        % (json_bytes.encode(tool.name), json_bytes.encode(tool.description), tool.input_schema)
        for tool in tools
    )


class MergedCompletion(Merge):
    """One completion: the first turn's id, the last one's finish reason, the text and the client's calls of all."""

    history = "messages"

    def __init__(self, request: Request, tools: Sequence[OfferedTool]) -> None:
        super().__init__(request, tools)
        self.id: str | None = None
        self.texts: list[str] = []
        self.calls: list[bytes] = []
        """The client's own calls in the document."""
        self.shown_calls = 0
        self.held = b""

    def stream_reader(self) -> Reader:
        """A reader for the next turn's answer in server-sent events."""
        return _StreamReader(self)

    def document_reader(self) -> Reader:
        """A reader for the next turn's answer in one JSON document."""
        return _DocumentReader(self)

    def end(self) -> bytes:
        """The end of the completion."""
        return self.held

    def keep_alive(self) -> bytes:
        """A comment."""
        return ChatCompletions.keep_alive

    def keys(self) -> list[str]:
        """Of each of the assistant's messages: the calls in it, or its text."""
        return [key for message in self._history() for key in _keys_of(message)]

    def restore(self, remembered: Mapping[str, bytes]) -> None:
        """Put the turns in place of each message that was made of them."""
        if not remembered:
            return
        begin, end = json_bytes.member_spans(self._given)["messages"]
        array = self._given[begin:end]
        shift = 0
        spans = json_bytes.element_spans(array)
        for message, (start, stop) in zip(self._history(), spans, strict=True):
            found = next((remembered[key] for key in _keys_of(message) if key in remembered), None)
            hidden = json_bytes.decode(_hidden, found) if found else None
            if hidden and hidden.content == (message.content or "") and hidden.calls == _ids(message):
                turns = b",".join(bytes(each) for each in hidden.messages)
                array = array[: start + shift] + turns + array[stop + shift :]
                shift += len(turns) - (stop - start)
        self._given = self._given[:begin] + array + self._given[end:]

    def remembered(self) -> Remembered | None:
        """The messages of all turns, and the results of hidden calls."""
        messages = self._said if self.answered_last else [*self._said, *self._last_said]
        if len(messages) < 2:
            return None
        own = [call.id for call in self._last_calls if call.name not in self.names]
        key = digest(self.texts)
        keys = own or ([key] if key else [])
        told = _Hidden("".join(self.texts), own, [msgspec.Raw(message) for message in messages])
        return Remembered(keys, json_bytes.encode(told)) if keys else None

    def _history(self) -> list[_SaidBefore]:
        try:
            return json_bytes.decode(_history, self._given).messages
        except (msgspec.DecodeError, RecursionError):
            return []

    def _names_taken(self, body: bytes) -> frozenset[str]:
        tools = json_bytes.decode(_members, body).tools or ()
        called = [tool.function or tool.custom for tool in tools]
        return frozenset(function.name for function in called if function)

    def _with_tools(self, body: bytes) -> bytes:
        """After the client's own, whose prefix the provider then still finds in its cache."""
        span = json_bytes.member_spans(body).get("tools")
        own = body[slice(*span)] if span else b"[]"
        offered = json_bytes.insert_last(own if own.startswith(b"[") else b"[]", _fragment(tuple(self.tools)))
        return json_bytes.set_member(body, "tools", offered)

    def _results(self, answered: Sequence[Answered]) -> list[bytes]:
        return [
            json_bytes.encode({"role": "tool", "tool_call_id": call.id, "content": text_of(result)})
            for call, result in answered
        ]


class _DocumentReader(ChatDocument):
    """A turn's document is held until it is known whether it is the last."""

    rewrites = True

    def __init__(self, merge: MergedCompletion) -> None:
        super().__init__()
        self._merge = merge
        self._passed = b""

    def feed(self, data: bytes) -> bytes:
        super().feed(data)
        return b""

    def close(self) -> bytes:
        super().close()
        return self._passed

    def _read(self, text: bytes) -> None:
        super()._read(text)
        merge, turn = self._merge, self.turn
        self._passed = text
        if not turn.complete or not turn.stop_reason:
            return
        document = json_bytes.decode(_document, text)
        said = bytes(document.choices[0].message)
        message = json_bytes.decode(_message, said)
        merge.id = merge.id or turn.response_id
        merge.took(turn.tool_calls, [said], document.usage)
        merge.texts.append(message.content or "")
        merge.calls += [bytes(call) for call in message.tool_calls or () if not self._is_hidden(bytes(call))]
        if merge.turns > 1 or merge.waiting:
            self._passed = self._merged(text, said)
        if merge.waiting:
            merge.held, self._passed = self._passed, b""

    def _is_hidden(self, call: bytes) -> bool:
        function = json_bytes.decode(_call, call).function
        return function is not None and function.name in self._merge.names

    def _merged(self, text: bytes, message: bytes) -> bytes:
        merge = self._merge
        content = "".join(merge.texts)
        message = json_bytes.set_member(message, "content", json_bytes.encode(content or None))
        if merge.calls:
            message = json_bytes.set_member(message, "tool_calls", b"[%b]" % b",".join(merge.calls))
        else:
            message = json_bytes.without_member(message, "tool_calls")

        def edit(choice: bytes) -> bytes:
            choice = json_bytes.set_member(choice, "message", message)
            return json_bytes.set_member(choice, "finish_reason", b'"stop"') if merge.goes_on else choice

        text = _edit_choice(text, edit)
        text = json_bytes.set_member(text, "usage", json_bytes.encode(merge.usage()))
        return json_bytes.set_member(text, "id", json_bytes.encode(merge.id))


class _StreamReader(ChatStream):
    """A turn's chunks: pieces of hidden calls are taken out, and the end is held until it is known to be one."""

    rewrites = True
    between_events = True

    def __init__(self, merge: MergedCompletion) -> None:
        super().__init__()
        self._merge = merge
        self._numbers: dict[int, int | None] = {}  # a call's index to the client, by that of the provider
        self._text: list[str] = []
        self._usage: dict[str, Any] | None = None
        self._end: list[bytes] = []
        self._usage_chunk = b""
        self._took = False

    def feed(self, data: bytes) -> bytes:
        return b"".join([self._pass(event) for event in self._splitter.feed(data)])

    def close(self) -> bytes:
        rest = self._splitter.rest()
        passed = self._pass(rest) if rest.strip() else b""
        self._finish()
        if self.turn.complete and not self._took:
            passed += self._end_turn(b"")
        return passed

    def _pass(self, event: bytes) -> bytes:
        self._event, self._passed = event, event
        self._take(event)
        return self._passed

    def _read(self, event: Completion) -> None:
        super()._read(event)
        if event.error:
            return
        data = sse.data_of(self._event)
        if event.usage:
            self._usage = json_bytes.decode(_chunk, data).usage
        if not event.choices:
            if event.usage:
                self._usage_chunk, self._passed = self._event, b""
            return
        choice = event.choices[0]
        merge = self._merge
        merge.id = merge.id or event.id
        told = json_bytes.decode(_chunk, data).choices[0].delta
        self._text.append((told and told.content) or "")
        edited = data
        if not event.object:  # OpenAI's SDK passes over chunks that do not say what they are
            edited = json_bytes.set_member(edited, "object", b'"chat.completion.chunk"')
        if merge.turns:
            edited = json_bytes.set_member(edited, "id", json_bytes.encode(merge.id))
            edited = _edit_delta(edited, lambda delta: json_bytes.without_member(delta, "role"))
        if self._usage and merge.turns:  # counters that come with the text are running totals, of all turns now
            usage = json_bytes.encode(added(merge.usage(), self._usage))
            edited = json_bytes.set_member(edited, "usage", usage) if event.usage else edited
        if choice.delta and choice.delta.tool_calls:
            edited = self._edit_calls(edited, choice.delta.tool_calls)
        if not choice.finish_reason and edited and _is_empty(edited):
            edited = b""
        passed = self._event if edited == data else sse.write(edited) if edited else b""
        if choice.finish_reason:
            self._end.append(passed)
            passed = b""
        self._passed = passed

    def _read_other(self, data: bytes) -> None:
        super()._read_other(data)
        if data.strip() == DONE:
            self._passed = self._end_turn(self._event) if self.turn.complete else self._event

    def _edit_calls(self, data: bytes, pieces: Sequence[Call]) -> bytes:
        merge = self._merge
        shown: list[tuple[int, int]] = []  # place in this chunk, index to the client
        for place, piece in enumerate(pieces):
            index = piece.index or 0
            if index not in self._numbers:
                called = piece.function or piece.custom
                hidden = called is not None and called.name in merge.names
                self._numbers[index] = None if hidden else merge.shown_calls
                merge.shown_calls += not hidden
            number = self._numbers[index]
            if number is not None:
                shown.append((place, number))

        def edit(delta: bytes) -> bytes:
            calls = json_bytes.decode(_message, delta).tool_calls or []
            kept = [
                bytes(calls[place])
                if pieces[place].index == number
                else json_bytes.set_member(bytes(calls[place]), "index", str(number).encode())
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
        text = "".join(self._text)
        merge.texts.append(text)
        merge.took(self.turn.tool_calls, [_assistant(text, self.turn.tool_calls)], self._usage)
        end = b"".join(self._end)
        if merge.goes_on:
            end = b"".join(sse.write(_edit_choice(sse.data_of(chunk), _stopped)) for chunk in self._end)
        if self._usage_chunk and not merge.request.withholds_usage:
            end += self._usage_of_all(self._usage_chunk)
        end += sse.write(DONE) if done and (merge.turns > 1 or merge.waiting) else done
        if merge.waiting:
            merge.held, end = end, b""
        return end

    def _usage_of_all(self, chunk: bytes) -> bytes:
        merge = self._merge
        if merge.turns == 1:
            return chunk
        data = json_bytes.set_member(sse.data_of(chunk), "usage", json_bytes.encode(merge.usage()))
        return sse.write(json_bytes.set_member(data, "id", json_bytes.encode(merge.id)))


def _keys_of(message: _SaidBefore) -> list[str]:
    if message.role != "assistant":
        return []
    key = digest([message.content]) if isinstance(message.content, str) else None
    return _ids(message) or ([key] if key else [])


def _ids(message: _SaidBefore) -> list[str]:
    return [call.id for call in message.tool_calls or ()]


def _assistant(text: str, calls: Sequence[ToolCall]) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return json_bytes.encode(message)


def _stopped(choice: bytes) -> bytes:
    return json_bytes.set_member(choice, "finish_reason", b'"stop"')


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


def _is_empty(data: bytes) -> bool:
    """Nothing is left in a chunk's delta."""
    begin, end = json_bytes.member_spans(data)["choices"]
    choice = data[data.index(b"{", begin) : data.rindex(b"}", begin, end) + 1]
    span = json_bytes.member_spans(choice).get("delta")
    return span is not None and not json_bytes.member_spans(choice[slice(*span)])
