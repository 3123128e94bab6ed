"""Tools that the gateway adds to a request, and what calling one gave: the same for every dialect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as the model sees it."""

    name: str
    """At most 64 of the characters `a-zA-Z0-9_-`, which every dialect takes."""
    description: str
    input_schema: bytes
    """The whole JSON Schema of its arguments: an object, as JSON text."""


class OfferedTools(tuple[OfferedTool, ...]):
    """Tools that are offered together: the same with many requests, so what follows from them is kept."""

    @cached_property
    def names(self) -> frozenset[str]:
        """Under which they are offered."""
        return frozenset(tool.name for tool in self)

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class TextPart:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image; `data` is base64."""

    data: str
    mime_type: str


@dataclass(frozen=True, slots=True)
class ResourcePart:
    """An embedded resource, or (without `text` and `blob`) a link to one; `blob` is base64."""

    uri: str
    mime_type: str | None = None
    text: str | None = None
    blob: str | None = None


ResultPart: TypeAlias = TextPart | ImagePart | ResourcePart


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave, for the model to read."""

    parts: tuple[ResultPart, ...]
    is_error: bool = False


def failure(message: str) -> ToolResult:
    """A result that says why there is none."""
    return ToolResult((TextPart(message),), is_error=True)
