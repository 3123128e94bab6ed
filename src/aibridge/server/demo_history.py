"""What the provider was told of a conversation in Anthropic Messages, beside what the client told the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """One block of a message."""

    role: str
    text: str
    hidden: bool
    """The client neither sent it nor has seen it."""


def lines(told: Mapping[str, Any], client: Mapping[str, Any]) -> Iterator[Line]:
    """The history in a request that the provider got, when it was for this request of the client's."""
    known = {id_ for _, block in _blocks(client) if (id_ := _call_id(block))}
    for role, block in _blocks(told):
        id_ = _call_id(block)
        yield Line(role, _text(block), hidden=id_ is not None and id_ not in known)


def hidden_calls(told: Mapping[str, Any], client: Mapping[str, Any]) -> list[str]:
    """The names of the calls in such a history that the client does not know of, and that have their results."""
    known = {_call_id(block) for _, block in _blocks(client)}
    answered = {block["tool_use_id"] for _, block in _blocks(told) if block["type"] == "tool_result"}
    calls = [block for _, block in _blocks(told) if block["type"] == "tool_use"]
    return [call["name"] for call in calls if call["id"] in answered - known]


def _blocks(request: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for message in request["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            yield message["role"], block


def _call_id(block: Mapping[str, Any]) -> str | None:
    found: str | None = block.get("id") or block.get("tool_use_id")
    return found


def _text(block: Mapping[str, Any]) -> str:
    match block:
        case {"type": "tool_use", "name": name, "input": arguments}:
            return f"calls {name} {json.dumps(arguments)}"
        case {"type": "tool_result", "content": str(content)}:
            return f"result: {content}"
        case {"type": "tool_result", "content": parts}:
            return "result: " + " ".join(part["text"] for part in parts)
        case _:
            said, directive, _ = str(block.get("text") or block["type"]).partition("[[")
            return f"{said}[[…" if directive else said
