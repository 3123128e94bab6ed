"""The answers of the simulated provider: what each dialect's stream and whole answer look like on the wire.

Every streamed event is one HTTP chunk, as providers send them. A delta carries the time at which it was sent
(`time.monotonic_ns()`, sixteen digits), so that whoever receives it on the same machine can tell how long it took.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

SENT_AT = re.compile(rb"@(\d{16})@")
"""Finds the time at which a delta was sent, in nanoseconds."""

_STAMP = "@%(now)016d@"
_FIRST = 1_000_000
_NUMBER = "%(number)d"
_TEXT = f"{_STAMP} and so the next line reads: "
_MODEL = "bench"


@dataclass(frozen=True)
class Dialect:
    """One dialect's path and answers; the byte strings are ready for a chunked HTTP body."""

    path: str
    head: bytes
    """The events that open a stream."""
    delta: bytes
    """One event of text; a format string that takes the time in nanoseconds, and a sequence number of seven digits."""
    tail: bytes
    """The events that end a stream, and the end of the chunked body."""
    frame_events: int
    """How many events `head` and `tail` hold together."""
    ending: bytes
    """The last bytes of a complete stream."""
    whole: bytes
    """A non-streaming answer of about 2 KB."""

    def delta_now(self, nanoseconds: int, sent: int = 0) -> bytes:
        """One delta, sent at this time after so many others."""
        return self.delta % {b"now": nanoseconds, b"number": _FIRST + 3 + sent}

    def events(self, deltas: int) -> int:
        """How many events a stream with so many deltas has in all."""
        return deltas + self.frame_events


def _chunk(data: str) -> bytes:
    size = len(data.replace(_STAMP, "@" + "0" * 16 + "@").replace(_NUMBER, str(_FIRST)).encode())
    return f"{size:x}\r\n{data}\r\n".encode()


def _event(data: dict[str, Any], *, named: bool = True) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {data['type']}\ndata: {text}\n\n" if named else f"data: {text}\n\n"


def _dialect(path: str, head: list[str], delta: str, tail: list[str], whole: dict[str, Any]) -> Dialect:
    return Dialect(
        path=path,
        head=b"".join(map(_chunk, head)),
        delta=_chunk(delta),
        tail=b"".join(map(_chunk, tail)) + b"0\r\n\r\n",
        frame_events=len(head) + len(tail),
        ending=tail[-1][-24:].encode(),
        whole=json.dumps(whole).encode(),
    )


_PARAGRAPH = "The function reads the file once, keeps what it needs, and closes it on every path. " * 20


def _messages() -> Dialect:
    message: dict[str, Any] = {
        "id": "msg_01BenchBenchBenchBench",
        "type": "message",
        "role": "assistant",
        "model": _MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 340,
            "cache_read_input_tokens": 90210,
            "output_tokens": 1,
            "service_tier": "standard",
        },
    }
    text = {"type": "text", "text": ""}
    return _dialect(
        "/v1/messages",
        [
            _event({"type": "message_start", "message": message}),
            _event({"type": "content_block_start", "index": 0, "content_block": text}),
            _event({"type": "ping"}),
        ],
        _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _TEXT}}),
        [
            _event({"type": "content_block_stop", "index": 0}),
            _event(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                    "usage": {"output_tokens": 512},
                }
            ),
            _event({"type": "message_stop"}),
        ],
        {**message, "content": [{"type": "text", "text": _PARAGRAPH}], "stop_reason": "end_turn"},
    )


def _chat_completions() -> Dialect:
    usage = {"prompt_tokens": 812, "completion_tokens": 512, "total_tokens": 1324}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "model": _MODEL, "choices": [choice]}

    answer = {"role": "assistant", "content": _PARAGRAPH}
    return _dialect(
        "/v1/chat/completions",
        [_event(chunk({"role": "assistant", "content": ""}), named=False)],
        _event(chunk({"content": _TEXT}), named=False),
        [
            _event(chunk({}, "stop"), named=False),
            _event({**chunk({}), "choices": [], "usage": usage}, named=False),
            "data: [DONE]\n\n",
        ],
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1760000000,
            "model": _MODEL,
            "choices": [{"index": 0, "message": answer, "finish_reason": "stop"}],
            "usage": usage,
        },
    )


def _responses() -> Dialect:
    usage = {
        "input_tokens": 812,
        "input_tokens_details": {"cached_tokens": 640},
        "output_tokens": 512,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 1324,
    }
    part = {"type": "output_text", "text": "", "annotations": []}
    item: dict[str, Any] = {"id": "msg_bench", "type": "message", "role": "assistant", "content": []}
    done = {**item, "status": "completed", "content": [{**part, "text": _PARAGRAPH}]}

    def response(status: str, output: list[Any]) -> dict[str, Any]:
        final = usage if status == "completed" else None
        return {
            "id": "resp_bench",
            "object": "response",
            "created_at": 1760000000,
            "status": status,
            "model": _MODEL,
            "output": output,
            "usage": final,
        }

    def event(kind: str, number: int, **members: Any) -> str:
        return _event({"type": f"response.{kind}", "sequence_number": _FIRST + number, **members})

    place = {"item_id": "msg_bench", "output_index": 0, "content_index": 0}
    return _dialect(
        "/v1/responses",
        [
            event("created", 0, response=response("in_progress", [])),
            event("output_item.added", 1, output_index=0, item=item),
            event("content_part.added", 2, **place, part=part),
        ],
        event("output_text.delta", 3, **place, delta=_TEXT).replace(str(_FIRST + 3), _NUMBER),
        [
            event("output_text.done", 4, **place, text=_PARAGRAPH),
            event("output_item.done", 5, output_index=0, item=done),
            event("completed", 6, response=response("completed", [done])),
        ],
        response("completed", [done]),
    )


MESSAGES = _messages()
CHAT_COMPLETIONS = _chat_completions()
RESPONSES = _responses()
DIALECTS = (MESSAGES, CHAT_COMPLETIONS, RESPONSES)
