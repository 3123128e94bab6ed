"""Anthropic Messages, as the provider speaks it (https://docs.anthropic.com/en/api/messages)."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from aibridge.server.simulated.conversation import Conversation
from aibridge.server.simulated.exchange import Exchange, RefusedError, block, pieces, text_of, words

if TYPE_CHECKING:
    from aibridge.server.simulated.script import Call

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Messages:
    """The dialect of `POST /v1/messages`."""

    def read(self, body: dict[str, Any]) -> Conversation:
        """What the request says; raises `RefusedError` where calls and results do not match, as the provider does."""
        if not isinstance(body.get("max_tokens"), int):
            raise RefusedError(400, "max_tokens: Field required")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RefusedError(400, "messages: at least one message is required")
        # Claude Code puts system messages in between, and behind the user's.
        talk = [message for message in messages if message.get("role") != "system"]
        _check(talk)
        begun = next((at for at in reversed(range(len(talk))) if _prompt(talk[at])), 0)
        after = talk[begun + 1 :]
        return Conversation(
            prompt=_prompt(talk[begun]),
            results=tuple(text_of(result.get("content")) for result in _blocks(after[-1], "tool_result"))
            if after
            else (),
            rounds=sum(bool(_blocks(message, "tool_use")) for message in after),
            continued=any(message.get("role") == "assistant" for message in talk),
            tools=_tools(body),
            parallel=not body.get("tool_choice", {}).get("disable_parallel_tool_use", False),
            thinks=body.get("thinking", {}).get("type") in ("enabled", "adaptive"),
            schema=(body.get("output_config") or {}).get("format", {}).get("schema"),
            limit=body["max_tokens"],
        )

    def document(self, exchange: Exchange) -> dict[str, Any]:
        """The whole message."""
        message = _begun(exchange)
        message["content"] = [_filled(*content) for content in _content(exchange)]
        message["stop_reason"] = _stop_reason(exchange)
        message["usage"]["output_tokens"] = exchange.tokens.output
        return message

    def events(self, exchange: Exchange) -> list[bytes]:
        """`message_start`, the content blocks, `message_delta`, `message_stop`; one `ping` on the way."""
        events: list[dict[str, Any]] = [{"type": "message_start", "message": _begun(exchange)}]
        for index, (started, deltas) in enumerate(_content(exchange)):
            events.append({"type": "content_block_start", "index": index, "content_block": started})
            if index == 0:
                events.append({"type": "ping"})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        usage = {**_usage(exchange), "output_tokens": exchange.tokens.output}
        delta = {"stop_reason": _stop_reason(exchange), "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": usage})
        events.append({"type": "message_stop"})
        return [block(event, event["type"]) for event in events]

    def failure(self, exchange: Exchange, sent: int) -> bytes:
        """An `error` event; there is no end of the message behind it."""
        return block(self.error(529, "Overloaded", exchange.new_id("req_")), "error")

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        """The body of an answer that is an error."""
        error = {"type": _ERROR_TYPES.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": request_id}


def _blocks(message: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if part.get("type") == kind] if isinstance(content, list) else []


def _prompt(message: dict[str, Any]) -> str:
    """The user's own words in a message, without the reminders that clients wrap in tags; empty where it has none."""
    if message.get("role") != "user" or _blocks(message, "tool_result"):
        return ""
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [str(part["text"]) for part in _blocks(message, "text")]
    return "\n".join(text for text in texts if not text.lstrip().startswith("<system-reminder>"))


def _tools(body: dict[str, Any]) -> frozenset[str]:
    if body.get("tool_choice", {}).get("type") == "none":
        return frozenset()
    return frozenset(tool["name"] for tool in body.get("tools") or () if "name" in tool)


def _check(talk: list[dict[str, Any]]) -> None:
    """Refuse what the provider refuses: calls without results, results without calls, thinking that was altered."""
    calls: set[str] = set()
    for at, message in enumerate(talk):
        results = {str(result.get("tool_use_id")) for result in _blocks(message, "tool_result")}
        if missing := calls - results:
            raise RefusedError(
                400,
                f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(sorted(missing))}.",
            )
        if unasked := results - calls:
            raise RefusedError(
                400,
                f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(sorted(unasked))}.",
            )
        calls = {str(call.get("id")) for call in _blocks(message, "tool_use")}
        for thinking in _blocks(message, "thinking"):
            if thinking.get("signature") != _signature(str(thinking.get("thinking"))):
                raise RefusedError(400, f"messages.{at}: Invalid `signature` in `thinking` block")


def _signature(thinking: str) -> str:
    return base64.b64encode(hashlib.sha512(b"simulated" + thinking.encode()).digest()).decode()


def _begun(exchange: Exchange) -> dict[str, Any]:
    return {
        "id": exchange.new_id("msg_01"),
        "type": "message",
        "role": "assistant",
        "model": exchange.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(exchange), "output_tokens": 1, "service_tier": "standard"},
    }


def _usage(exchange: Exchange) -> dict[str, Any]:
    """Input by what the cache did with it: the provider caches only where the client marks what to cache."""
    marked = b'"cache_control"' in msgspec.json.encode(exchange.body)
    cached = exchange.tokens.cached if marked else 0
    read, written = (cached, 0) if exchange.conversation.continued else (0, cached)
    return {
        "input_tokens": exchange.tokens.total_input - cached,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
    }


def _stop_reason(exchange: Exchange) -> str:
    if exchange.answer.truncated:
        return "max_tokens"
    return "tool_use" if exchange.answer.calls else "end_turn"


def _content(exchange: Exchange) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The content blocks as they start, each with the deltas that fill it."""
    content: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if thought := exchange.answer.thought:
        deltas = [{"type": "thinking_delta", "thinking": word} for word in words(thought)]
        deltas.append({"type": "signature_delta", "signature": _signature(thought)})
        content.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
    text = exchange.answer.text
    content.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in words(text)]))
    for call in exchange.answer.calls:
        started = {"type": "tool_use", "id": exchange.new_id("toolu_01"), "name": call.name, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces(_input(call)))]
        content.append((started, deltas))
    return content


def _input(call: Call) -> str:
    """The JSON of a call's input, which is always an object here."""
    return call.arguments if call.free_text is None else f'{{"input": {call.arguments}}}'


def _filled(started: dict[str, Any], deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """A content block with its deltas put together."""
    filled = dict(started)
    for field in ("text", "thinking", "signature"):
        if field in filled:
            filled[field] = "".join(delta.get(field, "") for delta in deltas)
    if "input" in filled:
        filled["input"] = msgspec.json.decode("".join(delta["partial_json"] for delta in deltas))
    return filled
