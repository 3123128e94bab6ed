"""Turns as a provider may tell them, in each dialect, and a client that listens: it accepts a coherent message only.

A turn is a list of parts, which each dialect has a form for; so one story can be told in all of them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aibridge.wire import sse
from aibridge.wire.chat_completions import ChatCompletions
from aibridge.wire.dialect import Dialect
from aibridge.wire.messages import Messages
from aibridge.wire.responses import Responses

PROMPT = "When is high water at Lyme?"
OWN = "read_file"
TIDES, HARBOURS = "bmcp_sea_tides", "bmcp_sea_harbours"
"""A tool of the client, and two that are injected."""

INJECTED = frozenset({TIDES, HARBOURS})


@dataclass(frozen=True)
class Text:
    """Something said."""

    text: str


@dataclass(frozen=True)
class Thinking:
    """Something thought, with what only its provider can read."""

    text: str
    secret: str = "c2lnbmVk"


@dataclass(frozen=True)
class Call:
    """A tool call; `arguments` is written as no JSON library would, so that decoding and encoding it would show."""

    id: str
    name: str
    arguments: str = '{"harbour": "Lyme",  "day":1}'


Part = Text | Thinking | Call


def hidden(part: Part) -> bool:
    """The client must not see it."""
    return isinstance(part, Call) and part.name in INJECTED


@dataclass
class Message:
    """What a client has understood of an answer."""

    id: str
    content: list[Any]
    """As it stands in the client's next request."""
    stop: str | None
    output_tokens: int | None
    keep_alives: int = 0


@dataclass
class Incoherent(Exception):
    """No client can make sense of this answer."""

    why: str
    where: object = field(default=None)


def demand(condition: object, why: str, where: object = None) -> None:
    if not condition:
        raise Incoherent(why, where)


class Speech(ABC):
    """A dialect's way to say these things. The tokens of a turn are ten times its number."""

    dialect: Dialect
    path: str
    """Of the bridged route, below the bridge."""
    history: str
    """The member of a request that holds the conversation."""

    def request(self, history: Any, *, stream: bool = True, tools: Sequence[str] = (OWN,), **members: Any) -> bytes:
        """A request of the client, `history` being its messages or items."""
        told = {"model": "m", "stream": stream, self.history: history, **members}
        if tools:
            told["tools"] = [self.tool(name) for name in tools]
        return json.dumps(told).encode()

    def answer(self, number: int, parts: Sequence[Part], *, stream: bool) -> bytes:
        """The answer of a turn, by its number from 1 on."""
        return self.stream(number, parts) if stream else self.document(number, parts)

    def heard(self, answer: bytes, *, stream: bool) -> Message:
        """The answer as its client understands it. Raises `Incoherent`."""
        return self.listen(_events(answer)) if stream else self.read(json.loads(answer))

    @abstractmethod
    def tool(self, name: str) -> Any:
        """A tool in a request."""

    @abstractmethod
    def stream(self, number: int, parts: Sequence[Part]) -> bytes: ...

    @abstractmethod
    def document(self, number: int, parts: Sequence[Part]) -> bytes: ...

    @abstractmethod
    def listen(self, events: Sequence[Any]) -> Message: ...

    @abstractmethod
    def read(self, document: Any) -> Message: ...

    @abstractmethod
    def asked(self, prompt: str) -> list[Any]:
        """A prompt as elements of the history."""

    @abstractmethod
    def said(self, parts: Sequence[Part]) -> list[Any]:
        """What the model said in a turn, as elements of the history."""

    @abstractmethod
    def shown(self, parts: Sequence[Part]) -> list[Any]:
        """What a client is shown of it, as a `Message` has it in `content`."""

    @abstractmethod
    def results(self, results: Iterable[tuple[str, str]]) -> list[Any]:
        """What tools gave, by the ids of their calls, as elements of the history."""

    @abstractmethod
    def returned(self, message: Message) -> list[Any]:
        """The message as the client sends it back, as elements of the history."""


def _events(stream: bytes) -> list[Any]:
    """The data of each event, decoded; a comment is None, and `[DONE]` is itself."""
    splitter = sse.EventSplitter()
    events = splitter.feed(stream)
    demand(not splitter.rest(), "the stream ends within an event", stream[-80:])
    found = []
    for event in events:
        data = sse.data_of(event).decode()
        told: Any = data if data == "[DONE]" else json.loads(data) if data else None
        name = event.partition(b"\n")[0].removeprefix(b"event: ").decode() if event.startswith(b"event: ") else None
        demand(name is None or told["type"] == name, "an event is not of the type that it is named after", event)
        found.append(told)
    return found


class MessagesSpeech(Speech):
    """Anthropic Messages."""

    dialect = Messages()
    path = "/anthropic/v1/messages"
    history = "messages"

    def tool(self, name: str) -> Any:
        return {"name": name, "description": "", "input_schema": {"type": "object"}}

    def stream(self, number: int, parts: Sequence[Part]) -> bytes:
        begun = self._message(number, [], None) | {"usage": {"input_tokens": number, "output_tokens": 1}}
        told: list[Any] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
        for index, part in enumerate(parts):
            empty, deltas = self._deltas(part)
            told.append({"type": "content_block_start", "index": index, "content_block": empty})
            told += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            told.append({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": self._stop(parts), "stop_sequence": None}
        told.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 10 * number}})
        told.append({"type": "message_stop"})
        return b"".join(sse.write(json.dumps(event).encode(), event["type"]) for event in told)

    def document(self, number: int, parts: Sequence[Part]) -> bytes:
        message = self._message(number, [self._block(part) for part in parts], self._stop(parts))
        return json.dumps(message | {"usage": {"input_tokens": number, "output_tokens": 10 * number}}).encode()

    def _message(self, number: int, content: list[Any], stop: str | None) -> dict[str, Any]:
        told = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": "m"}
        return {**told, "content": content, "stop_reason": stop, "stop_sequence": None}

    def _stop(self, parts: Sequence[Part]) -> str:
        return "tool_use" if any(isinstance(part, Call) for part in parts) else "end_turn"

    def _block(self, part: Part) -> dict[str, Any]:
        match part:
            case Text(text):
                return {"type": "text", "text": text}
            case Thinking(text, secret):
                return {"type": "thinking", "thinking": text, "signature": secret}
            case Call(id, name, arguments):
                return {"type": "tool_use", "id": id, "name": name, "input": json.loads(arguments)}

    def _deltas(self, part: Part) -> tuple[Any, list[Any]]:
        match part:
            case Text(text):
                pieces = [{"type": "text_delta", "text": piece} for piece in _halves(text)]
                return self._block(Text("")), pieces
            case Thinking(text, secret):
                pieces = [{"type": "thinking_delta", "thinking": piece} for piece in _halves(text)]
                return self._block(Thinking("", "")), [*pieces, {"type": "signature_delta", "signature": secret}]
            case Call(id, name, arguments):
                pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *_halves(arguments))]
                return self._block(Call(id, name, "{}")), pieces

    def listen(self, events: Sequence[Any]) -> Message:
        first, *others = events
        demand(first["type"] == "message_start", "it does not begin with message_start", first)
        message = Message(first["message"]["id"], [], None, first["message"]["usage"]["output_tokens"])
        pieces: dict[int, list[str]] = {}
        ended: list[str] = []
        for event in others:
            kind, index = event["type"], event.get("index")
            demand(
                not ended or (ended == ["message_delta"] and kind == "message_stop"), "it goes on after its end", event
            )
            if kind == "ping":
                message.keep_alives += 1
            elif kind == "content_block_start":
                demand(index == len(message.content), "the indices of blocks do not rise one by one", event)
                message.content.append(event["content_block"])
                pieces[index] = []
            elif kind == "content_block_delta":
                demand(index in pieces, "a delta is of no open block", event)
                self._grow(message.content[index], event["delta"], pieces[index])
            elif kind == "content_block_stop":
                demand(index in pieces, "a block ends that is not open", event)
                if text := "".join(pieces.pop(index)):
                    message.content[index]["input"] = json.loads(text)
            elif kind == "message_delta":
                demand(not pieces, "the message ends while a block is open", event)
                message.stop, message.output_tokens = event["delta"]["stop_reason"], event["usage"]["output_tokens"]
                ended.append(kind)
            else:
                demand(kind == "message_stop", "an event of no known type", event)
                ended.append(kind)
        demand(ended == ["message_delta", "message_stop"], "it has no end", events[-2:])
        return message

    def _grow(self, block: Any, delta: Any, pieces: list[str]) -> None:
        if delta["type"] == "input_json_delta":
            pieces.append(delta["partial_json"])
        else:
            name = delta["type"].removesuffix("_delta")
            block[name] += delta[name]

    def read(self, document: Any) -> Message:
        told = document["id"], document["content"], document["stop_reason"], document["usage"]["output_tokens"]
        return Message(*told)

    def asked(self, prompt: str) -> list[Any]:
        return [{"role": "user", "content": prompt}]

    def said(self, parts: Sequence[Part]) -> list[Any]:
        return [{"role": "assistant", "content": [self._block(part) for part in parts]}] if parts else []

    def shown(self, parts: Sequence[Part]) -> list[Any]:
        return [self._block(part) for part in parts if not hidden(part)]

    def results(self, results: Iterable[tuple[str, str]]) -> list[Any]:
        content = [
            {"type": "tool_result", "tool_use_id": call_id, "content": [{"type": "text", "text": text}]}
            for call_id, text in results
        ]
        return [{"role": "user", "content": content}] if content else []

    def returned(self, message: Message) -> list[Any]:
        return [{"role": "assistant", "content": message.content}]


class ChatSpeech(Speech):
    """OpenAI Chat Completions, with the thoughts that some servers tell."""

    dialect = ChatCompletions()
    path = "/openai/v1/chat/completions"
    history = "messages"

    def tool(self, name: str) -> Any:
        return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}

    def request(self, history: Any, *, stream: bool = True, tools: Sequence[str] = (OWN,), **members: Any) -> bytes:
        counted = {"stream_options": {"include_usage": True}} if stream else {}
        return super().request(history, stream=stream, tools=tools, **(counted | members))

    def stream(self, number: int, parts: Sequence[Part]) -> bytes:
        told = [self._chunk(number, {"role": "assistant", "content": ""})]
        calls = 0
        for part in parts:
            match part:
                case Text(text):
                    told += [self._chunk(number, {"content": piece}) for piece in _halves(text)]
                case Thinking(text, _):
                    told += [self._chunk(number, {"reasoning_content": piece}) for piece in _halves(text)]
                case Call(id, name, arguments):
                    begun = {"index": calls, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                    told.append(self._chunk(number, {"tool_calls": [begun]}))
                    for piece in _halves(arguments):
                        more = {"index": calls, "function": {"arguments": piece}}
                        told.append(self._chunk(number, {"tool_calls": [more]}))
                    calls += 1
        told.append(self._chunk(number, {}, self._finish(parts)))
        told.append(self._completion(number, "chat.completion.chunk", [], self._usage(number)))
        return b"".join(sse.write(json.dumps(chunk).encode()) for chunk in told) + sse.write(b"[DONE]")

    def document(self, number: int, parts: Sequence[Part]) -> bytes:
        message = self.said(parts)[0]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish(parts)}
        return json.dumps(self._completion(number, "chat.completion", [choice], self._usage(number))).encode()

    def _chunk(self, number: int, delta: Any, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._completion(number, "chat.completion.chunk", [choice], None)

    def _completion(self, number: int, kind: str, choices: list[Any], usage: Any) -> dict[str, Any]:
        told = {"id": f"chatcmpl_{number}", "object": kind, "created": 1767225600, "model": "m"}
        return {**told, "choices": choices, "usage": usage}

    def _usage(self, number: int) -> Any:
        return {"prompt_tokens": number, "completion_tokens": 10 * number, "total_tokens": 11 * number}

    def _finish(self, parts: Sequence[Part]) -> str:
        return "tool_calls" if any(isinstance(part, Call) for part in parts) else "stop"

    def listen(self, events: Sequence[Any]) -> Message:
        told: list[str] = []
        calls: list[Any] = []
        message = Message("", [], None, None)
        for place, event in enumerate(events):
            if event is None:
                message.keep_alives += 1
            elif event == "[DONE]":
                demand(place == len(events) - 1, "it goes on after its end", events[place + 1 :])
            else:
                message.id = message.id or event["id"]
                demand(event["id"] == message.id, "its id changes", event)
                demand(message.output_tokens is None, "something follows the usage", event)
                if event["usage"]:
                    message.output_tokens = event["usage"]["completion_tokens"]
                for choice in event["choices"]:
                    demand(message.stop is None, "a delta follows the end", event)
                    message.stop = choice["finish_reason"]
                    demand(("role" in choice["delta"]) is not bool(told or calls or place), "its role is not told once")
                    told.append(choice["delta"].get("content") or "")
                    self._grow(calls, choice["delta"].get("tool_calls", ()))
        demand(events[-1] == "[DONE]", "it has no end", events[-1])
        message.content = self._content("".join(told), calls)
        return message

    def _grow(self, calls: list[Any], deltas: Iterable[Any]) -> None:
        for delta in deltas:
            index = delta.pop("index")
            demand(index <= len(calls), "the indices of calls do not rise one by one", delta)
            if index == len(calls):
                calls.append(delta)
            else:
                calls[index]["function"]["arguments"] += delta["function"]["arguments"]

    def _content(self, text: str, calls: list[Any]) -> list[Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        return [message | ({"tool_calls": calls} if calls else {})]

    def read(self, document: Any) -> Message:
        (choice,) = document["choices"]
        said = choice["message"]
        content = self._content(said["content"] or "", said.get("tool_calls", []))
        return Message(document["id"], content, choice["finish_reason"], document["usage"]["completion_tokens"])

    def asked(self, prompt: str) -> list[Any]:
        return [{"role": "user", "content": prompt}]

    def said(self, parts: Sequence[Part]) -> list[Any]:
        (message,) = self._content("".join(p.text for p in parts if isinstance(p, Text)), self._calls(parts))
        thoughts = "".join(part.text for part in parts if isinstance(part, Thinking))
        return [message | ({"reasoning_content": thoughts} if thoughts else {})]

    def shown(self, parts: Sequence[Part]) -> list[Any]:
        shown = [part for part in parts if not hidden(part)]
        return self._content("".join(part.text for part in shown if isinstance(part, Text)), self._calls(shown))

    def _calls(self, parts: Sequence[Part]) -> list[Any]:
        return [
            {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
            for part in parts
            if isinstance(part, Call)
        ]

    def results(self, results: Iterable[tuple[str, str]]) -> list[Any]:
        return [{"role": "tool", "tool_call_id": call_id, "content": text} for call_id, text in results]

    def returned(self, message: Message) -> list[Any]:
        return message.content


class ResponsesSpeech(Speech):
    """OpenAI Responses."""

    dialect = Responses()
    path = "/openai/v1/responses"
    history = "input"

    def tool(self, name: str) -> Any:
        return {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}

    def stream(self, number: int, parts: Sequence[Part]) -> bytes:
        begun = self._response(number, "in_progress", [], None)
        told: list[Any] = [{"type": "response.created", "response": begun}]
        told.append({"type": "response.in_progress", "response": begun})
        items = self._items(number, parts)
        for index, (part, item) in enumerate(zip(parts, items, strict=True)):
            of = {"item_id": item["id"], "output_index": index}
            begun_item = item | {"content": []} if isinstance(part, Text) else item
            told.append({"type": "response.output_item.added", "output_index": index, "item": begun_item})
            of |= {"type": "response.function_call_arguments.delta"}
            if isinstance(part, Text):
                of |= {"type": "response.output_text.delta", "content_index": 0}
                empty = {"type": "output_text", "text": "", "annotations": []}
                told.append(of | {"type": "response.content_part.added", "part": empty})
            if not isinstance(part, Thinking):
                grown = part.text if isinstance(part, Text) else part.arguments
                told += [of | {"delta": piece} for piece in _halves(grown)]
            told.append({"type": "response.output_item.done", "output_index": index, "item": item})
        ended = self._response(number, "completed", items, self._usage(number))
        told.append({"type": "response.completed", "response": ended})
        numbered = [event | {"sequence_number": place} for place, event in enumerate(told)]
        return b"".join(sse.write(json.dumps(event).encode(), event["type"]) for event in numbered)

    def document(self, number: int, parts: Sequence[Part]) -> bytes:
        items = self._items(number, parts)
        return json.dumps(self._response(number, "completed", items, self._usage(number))).encode()

    def _response(self, number: int, status: str, output: list[Any], usage: Any) -> dict[str, Any]:
        told = {"id": f"resp_{number}", "object": "response", "status": status, "model": "m"}
        return {**told, "output": output, "usage": usage}

    def _usage(self, number: int) -> Any:
        details = {"input_tokens_details": {"cached_tokens": 0}}
        return {"input_tokens": number, **details, "output_tokens": 10 * number, "total_tokens": 11 * number}

    def _items(self, number: int, parts: Sequence[Part]) -> list[Any]:
        """Each with an id of its own."""
        return [item | {"id": f"item_{number}_{place}"} for place, item in enumerate(map(self._item, parts))]

    def _item(self, part: Part) -> dict[str, Any]:
        match part:
            case Text(text):
                content = [{"type": "output_text", "text": text, "annotations": []}]
                return {"type": "message", "role": "assistant", "status": "completed", "content": content}
            case Thinking(text, secret):
                summary = [{"type": "summary_text", "text": text}]
                return {"type": "reasoning", "summary": summary, "encrypted_content": secret}
            case Call(id, name, arguments):
                return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}

    def listen(self, events: Sequence[Any]) -> Message:
        begun, done = 0, list[Any]()
        first = events[0]
        demand(first["type"] == "response.created", "it does not begin with response.created", first)
        keep_alives = 0
        for number, event in enumerate(events):
            kind = event["type"]
            demand(event["sequence_number"] == number, "sequence numbers do not rise one by one", event)
            demand(kind != "response.created" or number == 0, "it begins twice", event)
            demand((kind == "response.completed") is (number == len(events) - 1), "its end is not at its end", event)
            keep_alives += kind == "keepalive"
            if kind == "response.output_item.added":
                demand(event["output_index"] == begun, "the indices of items do not rise one by one", event)
                begun += 1
            elif "output_index" in event:
                demand(event["output_index"] == len(done), "an event is of no open item", event)
                if kind == "response.output_item.done":
                    done.append(event["item"])
        message = self.read(events[-1]["response"])
        demand(_without_ids(done) == message.content, "its end tells of other items than were shown", message.content)
        message.keep_alives = keep_alives
        return message

    def read(self, document: Any) -> Message:
        usage = document["usage"]["output_tokens"]
        return Message(document["id"], _without_ids(document["output"]), document["status"], usage)

    def asked(self, prompt: str) -> list[Any]:
        return [{"role": "user", "content": [{"type": "input_text", "text": prompt}]}]

    def said(self, parts: Sequence[Part]) -> list[Any]:
        return [self._item(part) for part in parts]

    def shown(self, parts: Sequence[Part]) -> list[Any]:
        return [self._item(part) for part in parts if not hidden(part)]

    def results(self, results: Iterable[tuple[str, str]]) -> list[Any]:
        return [{"type": "function_call_output", "call_id": call_id, "output": text} for call_id, text in results]

    def returned(self, message: Message) -> list[Any]:
        return message.content


def _without_ids(items: Iterable[Any]) -> list[Any]:
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


SPEECHES: tuple[Speech, ...] = (MessagesSpeech(), ChatSpeech(), ResponsesSpeech())
