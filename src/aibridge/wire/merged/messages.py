"""Merging the turns of Anthropic Messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.dialect import Reader, Request
from aibridge.wire.merged.merge import Answered, Merge
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


def _assistant(blocks: Sequence[bytes]) -> list[bytes]:
    return [b'{"role":"assistant","content":[%b]}' % b",".join(blocks)] if blocks else []


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
        blocks = [bytes(block) for block in json_bytes.decode(_content, text).content]
        merge.id = merge.id or turn.response_id
        kinds = [(block, json_bytes.decode(_block, block)) for block in blocks]
        hidden = {block for block, kind in kinds if kind.type == "tool_use" and kind.name in merge.names}
        merge.visible += [block for block in blocks if block not in hidden]
        merge.took(turn.tool_calls, _assistant(blocks), json_bytes.decode(_usage, text).usage)
        if merge.turns > 1 or hidden:
            text = json_bytes.set_member(text, "content", b"[%b]" % b",".join(merge.visible))
            text = json_bytes.set_member(text, "usage", json_bytes.encode(merge.usage()))
            text = json_bytes.set_member(text, "id", json_bytes.encode(merge.id))
        if merge.waiting:
            merge.held = [merge.end_without_calls(text)]
        else:
            self._passed = text


class _Kind(msgspec.Struct):
    type: str = ""
    name: str = ""


class _Usage(msgspec.Struct):
    usage: dict[str, Any] | None = None


_block = msgspec.json.Decoder(_Kind)
_usage = msgspec.json.Decoder(_Usage)


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
        passed = self._pass(rest) if rest else b""
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
        merge.took(self.turn.tool_calls, _assistant(self._blocks()), self._usage)
        if delta and (merge.turns > 1 or merge.waiting):
            data = sse.data_of(delta)
            begin, end = json_bytes.member_spans(data)["delta"]
            data = data[:begin] + merge.end_without_calls(data[begin:end]) + data[end:]
            delta = sse.write(json_bytes.set_member(data, "usage", json_bytes.encode(merge.usage())), "message_delta")
        if merge.waiting:
            merge.held = [delta, self._event]
            self._passed = b""
        else:
            self._passed = delta + self._event

    def _blocks(self) -> Sequence[bytes]:
        found = []
        for index, block in self._building.items():
            if index in self._pieces and (text := "".join(self._pieces[index])):
                block["input"] = msgspec.Raw(text.encode())
            if block.get("type") != "text" or block.get("text"):  # an empty text is sent, but not taken back
                found.append(json_bytes.encode(block))
        return found
