"""Streams as providers may send them: any order of known and unknown events, in any dress."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from aibridge.wire import sse
from aibridge.wire.dialect import Dialect

from .hearing import CHAT, MESSAGES, RESPONSES

texts = st.text(max_size=8)
indices = st.integers(0, 2)
counts = st.integers(0, 9999) | st.none() | st.sampled_from([-1, 1.5, "7", "x", True, 10**30])
kinds = st.sampled_from


def members(**some: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of these members."""
    return st.fixed_dictionaries({}, optional=some)


_message_usage = members(input_tokens=counts, output_tokens=counts, cache_read_input_tokens=counts, odd=counts)
_block = st.fixed_dictionaries(
    {"type": kinds(["text", "tool_use", "thinking", "server_tool_use", "new"])},
    optional={"id": texts, "name": texts, "input": st.dictionaries(texts, counts, max_size=2), "thinking": texts},
)
_block_delta = members(
    type=kinds(["text_delta", "input_json_delta", "thinking_delta", "new"]), partial_json=texts, thinking=texts
)
_message_event = st.fixed_dictionaries(
    {
        "type": kinds(
            [
                *["content_block_start"] * 3,
                *["content_block_delta"] * 4,
                *["content_block_stop"] * 2,
                *["message_start", "message_delta", "ping", "new"],
            ]
        )
    },
    optional={
        "index": indices,
        "content_block": _block,
        "delta": _block_delta | members(stop_reason=texts),
        "message": members(id=texts, usage=_message_usage),
        "usage": _message_usage,
        "error": members(type=texts, message=texts),
    },
)
_message_end: st.SearchStrategy[list[Any]] = st.sampled_from(
    [[], [{"type": "message_stop"}], [{"type": "error", "error": {"message": "Broken."}}]]
)

_chat_usage = members(
    prompt_tokens=counts, completion_tokens=counts, prompt_tokens_details=members(cached_tokens=counts)
)
_function = members(name=texts, arguments=texts)
_call = members(index=indices, id=texts, function=_function, custom=members(name=texts, input=texts))
_choice = members(
    index=indices,
    delta=members(content=texts, tool_calls=st.lists(_call, max_size=2)),
    finish_reason=st.none() | kinds(["stop", "tool_calls"]),
)
_chunk = members(id=texts, choices=st.lists(_choice, max_size=2), usage=st.none() | _chat_usage)
_usage_chunk = st.fixed_dictionaries({"choices": st.just([]), "usage": _chat_usage})
_chat_end: st.SearchStrategy[list[Any]] = st.sampled_from([[], ["[DONE]"], [{"error": {"message": "Broken."}}]])

_text_parts = st.lists(members(type=kinds(["output_text", "summary_text"]), text=texts), max_size=2)
_item = st.fixed_dictionaries(
    {"type": kinds(["function_call", "custom_tool_call", "shell_call", "reasoning", "message", "web_search_call"])},
    optional={
        "call_id": texts,
        "name": texts,
        "arguments": texts,
        "input": texts,
        "action": st.dictionaries(texts, counts, max_size=2),
        "summary": _text_parts,
        "phase": kinds(["commentary", "final_answer"]),
        "content": _text_parts,
    },
)
_response_usage = members(input_tokens=counts, output_tokens=counts, input_tokens_details=members(cached_tokens=counts))
_response = members(
    id=texts,
    status=kinds(["in_progress", "completed", "failed"]),
    usage=st.none() | _response_usage,
    error=st.none() | members(code=texts, message=texts),
    output=st.lists(_item, max_size=2),
)
_response_event = st.fixed_dictionaries(
    {
        "type": kinds(
            [*["response.output_item.done"] * 4, "response.created", "response.output_text.delta", "keepalive", "error"]
        )
    },
    optional={"item": _item, "response": _response, "sequence_number": indices, "message": texts, "code": texts},
)
_response_end = st.lists(
    st.fixed_dictionaries(
        {
            "type": kinds(["response.completed", "response.incomplete", "response.failed"]),
            "response": _response,
        }
    ),
    max_size=1,
)

_EVENTS: dict[str, tuple[st.SearchStrategy[Any], st.SearchStrategy[list[Any]]]] = {
    MESSAGES.name: (_message_event, _message_end),
    CHAT.name: (_chunk | _usage_chunk, _chat_end),
    RESPONSES.name: (_response_event, _response_end),
}


@st.composite
def streams(draw: st.DrawFn, dialect: Dialect) -> bytes:
    """A stream of a dialect, whole or not."""
    events, end = _EVENTS[dialect.name]
    line_end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    written = [draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))]
    for event in draw(st.lists(events, max_size=8)) + draw(end):
        between = draw(st.sampled_from([b"", b"", b"", b": wait\n\n", b"\n", b"data: no JSON\n\n", b"id: 1\n"]))
        data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=draw(st.booleans()))
        text = sse.write(data.encode(), draw(st.sampled_from([None, "named"])))
        if draw(st.integers(0, 4)) == 0:
            text = text.replace(b", ", b",\ndata:")
        written.append((between + text).replace(b"\n", line_end))
    stream = b"".join(written)
    return stream[: len(stream) - draw(st.sampled_from([0, 0, 0, 1, 2, 10]))]
