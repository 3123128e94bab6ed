"""The exchanges of the demo: requests as coding agents and official SDKs send them, and what these see of the answers.

A prompt tells the simulated upstream in double brackets what to do (`simulated/script.py`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from aibridge.records import Status

ID = "X-AIBridge-Interception-Id"

_LIMIT = aiohttp.ClientTimeout(total=30)

_CLAUDE_CODE = {
    "User-Agent": "claude-cli/2.1.330 (external, cli)",
    "X-Claude-Code-Session-Id": "7c1f0f7e-5f0f-4b7e-9d3c-2b8f4f8f0a11",
    "X-App": "cli",
    "Anthropic-Version": "2023-06-01",
    "X-Api-Key": "sk-ant-of-ada-0123456789",
}
_ANTHROPIC_SDK = {
    "User-Agent": "Anthropic/Python 2.12.0",
    "Anthropic-Version": "2026-10-21",
    "Authorization": "Bearer sk-ant-of-ada-0123456789",
}
_CODEX = {
    "User-Agent": "codex_exec/0.169.0",
    "Originator": "codex_exec",
    "Session-Id": "019a8c52-2f6e-7d30-a1b4-5c6d7e8f9a0b",
    "Authorization": "Bearer sk-of-grace-0123456789abcdef",
}
_OPENAI_SDK = {
    "User-Agent": "OpenAI/Python 3.54.0",
    "Authorization": "Bearer sk-of-grace-0123456789abcdef",
}

_READ = {
    "name": "Read",
    "description": "Read a file",
    "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}},
}


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request of a client, and what must become of it."""

    title: str
    actor: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Mapping[str, Any]
    leaves: bool = False
    """The client closes the connection after the first words."""
    http_status: int = 200
    recorded: Status = "completed"
    facts: frozenset[str] = frozenset({"prompt", "token_usage"})
    """The kinds of facts that must be recorded, as reports name them."""

    @property
    def prompt(self) -> str:
        """The last text that the client sends."""
        last = (self.body.get("messages") or self.body["input"])[-1]["content"]
        return last if isinstance(last, str) else str(last[-1].get("text") or f"(tool result) {last[-1]['content']}")


@dataclass
class Seen:
    """What the client saw."""

    interception: str = ""
    http_status: int = 0
    first_event: float = 0.0
    """Seconds from the request to the first event of a stream."""
    events: int = 0
    thought: str = ""
    said: str = ""
    called: str = ""
    call_id: str = ""
    error: str = ""


async def exchanges(http: aiohttp.ClientSession, gateway: str) -> AsyncIterator[tuple[Exchange, Seen]]:
    """Send one request after the other to the gateway at this URL; each, once it is over."""
    question = {
        "role": "user",
        "content": 'What is this project? [[think The README will say.]] [[call Read {"file_path": "README.md"}]]',
    }
    asks = Exchange(
        title="Claude Code asks; the model thinks, and calls a tool of the client",
        actor="ada",
        path="/anthropic/v1/messages",
        headers=_CLAUDE_CODE,
        body=_message([question], stream=True, tools=[_READ], thinking={"type": "adaptive"}),
        facts=frozenset({"prompt", "thought", "tool_call", "token_usage"}),
    )
    seen = await _exchange(http, gateway, asks)
    yield asks, seen

    used = {"type": "tool_use", "id": seen.call_id, "name": "Read", "input": {"file_path": "README.md"}}
    result = {"type": "tool_result", "tool_use_id": seen.call_id, "content": "aibridge: a gateway that keeps records."}
    history: list[dict[str, Any]] = [
        question,
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result]},
    ]
    answers = Exchange(
        title="Claude Code answers the tool call, in the same session: no new prompt",
        actor="ada",
        path="/anthropic/v1/messages",
        headers=_CLAUDE_CODE,
        body=_message(history, stream=True, tools=[_READ]),
        facts=frozenset({"token_usage"}),
    )
    yield answers, await _exchange(http, gateway, answers)

    for exchange in _EACH_ON_ITS_OWN:
        yield exchange, await _exchange(http, gateway, exchange)


def _message(messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"model": "claude-sonnet-5-5", "max_tokens": 4096, "messages": messages, **more}


_EACH_ON_ITS_OWN = (
    Exchange(
        title="The Anthropic SDK asks for an answer in one piece",
        actor="ada",
        path="/anthropic/v1/messages",
        headers=_ANTHROPIC_SDK,
        body=_message([{"role": "user", "content": "Good morning."}]),
    ),
    Exchange(
        title="The OpenAI SDK streams Chat Completions; it asks for no usage, so the gateway does",
        actor="grace",
        path="/openai/v1/chat/completions",
        headers=_OPENAI_SDK,
        body={"model": "gpt-5.5", "stream": True, "messages": [{"role": "user", "content": "Good afternoon."}]},
    ),
    Exchange(
        title="Codex streams Responses, with a summary of what the model thought",
        actor="grace",
        path="/openai/v1/responses",
        headers=_CODEX,
        body={
            "model": "gpt-5.5-codex",
            "stream": True,
            "store": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "input": [{"role": "user", "content": "Good evening. [[think It is late. I greet back.]]"}],
        },
        facts=frozenset({"prompt", "thought", "token_usage"}),
    ),
    Exchange(
        title="The model calls a tool of an MCP server: the gateway runs it, and the client sees one message",
        actor="ada",
        path="/anthropic/v1/messages",
        headers=_ANTHROPIC_SDK,
        body=_message(
            [{"role": "user", "content": 'When is high water? [[call bmcp_demo_high_water {"harbour": "Lyme"}]]'}],
            stream=True,
        ),
        facts=frozenset({"prompt", "tool_call", "token_usage"}),
    ),
    Exchange(
        title="A client hangs up in the middle of an answer",
        actor="ada",
        path="/anthropic/v1/messages",
        headers=_ANTHROPIC_SDK,
        body=_message([{"role": "user", "content": "Tell me a very long story. [[stall 25]]"}], stream=True),
        leaves=True,
        recorded="cancelled",
    ),
    Exchange(
        title="The provider is overloaded: the client gets its status and its words",
        actor="grace",
        path="/openai/v1/responses",
        headers=_OPENAI_SDK,
        body={"model": "gpt-5.5", "input": [{"role": "user", "content": "Are you there? [[fail 503]]"}]},
        http_status=503,
        recorded="failed",
        facts=frozenset({"prompt"}),
    ),
)


async def _exchange(http: aiohttp.ClientSession, gateway: str, exchange: Exchange) -> Seen:
    """Send the request, and read the answer as the exchange's client does; an answer that breaks off is an error."""
    seen = Seen()
    try:
        await _read_answer(http, gateway, exchange, seen)
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.error = f"{type(error).__name__}: {error}"
    return seen


async def _read_answer(http: aiohttp.ClientSession, gateway: str, exchange: Exchange, seen: Seen) -> None:
    began = perf_counter()
    headers = {**exchange.headers, "X-User-ID": exchange.actor}
    async with http.post(gateway + exchange.path, json=exchange.body, headers=headers, timeout=_LIMIT) as answer:
        seen.http_status = answer.status
        seen.interception = answer.headers.get(ID, "")
        if answer.content_type != "text/event-stream":
            _read_document(seen, await answer.json())
            return
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            seen.first_event = seen.first_event or perf_counter() - began
            seen.events += 1
            _read_event(seen, json.loads(line.removeprefix(b"data: ")))
            if exchange.leaves and seen.said:
                answer.close()
                return


def _read_document(seen: Seen, document: dict[str, Any]) -> None:
    if error := document.get("error"):
        seen.error = error["message"]
    else:
        seen.said = "".join(block.get("text", "") for block in document["content"])


def _read_event(seen: Seen, event: dict[str, Any]) -> None:
    """Take what the event shows, in whichever dialect."""
    match event:
        case {"type": "content_block_start", "content_block": {"type": "tool_use", "id": call_id, "name": name}}:
            seen.call_id, seen.called = call_id, f"{name} "
        case {"type": "content_block_start", "content_block": {"type": "text"}} if seen.said:
            seen.said += " "
        case {"type": "content_block_delta", "delta": delta}:
            seen.thought += delta.get("thinking", "")
            seen.said += delta.get("text", "")
            seen.called += delta.get("partial_json", "")
        case {"type": "response.reasoning_summary_text.delta", "delta": delta}:
            seen.thought += delta
        case {"type": "response.output_text.delta", "delta": delta}:
            seen.said += delta
        case {"choices": choices}:
            seen.said += "".join(_texts(choices))


def _texts(choices: list[dict[str, Any]]) -> Iterator[str]:
    for choice in choices:
        yield choice["delta"].get("content") or ""
