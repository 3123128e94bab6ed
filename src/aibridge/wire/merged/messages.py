"""Merging the turns of Anthropic Messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.dialect import Reader, Request, ToolCall
from aibridge.wire.merged.merge import SHOWN, Answered, Merge, Remembered, digest, is_hidden
from aibridge.wire.merged.results import note_of
from aibridge.wire.messages import Event, MessageDocument, Messages, MessageStream
from aibridge.wire.tools import ImagePart, OfferedTool, ToolResult

_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class _Choice(msgspec.Struct):
    type: str = ""


class _Tool(msgspec.Struct):
    name: str = ""


class _Members(msgspec.Struct):
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None


class _Content(msgspec.Struct):
    content: list[msgspec.Raw] = []


class _Delta(msgspec.Struct):
    delta: dict[str, Any] = {}


class _Start(msgspec.Struct):
    content_block: dict[str, Any] = {}


_members = msgspec.json.Decoder(_Members)
_content = msgspec.json.Decoder(_Content)
_delta = msgspec.json.Decoder(_Delta)
_start = msgspec.json.Decoder(_Start)


class _Kind(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""


class _Usage(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _Said(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"[]")


class _History(msgspec.Struct):
    messages: list[_Said] = []


class _HiddenTurn(msgspec.Struct):
    """A turn as the provider saw it, with `SHOWN` for each block that the client has."""

    blocks: list[msgspec.Raw]
    results: list[msgspec.Raw] = []


_block = msgspec.json.Decoder(_Kind)
_usage = msgspec.json.Decoder(_Usage)
_history = msgspec.json.Decoder(_History)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_hidden = msgspec.json.Decoder(list[_HiddenTurn])


def may_offer(body: bytes) -> bool:
    """The request does not forbid tools."""
    try:
        choice = json_bytes.decode(_members, body).tool_choice
    except msgspec.DecodeError:
        return False
    return choice is None or choice.type != "none"


@lru_cache(maxsize=16)
def _fragment(tools: tuple[OfferedTool, ...]) -> bytes:
    """The tools as elements of a request's `tools`."""
    return b",".join(
        b'{"name":%b,"description":%b,"input_schema":%b}'
        % (json_bytes.encode(tool.name), json_bytes.encode(tool.description), tool.input_schema)
        for tool in tools
    )


class MergedMessage(Merge):
    """One message: the first turn's id, the last one's stop reason, the blocks of all but the injected calls."""

    history = "messages"

    def __init__(self, request: Request, tools: Sequence[OfferedTool]) -> None:
        super().__init__(request, tools)
        self.started = False
        self.id: str | None = None
        self.blocks = 0
        """How many blocks the client has seen."""
        self.visible: list[bytes] = []
        self.held: list[bytes] = []
        self._own_calls: list[str] = []
        self._texts: list[str] = []
        self._turns: list[_HiddenTurn] = []

    def stream_reader(self) -> Reader:
        """A reader for the next turn's answer in server-sent events."""
        return _Stream(self)

    def document_reader(self) -> Reader:
        """A reader for the next turn's answer in one JSON document."""
        return _Document(self)

    def end(self) -> bytes:
        """The end of the message."""
        return b"".join(self.held)

    def end_without_calls(self, data: bytes) -> bytes:
        """The JSON object that names the stop reason, where none of the calls it stands for is shown to the client."""
        return json_bytes.set_member(data, "stop_reason", b'"end_turn"') if self.goes_on else data

    def keep_alive(self) -> bytes:
        """A `ping`."""
        return Messages.keep_alive

    def took_blocks(self, calls: Sequence[ToolCall], blocks: Sequence[bytes], usage: dict[str, Any] | None) -> None:
        """A turn has come to its end: all its blocks, in order."""
        kinds = [json_bytes.decode(_block, block) for block in blocks]
        hidden = [kind.type == "tool_use" and kind.name in self.names for kind in kinds]
        self._turns.append(
            _HiddenTurn([msgspec.Raw(block) if hide else SHOWN for block, hide in zip(blocks, hidden, strict=True)])
        )
        self._own_calls = [
            kind.id for kind, hide in zip(kinds, hidden, strict=True) if kind.type == "tool_use" and not hide
        ]
        self._texts += [kind.text for kind in kinds if kind.type == "text"]
        self.visible += [block for block, hide in zip(blocks, hidden, strict=True) if not hide]
        self.took(calls, [b'{"role":"assistant","content":[%b]}' % b",".join(blocks)] if blocks else [], usage)

    def keys(self) -> list[str]:
        """Of each of the assistant's messages: the calls in it, or its text."""
        return [key for message in self._history() for key in _keys_of(message)]

    def restore(self, remembered: Mapping[str, bytes]) -> None:
        """Split each message into the turns that it was, with the hidden calls and their results."""
        if not remembered:
            return
        begin, end = json_bytes.member_spans(self._given)["messages"]
        array = self._given[begin:end]
        spans = json_bytes.element_spans(array)
        messages = [array[slice(*span)] for span in spans]
        for place, message in enumerate(self._history()):
            hidden = next((remembered[key] for key in _keys_of(message) if key in remembered), None)
            following = messages[place + 1] if place + 1 < len(messages) else None
            if hidden and (parts := _put_back(message, json_bytes.decode(_hidden, hidden), following)):
                messages[place] = parts[0]
                if parts[1]:
                    messages[place + 1] = parts[1]
        self._given = self._given[:begin] + b"[%b]" % b",".join(messages) + self._given[end:]

    def remembered(self) -> Remembered | None:
        """The hidden calls and results, turn by turn."""
        if not any(is_hidden(block) for turn in self._turns for block in turn.blocks):
            return None
        key = digest(self._texts)
        keys = self._own_calls or ([key] if key else [])
        return Remembered(keys, json_bytes.encode(self._turns)) if keys else None

    def _history(self) -> list[_Said]:
        try:
            return json_bytes.decode(_history, self._given).messages
        except (msgspec.DecodeError, RecursionError):
            return []

    def _names_taken(self, body: bytes) -> frozenset[str]:
        tools = json_bytes.decode(_members, body).tools or ()
        return frozenset(tool.name for tool in tools)

    def _with_tools(self, body: bytes) -> bytes:
        """Before the client's own, whose cache breakpoints then still cover the same tools in the same order."""
        span = json_bytes.member_spans(body).get("tools")
        own = body[slice(*span)] if span else b"[]"
        offered = json_bytes.insert_first(own if own.startswith(b"[") else b"[]", _fragment(tuple(self.tools)))
        return json_bytes.set_member(body, "tools", offered)

    def _results(self, answered: Sequence[Answered]) -> list[bytes]:
        blocks = [result_block(call.id, result) for call, result in answered]
        self._turns[-1].results = [msgspec.Raw(block) for block in blocks]
        return [b'{"role":"user","content":[%b]}' % b",".join(blocks)] if self.goes_on else []


def result_block(call_id: str, result: ToolResult) -> bytes:
    """A `tool_result` block."""
    content = []
    for part in result.parts:
        if isinstance(part, ImagePart) and part.mime_type in _IMAGES:
            source = {"type": "base64", "media_type": part.mime_type, "data": part.data}
            content.append({"type": "image", "source": source})
        elif text := note_of(part):
            content.append({"type": "text", "text": text})
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id, "content": content}
    return json_bytes.encode(block | ({"is_error": True} if result.is_error else {}))


def _keys_of(message: _Said) -> list[str]:
    if message.role != "assistant":
        return []
    blocks = _blocks_of(message.content)
    kinds = [json_bytes.decode(_block, block) for block in blocks]
    calls = [kind.id for kind in kinds if kind.type == "tool_use"]
    key = None if calls else digest(kind.text for kind in kinds if kind.type == "text")
    return calls or ([key] if key else [])


def _blocks_of(content: msgspec.Raw) -> list[bytes]:
    """The blocks of a message's content; a string is one of text. Empty texts do not count, for they do not last."""
    told = bytes(content)
    if told.startswith(b'"'):
        return [b'{"type":"text","text":%b}' % told]
    return [block for raw in json_bytes.decode(_raws, told) if not _is_empty(block := bytes(raw))]


def _is_empty(block: bytes) -> bool:
    kind = json_bytes.decode(_block, block)
    return kind.type == "text" and not kind.text


def _put_back(message: _Said, turns: list[_HiddenTurn], following: bytes | None) -> tuple[bytes, bytes | None] | None:
    """The messages in place of one, and the one that follows with hidden results added; None where they do not fit."""
    visible = _blocks_of(message.content)
    if len(visible) != sum(not is_hidden(block) for turn in turns for block in turn.blocks):
        return None
    shown = iter(visible)
    told = []
    for turn in turns:
        blocks = b",".join(bytes(block) if is_hidden(block) else next(shown) for block in turn.blocks)
        told.append(b'{"role":"assistant","content":[%b]}' % blocks)
        if turn is not turns[-1]:
            told.append(b'{"role":"user","content":[%b]}' % b",".join(bytes(result) for result in turn.results))
    results = b",".join(bytes(result) for result in turns[-1].results)
    if not results:
        return b",".join(told), None
    span = json_bytes.member_spans(following).get("content") if following else None
    if following is None or span is None or not following[slice(*span)].startswith(b"["):
        return None
    answered = json_bytes.insert_first(following[slice(*span)], results)
    return b",".join(told), following[: span[0]] + answered + following[span[1] :]


class _Document(MessageDocument):
    """A turn's document is held until it is known whether it is the last."""

    rewrites = True

    def __init__(self, merge: MergedMessage) -> None:
        super().__init__()
        self._merge = merge

    def feed(self, data: bytes) -> bytes:
        super().feed(data)
        return b""

    def close(self) -> bytes:
        super().close()
        return self._passed

    _passed = b""

    def _read(self, text: bytes) -> None:
        super()._read(text)
        merge, turn = self._merge, self.turn
        if not turn.complete:
            self._passed = text
            return
        merge.id = merge.id or turn.response_id
        blocks = [bytes(block) for block in json_bytes.decode(_content, text).content]
        merge.took_blocks(turn.tool_calls, blocks, json_bytes.decode(_usage, text).usage)
        if merge.turns > 1 or merge.waiting:
            text = json_bytes.set_member(text, "content", b"[%b]" % b",".join(merge.visible))
            text = json_bytes.set_member(text, "usage", json_bytes.encode(merge.usage()))
            text = json_bytes.set_member(text, "id", json_bytes.encode(merge.id))
        if merge.waiting:
            merge.held = [merge.end_without_calls(text)]
        else:
            self._passed = text


class _Stream(MessageStream):
    """A turn's events: those of hidden blocks are held back, the others numbered on."""

    rewrites = True
    between_events = True

    def __init__(self, merge: MergedMessage) -> None:
        super().__init__()
        self._merge = merge
        self._numbers: dict[int, int] = {}  # a block's index to the client, by that of the provider
        self._building: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}
        self._delta: bytes | None = None
        merge.held = []

    def feed(self, data: bytes) -> bytes:
        return b"".join([self._pass(event) for event in self._splitter.feed(data)])

    def close(self) -> bytes:
        rest = self._splitter.rest()
        passed = self._pass(rest) if rest.strip() else b""
        self._finish()
        return passed

    def _pass(self, event: bytes) -> bytes:
        self._event, self._passed = event, event
        self._take(event)
        return self._passed

    def _read(self, event: Event) -> None:
        super()._read(event)
        kind, merge = event.type, self._merge
        if kind == "content_block_delta":
            self._add(event.index)
            self._renumber(event)
        elif kind == "content_block_start":
            block = json_bytes.decode(_start, sse.data_of(self._event)).content_block
            self._building[event.index] = block
            if not (block.get("type") == "tool_use" and block.get("name") in merge.names):
                self._numbers[event.index] = merge.blocks
                merge.blocks += 1
            self._renumber(event)
        elif kind == "content_block_stop":
            self._renumber(event)
        elif kind == "message_start":
            self._passed = b"" if merge.started else self._event
            merge.started = True
        elif kind == "message_delta":
            self._delta, self._passed = self._event, b""  # what it must say is known at the end of the turn
        elif kind == "message_stop":
            self._end_turn()

    def _add(self, index: int) -> None:
        """Put together the block that goes back to the provider: it must be what the provider said."""
        block = self._building.get(index)
        if block is None:
            return
        delta = json_bytes.decode(_delta, sse.data_of(self._event)).delta
        kind = delta.get("type")
        for name, to in (("text", "text"), ("thinking", "thinking"), ("signature", "signature")):
            if kind == f"{name}_delta":
                block[to] = block.get(to, "") + delta.get(name, "")
        if kind == "input_json_delta":
            self._pieces.setdefault(index, []).append(delta.get("partial_json", ""))
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]

    def _renumber(self, event: Event) -> None:
        number = self._numbers.get(event.index)
        if number is None:
            self._passed = b""
        elif number != event.index:
            data = json_bytes.set_member(sse.data_of(self._event), "index", str(number).encode())
            self._passed = sse.write(data, event.type)

    def _end_turn(self) -> None:
        merge, delta = self._merge, self._delta or b""
        merge.took_blocks(self.turn.tool_calls, self._blocks(), self._usage)
        if delta and (merge.turns > 1 or merge.waiting):
            data = sse.data_of(delta)
            begin, end = json_bytes.member_spans(data)["delta"]
            data = data[:begin] + merge.end_without_calls(data[begin:end]) + data[end:]
            delta = sse.write(json_bytes.set_member(data, "usage", json_bytes.encode(merge.usage())), "message_delta")
        stop = self._event
        if merge.turns > 1 or merge.waiting:
            stop = sse.write(sse.data_of(stop), "message_stop")
        if merge.waiting:
            merge.held = [delta, stop]
            self._passed = b""
        else:
            self._passed = delta + stop

    def _blocks(self) -> Sequence[bytes]:
        found = []
        for index, block in self._building.items():
            if index in self._pieces and (text := "".join(self._pieces[index])):
                block["input"] = msgspec.Raw(text.encode())
            if block.get("type") != "text" or block.get("text"):  # an empty text is sent, but not taken back
                found.append(json_bytes.encode(block))
        return found
