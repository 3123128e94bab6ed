"""Driving a merge through the turns of one interception, as the bridge does, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aibridge.wire.dialect import ToolCall
from aibridge.wire.merged.merge import Answered, Merge, Remembered
from aibridge.wire.tools import OfferedTool, TextPart, ToolResult
from support.speech import HARBOURS, TIDES, Message, Part, Speech

SCHEMA = b'{"type": "object", "properties": {"harbour": {"type": "string"}}, "$defs": {"x": {"const": 1e0}}}'
OFFERS = (OfferedTool(HARBOURS, "All harbours.", SCHEMA), OfferedTool(TIDES, 'Tides "of" a day.', SCHEMA))

Cut = Callable[[bytes], Iterable[bytes]]


def at_once(answer: bytes) -> Iterable[bytes]:
    """An answer that comes in one piece."""
    return [answer]


def result_of(call_id: str) -> str:
    """What every tool gives: something that names the call."""
    return f"high water, says {call_id}"


@dataclass
class Told:
    """What one interception came to."""

    client: bytes = b""
    """What the client got."""
    bodies: list[bytes] = field(default_factory=list)
    """The request of each turn."""
    remembered: Remembered | None = None
    memory: dict[str, bytes] = field(default_factory=dict)
    """The same, as it is recalled."""


def merge_of(speech: Speech, request: bytes, offers: Sequence[OfferedTool] = OFFERS) -> Merge:
    """The merge for a request that may have tools."""
    merge = speech.dialect.merge(speech.dialect.parse(request), offers)
    assert merge is not None
    return merge


def read_turn(merge: Merge, answer: bytes, *, stream: bool, cut: Cut = at_once) -> bytes:
    """What the client gets of the next turn."""
    reader = merge.stream_reader() if stream else merge.document_reader()
    return b"".join([reader.feed(piece) for piece in cut(answer)]) + reader.close()


def run_tools(merge: Merge) -> None:
    """Run the calls that wait."""

    def run(call: ToolCall) -> Answered:
        return Answered(call, ToolResult((TextPart(result_of(call.id)),)))

    merge.add_results([run(call) for call in merge.waiting])


def converse(
    speech: Speech,
    request: bytes,
    turns: Sequence[Sequence[Part]],
    *,
    stream: bool = True,
    cut: Cut = at_once,
    memory: Mapping[str, bytes] | None = None,
) -> Told:
    """The whole of an interception."""
    merge = merge_of(speech, request)
    told = Told(memory=dict(memory or {}))
    keys = merge.keys()
    merge.restore({key: told.memory[key] for key in keys if key in told.memory})
    for number, parts in enumerate(turns, 1):
        told.bodies.append(merge.body)
        told.client += read_turn(merge, speech.answer(number, parts, stream=stream), stream=stream, cut=cut)
        if not merge.waiting:
            break
        run_tools(merge)
        if not merge.goes_on:
            told.client += merge.end()
            break
    told.remembered = merge.remembered()
    if told.remembered:
        told.memory |= dict.fromkeys(told.remembered.keys, told.remembered.hidden)
    return told


def history_in(speech: Speech, body: bytes) -> list[Any]:
    """The conversation that a request holds; ids of items do not matter to it."""
    elements: list[Any] = json.loads(body)[speech.history]
    return [{name: value for name, value in element.items() if name != "id"} for element in elements]


def heard(speech: Speech, told: Told, *, stream: bool = True) -> Message:
    """The client's message."""
    return speech.heard(told.client, stream=stream)
