"""The simulated provider with a script for injected tools: it asks for one, and answers once it has the result.

The model says how long the tool shall take: `bench-tool-20ms`. All other requests are answered as `bench.provider`
says. After each turn of a script it writes a line `spent <ns>` to its log: from the last byte of the request to the
last byte of the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from typing import Any

from bench.answers import CHAT_COMPLETIONS, MESSAGES, RESPONSES
from bench.mcp_server import NAME, tool_name
from bench.provider import JSON_HEADERS, STREAM, STREAM_HEADERS, Answering
from bench.workload import CALL_ID

SCRIPTED = re.compile(rb'"model"\s*:\s*"bench-tool-(\d+)ms"')
TOOL = f"bmcp_{NAME}_{tool_name(0)}"


class Scripted(Answering):
    """One connection."""

    def on_body(self, body: bytes) -> None:
        """Bytes of the body; all of it is kept."""
        self.body += body

    def on_message_complete(self) -> None:
        """The request is there: answer it."""
        began = time.monotonic_ns()
        script = SCRIPTED.search(self.body)
        if not script:
            super().on_message_complete()
            return
        path = self.url.decode()
        self.dialect = next(dialect for dialect in _CALLS if path.endswith(dialect.path))
        called = CALL_ID.encode() in self.body
        stream, whole = _CALLS[self.dialect](int(script[1]))
        if not STREAM.search(self.body):
            said = self.dialect.whole if called else whole
            self.transport.write(JSON_HEADERS % (len(said), said))
        elif called:
            delta = self.dialect.delta_now(time.monotonic_ns())
            self.transport.write(STREAM_HEADERS + self.dialect.head + delta + self.dialect.tail)
        else:
            self.transport.write(
                STREAM_HEADERS + b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in stream) + b"0\r\n\r\n"
            )
        print(f"spent {time.monotonic_ns() - began}", flush=True)


def _event(data: dict[str, Any], *, named: bool = True) -> bytes:
    text = json.dumps(data, separators=(",", ":")).encode()
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), text) if named else b"data: %b\n\n" % text


def _arguments(milliseconds: int) -> dict[str, Any]:
    return {"owner": "bench", "page": 1, "milliseconds": milliseconds}


def _messages_call(milliseconds: int) -> tuple[list[bytes], bytes]:
    arguments = _arguments(milliseconds)
    message: dict[str, Any] = {
        "id": "msg_01BenchBenchBenchCall",
        "type": "message",
        "role": "assistant",
        "model": "bench",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 1},
    }
    block: dict[str, Any] = {"type": "tool_use", "id": CALL_ID, "name": TOOL, "input": {}}
    told = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": told},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 40}},
        {"type": "message_stop"},
    ]
    whole = {**message, "content": [{**block, "input": arguments}], "stop_reason": "tool_use"}
    return [_event(event) for event in events], json.dumps(whole).encode()


def _chat_call(milliseconds: int) -> tuple[list[bytes], bytes]:
    usage = {"prompt_tokens": 812, "completion_tokens": 40, "total_tokens": 852}
    function = {"name": TOOL, "arguments": json.dumps(_arguments(milliseconds))}
    call = {"id": CALL_ID, "type": "function", "function": function}

    head = {"id": "chatcmpl-call", "object": "chat.completion.chunk", "model": "bench"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**head, "choices": [choice]}, named=False)

    counted = {
        "id": "chatcmpl-call",
        "object": "chat.completion.chunk",
        "model": "bench",
        "choices": [],
        "usage": usage,
    }
    asked = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}
    stream = [chunk(asked), chunk({}, "tool_calls"), _event(counted, named=False), b"data: [DONE]\n\n"]
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    whole = {
        "id": "chatcmpl-call",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": usage,
    }
    return stream, json.dumps(whole).encode()


def _responses_call(milliseconds: int) -> tuple[list[bytes], bytes]:
    item = {
        "type": "function_call",
        "id": "fc_bench",
        "call_id": CALL_ID,
        "name": TOOL,
        "arguments": json.dumps(_arguments(milliseconds)),
        "status": "completed",
    }
    begun = {**item, "arguments": "", "status": "in_progress"}
    usage = {"input_tokens": 812, "output_tokens": 40, "total_tokens": 852}

    def response(status: str) -> dict[str, Any]:
        return {
            "id": "resp_call",
            "object": "response",
            "created_at": 1760000000,
            "status": status,
            "model": "bench",
            "output": [item] if status == "completed" else [],
            "usage": usage if status == "completed" else None,
        }

    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response("completed")},
    ]
    stream = [_event({**event, "sequence_number": number}) for number, event in enumerate(events)]
    return stream, json.dumps(response("completed")).encode()


_CALLS = {MESSAGES: _messages_call, CHAT_COMPLETIONS: _chat_call, RESPONSES: _responses_call}
"""By dialect: the answer that asks for the tool, as events and as a document."""


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until told to stop."""
    server = await asyncio.get_running_loop().create_server(Scripted, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The simulated provider with a script for injected tools.")
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))
