"""OpenAI Responses, as the provider speaks it (https://platform.openai.com/docs/api-reference/responses)."""

from __future__ import annotations

import base64
from itertools import chain
from typing import TYPE_CHECKING, Any

from aibridge.server.simulated.conversation import Conversation
from aibridge.server.simulated.exchange import Exchange, RefusedError, block, pieces, text_of, words
from aibridge.server.simulated.openai_error import openai_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aibridge.server.simulated.script import Call

Item = dict[str, Any]
"""An item of a response's input or output."""

Growing = list[tuple[str, dict[str, Any]]]
"""The events by which an item grows: their types, and what they hold beside the item's place."""

_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
_KEPT = 1000
"""So many responses are remembered, for requests that go on from one."""


class Responses:
    """The dialect of `POST /v1/responses`."""

    def __init__(self) -> None:
        self._stored: dict[str, list[Item]] = {}

    def read(self, body: dict[str, Any]) -> Conversation:
        """What the request says; raises `RefusedError` where calls and results do not match, as the provider does."""
        if "input" not in body:
            raise RefusedError(400, "Missing required parameter: 'input'.")
        items = self._items(body)
        _check(items)
        talk = [item for item in items if item.get("role") not in ("system", "developer")]
        begun = next((at for at in reversed(range(len(talk))) if _is_prompt(talk[at])), 0)
        after = talk[begun + 1 :]
        rounds = [at for at, item in enumerate(after) if _closes_a_round(after, at)]
        last_round = after[rounds[-2] + 1 if len(rounds) > 1 else 0 :]
        thinking = body.get("reasoning") or {}
        return Conversation(
            prompt=_prompt(talk[begun]) if talk else "",
            results=tuple(text_of(item.get("output")) for item in last_round if item.get("type") in _RESULTS),
            rounds=len(rounds),
            continued=any(item.get("role") == "assistant" or item.get("type") in _CALLS for item in talk),
            tools=frozenset(_tools(body, items)),
            parallel=body.get("parallel_tool_calls", True),
            thinks=bool(thinking.get("effort") or thinking.get("summary")),
            schema=((body.get("text") or {}).get("format") or {}).get("schema"),
            limit=body.get("max_output_tokens"),
        )

    def _items(self, body: dict[str, Any]) -> list[Item]:
        """The input, with that of the response that it goes on from."""
        items = body["input"]
        if isinstance(items, str):
            items = [{"role": "user", "content": items}]
        if previous := body.get("previous_response_id"):
            if previous not in self._stored:
                raise RefusedError(400, f"Previous response with id '{previous}' not found.")
            return [*self._stored[previous], *items]
        return list(items)

    def document(self, exchange: Exchange) -> dict[str, Any]:
        """The whole response."""
        return self._finished(_begun(exchange), exchange, [item for item, _ in self._output(exchange)])

    def events(self, exchange: Exchange) -> list[bytes]:
        """`response.created`, every item as it grows, `response.completed` or `response.incomplete`."""
        begun = _begun(exchange)
        output = self._output(exchange)
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
        ]
        for index, (item, growing) in enumerate(output):
            place = {"output_index": index}
            events.append({"type": "response.output_item.added", **place, "item": _started(item)})
            events += [{"type": kind, "item_id": item["id"], **place, **data} for kind, data in growing]
            events.append({"type": "response.output_item.done", **place, "item": item})
        finished = self._finished(begun, exchange, [item for item, _ in output])
        events.append({"type": f"response.{finished['status']}", "response": finished})
        return [block({**event, "sequence_number": at}, event["type"]) for at, event in enumerate(events)]

    def failure(self, exchange: Exchange, sent: int) -> bytes:
        """A `response.failed` event; nothing follows it."""
        error = {"code": "server_error", "message": "The server had an error while processing your request."}
        response = {**_begun(exchange), "status": "failed", "error": error}
        return block({"type": "response.failed", "response": response, "sequence_number": sent}, "response.failed")

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        """The body of an answer that is an error."""
        return openai_error(status, message)

    def _output(self, exchange: Exchange) -> list[tuple[Item, Growing]]:
        """The finished items of the output, each with the events by which it grows."""
        said = exchange.answer
        output = [_reasoning(exchange, said.thought)] if said.thought else []
        output.append(_message(exchange, said.text))
        namespaces = _tools(exchange.body, self._items(exchange.body))
        return [*output, *(_call(exchange, call, namespaces[call.name]) for call in said.calls)]

    def _finished(self, begun: dict[str, Any], exchange: Exchange, output: list[Item]) -> dict[str, Any]:
        """The response at its end; kept, unless the client forbade it."""
        finished = {**begun, "status": "completed", "output": output, "usage": _usage(exchange)}
        if exchange.answer.truncated:
            finished |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        if begun["store"]:
            if len(self._stored) == _KEPT:
                del self._stored[next(iter(self._stored))]
            self._stored[begun["id"]] = [*self._items(exchange.body), *output]
        return finished


def _is_prompt(item: Item) -> bool:
    return item.get("role") == "user" or (
        item.get("type") == "agent_message" and "Message Type: NEW_TASK" in text_of(item.get("content"))
    )


def _prompt(item: Item) -> str:
    """The words of a prompt; what Codex says to a sub-agent stands in a part that, here, is not really encrypted."""
    if item.get("type") == "agent_message":
        return "\n".join(part.get("encrypted_content", "") for part in item["content"]).strip()
    return text_of(item.get("content"))


def _closes_a_round(items: list[Item], at: int) -> bool:
    """Whether this is the last one of the results that belong together."""
    following = items[at + 1].get("type") if at + 1 < len(items) else None
    return items[at].get("type") in _RESULTS and following not in _RESULTS


def _check(items: list[Item]) -> None:
    """Refuse what the provider refuses: calls without results, and results without calls."""
    calls = {str(item.get("call_id")): item for item in items if item.get("type") in _CALLS}
    results = {str(item.get("call_id")) for item in items if item.get("type") in _RESULTS}
    if missing := sorted(calls.keys() - results):
        raise RefusedError(400, f"No tool output found for function call {missing[0]}.")
    if unasked := sorted(results - calls.keys()):
        raise RefusedError(400, f"No tool call found for function call output with call_id {unasked[0]}.")


def _tools(body: dict[str, Any], items: list[Item]) -> dict[str, str | None]:
    """The tools that may be called, by name, with the namespace of each that is in one.

    Codex brings its tools as an item of the input.
    """
    if body.get("tool_choice") == "none":
        return {}
    brought = [item.get("tools") or () for item in items if item.get("type") == "additional_tools"]
    found: dict[str, str | None] = {}
    for tool in chain(body.get("tools") or (), *brought):
        if tool.get("type") == "namespace":
            found |= {inner["name"]: tool["name"] for inner in tool["tools"]}
        elif "name" in tool:
            found[tool["name"]] = None
    return found


def _begun(exchange: Exchange) -> dict[str, Any]:
    """The response as it begins; it repeats most of what the request says."""
    asked = exchange.body
    return {
        "id": exchange.once("resp_", 50),
        "object": "response",
        "created_at": exchange.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": exchange.model,
        "output": [],
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": asked.get("previous_response_id"),
        "prompt_cache_key": asked.get("prompt_cache_key"),
        "reasoning": asked.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": "default",
        "store": asked.get("store") is not False,
        "temperature": asked.get("temperature", 1.0),
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools") or [],
        "top_p": asked.get("top_p", 1.0),
        "truncation": asked.get("truncation") or "disabled",
        "usage": None,
        "metadata": asked.get("metadata") or {},
    }


def _usage(exchange: Exchange) -> dict[str, Any]:
    tokens = exchange.tokens
    return {
        "input_tokens": tokens.total_input,
        "input_tokens_details": {"cached_tokens": tokens.cached if exchange.conversation.continued else 0},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.thought},
        "total_tokens": tokens.total_input + tokens.output,
    }


def _reasoning(exchange: Exchange, thought: str) -> tuple[Item, Growing]:
    part = {"type": "summary_text", "text": thought}
    item: Item = {"id": exchange.new_id("rs_", 50), "type": "reasoning", "summary": [part]}
    if "reasoning.encrypted_content" in (exchange.body.get("include") or ()):
        item["encrypted_content"] = base64.b64encode(thought.encode()).decode()
    place = {"summary_index": 0}
    return item, [
        ("response.reasoning_summary_part.added", {**place, "part": {**part, "text": ""}}),
        *(("response.reasoning_summary_text.delta", {**place, "delta": word}) for word in words(thought)),
        ("response.reasoning_summary_text.done", {**place, "text": thought}),
        ("response.reasoning_summary_part.done", {**place, "part": part}),
    ]


def _message(exchange: Exchange, text: str) -> tuple[Item, Growing]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    status = "incomplete" if exchange.answer.truncated else "completed"
    item = {
        "id": exchange.new_id("msg_", 50),
        "type": "message",
        "status": status,
        "role": "assistant",
        "phase": "commentary" if exchange.answer.calls else "final_answer",
        "content": [part],
    }
    place = {"content_index": 0}
    return item, [
        ("response.content_part.added", {**place, "part": {**part, "text": ""}}),
        *(("response.output_text.delta", {**place, "delta": word, "logprobs": []}) for word in words(text)),
        ("response.output_text.done", {**place, "text": text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": part}),
    ]


def _call(exchange: Exchange, call: Call, namespace: str | None) -> tuple[Item, Growing]:
    head = {"status": "completed", "call_id": exchange.new_id("call_"), "name": call.name}
    if namespace:
        head["namespace"] = namespace
    if (text := call.free_text) is not None:
        item = {"id": exchange.new_id("ctc_", 50), "type": "custom_tool_call", **head, "input": text}
        return item, list(_written("response.custom_tool_call_input", "input", text))
    item = {"id": exchange.new_id("fc_", 50), "type": "function_call", **head, "arguments": call.arguments}
    return item, list(_written("response.function_call_arguments", "arguments", call.arguments))


def _written(event: str, field: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for piece in pieces(text):
        yield f"{event}.delta", {"delta": piece}
    yield f"{event}.done", {field: text}


def _started(item: Item) -> Item:
    """An item as it is when it has just been added."""
    empty = {"content": [], "summary": [], "arguments": "", "input": ""}
    started = {**item, **{field: value for field, value in empty.items() if field in item}}
    return {**started, "status": "in_progress"} if "status" in item else started
