"""What a server answered to a call, as the model gets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from aibridge.wire import json_bytes
from aibridge.wire.tools import ImagePart, ResourcePart, ResultPart, TextPart, ToolResult

if TYPE_CHECKING:
    from mcp.types import CallToolResult

_PART_OVERHEAD = 64
"""Bytes that a part counts for beside its contents, so that many empty ones have an end as well."""


def tool_result(answer: CallToolResult, max_size: int) -> ToolResult:
    """The parts of an answer, of `max_size` bytes together (base64 as it is) and a note where something was cut.

    Structured content is for programs; it stands in only where there is nothing else.
    """
    parts = [_part(block) for block in answer.content]
    if not parts and answer.structured_content is not None:
        parts = [TextPart(json_bytes.encode(answer.structured_content).decode())]
    size = sum(_size(part) for part in parts)
    if size > max_size:
        parts = [*_beginning(parts, max_size), TextPart(_CUT.format(size=size, max_size=max_size))]
    return ToolResult(tuple(parts), is_error=answer.is_error)


_CUT = "[cut: the result has {size} bytes, of which no more than {max_size} are passed on; ask for less at once]"


def _part(block: Any) -> ResultPart:
    """One content block (https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result)."""
    match block.type:
        case "text":
            return TextPart(block.text)
        case "image":
            return ImagePart(block.data, block.mime_type)
        case "resource":
            contents = block.resource
            text, blob = getattr(contents, "text", None), getattr(contents, "blob", None)
            return ResourcePart(str(contents.uri), contents.mime_type, text=text, blob=blob)
        case "resource_link":
            return ResourcePart(str(block.uri), block.mime_type)
        case "audio":
            return TextPart(f"[audio, {block.mime_type}: it can not be passed on]")
        case other:
            return TextPart(f"[content of the type {other}: it can not be passed on]")


def _size(part: ResultPart) -> int:
    return _PART_OVERHEAD + sum(
        len(text.encode("utf-8", "replace")) for text in (_text(part), _base64(part), _uri(part)) if text
    )


def _text(part: ResultPart) -> str | None:
    return None if isinstance(part, ImagePart) else part.text


def _base64(part: ResultPart) -> str | None:
    return part.data if isinstance(part, ImagePart) else part.blob if isinstance(part, ResourcePart) else None


def _uri(part: ResultPart) -> str | None:
    return part.uri if isinstance(part, ResourcePart) else None


def _beginning(parts: list[ResultPart], room: int) -> Iterator[ResultPart]:
    """The parts that fit, and the beginning of the first text that does not."""
    for part in parts:
        if (size := _size(part)) <= room:
            room -= size
            yield part
        elif text := _text(part):
            left = room - size + len(text.encode("utf-8", "replace"))
            if left > 0:
                cut = text.encode("utf-8", "replace")[:left].decode("utf-8", "ignore")
                yield replace(cast("TextPart | ResourcePart", part), text=cut)
            return
