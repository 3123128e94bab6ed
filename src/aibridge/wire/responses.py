"""OpenAI Responses.

Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from aibridge.errors import Fault
from aibridge.wire import counters, json_bytes, openai, sse
from aibridge.wire.body import Said, last_said, read_body, texts
from aibridge.wire.dialect import ProviderError, Reader, Request, SessionHints, Thought, ToolCall, Turn
from aibridge.wire.document import DocumentReader, error_in
from aibridge.wire.stream import StreamReader, end_event
from aibridge.wire.tools import OfferedTool

if TYPE_CHECKING:
    from aibridge.wire.merged.merge import Merge


class Responses:
    """The dialect of `POST /v1/responses`."""

    name = "responses"
    keep_alive = sse.write(b'{"type":"keepalive"}', "keepalive")

    def parse(self, body: bytes) -> Request:
        """Read a request: nothing of it is changed."""
        members = read_body(_request, body)
        prompt, answered = _asked(members.input)
        session = members.client_metadata.session_id if members.client_metadata else None
        return Request(
            body,
            members.model,
            members.stream is True,
            prompt=prompt,
            correlating_tool_call_id=answered,
            hints=SessionHints(client_session_id=session, prompt_cache_key=members.prompt_cache_key),
            goes_on_from=members.previous_response_id,
        )

    def stream_reader(self, request: Request) -> Reader:
        """A reader for an answer in server-sent events."""
        return ResponseStream()

    def document_reader(self, request: Request, status: int) -> Reader:
        """A reader for an answer in one JSON document."""
        return ResponseDocument(status)

    def merge(self, request: Request, tools: Sequence[OfferedTool]) -> Merge | None:
        """What makes one message of the turns, where the gateway offers tools; None where the request forbids them."""
        from aibridge.wire.merged import responses as merged

        return merged.MergedResponse.offering(request, tools)

    def error_body(self, fault: Fault, request_id: str) -> bytes:
        """A fault as OpenAI tells one."""
        return openai.error_body(fault)

    def error_event(self, fault: Fault, request_id: str, reader: Reader) -> bytes:
        """A fault as `response.failed`, since Codex takes no notice of a bare `error`."""
        number, shown = (reader.last_number + 1, reader.shown_id) if isinstance(reader, ResponseStream) else (0, None)
        response = {
            "id": shown or f"resp_{request_id}",
            "object": "response",
            "status": "failed",
            "error": {"code": "server_error", "message": fault.message},
            "output": [],
        }
        failed = {"type": "response.failed", "sequence_number": number, "response": response}
        return end_event(reader) + sse.write(json_bytes.encode(failed), "response.failed")


def going_on_from(request: Request, response_id: str) -> Request:
    """The request with another id as that of the response that it goes on from."""
    body = json_bytes.set_member(request.body, "previous_response_id", json_bytes.encode(response_id))
    return msgspec.structs.replace(request, body=body, goes_on_from=response_id)


class _ClientMetadata(msgspec.Struct):
    session_id: str | None = None


class _Body(msgspec.Struct):
    model: str
    stream: Any = None
    input: str | list[msgspec.Raw] = []
    prompt_cache_key: str | None = None
    previous_response_id: str | None = None
    client_metadata: _ClientMetadata | None = None


class _Text(msgspec.Struct):
    type: str = ""
    text: str = ""


_NULL = msgspec.Raw(b"null")


class _Item(msgspec.Struct):
    type: str = ""
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: msgspec.Raw = _NULL  # of a function, as text, or of a search for tools, as an object
    input: msgspec.Raw = _NULL  # of a custom tool
    action: msgspec.Raw = _NULL  # of a shell or a computer
    operation: msgspec.Raw = _NULL  # of a patch
    summary: list[_Text] | None = None
    phase: str | None = None
    content: list[_Text] | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: Any = None
    output: list[msgspec.Raw] | None = None


class _Id(msgspec.Struct):
    id: str | None = None


class Event(msgspec.Struct):
    """The data of any event."""

    type: str
    sequence_number: int = -1
    output_index: int = -1
    response: msgspec.Raw = msgspec.Raw(b"{}")
    item: msgspec.Raw = msgspec.Raw(b"{}")
    error: Any = None
    message: str | None = None
    code: str | None = None


_request = msgspec.json.Decoder(_Body)
_response = msgspec.json.Decoder(_Response)
_id = msgspec.json.Decoder(_Id)
_item = msgspec.json.Decoder(_Item)
_text = msgspec.json.Decoder(str)
_event = msgspec.json.Decoder(Event)


def _asked(given: str | list[msgspec.Raw]) -> tuple[str | None, str | None]:
    """The prompt, and the tool call that is answered, of a request's input."""
    if isinstance(given, str):
        return given, None
    said = last_said(given)
    if said is None:
        return None, None
    return _prompt(said), said.call_id if said.type.endswith("_call_output") else None


def _prompt(said: Said) -> str | None:
    told = texts(said.content, "input_text") if said.role == "user" else []
    return "\n".join(told) if told else None


def _call(item: _Item) -> ToolCall | None:
    """The tool call that an item asks of the client; None where it asks for none.

    What the provider runs by itself (`web_search_call`, …) has no `call_id`.
    """
    if not item.call_id or not item.type.endswith("_call"):
        return None
    name = item.name or item.type.removesuffix("_call")
    return ToolCall(item.call_id, name, _arguments(item), complete=True, namespace=item.namespace)


def _arguments(item: _Item) -> str:
    for told in map(json_bytes.text_of, (item.arguments, item.input, item.action, item.operation)):
        if told.startswith('"'):
            return json_bytes.decode(_text, told.encode())
        if told != "null":
            return told
    return ""


def _thoughts(item: _Item) -> list[Thought]:
    if item.type == "reasoning":
        return [Thought("reasoning_summary", part.text) for part in item.summary or ()]
    if item.type == "message" and item.phase == "commentary":
        return [Thought("commentary", "".join(p.text for p in item.content or () if p.type == "output_text"))]
    return []


def _add(told: msgspec.Raw, turn: Turn) -> None:
    """Read an item. There are many kinds, and one that is not as expected must not hide what else the answer shows."""
    with suppress(msgspec.DecodeError, RecursionError):
        item = json_bytes.decode(_item, told)
        if call := _call(item):
            turn.tool_calls.append(call)
        turn.thoughts.extend(_thoughts(item))


def _end(response: _Response, turn: Turn) -> None:
    """What the response as a whole says at its end: usage and outcome."""
    turn.response_id = response.id or turn.response_id
    if told := counters.told(response.usage):
        turn.usage = openai.usage_of(told, "input_tokens", "output_tokens")
        turn.provider_usage = json_bytes.text_of(response.usage)
        turn.counted = True
    turn.stop_reason = response.status
    if response.status in ("failed", "cancelled") or response.error:
        turn.error = error_in({"error": response.error}) or turn.error or ProviderError(response.status, None)
    else:
        turn.complete = True


class ResponseDocument(DocumentReader):
    """A whole response."""

    def _read(self, text: bytes) -> None:
        response = json_bytes.decode(_response, text)
        if response.output is None and not response.error:
            self.turn.error = ProviderError("unreadable_answer", "it has no output")
            return
        _end(response, self.turn)
        for item in response.output or ():
            _add(item, self.turn)


class ResponseStream(StreamReader[Event]):
    """A response in events. Items count once they are done; usage comes with the end, whichever it is."""

    end_marks = (b"response.completed", b"response.incomplete", b"response.failed")

    def __init__(self) -> None:
        super().__init__(_event)
        self._last_number = -1
        self._items = 0

    @property
    def last_number(self) -> int:
        """The highest sequence number that the client has seen; -1 for none."""
        return self._last_number

    @property
    def shown_id(self) -> str | None:
        """The id of the response that the client has seen."""
        return self.turn.response_id

    def _read(self, event: Event) -> None:
        kind, turn = event.type, self.turn
        self._last_number = max(self._last_number, event.sequence_number)
        if kind == "response.output_item.done":
            self._items += 1
            _add(event.item, turn)
        elif kind in ("response.created", "response.in_progress", "response.queued"):
            turn.response_id = json_bytes.decode(_id, event.response).id or turn.response_id
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._close(kind, json_bytes.decode(_response, event.response))
        elif kind == "error":
            turn.error = error_in({"error": event.error}) or ProviderError(event.code, event.message)
            # and not the end yet: `response.failed` often follows, with usage

    def _close(self, kind: str, response: _Response) -> None:
        _end(response, self.turn)
        if kind == "response.failed" and not self.turn.error:
            self.turn.error = ProviderError(None, None)
        self.turn.complete = self.turn.error is None
        self.ended = True
        if not self._items:  # told at the end only
            for item in response.output or ():
                _add(item, self.turn)
