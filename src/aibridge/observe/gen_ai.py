"""Attributes by OpenTelemetry's conventions for generative AI, which tools that look at traces know by name.

Source: https://github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai), with the names of
`opentelemetry-semantic-conventions` 0.66b1. All of them are still in development there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from aibridge.providers import Provider
from aibridge.tracer import Attributes
from aibridge.wire.dialect import Request, Turn, Usage
from aibridge.wire.tools import TextPart, ToolResult

PROVIDER_NAMES: Mapping[str, str] = {"bedrock": "aws.bedrock"}
"""What the conventions call a provider, by its type, where that is not the type itself."""


def asked_of(provider: Provider) -> dict[str, Any]:
    """Where a model is asked."""
    url = urlsplit(provider.base_url)
    return {
        "gen_ai.provider.name": PROVIDER_NAMES.get(provider.type, provider.type),
        "server.address": url.hostname or "",
        "server.port": url.port or (443 if url.scheme == "https" else 80),
    }


class _Asked(msgspec.Struct):
    """What is told of a request's body: numbers and words that say how an answer is made, not what it is about."""

    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    n: Any = None
    seed: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    previous_response_id: Any = None
    reasoning_effort: Any = None
    reasoning: Any = None
    output_config: Any = None


_decoder = msgspec.json.Decoder(_Asked)


def asked(request: Request) -> dict[str, Any]:
    """What is asked, and how."""
    told: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": request.model}
    if request.streaming:
        told["gen_ai.request.stream"] = True
    try:
        body = _decoder.decode(request.body)
    except (msgspec.DecodeError, RecursionError):
        return told
    effort = [each.get("effort") for each in (body.reasoning, body.output_config) if isinstance(each, dict)]
    numbers = {
        "max_tokens": body.max_tokens or body.max_completion_tokens or body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "choice.count": body.n if body.n != 1 else None,
        "seed": body.seed,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
    }
    words = {
        "previous_response.id": body.previous_response_id,
        "reasoning.level": next(filter(None, [body.reasoning_effort, *effort]), None),
    }
    told.update((f"gen_ai.request.{name}", it) for name, it in numbers.items() if _is_number(it))
    told.update((f"gen_ai.request.{name}", it) for name, it in words.items() if isinstance(it, str))
    return told


def answered(turn: Turn, *, cut: bool) -> dict[str, Any]:
    """What the answer of a turn showed, but for its contents."""
    told: dict[str, Any] = {}
    if turn.response_id:
        told["gen_ai.response.id"] = turn.response_id
    if cut or turn.stop_reason:
        told["gen_ai.response.finish_reasons"] = ["error" if cut else turn.stop_reason]
    if turn.usage:
        told |= _used(turn.usage)
    return told


def _used(usage: Usage) -> dict[str, Any]:
    told: dict[str, Any] = {
        "gen_ai.usage.input_tokens": usage.input + usage.cache_read + usage.cache_write,
        "gen_ai.usage.output_tokens": usage.output,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
    }
    for name, count in usage.extra.items():
        if name.endswith("reasoning_tokens") and _is_number(count):
            told["gen_ai.usage.reasoning.output_tokens"] = count
    return told


def prompted(prompt: str) -> Attributes:
    """The user's own words: a content."""
    return {"gen_ai.input.messages": _json([_message("user", [{"type": "text", "content": prompt}])])}


def said(turn: Turn) -> Attributes:
    """What is kept of what a model said: its thoughts and the tools that it asked for. A content."""
    parts: list[dict[str, Any]] = [{"type": "reasoning", "content": thought.content} for thought in turn.thoughts]
    parts += [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": _arguments(call.arguments)}
        for call in turn.tool_calls
    ]
    if not parts:
        return {}
    message = _message("assistant", parts) | {"finish_reason": turn.stop_reason or "error"}
    return {"gen_ai.output.messages": _json([message])}


def tool(name: str, call_id: str) -> dict[str, Any]:
    """A call of a tool."""
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.type": "function",
        "mcp.method.name": "tools/call",
    }


def tool_called_with(arguments: str) -> Attributes:
    """What a tool was asked: a content."""
    return {"gen_ai.tool.call.arguments": arguments}


def tool_said(result: ToolResult) -> Attributes:
    """What a tool answered in words: a content."""
    words = [part.text for part in result.parts if isinstance(part, TextPart)]
    return {"gen_ai.tool.call.result": "\n".join(words)} if words else {}


def _message(role: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"role": role, "parts": parts}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 63  # OTLP holds no more
