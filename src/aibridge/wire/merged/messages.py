"""Merging the turns of Anthropic Messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.body import last_own
from aibridge.wire.dialect import Reader, Request, Turn
from aibridge.wire.merged.merge import (
    Answered,
    Merge,
    MergedDocument,
    MergedStream,
    Remembered,
    Trail,
    data_of,
    is_hidden,
    recalled,
)
from aibridge.wire.merged.results import note_of
from aibridge.wire.messages import Event, MessageDocument, Messages, MessageStream
from aibridge.wire.tools import ImagePart, OfferedTool, OfferedTools, ToolResult

_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class _Tool(msgspec.Struct):
    name: str = ""


class _Content(msgspec.Struct):
    content: list[msgspec.Raw] = []


class _Start(msgspec.Struct):
    content_block: msgspec.Raw = msgspec.Raw(b"{}")


_content = msgspec.json.Decoder(_Content)
_deltas = msgspec.json.Decoder(list[dict[str, Any]])
_start = msgspec.json.Decoder(_Start)


# `gc=False`: a long history is many of these, and nothing that they hold can hold them.
class Kind(msgspec.Struct, gc=False):
    """What a block is."""

    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""


class _Usage(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _Said(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"[]")


class _SaidBefore(msgspec.Struct, gc=False):
    """A message of the history; it may be long, and is read in one go."""

    role: str = ""
    content: str | list[Kind] = []


class _HiddenTurn(msgspec.Struct):
    """A turn as the provider saw it; a block that the client has is only named (`_name_of`)."""

    blocks: list[msgspec.Raw]
    results: list[msgspec.Raw] = []


_block = msgspec.json.Decoder(Kind)
_tools = msgspec.json.Decoder(list[_Tool] | None)
_usage = msgspec.json.Decoder(_Usage)
_said = msgspec.json.Decoder(_Said)
_asked = msgspec.json.Decoder(list[_SaidBefore])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, Any])
_hidden = msgspec.json.Decoder(list[_HiddenTurn])


@lru_cache(maxsize=16)
def _fragment(tools: OfferedTools) -> bytes:
    """The tools as elements of a request's `tools`."""
    return b",".join(
        b'{"name":%b,"description":%b,"input_schema":%b}'
        % (json_bytes.encode(tool.name), json_bytes.encode(tool.description), tool.input_schema)
        for tool in tools
    )


class MergedMessage(Merge):
    """One message: the first turn's id, the last one's stop reason, the blocks of all but the injected calls."""

    history = "messages"
    tools_first = True  # the client's cache breakpoints then still cover the same tools in the same order
    broken_off = frozenset({"max_tokens", "model_context_window_exceeded", "refusal"})

    def __init__(self, request: Request, tools: Sequence[OfferedTool]) -> None:
        super().__init__(request, tools)
        self.started = False
        self.id: str | None = None
        self.blocks = 0
        """How many blocks the client has seen."""
        self.visible: list[bytes] = []
        """The blocks of documents that the client is shown."""
        self._texts: list[str] = []
        self._turns: list[_HiddenTurn] = []

    def stream_reader(self) -> Reader:
        """A reader for the next turn's answer in server-sent events."""
        return _Stream(self)

    def document_reader(self) -> Reader:
        """A reader for the next turn's answer in one JSON document."""
        return _Document(self)

    def end_without_calls(self, data: bytes) -> bytes:
        """The JSON object that names the stop reason, where none of the calls it stands for is shown to the client."""
        return json_bytes.set_member(data, "stop_reason", b'"end_turn"') if self.goes_on else data

    def keep_alive(self) -> bytes:
        """A `ping`."""
        return Messages.keep_alive

    def took_blocks(self, turn: Turn, blocks: Sequence[bytes], usage: dict[str, Any] | None) -> None:
        """A turn has come to its end: all its blocks, in order."""
        kinds = [(block, json_bytes.decode(_block, block)) for block in blocks]
        runs = not self.is_broken_off(turn)
        said = [(block, kind) for block, kind in kinds if not _says_nothing(kind) and (runs or not self.hides(kind))]
        self._turns.append(
            _HiddenTurn([msgspec.Raw(block) if self.hides(kind) else _name_of(kind) for block, kind in said])
        )
        self._texts += [kind.text for _, kind in said if kind.type == "text"]
        told = b",".join(block for block, _ in said)
        self.took(turn, [b'{"role":"assistant","content":[%b]}' % told] if told else [], usage)

    def took_seen(self, turn: Turn, blocks: Sequence[Kind], usage: dict[str, Any] | None) -> None:
        """The same for a turn of which the client has seen all: with it the message ends."""
        said = [kind for kind in blocks if not _says_nothing(kind)]
        self._turns.append(_HiddenTurn([_name_of(kind) for kind in said]))
        self._texts += [kind.text for kind in said if kind.type == "text"]
        self.took(turn, [], usage)

    def hides(self, block: Kind) -> bool:
        """The client is not shown the block."""
        return block.type == "tool_use" and block.name in self.names

    def restore(self, remembered: Mapping[str, bytes]) -> None:
        """Split each message into the turns that it was, with the hidden calls and their results."""
        if not remembered:
            return
        messages = self._elements()
        restored: dict[int, bytes] = {}
        for place, keys in enumerate(self._conversation.keys):
            hidden = recalled(_hidden, remembered, keys)
            following = messages[place + 1] if place + 1 < len(messages) else None
            if hidden and (parts := _put_back(messages[place], hidden, following)):
                restored[place] = parts[0]
                if parts[1]:
                    restored[place + 1] = parts[1]
        self._replace(restored)

    def remembered(self) -> Remembered | None:
        """The hidden calls and results, turn by turn."""
        if not any(is_hidden(block) for turn in self._turns for block in turn.blocks):
            return None
        trail = self._conversation.trail.copy()
        trail.add("assistant", self._texts)
        keys = [call.id for call in self._own_calls] or ([trail.place] if self._texts else [])
        return Remembered(keys, json_bytes.encode(self._turns)) if keys else None

    def _read_history(self, trail: Trail) -> list[list[str]]:
        keys: list[list[str]] = []
        for message in json_bytes.decode(_asked, self._member(self.history) or b"[]"):
            known: list[str] = []
            keys.append(known)
            texts = _texts_of(message)
            if message.role == "user":
                if texts:  # most only hold results
                    trail.add("user", texts if isinstance(message.content, str) else [last_own(texts) or ""])
            elif message.role == "assistant":
                trail.add("assistant", texts)
                if not isinstance(message.content, str):
                    known += [kind.id for kind in message.content if kind.type == "tool_use"]
                if not known and any(text.strip() for text in texts):
                    known.append(trail.place)
        return keys

    def _names_taken(self) -> frozenset[str]:
        tools = json_bytes.decode(_tools, self._member("tools") or b"null") or ()
        return frozenset(tool.name for tool in tools)

    @property
    def _fragment(self) -> bytes:
        return _fragment(self.tools)

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
        elif (text := note_of(part)).strip():  # a blank one is refused
            content.append({"type": "text", "text": text})
    if result.is_error and not content:  # which is refused as well
        content.append({"type": "text", "text": "Error"})
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id, "content": content}
    return json_bytes.encode(block | ({"is_error": True} if result.is_error else {}))


def _blocks_of(content: msgspec.Raw) -> list[bytes]:
    """The blocks of a message's content; a string is one of text. Blank texts do not count (see `_is_blank`)."""
    told = bytes(content)
    if told.startswith(b'"'):
        return [b'{"type":"text","text":%b}' % told]
    return [block for raw in json_bytes.decode(_raws, told) if not _is_blank(block := bytes(raw))]


def _texts_of(message: _SaidBefore) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [block.text for block in message.content if block.type == "text"]


def _is_blank(block: bytes) -> bool:
    return _says_nothing(json_bytes.decode(_block, block))


def _name_of(kind: Kind) -> msgspec.Raw:
    """What stands in memory for a block that the client will send again: enough to see that it is that one."""
    return msgspec.Raw(json_bytes.encode(kind.id or kind.type))


def _says_nothing(kind: Kind) -> bool:
    """A text of nothing but space, which the provider says but does not take back."""
    return kind.type == "text" and not kind.text.strip()


def _put_back(message: bytes, turns: list[_HiddenTurn], following: bytes | None) -> tuple[bytes, bytes | None] | None:
    """The messages in place of one, and the one that follows with hidden results added; None where they do not fit."""
    visible = _blocks_of(json_bytes.decode(_said, message).content)
    names = [_name_of(json_bytes.decode(_block, block)) for block in visible]
    if names != [block for turn in turns for block in turn.blocks if not is_hidden(block)]:
        return None
    shown = iter(visible)
    told = []
    for turn in turns:
        blocks = b",".join(bytes(block) if is_hidden(block) else next(shown) for block in turn.blocks)
        if blocks:  # models may have nothing to say to a result
            told.append(b'{"role":"assistant","content":[%b]}' % blocks)
        if turn is not turns[-1]:
            told.append(b'{"role":"user","content":[%b]}' % b",".join(bytes(result) for result in turn.results))
    results = b",".join(bytes(result) for result in turns[-1].results)
    if not results:
        return b",".join(told), None
    if following is None or json_bytes.decode(_said, following).role != "user":
        return None
    begin, end = json_bytes.member_spans(following).get("content", (0, 0))
    content = following[begin:end]
    if content.startswith(b'"'):
        content = b'[{"type":"text","text":%b}]' % content
    elif not content.startswith(b"["):
        return None
    return b",".join(told), following[:begin] + json_bytes.insert_first(content, results) + following[end:]


class _Block:
    """A block that is put together again from its events: it goes back to the provider, and must be as it was."""

    def __init__(self, start: bytes) -> None:
        self.kind = json_bytes.decode(_block, start)
        self._start = start
        self.deltas: list[bytes] = []
        """As they came; most blocks are never put together."""

    def seen(self) -> Kind:
        """What the block is, and its whole text."""
        kind = self.kind
        if kind.type == "text":
            kind.text += "".join([told for delta in _all(self.deltas) if isinstance(told := delta.get("text"), str)])
        return kind

    def whole(self) -> bytes:
        """The block as a document would hold it."""
        begun = json_bytes.decode(_object, self._start)
        block = self._start
        added: dict[str, list[Any]] = {}
        for delta in _all(self.deltas):
            for name, value in delta.items():
                if name != "type":
                    added.setdefault(name, []).append(value)
        for name, values in added.items():
            texts = [value for value in values if isinstance(value, str)]
            if name == "partial_json":
                if text := "".join(texts):
                    block = json_bytes.set_member(block, "input", _input_of(text))
            elif name == "citation":
                cited = [*(begun.get("citations") or ()), *values]
                block = json_bytes.set_member(block, "citations", json_bytes.encode(cited))
            else:
                whole = "".join([begun.get(name) or "", *texts]) if texts else values[-1]
                block = json_bytes.set_member(block, name, json_bytes.encode(whole))
        return block


def _all(deltas: Sequence[bytes]) -> list[dict[str, Any]]:
    """The deltas decoded, but for those that can not be."""
    try:
        return json_bytes.decode(_deltas, b"[%b]" % b",".join(deltas))
    except (msgspec.DecodeError, RecursionError):
        return [told for delta in deltas for told in _all([delta])] if len(deltas) > 1 else []


def _input_of(text: str) -> bytes:
    """The input of a call. One that was cut, or never was JSON, goes back as Anthropic's documentation has it.

    Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    """
    try:
        json_bytes.decode(_object, text.encode())
    except (msgspec.DecodeError, RecursionError):
        return json_bytes.encode({"INVALID_JSON": text})
    return text.encode()


class _Document(MergedDocument, MessageDocument):
    def __init__(self, merge: MergedMessage) -> None:
        super().__init__()
        self._merge = merge

    def _read(self, text: bytes) -> None:
        super()._read(text)
        merge, turn = self._merge, self.turn
        if not turn.complete:
            return
        merge.id = merge.id or turn.response_id
        blocks = [bytes(block) for block in json_bytes.decode(_content, text).content]
        visible = [block for block in blocks if not merge.hides(json_bytes.decode(_block, block))]
        merge.visible += visible
        merge.took_blocks(turn, blocks, json_bytes.decode(_usage, text).usage)
        if merge.waiting:
            merge.held, self._passed = partial(self._of_all, text), b""
        elif merge.turns > 1 or len(visible) < len(blocks):
            self._passed = self._of_all(text)

    def _of_all(self, text: bytes) -> bytes:
        """The message that was made of all turns."""
        merge = self._merge
        content = b"[%b]" % b",".join(merge.visible)
        usage, told = json_bytes.encode(merge.usage()), json_bytes.encode(merge.id)
        return merge.end_without_calls(json_bytes.edit(text, {"content": content, "usage": usage, "id": told}))


class _Stream(MergedStream[Event], MessageStream):
    """A turn's events: those of hidden blocks are held back, the others numbered on."""

    def __init__(self, merge: MergedMessage) -> None:
        super().__init__()
        self._merge = merge
        self._numbers: dict[int, int] = {}  # a block's index to the client, by that of the provider
        self._building: dict[int, _Block] = {}
        self._deltas: list[bytes] = []

    def _read(self, event: Event) -> None:
        super()._read(event)
        kind, merge = event.type, self._merge
        if kind == "content_block_delta":
            if block := self._building.get(event.index):
                block.deltas.append(bytes(event.delta))
            self._renumber(event)
        elif kind == "content_block_start":
            block = _Block(bytes(json_bytes.decode(_start, data_of(self._event)).content_block))
            self._building[event.index] = block
            if not merge.hides(block.kind):
                self._numbers[event.index] = merge.blocks
                merge.blocks += 1
            self._renumber(event)
        elif kind == "content_block_stop":
            self._renumber(event)
        elif kind == "message_start":
            self._passed = b"" if merge.started else self._event
            merge.started = True
        elif kind == "message_delta":
            self._deltas.append(self._event)  # what it must say is known at the end of the turn
            self._passed = b""
        elif kind == "message_stop":
            self._end_turn()

    def _renumber(self, event: Event) -> None:
        number = self._numbers.get(event.index)
        if number is None:
            self._passed = b""
        elif number != event.index:
            data = json_bytes.replace_member(data_of(self._event), "index", b"%d" % event.index, b"%d" % number)
            self._passed = sse.write(data, event.type)

    def _end_turn(self) -> None:
        merge = self._merge
        blocks = list(self._building.values())
        if any(merge.hides(block.kind) for block in blocks):
            merge.took_blocks(self.turn, [block.whole() for block in blocks], self._usage)
        else:  # the message is at its end, and the client has all of it
            merge.took_seen(self.turn, [block.seen() for block in blocks] if merge.turns else [], self._usage)
        if merge.waiting:
            merge.held, self._passed = partial(self._end_of_all, self._event), b""
        elif merge.turns > 1:
            self._passed = self._end_of_all(self._event)
        else:
            self._passed = b"".join([*self._deltas, self._event])

    def _end_of_all(self, stop: bytes) -> bytes:
        """The end of the message that was made of all turns."""
        return b"".join([*map(self._of_all, self._deltas), sse.write(data_of(stop), "message_stop")])

    def _of_all(self, event: bytes) -> bytes:
        """A `message_delta` that speaks for all turns."""
        merge, data = self._merge, data_of(event)
        changes = {"usage": json_bytes.encode(merge.usage())}
        if merge.goes_on and (span := json_bytes.member_spans(data).get("delta")):
            changes["delta"] = merge.end_without_calls(data[slice(*span)])
        return sse.write(json_bytes.edit(data, changes), "message_delta")
