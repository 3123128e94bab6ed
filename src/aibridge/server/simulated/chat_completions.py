"""OpenAI Chat Completions, as the provider speaks it (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aibridge.server.simulated.conversation import Conversation
from aibridge.server.simulated.exchange import Exchange, RefusedError, block, pieces, text_of, words
from aibridge.server.simulated.openai_error import openai_error

if TYPE_CHECKING:
    from aibridge.server.simulated.script import Call

_DONE = b"data: [DONE]\n\n"


class ChatCompletions:
    """The dialect of `POST /v1/chat/completions`."""

    def read(self, body: dict[str, Any]) -> Conversation:
        """What the request says; raises `RefusedError` where calls and results do not match, as the provider does."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RefusedError(400, "Missing required parameter: 'messages'.")
        _check(messages)
        talk = [message for message in messages if message.get("role") not in ("system", "developer")]
        begun = next((at for at in reversed(range(len(talk))) if talk[at].get("role") == "user"), 0)
        after = talk[begun + 1 :]
        called = [at for at, message in enumerate(after) if message.get("tool_calls")]
        results = [message for message in after[called[-1] + 1 :] if message.get("role") == "tool"] if called else []
        return Conversation(
            prompt=text_of(talk[begun].get("content")) if talk else "",
            results=tuple(text_of(result.get("content")) for result in results),
            rounds=len(called),
            continued=any(message.get("role") == "assistant" for message in talk),
            tools=_tools(body),
            parallel=body.get("parallel_tool_calls", True),
            schema=(body.get("response_format") or {}).get("json_schema", {}).get("schema"),
            limit=body.get("max_completion_tokens") or body.get("max_tokens"),
        )

    def document(self, exchange: Exchange) -> dict[str, Any]:
        """The whole completion."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": exchange.answer.text,
            "refusal": None,
            "annotations": [],
        }
        if exchange.answer.calls:
            message["tool_calls"] = [_call(exchange, call) for call in exchange.answer.calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(exchange)}
        return {**_head(exchange, "chat.completion"), "choices": [choice], "usage": _usage(exchange)}

    def events(self, exchange: Exchange) -> list[bytes]:
        """Chunks, the last with the usage where the client asked for it, and `[DONE]`."""
        with_usage = (exchange.body.get("stream_options") or {}).get("include_usage", False)
        head = _head(exchange, "chat.completion.chunk")

        def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return block({**head, "choices": [choice], **({"usage": None} if with_usage else {})})

        events = [chunk({"role": "assistant", "content": "", "refusal": None})]
        events += [chunk({"content": word}) for word in words(exchange.answer.text)]
        for index, call in enumerate(exchange.answer.calls):
            events += [chunk({"tool_calls": [{"index": index, **delta}]}) for delta in _call_deltas(exchange, call)]
        events.append(chunk({}, _finish_reason(exchange)))
        if with_usage:
            events.append(block({**head, "choices": [], "usage": _usage(exchange)}))
        return [*events, _DONE]

    def failure(self, exchange: Exchange, sent: int) -> bytes:
        """A chunk that holds an error; there is no `[DONE]` behind it."""
        return block(openai_error(500, "The server had an error while processing your request."))

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        """The body of an answer that is an error."""
        return openai_error(status, message)


def _check(messages: list[dict[str, Any]]) -> None:
    """Refuse what the provider refuses: calls without results, and results without calls."""
    open_calls: set[str] = set()
    for message in messages:
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise RefusedError(
                    400, "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                )
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            break
        open_calls = {str(call.get("id")) for call in message.get("tool_calls") or ()}
    if open_calls:
        raise RefusedError(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(sorted(open_calls))}",
        )


def _tools(body: dict[str, Any]) -> frozenset[str]:
    if body.get("tool_choice") == "none":
        return frozenset()
    return frozenset(tool[tool["type"]]["name"] for tool in body.get("tools") or ())


def _head(exchange: Exchange, kind: str) -> dict[str, Any]:
    return {
        "id": exchange.new_id("chatcmpl-"),
        "object": kind,
        "created": exchange.created,
        "model": exchange.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def _finish_reason(exchange: Exchange) -> str:
    if exchange.answer.truncated:
        return "length"
    return "tool_calls" if exchange.answer.calls else "stop"


def _call(exchange: Exchange, call: Call) -> dict[str, Any]:
    head = {"id": exchange.new_id("call_")}
    if (text := call.free_text) is not None:
        return {**head, "type": "custom", "custom": {"name": call.name, "input": text}}
    return {**head, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_deltas(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    """A call as it is streamed: its id and name, then its arguments piece by piece."""
    whole = _call(exchange, call)
    kind = whole["type"]
    field = "input" if kind == "custom" else "arguments"
    started = {**whole, kind: {**whole[kind], field: ""}}
    return [started, *({kind: {field: piece}} for piece in pieces(whole[kind][field]))]


def _usage(exchange: Exchange) -> dict[str, Any]:
    tokens = exchange.tokens
    return {
        "prompt_tokens": tokens.total_input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.total_input + tokens.output,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cached if exchange.conversation.continued else 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": tokens.thought,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
