"""What a tool gave, as text: for dialects, and parts of results, that have no better form."""

from __future__ import annotations

from aibridge.wire.tools import ImagePart, ResourcePart, ResultPart, TextPart, ToolResult


def note_of(part: ResultPart) -> str:
    """A part of a result as text; of what can not be shown as text, what it is and how long."""
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, ImagePart):
        return f"[an image, {part.mime_type}, {_size(part.data)} bytes, that can not be shown here]"
    return _note_of_resource(part)


def _note_of_resource(part: ResourcePart) -> str:
    kind = f', type="{part.mime_type}"' if part.mime_type else ""
    head = f'[resource "{part.uri}"{kind}]'
    if part.text is not None:
        return f"{head}\n{part.text}"
    return f"{head} ({_size(part.blob)} bytes)" if part.blob else head


def text_of(result: ToolResult) -> str:
    """A whole result as text."""
    text = "\n".join(note_of(part) for part in result.parts)
    return f"Error: {text}" if result.is_error else text


def _size(base64: str) -> int:
    return len(base64) * 3 // 4
