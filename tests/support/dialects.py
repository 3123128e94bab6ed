"""One small exchange, told in each dialect: somebody asks for the tide, and the model looks it up.

The model thinks (where the dialect shows that), says a sentence and calls a tool; so each kind of record is there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aibridge.wire.chat_completions import ChatCompletions
from aibridge.wire.dialect import Dialect as WireDialect
from aibridge.wire.messages import Messages
from aibridge.wire.responses import Responses

PROMPT = "When is high water at Lyme?"
ARGUMENTS = '{"harbour": "Lyme", "day":  1e0}'
"""Spaced and written as no JSON library would, so that decoding and encoding it anew would show."""

TOOLS = [("call_tide_1", "read_tides", ARGUMENTS)]
"""Ids, names and arguments of the calls in each answer."""


@dataclass(frozen=True)
class Dialect:
    """A dialect, and the exchange in it."""

    name: str
    path: str
    """Of the bridged route, below the bridge."""
    upstream_path: str
    asking: dict[str, Any]
    """The members of a request but for `stream`."""
    events: tuple[bytes, ...]
    """The answer to a streaming request."""
    for_client: bytes
    """What of it a client gets that asks for no more than the answer."""
    document: bytes
    """The answer to another request."""
    response_id: str
    tokens: tuple[int, int, int, int]
    """Input, output, read from and written to a cache."""
    thoughts: tuple[tuple[str, str], ...]
    """Their sources and texts."""
    said: bytes
    """Is in the answer's text, and in no other event than `events[spoken]`."""
    spoken: int
    wire: WireDialect

    def request(self, *, stream: bool = True, **members: Any) -> bytes:
        """A request body; `members` are added to it."""
        return json.dumps(self.asking | {"stream": stream} | members).encode()

    def before(self, place: int | None = None) -> bytes:
        """The stream up to the event at a place, at first that with the sentence, and with it."""
        return b"".join(self.events[: (self.spoken if place is None else place) + 1])

    @property
    def stream(self) -> bytes:
        """The whole answer to a streaming request."""
        return b"".join(self.events)

    def error_in(self, answer: bytes) -> tuple[str, str | None, str]:
        """Type, code and message of an error in the dialect's own shape; it fails where the shape is another."""
        told = json.loads(answer)
        if self.name == "messages":
            assert told.keys() == {"type", "error", "request_id"}, told
            assert told["type"] == "error", told
            return told["error"]["type"], None, told["error"]["message"]
        assert told.keys() == {"error"}, told
        assert told["error"].keys() == {"message", "type", "param", "code"}, told
        return told["error"]["type"], told["error"]["code"], told["error"]["message"]

    def error_event_in(self, stream: bytes) -> str:
        """The message of the error event with which the stream ends; it fails where there is none."""
        name, _, data = stream.removesuffix(b"\n\n").rpartition(b"\n\n")[2].rpartition(b"data: ")
        told = json.loads(data)
        if self.name == "messages":
            assert name == b"event: error\n", stream
            return self.error_in(data)[2]
        if self.name == "chat":
            assert name == b"", stream
            return self.error_in(data)[2]
        assert (name, told["type"]) == (b"event: response.failed\n", "response.failed"), stream
        assert told["response"]["status"] == "failed", stream
        assert told["response"]["error"]["code"], stream
        message: str = told["response"]["error"]["message"]
        return message


def _named(**data: Any) -> bytes:
    """An event that is named after its type."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def _data(**data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _messages() -> Dialect:
    begun: dict[str, Any] = {
        "id": "msg_tide_7",
        "type": "message",
        "role": "assistant",
        "model": "claude-tidal-5",
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 23,
            "cache_creation_input_tokens": 64,
            "cache_read_input_tokens": 512,
            "output_tokens": 2,
            "service_tier": "standard",
        },
    }
    thought = {"type": "thinking", "thinking": "Lyme keeps a gauge.", "signature": "c2ln"}
    call = {"type": "tool_use", "id": "call_tide_1", "name": "read_tides", "input": {}}
    events = (
        _named(type="message_start", message=begun),
        _named(type="ping"),
        _named(type="content_block_start", index=0, content_block=thought | {"thinking": "", "signature": ""}),
        _named(
            type="content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Lyme keeps a gauge."}
        ),
        _named(type="content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"}),
        _named(type="content_block_stop", index=0),
        _named(type="content_block_start", index=1, content_block={"type": "text", "text": ""}),
        _named(type="content_block_delta", index=1, delta={"type": "text_delta", "text": "I look at the gauge."}),
        _named(type="content_block_stop", index=1),
        _named(type="content_block_start", index=2, content_block=call),
        _named(type="content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": ARGUMENTS[:9]}),
        _named(type="content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": ARGUMENTS[9:]}),
        _named(type="content_block_stop", index=2),
        _named(
            type="message_delta",
            delta={"stop_reason": "tool_use", "stop_sequence": None},
            usage={"output_tokens": 41},
        ),
        _named(type="message_stop"),
    )
    text = {"type": "text", "text": "I look at the gauge."}
    whole = json.dumps(
        begun
        | {"content": [thought, text, call | {"input": "ARGUMENTS"}], "stop_reason": "tool_use"}
        | {"usage": {**begun["usage"], "output_tokens": 41}}
    )
    return Dialect(
        name="messages",
        path="/anthropic/v1/messages",
        upstream_path="/v1/messages",
        asking={
            "model": "claude-tidal-5",
            "max_tokens": 400,
            "messages": [{"role": "user", "content": PROMPT}],
        },
        events=events,
        for_client=b"".join(events),
        document=whole.replace('"ARGUMENTS"', ARGUMENTS).encode(),
        response_id="msg_tide_7",
        tokens=(23, 41, 512, 64),
        thoughts=(("thinking", "Lyme keeps a gauge."),),
        said=b"I look at the gauge.",
        spoken=7,
        wire=Messages(),
    )


def _chat() -> Dialect:
    of = {"id": "chatcmpl-tide-7", "created": 1767225600, "model": "gpt-tidal-5"}
    usage = {
        "prompt_tokens": 535,
        "completion_tokens": 41,
        "total_tokens": 576,
        "prompt_tokens_details": {"cached_tokens": 512},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data(**of, object="chat.completion.chunk", choices=[choice], usage=None)

    function = {"name": "read_tides", "arguments": ""}
    events = (
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "I look at the gauge."}),
        chunk({"tool_calls": [{"index": 0, "id": "call_tide_1", "type": "function", "function": function}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS[:9]}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS[9:]}}]}),
        chunk({}, "tool_calls"),
        _data(**of, object="chat.completion.chunk", choices=[], usage=usage),
        b"data: [DONE]\n\n",
    )
    call = {"id": "call_tide_1", "type": "function", "function": {"name": "read_tides", "arguments": ARGUMENTS}}
    message = {"role": "assistant", "content": "I look at the gauge.", "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return Dialect(
        name="chat",
        path="/openai/v1/chat/completions",
        upstream_path="/v1/chat/completions",
        asking={"model": "gpt-tidal-5", "messages": [{"role": "user", "content": PROMPT}]},
        events=events,
        for_client=b"".join(events[:-2]) + events[-1],
        document=json.dumps({**of, "object": "chat.completion", "choices": [choice], "usage": usage}).encode(),
        response_id="chatcmpl-tide-7",
        tokens=(23, 41, 512, 0),
        thoughts=(),
        said=b"I look at the gauge.",
        spoken=1,
        wire=ChatCompletions(),
    )


def _responses() -> Dialect:
    usage = {
        "input_tokens": 535,
        "input_tokens_details": {"cached_tokens": 512},
        "output_tokens": 41,
        "output_tokens_details": {"reasoning_tokens": 9},
        "total_tokens": 576,
    }
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Lyme keeps a gauge."}],
    }
    part = {"type": "output_text", "text": "I look at the gauge.", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_tide_1",
        "name": "read_tides",
        "arguments": ARGUMENTS,
        "status": "completed",
    }
    begun: dict[str, Any] = {
        "id": "resp_tide_7",
        "object": "response",
        "model": "gpt-tidal-5",
        "status": "in_progress",
        "output": [],
    }
    ended = begun | {"status": "completed", "output": [thought, message, call], "usage": usage}
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 1, "delta": "I look at the tides."},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {"type": "response.output_item.done", "output_index": 2, "item": call},
        {"type": "response.completed", "response": ended},
    ]
    events = tuple(_named(**each, sequence_number=number) for number, each in enumerate(told))
    return Dialect(
        name="responses",
        path="/openai/v1/responses",
        upstream_path="/v1/responses",
        asking={"model": "gpt-tidal-5", "input": PROMPT},
        events=events,
        for_client=b"".join(events),
        document=json.dumps(ended).encode(),
        response_id="resp_tide_7",
        tokens=(23, 41, 512, 0),
        thoughts=(("reasoning_summary", "Lyme keeps a gauge."),),
        said=b"I look at the tides.",
        spoken=2,
        wire=Responses(),
    )


MESSAGES, CHAT, RESPONSES = _messages(), _chat(), _responses()
DIALECTS = (MESSAGES, CHAT, RESPONSES)
