"""The requests that are sent: bodies as a coding agent sends them, ready as bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bench.answers import CHAT_COMPLETIONS, MESSAGES, RESPONSES, Dialect

ACTOR = "bench"
"""Who the requests are from, in the header that the gateway is told to believe."""

_PREFIX = {MESSAGES.path: "/anthropic", CHAT_COMPLETIONS.path: "/openai", RESPONSES.path: "/openai"}
_LINE = '    line {n}: if (count > limit) {{ return "too many → try again"; }}  // café\n'
_PROMPT = "Now rename the function, and run the tests again."


@dataclass(frozen=True)
class Request:
    """One request as bytes, and what a complete answer to it holds."""

    data: bytes
    events: int
    """Server-sent events in the whole answer; 0 for a JSON answer."""
    ending: bytes
    """What the whole answer must end with."""


def blocking(size: int, dialect: Dialect = MESSAGES) -> Request:
    """A request with a body of about so many bytes, to be answered with one JSON document."""
    body = _body(dialect, "bench-0-burst", size, stream=False)
    return Request(_http(dialect, body), events=0, ending=b"}")


def streaming(deltas: int, pace: str, dialect: Dialect = MESSAGES, size: int = 2_000) -> Request:
    """A request for a stream; `pace` is as the simulated provider understands it (`burst`, `5ms`, `stall`)."""
    body = _body(dialect, f"bench-{deltas}-{pace}", size, stream=True)
    return Request(_http(dialect, body), events=dialect.events(deltas), ending=dialect.ending)


CALL_ID = "call_benchBenchBench"
"""By which a request shows that the tool was called."""


def tool_turn(milliseconds: int, dialect: Dialect = MESSAGES, size: int = 10_000) -> Request:
    """A request for a stream whose answer needs a tool that takes so long; the client sees two turns as one message."""
    body = _body(dialect, f"bench-tool-{milliseconds}ms", size, stream=True)
    opens_twice = dialect is CHAT_COMPLETIONS  # the role comes with the first turn, an empty text with the last
    return Request(_http(dialect, body), events=dialect.events(1) + opens_twice, ending=b"\n\n")


def without_tool_turn(dialect: Dialect = MESSAGES, size: int = 10_000) -> Request:
    """The same request, but that the provider finds the call in it and gives the second turn's answer at once."""
    body = _body(dialect, "bench-tool-0ms", size, stream=True, user=CALL_ID)
    return Request(_http(dialect, body), events=dialect.events(1), ending=b"\n\n")


def ready(path: str = "/readyz") -> Request:
    """Asks whether a server is ready."""
    return Request(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode(), events=0, ending=b"")


def _http(dialect: Dialect, body: bytes) -> bytes:
    head = (
        f"POST {_PREFIX[dialect.path]}{dialect.path} HTTP/1.1\r\n"
        "host: 127.0.0.1\r\n"
        "accept: application/json\r\n"
        "accept-encoding: gzip, deflate\r\n"
        "content-type: application/json\r\n"
        "user-agent: bench/1.0\r\n"
        f"x-user-id: {ACTOR}\r\n"
        "x-stainless-lang: python\r\n"
        "x-stainless-runtime: CPython\r\n"
        "x-stainless-retry-count: 0\r\n"
        "anthropic-version: 2023-06-01\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _body(dialect: Dialect, model: str, size: int, *, stream: bool, **others: str) -> bytes:
    """Tools, a system prompt, and rounds of tool calls and results until the size is reached."""
    start: dict[str, Any] = {"model": model, "stream": stream, **others}
    rest: dict[str, Any]
    if dialect is MESSAGES:
        rest = {"max_tokens": 4096, "system": _text(300)}
        history, key = _messages_history(size), "messages"
    else:
        rest = {"stream_options": {"include_usage": True}} if dialect is CHAT_COMPLETIONS and stream else {}
        key = "messages" if dialect is CHAT_COMPLETIONS else "input"
        history = _plain_history(size)
    body = {**start, **rest, "tools": _tools(dialect, size), key: history}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _tools(dialect: Dialect, size: int) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"path": {"type": "string", "description": _text(80)}}}
    tools = []
    for n in range(min(15, size // 2_000)):
        named = {"name": f"tool_{n}", "description": _text(250)}
        if dialect is MESSAGES:
            tools.append({**named, "input_schema": schema})
        elif dialect is CHAT_COMPLETIONS:
            tools.append({"type": "function", "function": {**named, "parameters": schema}})
        else:
            tools.append({"type": "function", **named, "parameters": schema})
    return tools


def _messages_history(size: int) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = [{"role": "user", "content": "Please tidy up this module."}]
    left = size - min(15, size // 2_000) * 500 - 700
    n = 0
    while left > 0:
        result = _text(min(left, 4_000))
        call = {"type": "tool_use", "id": f"toolu_{n}", "name": "tool_0", "input": {"path": f"src/{n}.c"}}
        history.append({"role": "assistant", "content": [{"type": "text", "text": "I look at it."}, call]})
        answer = {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": result}
        history.append({"role": "user", "content": [answer]})
        left -= len(result) + 500
        n += 1
    history.append({"role": "assistant", "content": "It is tidy now."})
    history.append({"role": "user", "content": [{"type": "text", "text": _PROMPT}]})
    return history


def _plain_history(size: int) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": _text(max(300, size - 1_000))},
        {"role": "user", "content": _PROMPT},
    ]


def _text(length: int) -> str:
    """So many characters of what looks like code; JSON has to escape some of them."""
    line = _LINE.format(n=7)
    return (line * (length // len(line) + 1))[:length]
