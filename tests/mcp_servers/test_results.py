"""What becomes of a server's answer: every kind of content, and a bound on all of it together."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mcp.types import CallToolResult, ImageContent, TextContent

from aibridge.mcp.results import tool_result
from aibridge.wire.tools import ImagePart, ResourcePart, TextPart


def answer(*content: dict[str, Any], **members: Any) -> CallToolResult:
    return CallToolResult.model_validate({"content": list(content), **members})


def test_structured_content_stands_in_only_where_there_is_nothing_else() -> None:
    words = {"type": "text", "text": "20 degrees"}
    assert tool_result(answer(structuredContent={"d": 20}), 100).parts == (TextPart('{"d":20}'),)
    assert tool_result(answer(words, structuredContent={"d": 20}), 100).parts == (TextPart("20 degrees"),)


def test_an_error_stays_one() -> None:
    assert tool_result(answer({"type": "text", "text": "no"}, isError=True), 100).is_error


def test_a_text_is_cut_between_characters_and_says_so() -> None:
    words, note = tool_result(answer({"type": "text", "text": "ü" * 100}), 64 + 11).parts
    assert words == TextPart("ü" * 5)
    assert isinstance(note, TextPart)
    assert note.text.startswith("[cut: the result has 264 bytes")


def test_an_image_that_does_not_fit_is_left_out_and_the_rest_is_kept() -> None:
    image = {"type": "image", "data": "A" * 1000, "mimeType": "image/png"}
    small = {"type": "text", "text": "a chart"}
    first, note = tool_result(answer(image, small), 500).parts
    assert first == TextPart("a chart")
    assert isinstance(note, TextPart)
    assert note.text.startswith("[cut: ")


def test_the_text_of_a_resource_is_cut_like_any_other() -> None:
    text = {"uri": "file:///a", "text": "x" * 1000}
    resource, _ = tool_result(answer({"type": "resource", "resource": text}), 200).parts
    assert isinstance(resource, ResourcePart)
    assert resource.uri == "file:///a"
    assert 0 < len(resource.text or "") < 200


@given(st.lists(st.text(max_size=300) | st.binary(max_size=50), max_size=20), st.integers(1, 2000))
def test_no_result_is_larger_than_its_bound_and_a_note(contents: list[str | bytes], bound: int) -> None:
    blocks = [
        TextContent(type="text", text=each)
        if isinstance(each, str)
        else ImageContent(type="image", data=each.hex(), mime_type="image/png")
        for each in contents
    ]
    parts = tool_result(CallToolResult(content=list(blocks)), bound).parts
    sizes = [len((part.data if isinstance(part, ImagePart) else part.text or "").encode()) for part in parts]
    assert sum(sizes) <= bound + 150
