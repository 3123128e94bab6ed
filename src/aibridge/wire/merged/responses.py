"""Merging the turns of OpenAI Responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.body import texts
from aibridge.wire.dialect import Reader, Request, Turn
from aibridge.wire.merged.merge import (
    Answered,
    Edit,
    Merge,
    MergedDocument,
    MergedStream,
    Remembered,
    Trail,
    data_of,
    is_hidden,
    recalled,
)
from aibridge.wire.merged.results import note_of, text_of
from aibridge.wire.responses import Event, ResponseDocument, ResponseStream
from aibridge.wire.tools import ImagePart, OfferedTool, OfferedTools, ToolResult


class _Tool(msgspec.Struct):
    name: str | None = None
    tools: list[_Tool] | None = None
    """Of a namespace."""


class Item(msgspec.Struct):
    """What an item is; or in a request, of which tools it tells."""

    type: str = ""
    name: str | None = None
    namespace: str | None = None
    call_id: str | None = None
    tools: list[_Tool] | None = None
    encrypted_content: str | None = None


class _Output(msgspec.Struct):
    output: list[msgspec.Raw] = []
    usage: dict[str, Any] | None = None


_tools = msgspec.json.Decoder(list[_Tool] | None)
_items = msgspec.json.Decoder(list[Item])
_item = msgspec.json.Decoder(Item)
_output = msgspec.json.Decoder(_Output)


class _SaidBefore(msgspec.Struct, gc=False):
    type: str = ""
    role: str = ""
    call_id: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Hidden(msgspec.Struct):
    """The output as the provider saw it, with `_SHOWN` for each item that the client has."""

    types: list[str]
    keys: list[str | None]
    items: list[msgspec.Raw]
    results: list[msgspec.Raw]
    """Of the last turn's hidden calls."""


_SHOWN = msgspec.Raw(b"null")

_said_before = msgspec.json.Decoder(_SaidBefore)
_asked = msgspec.json.Decoder(str | list[_SaidBefore])
_hidden = msgspec.json.Decoder(_Hidden)


@lru_cache(maxsize=16)
def _fragment(tools: OfferedTools) -> bytes:
    """The tools as elements of a request's `tools`. `strict` would forbid most schemas."""
    return b",".join(
        b'{"type":"function","name":%b,"description":%b,"parameters":%b,"strict":false}'
        % (json_bytes.encode(tool.name), json_bytes.encode(tool.description), tool.input_schema)
        for tool in tools
    )


class MergedResponse(Merge):
    """One response: its events carry the first turn's id, its end the last one's, for that can be gone on from.

    Some clients want the end of a stream to carry the first one's as well (`keeps_id`).
    """

    history = "input"
    tools_first = False  # the provider then still finds the client's own, as a prefix, in its cache
    broken_off = frozenset({"incomplete"})

    def __init__(self, request: Request, tools: Sequence[OfferedTool]) -> None:
        super().__init__(request, tools)
        self._has_conversation = self._value("conversation") is not None
        self._stores = self._value("store") is not False
        self.id: str | None = None
        self.next_number: int | None = None
        self.shown_items = 0
        """How many output items the client has seen begin."""
        self.visible: list[bytes] = []
        self._hid = False  # something of the output
        self._items: list[msgspec.Raw] = []
        self._results_of_last: list[msgspec.Raw] = []

    def stream_reader(self) -> Reader:
        """A reader for the next turn's answer in server-sent events."""
        return _StreamReader(self)

    def document_reader(self) -> Reader:
        """A reader for the next turn's answer in one JSON document."""
        return _DocumentReader(self)

    def keep_alive(self) -> bytes:
        """An event `keepalive` with a number of its own."""
        return self.numbered(sse.write(b'{"type":"keepalive","sequence_number":0}', "keepalive"))

    def numbered(self, event: bytes, number: int = -1) -> bytes:
        """An event with the next sequence number in place of `number`."""
        if self.next_number is None:
            self.next_number = max(number, 0)
        due, self.next_number = self.next_number, self.next_number + 1
        if number == due:
            return event
        data = data_of(event)
        told = b"%d" % number
        name = event.partition(b"\n")[0].removeprefix(b"event:").strip().decode() if event[:6] == b"event:" else None
        return sse.write(json_bytes.replace_member(data, "sequence_number", told, b"%d" % due), name)

    def hides(self, item: Item) -> bool:
        """The client is not shown the item; a tool of the same name in a namespace is the client's own."""
        return item.type == "function_call" and item.name in self.names and not item.namespace

    def took_output(self, response: bytes, turn: Turn, output: list[bytes]) -> None:
        """A turn has come to its end, with its final response."""
        told = json_bytes.decode(_output, response)
        kinds = [(item, json_bytes.decode(_item, item)) for item in output]
        visible = [item for item, kind in kinds if not self.hides(kind)]
        if self.is_broken_off(turn):
            kinds = [(item, kind) for item, kind in kinds if not self.hides(kind)]
        said = [
            item
            for item, kind in kinds
            if self._stores or kind.type != "reasoning" or kind.encrypted_content  # else nobody knows it any more
        ]
        self.visible += visible
        self._hid = self._hid or len(visible) < len(output)
        self._items += self._results_of_last
        self._items += [msgspec.Raw(item) if self.hides(kind) else _SHOWN for item, kind in kinds]
        self._results_of_last = []
        settled = {kind.call_id for _, kind in kinds if kind.type.endswith("_call_output")}
        self.took(turn, [] if self._has_conversation else said, told.usage, settled)
        if any(kind.type == "mcp_approval_request" for _, kind in kinds):  # to which the client has to answer
            self.goes_on = False

    def of_all(self, response: bytes) -> bytes:
        """The final response of the last turn, as that of all turns."""
        if self.turns == 1 and not self._hid:
            return response
        output, usage = b"[%b]" % b",".join(self.visible), json_bytes.encode(self.usage() or None)
        return json_bytes.edit(response, {"output": output, "usage": usage})

    def note_id(self, turn: Turn) -> None:
        """The stream of a turn has come to its end, and a later request may go on from there."""
        if self.id and turn.response_id and self.renames(turn):
            self.renamed = (self.id, turn.response_id) if self._stores else None

    def renames(self, turn: Turn) -> bool:
        """The final response of the turn's stream is to have the id that the stream began with."""
        return self.keeps_id and None not in (self.id, turn.response_id) and turn.response_id != self.id

    def _may_offer(self) -> bool:
        """The request does not forbid tools, and is answered at once."""
        return super()._may_offer() and self._value("background") is not True

    def _names_taken(self) -> frozenset[str]:
        tools = json_bytes.decode(_tools, self._member("tools") or b"null") or []
        given = self._member("input")
        if given.startswith(b"["):  # Codex has its tools there
            tools += [tool for item in json_bytes.decode(_items, given) for tool in item.tools or ()]
        return frozenset(_names_of(tools))

    @property
    def _fragment(self) -> bytes:
        return _fragment(self.tools)

    def _with_history(self, elements: bytes) -> Edit:
        given = self._spans.get("input")
        if self._has_conversation or not given:  # the provider keeps it, or there is a `prompt` of its own instead
            return self._set("input", b"[%b]" % elements)
        if self._given.startswith(b"[", *given):
            return self._added("input", elements)
        return Edit(*given, b'[{"role":"user","content":%b},%b]' % (self._given[slice(*given)], elements))

    def _results(self, answered: Sequence[Answered]) -> list[bytes]:
        results = [result_item(call.id, result) for call, result in answered]
        self._results_of_last = [msgspec.Raw(result) for result in results]
        return results

    def restore(self, remembered: Mapping[str, bytes]) -> None:
        """Put hidden calls and results back between the items of the client."""
        if not remembered:
            return
        items = [json_bytes.decode(_said_before, element) for element in self._elements()]
        made = {item.call_id for item in items if item.type.endswith("_call")}
        before: dict[int, list[bytes]] = {}
        after: dict[int, list[bytes]] = {}
        done: list[_Hidden] = []
        for place, keys in enumerate(self._conversation.keys):
            told = recalled(_hidden, remembered, keys)
            if told is None or told in done:
                continue
            if items[place].type.endswith("_call_output"):
                if items[place].call_id in made:
                    continue
                # the calls are with the provider already (`previous_response_id`, `conversation`)
                before[place] = [bytes(result) for result in told.results]
            elif (places := _places(items, keys[0], place, told)) is None:
                continue
            else:
                _put_back(told, places, before, after)
            done.append(told)
        elements = self._elements()
        edited = sorted({*before, *after})
        self._replace({at: b",".join([*before.get(at, ()), elements[at], *after.get(at, ())]) for at in edited})

    def remembered(self) -> Remembered | None:
        """The hidden items, and the results of hidden calls."""
        if not any(is_hidden(item) for item in self._items):
            return None
        trail = self._conversation.trail.copy()
        visible = [json_bytes.decode(_said_before, item) for item in self.visible]
        keys = [_key_of(item, trail) for item in visible]
        own = [item.call_id for item in visible if item.call_id and item.type.endswith("_call")]
        last = next((key for key in reversed(keys) if key), None)
        told = _Hidden([item.type for item in visible], keys, self._items, self._results_of_last)
        found = own or ([last] if last else [])
        return Remembered(found, json_bytes.encode(told)) if found else None

    def _read_history(self, trail: Trail) -> list[list[str]]:
        asked = json_bytes.decode(_asked, self._member(self.history) or b"[]")
        if isinstance(asked, str):
            trail.add("user", [asked])
            return []
        keys = [_key_of(item, trail) for item in asked]
        return [[key] if key else [] for key in keys]


def _names_of(tools: Iterable[_Tool]) -> Iterator[str]:
    for tool in tools:
        if tool.name:
            yield tool.name
        yield from _names_of(tool.tools or ())


def _key_of(item: _SaidBefore, trail: Trail) -> str | None:
    """By which an item is known again: the call that it makes or answers, or its place, if the model said it."""
    if item.call_id:
        return item.call_id
    if item.role == "user":
        trail.add("user", texts(item.content, "input_text", lenient=True))
    elif item.role == "assistant":
        trail.add("assistant", texts(item.content, "output_text", lenient=True))
        return trail.place
    return None


def _type_of(item: _SaidBefore) -> str:
    """The type of an item that a model may have said; empty for others."""
    return (item.type or "message") if item.role in ("", "assistant") else ""


def _places(items: list[_SaidBefore], key: str, place: int, told: _Hidden) -> list[int | None] | None:
    """Where in a request each item is that the client was shown; None where they are not there, in their order.

    Clients may leave out reasoning, which has no place then.
    """
    known = told.keys.index(key) if key in told.keys else -1
    if known < 0 or _type_of(items[place]) != told.types[known]:
        return None
    earlier = _match(items, told.types[:known][::-1], place, -1)
    later = _match(items, told.types[known + 1 :], place, 1)
    return None if earlier is None or later is None else [*earlier[::-1], place, *later]


def _match(items: list[_SaidBefore], types: list[str], at: int, step: int) -> list[int | None] | None:
    """Places of items of these types, next to `at` in one direction."""
    places: list[int | None] = []
    for wanted in types:
        if 0 <= at + step < len(items) and _type_of(items[at + step]) == wanted:
            at += step
            places.append(at)
        elif wanted == "reasoning":
            places.append(None)
        else:
            return None
    return places


def _put_back(
    told: _Hidden, places: list[int | None], before: dict[int, list[bytes]], after: dict[int, list[bytes]]
) -> None:
    """Note what goes before and after the items that the client has."""
    shown = iter(places)
    waiting: list[bytes] = []
    for item in told.items:
        if is_hidden(item):
            waiting.append(bytes(item))
        elif (place := next(shown)) is not None:
            before[place], waiting = waiting, []
    last = max(place for place in places if place is not None)
    after[last] = [*waiting, *(bytes(result) for result in told.results)]


def result_item(call_id: str, result: ToolResult) -> bytes:
    """A `function_call_output` item."""
    output: Any = text_of(result)
    if any(isinstance(part, ImagePart) for part in result.parts):
        output = [
            {"type": "input_image", "image_url": f"data:{part.mime_type};base64,{part.data}"}
            if isinstance(part, ImagePart)
            else {"type": "input_text", "text": note_of(part)}
            for part in result.parts
        ]
    return json_bytes.encode({"type": "function_call_output", "call_id": call_id, "output": output})


class _DocumentReader(MergedDocument, ResponseDocument):
    def __init__(self, merge: MergedResponse) -> None:
        super().__init__()
        self._merge = merge

    def _read(self, text: bytes) -> None:
        super()._read(text)
        if not self.turn.complete:
            return
        output = [bytes(item) for item in json_bytes.decode(_output, text).output]
        merge = self._merge
        merge.took_output(text, self.turn, output)
        if merge.waiting:
            merge.held, self._passed = partial(merge.of_all, text), b""
        else:
            self._passed = merge.of_all(text)


class _StreamReader(MergedStream[Event], ResponseStream):
    """A turn's events: those of hidden items are held back, the others numbered on."""

    def __init__(self, merge: MergedResponse) -> None:
        super().__init__()
        self._merge = merge
        self._places: dict[int, int | None] = {}  # an item's index to the client, by that of the provider
        self._output: list[bytes] = []

    @property
    def last_number(self) -> int:
        """The highest sequence number that the client has seen."""
        return (self._merge.next_number or 0) - 1

    @property
    def shown_id(self) -> str | None:
        """The first turn's."""
        return self._merge.id

    def _read(self, event: Event) -> None:
        super()._read(event)
        merge, kind = self._merge, event.type
        if kind in ("response.created", "response.in_progress", "response.queued"):
            merge.id = merge.id or self.turn.response_id
            self._passed = b"" if merge.turns else self._numbered(self._event, event)
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._end_turn(event)
        elif event.output_index >= 0:
            self._pass_item(event)
        else:
            self._passed = self._numbered(self._event, event)

    def _pass_item(self, event: Event) -> None:
        merge, index = self._merge, event.output_index
        if index not in self._places:
            item = json_bytes.decode(_item, bytes(event.item))
            hidden = merge.hides(item)
            self._places[index] = None if hidden else merge.shown_items
            merge.shown_items += not hidden
        if event.type == "response.output_item.done":
            self._output.append(bytes(event.item))
        place = self._places[index]
        if place is None:
            self._passed = b""
            return
        passed = self._event
        if place != index:
            data = json_bytes.replace_member(data_of(passed), "output_index", b"%d" % index, b"%d" % place)
            passed = sse.write(data, event.type)
        self._passed = self._numbered(passed, event)

    def _end_turn(self, event: Event) -> None:
        merge = self._merge
        if event.type != "response.failed":
            response = bytes(event.response)
            merge.took_output(response, self.turn, self._output or _items_of(response))
        merge.note_id(self.turn)
        if merge.waiting:
            merge.held, self._passed = partial(self._end, event, self._event), b""
        else:
            self._passed = self._end(event, self._event)

    def _end(self, event: Event, passed: bytes) -> bytes:
        """The end of the response that was made of all turns."""
        merge, response = self._merge, bytes(event.response)
        merged = response if event.type == "response.failed" else merge.of_all(response)
        if merge.renames(self.turn):
            merged = json_bytes.set_member(merged, "id", json_bytes.encode(merge.id))
        if merged != response:
            passed = sse.write(json_bytes.set_member(data_of(passed), "response", merged), event.type)
        return self._numbered(passed, event)

    def _numbered(self, event: bytes, told: Event) -> bytes:
        return self._merge.numbered(event, told.sequence_number) if told.sequence_number >= 0 else event


def _items_of(response: bytes) -> list[bytes]:
    return [bytes(item) for item in json_bytes.decode(_output, response).output]
