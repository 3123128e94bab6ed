"""The exchanges of the demo: requests as coding agents and official SDKs send them, and what these see of the answers.

A prompt tells the simulated upstream in double brackets what to do (`simulated/script.py`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from aibridge.records import Status
    from aibridge.server.simulated_upstream import SimulatedUpstream

ID = "X-AIBridge-Interception-Id"

_LIMIT = aiohttp.ClientTimeout(total=30)

_CLAUDE_CODE = {
    "User-Agent": "claude-cli/2.1.330 (external, cli)",
    "X-Claude-Code-Session-Id": "7c1f0f7e-5f0f-4b7e-9d3c-2b8f4f8f0a11",
    "X-App": "cli",
    "Anthropic-Version": "2023-06-01",
    "X-Api-Key": "sk-ant-of-ada-0123456789",
}
_ASKING = {**_CLAUDE_CODE, "X-Claude-Code-Session-Id": "1b7a64c8-95d2-4c27-8e0b-e3a1f5d09c66"}
_PLANNING = {**_CLAUDE_CODE, "X-Claude-Code-Session-Id": "b2f3a0a4-9c1e-4f0d-8a57-61d1f2c3e4d5"}
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

_HIGH_WATER = "bmcp_demo_high_water"

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
    hidden: tuple[str, ...] | None = None
    """Names of the calls that only the provider is told of in the end; None where that is not looked at."""

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
    error: str = ""
    content: list[dict[str, Any]] = field(default_factory=list)
    """Of Anthropic Messages: the message, as the client sends it back in its next request."""
    provider: list[Any] = field(default_factory=list)
    """The requests that the provider got, decoded."""

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls that are the client's to run."""
        return [block for block in self.content if block["type"] == "tool_use"]


class Sender:
    """Sends the requests of clients to the gateway at a URL, behind which is this provider."""

    def __init__(self, http: aiohttp.ClientSession, gateway: str, provider: SimulatedUpstream) -> None:
        self._http, self._gateway, self._provider = http, gateway, provider

    async def send(self, exchange: Exchange) -> tuple[Exchange, Seen]:
        """Send a request, and read the answer as its client does; an answer that breaks off is an error."""
        seen = Seen()
        before = len(self._provider.requests)
        try:
            await _read_answer(self._http, self._gateway, exchange, seen)
        except (aiohttp.ClientError, TimeoutError) as error:
            seen.error = f"{type(error).__name__}: {error}"
        seen.provider = [asked.json() for asked in islice(self._provider.requests, before, None)]
        return exchange, seen


async def exchanges(sender: Sender) -> AsyncIterator[tuple[Exchange, Seen]]:
    """Send one request after the other; each, once it is over."""
    async for each in _coding(sender):
        yield each
    for exchange in _GREETINGS:
        yield await sender.send(exchange)
    async for each in _asking_about_tides(sender):
        yield each
    async for each in _planning(sender):
        yield each
    for exchange in _TROUBLES:
        yield await sender.send(exchange)


async def _coding(sender: Sender) -> AsyncIterator[tuple[Exchange, Seen]]:
    """A client with a tool of its own, and the gateway out of the way."""
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
    _, seen = await sender.send(asks)
    yield asks, seen

    yield await sender.send(
        Exchange(
            title="Claude Code answers the tool call, in the same session: no new prompt",
            actor="ada",
            path="/anthropic/v1/messages",
            headers=_CLAUDE_CODE,
            body=_message(
                [question, *_answered(seen, "aibridge: a gateway that keeps records.")], stream=True, tools=[_READ]
            ),
            facts=frozenset({"token_usage"}),
        )
    )


async def _asking_about_tides(sender: Sender) -> AsyncIterator[tuple[Exchange, Seen]]:
    """The gateway has a tool, of which the client knows nothing: not now, and not later."""
    question = {"role": "user", "content": f'When is high water? [[call {_HIGH_WATER} {{"harbour": "Lyme"}}]]'}
    asks = Exchange(
        title="An injected tool: the model calls it, the gateway runs it, the client sees one message",
        actor="ada",
        path="/anthropic/v1/messages",
        headers=_ASKING,
        body=_message([question], stream=True),
        facts=frozenset({"prompt", "tool_call", "token_usage"}),
        hidden=(_HIGH_WATER,),
    )
    _, seen = await sender.send(asks)
    yield asks, seen

    more = {"role": "user", "content": "Is that early enough?"}
    yield await sender.send(
        Exchange(
            title="The same conversation, later: the model is told again what the client never saw",
            actor="ada",
            path="/anthropic/v1/messages",
            headers=_ASKING,
            body=_message([question, {"role": "assistant", "content": seen.content}, more], stream=True),
            hidden=(_HIGH_WATER,),
        )
    )


async def _planning(sender: Sender) -> AsyncIterator[tuple[Exchange, Seen]]:
    """One turn in which the model wants a tool of the client and one of the gateway."""
    read, tides = 'Read {"file_path": "crew"}', f'{_HIGH_WATER} {{"harbour": "Lyme"}}'
    question = {"role": "user", "content": f"Can we sail? [[call {read}]] [[call {tides}]]"}
    asks = Exchange(
        title="A mixed turn: the model calls a tool of the client and one of the gateway at once",
        actor="ada",
        path="/anthropic/v1/messages",
        headers=_PLANNING,
        body=_message([question], stream=True, tools=[_READ]),
        facts=frozenset({"prompt", "tool_call", "token_usage"}),
        hidden=(),
    )
    _, seen = await sender.send(asks)
    yield asks, seen

    yield await sender.send(
        Exchange(
            title="The client answers its own call: the provider gets both calls with their results",
            actor="ada",
            path="/anthropic/v1/messages",
            headers=_PLANNING,
            body=_message([question, *_answered(seen, "Ada and Grace")], stream=True, tools=[_READ]),
            facts=frozenset({"token_usage"}),
            hidden=(_HIGH_WATER,),
        )
    )


def _message(messages: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    return {"model": "claude-sonnet-5-5", "max_tokens": 4096, "messages": messages, **more}


def _answered(seen: Seen, result: str) -> list[dict[str, Any]]:
    """The message as it came, and what the client's tools gave."""
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": result} for call in seen.calls]
    return [
        {"role": "assistant", "content": seen.content},
        {"role": "user", "content": results or "(no tool was called)"},
    ]


_GREETINGS = (
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
)

_TROUBLES = (
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
        case {"type": "content_block_start", "content_block": block}:
            seen.content.append(block)
            if block["type"] == "tool_use":
                seen.called += f"{block['name']} "
            elif block["type"] == "text" and seen.said:
                seen.said += " "
        case {"type": "content_block_delta", "delta": delta}:
            _grow(seen.content[-1], delta)
            seen.thought += delta.get("thinking", "")
            seen.said += delta.get("text", "")
            seen.called += delta.get("partial_json", "")
        case {"type": "content_block_stop"} if "partial_json" in seen.content[-1]:
            seen.content[-1]["input"] = json.loads(seen.content[-1].pop("partial_json"))
        case {"type": "response.reasoning_summary_text.delta", "delta": delta}:
            seen.thought += delta
        case {"type": "response.output_text.delta", "delta": delta}:
            seen.said += delta
        case {"choices": choices}:
            seen.said += "".join(_texts(choices))


def _grow(block: dict[str, Any], delta: Mapping[str, str]) -> None:
    for name, piece in delta.items():
        if name != "type":
            block[name] = block.get(name, "") + piece


def _texts(choices: list[dict[str, Any]]) -> Iterator[str]:
    for choice in choices:
        yield choice["delta"].get("content") or ""
