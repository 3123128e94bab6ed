"""A client that leaves ends the upstream request; what was used until then is recorded."""

from __future__ import annotations

import asyncio

import pytest

from aibridge.records import Interception, InterceptionEnded, PromptUsage, TokenUsage, ToolUsage
from support.client import ask, begun
from support.dialects import CHAT, MESSAGES, Dialect
from support.provider import Asked, Provider, events, head, raw
from support.recorder import ListRecorder
from support.waiting import until


async def test_in_the_middle_of_a_stream(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(dialect.before(), asyncio.Event()))
    async with begun(bridge + dialect.path, dialect.request()) as answer:
        await answer.until(dialect.said)
    ended = await _end(recorder)
    assert (ended.status, ended.http_status) == ("cancelled", 200)
    await _is_left(provider.last)


async def test_what_was_used_is_recorded_as_partial(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    """Messages tells the input at the beginning; the call had begun, and its arguments are those that came."""
    cut = next(place for place, event in enumerate(MESSAGES.events) if b"input_json_delta" in event)
    provider.says(events(MESSAGES.before(cut), asyncio.Event()))
    async with begun(bridge + MESSAGES.path, MESSAGES.request()) as answer:
        await answer.until(b"input_json_delta")
    await _end(recorder)
    usage = recorder.one(TokenUsage)
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (23, 2, 512)
    assert usage.metadata["partial"] is True
    call = recorder.one(ToolUsage)
    assert (call.input, call.metadata) == ('{"harbour', {"partial": True})


async def test_a_chat_provider_that_counts_as_it_goes_is_counted(
    bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    counted = CHAT.events[1].replace(b'"usage": null', b'"usage": {"prompt_tokens": 9, "completion_tokens": 3}')
    provider.says(events(CHAT.events[0], counted, asyncio.Event()))
    async with begun(bridge + CHAT.path, CHAT.request()) as answer:
        await answer.until(CHAT.said)
    await _end(recorder)
    usage = recorder.one(TokenUsage)
    assert (usage.input_tokens, usage.output_tokens, usage.metadata["partial"]) == (9, 3, True)


@pytest.mark.parametrize("stream", [True, False])
async def test_before_the_first_byte(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder, stream: bool
) -> None:
    provider.says(raw(asyncio.Event()))
    asking = asyncio.create_task(ask(bridge + dialect.path, dialect.request(stream=stream)))
    await until(lambda: provider.asked, "the provider was asked")
    asking.cancel()
    ended = await _end(recorder)
    assert (ended.status, ended.http_status, ended.error_type) == ("cancelled", None, None)
    assert recorder.one(PromptUsage)
    await _is_left(provider.last)


async def test_in_the_middle_of_a_document(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    half = dialect.document[: len(dialect.document) // 2]
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(dialect.document)))]
    provider.says(raw(head(200, fields) + half, asyncio.Event()))
    asking = asyncio.create_task(ask(bridge + dialect.path, dialect.request(stream=False)))
    await until(lambda: provider.asked and provider.last.written, "the provider has said one half")
    asking.cancel()
    assert (await _end(recorder)).status == "cancelled"
    await _is_left(provider.last)


async def test_right_after_the_last_event_is_no_leaving(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """Clients close when they have the event that ends a message; the provider may not have closed by then."""
    provider.says(events(dialect.stream, asyncio.Event()))
    last = dialect.events[-1]
    async with begun(bridge + dialect.path, dialect.request()) as answer:
        await answer.until(last)
    assert (await _end(recorder)).status == "completed"
    assert "partial" not in recorder.one(TokenUsage).metadata
    await _is_left(provider.last)


async def test_while_the_body_is_still_to_come(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    """Nothing has begun: there is nothing to record."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(bridge.rpartition(":")[2]))
    writer.write(f"POST {MESSAGES.path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 500\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await ask(bridge + MESSAGES.path, b"{}")).status == 400
    assert not provider.asked
    assert not recorder.records


async def test_on_a_passthrough_route(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(raw(asyncio.Event()))
    asking = asyncio.create_task(ask(f"{bridge}/openai/v1/models", method="GET"))
    await until(lambda: provider.asked, "the provider was asked")
    asking.cancel()
    await _is_left(provider.last)
    assert not recorder.records


async def test_many_at_once(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    """A hundred leave one stream each; a hundred ends are recorded."""
    provider.says(events(MESSAGES.before(), asyncio.Event()))

    async def leave() -> None:
        async with begun(bridge + MESSAGES.path, MESSAGES.request()) as answer:
            await answer.until(MESSAGES.said)

    await asyncio.gather(*(leave() for _ in range(100)))
    await until(lambda: len(recorder.all(InterceptionEnded)) >= 100, "a hundred ends")
    ended = {end.interception_id: end.status for end in recorder.all(InterceptionEnded)}
    assert ended == {begun.id: "cancelled" for begun in recorder.all(Interception)}
    assert len(recorder.all(TokenUsage)) == 100


async def _end(recorder: ListRecorder) -> InterceptionEnded:
    await until(lambda: recorder.all(InterceptionEnded), "the end was recorded")
    return recorder.one(InterceptionEnded)


async def _is_left(asked: Asked) -> None:
    await until(asked.left.is_set, "the upstream request was ended")
