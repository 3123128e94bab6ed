"""What passes through the bridge passes as it is; and all of it is known afterwards."""

from __future__ import annotations

import asyncio
import json

import pytest

from aibridge.records import Interception, InterceptionEnded, ModelThought, PromptUsage, TokenUsage, ToolUsage
from support.client import ask, begun
from support.dialects import ARGUMENTS, CHAT, DIALECTS, PROMPT, TOOLS, Dialect
from support.provider import Provider, Reply, document, events, head
from support.recorder import ListRecorder


def check_records(recorder: ListRecorder, dialect: Dialect, *, stream: bool) -> None:
    """Each fact of the exchange is recorded once."""
    interception = recorder.one(Interception)
    assert (interception.initiator_id, interception.model) == ("ada", dialect.asking["model"])
    assert interception.route == dialect.path[dialect.path.index("/", 1) :]
    assert interception.streaming is stream
    assert recorder.one(PromptUsage).prompt == PROMPT
    usage = recorder.one(TokenUsage)
    counted = usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens
    assert counted == dialect.tokens
    assert "partial" not in usage.metadata
    calls = recorder.all(ToolUsage)
    assert [(call.provider_tool_call_id, call.tool, call.input) for call in calls] == TOOLS
    assert not any(call.injected or call.metadata for call in calls)
    thoughts = recorder.all(ModelThought)
    assert [(thought.metadata["source"], thought.content) for thought in thoughts] == list(dialect.thoughts)
    facts: list[TokenUsage | ToolUsage | ModelThought] = [usage, *calls, *thoughts]
    assert {fact.provider_response_id for fact in facts} == {dialect.response_id}
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.http_status, ended.error_type) == ("completed", 200, None)
    of = {record.interception_id for record in recorder.records if not isinstance(record, Interception)}
    assert of == {interception.id}


async def test_a_document_passes_as_it_is(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(dialect.document, headers=[("X-Request-Id", "r-1"), ("X-Set", "a"), ("X-Set", "b")]))
    body = dialect.request(stream=False, unknown={"kept": [1.50, "\ud83c\udf0a", "\\ud83c"]}).replace(b": ", b" :\t")
    answer = await ask(bridge + dialect.path, body)
    assert provider.last.body == body
    assert (answer.status, answer.body) == (200, dialect.document)
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Content-Length") == str(len(dialect.document))
    assert (answer.header("X-Request-Id"), answer.all("X-Set")) == ("r-1", ["a", "b"])
    assert answer.id == recorder.one(Interception).id
    assert "aibridge;dur=" in (answer.header("Server-Timing") or "")
    check_records(recorder, dialect, stream=False)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
async def test_a_stream_passes_as_it_is_however_it_is_cut(
    size: int, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    stream = dialect.stream.replace(b"\n", b"\r\n") if size == 7 else dialect.stream
    for_client = dialect.for_client.replace(b"\n", b"\r\n") if size == 7 else dialect.for_client
    provider.says(events(*(stream[at : at + size] for at in range(0, len(stream), size))))
    answer = await ask(bridge + dialect.path, dialect.request())
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body == for_client
    check_records(recorder, dialect, stream=True)


async def test_a_stream_passes_at_once(dialect: Dialect, bridge: str, provider: Provider) -> None:
    """The client has each event before the provider says the next one; a piece of one, where nothing is withheld."""
    turns = [asyncio.Event() for _ in dialect.events]
    provider.says(events(*(piece for pair in zip(turns, dialect.events, strict=True) for piece in pair)))
    async with begun(bridge + dialect.path, dialect.request(stream_options={"include_usage": True})) as answer:
        sent = b""
        for turn, event in zip(turns, dialect.events, strict=True):
            turn.set()
            sent += event
            await answer.until(sent)
        assert (await answer.rest()).complete


async def test_the_upstream_gets_the_body_and_the_query(dialect: Dialect, bridge: str, provider: Provider) -> None:
    provider.says(document(dialect.document))
    await ask(f"{bridge}{dialect.path}?beta=true&x=%2F", dialect.request(stream=False))
    asked = provider.last
    assert (asked.method, asked.target) == ("POST", f"{dialect.upstream_path}?beta=true&x=%2F")


async def test_chat_is_made_to_tell_its_usage_and_nothing_else(bridge: str, provider: Provider) -> None:
    provider.says(events(CHAT.stream))
    answer = await ask(bridge + CHAT.path, CHAT.request())
    assert provider.last.json() == json.loads(CHAT.request()) | {"stream_options": {"include_usage": True}}
    assert b'"prompt_tokens"' not in answer.body


async def test_chat_usage_that_the_client_asked_for_is_its_own(
    bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(CHAT.stream))
    body = CHAT.request(stream_options={"include_usage": True})
    answer = await ask(bridge + CHAT.path, body)
    assert provider.last.body == body
    assert answer.body == CHAT.stream
    check_records(recorder, CHAT, stream=True)


async def test_an_error_of_the_provider_passes_as_it_came(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    told = b'{"type": "error",  "error": {"type": "overloaded_error", "message": "Spring tide"}}'
    provider.says(document(told, 529, [("Retry-After", "7"), ("Request-Id", "req_9")]))
    answer = await ask(bridge + dialect.path, dialect.request())
    assert (answer.status, answer.body) == (529, told)
    assert (answer.header("Retry-After"), answer.header("Request-Id")) == ("7", "req_9")
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.http_status, ended.error_type) == ("failed", 529, "overloaded_error")
    assert ended.error_message == "Spring tide"
    assert recorder.one(PromptUsage).prompt == PROMPT
    assert not recorder.all(TokenUsage)


async def test_an_answer_without_a_length_ends_with_its_connection(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    told = head(200, [("Content-Type", "application/json")]) + dialect.document
    provider.says(Reply([told], reusable=False))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert (answer.body, answer.complete) == (dialect.document, True)
    check_records(recorder, dialect, stream=False)


async def test_a_result_answers_the_call_that_is_named(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """The iterations of an agent hold no prompt: they answer a tool call."""
    spoken: dict[str, dict[str, object]] = {
        "messages": {
            "messages": [
                {"role": "user", "content": PROMPT},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "call_9", "name": "t", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_9", "content": "06:12"}]},
            ]
        },
        "chat": {
            "messages": [
                {"role": "user", "content": PROMPT},
                {"role": "tool", "tool_call_id": "call_9", "content": "06:12"},
            ]
        },
        "responses": {
            "input": [
                {"role": "user", "content": PROMPT},
                {"type": "function_call_output", "call_id": "call_9", "output": "06:12"},
            ]
        },
    }
    provider.says(document(dialect.document))
    await ask(bridge + dialect.path, dialect.request(stream=False, **spoken[dialect.name]))
    assert recorder.one(Interception).correlating_tool_call_id == "call_9"
    assert not recorder.all(PromptUsage)


async def test_many_exchanges_at_once_keep_apart(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    """Sixty at a time: each client gets the answer to its own request, and the records know which is whose."""
    turns = [DIALECTS[number % 3] for number in range(60)]
    for dialect in DIALECTS:
        provider.says(events(dialect.stream))
        of_one = [turn for turn in turns if turn is dialect]
        answers = await asyncio.gather(
            *(ask(bridge + turn.path, turn.request(user=f"sailor {n}")) for n, turn in enumerate(of_one))
        )
        assert {answer.body for answer in answers} == {dialect.for_client}
    interceptions = recorder.all(Interception)
    assert len({interception.id for interception in interceptions}) == 60
    for kind in (InterceptionEnded, TokenUsage, ToolUsage, PromptUsage):
        of = [getattr(record, "interception_id") for record in recorder.all(kind)]  # noqa: B009
        assert sorted(of) == sorted(interception.id for interception in interceptions)
    assert {call.input for call in recorder.all(ToolUsage)} == {ARGUMENTS}
