"""Streams that break, fall silent, or fail: none of them ends as if all were well."""

from __future__ import annotations

import asyncio

import pytest

from aibridge import TimeLimits
from aibridge.records import InterceptionEnded, TokenUsage
from aibridge.wire import sse
from support.client import ask, begun
from support.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from support.provider import CLOSE, RESET, Piece, Provider, Reply, events, head, raw
from support.recorder import ListRecorder
from support.serving import bridged


@pytest.mark.parametrize("end", ["close", "reset", "clean", "mid-event", "bad chunk"])
async def test_a_broken_stream_ends_in_an_error(
    end: str, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """With the dialect's error event, and a connection that is cut: several clients take a clean end for success."""
    turn = asyncio.Event()
    cut: dict[str, list[Piece]] = {
        "close": [CLOSE],
        "reset": [RESET],
        "clean": [],
        "mid-event": [dialect.events[dialect.spoken + 1][:20], CLOSE],
    }
    if end == "bad chunk":
        framed = b"%x\r\n%b\r\n" % (len(dialect.before()), dialect.before())
        fields = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]
        provider.says(raw(head(200, fields) + framed, turn, b"nonsense\r\n"))
    else:
        provider.says(events(dialect.before(), turn, *cut[end]))
    async with begun(bridge + dialect.path, dialect.request()) as answer:
        await answer.until(dialect.said)
        turn.set()
        await answer.rest()
    assert not answer.complete
    assert answer.body.startswith(dialect.before())
    assert dialect.error_event_in(answer.body)
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.http_status, ended.error_type) == ("failed", 200, "upstream_fault")
    assert all(usage.metadata["partial"] for usage in recorder.all(TokenUsage))


async def test_an_error_event_of_the_provider_passes_as_it_came(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    told = {
        "messages": sse.write(b'{"type":"error","error":{"type":"overloaded_error","message":"Spring tide"}}', "error"),
        "chat": sse.write(b'{"error":{"type":"overloaded_error","message":"Spring tide","code":null,"param":null}}'),
        "responses": sse.write(
            b'{"type":"response.failed","response":{"id":"resp_tide_7","status":"failed","output":[],'
            b'"error":{"code":"overloaded_error","message":"Spring tide"}}}',
            "response.failed",
        ),
    }[dialect.name]
    provider.says(events(dialect.before(), told))
    answer = await ask(bridge + dialect.path, dialect.request())
    assert answer.body == dialect.before() + told
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type, ended.error_message) == ("failed", "overloaded_error", "Spring tide")


async def test_responses_that_failed_are_counted(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    """What a failed response used was used."""
    failed = (
        b'{"type":"response.failed","response":{"id":"resp_tide_7","status":"failed","output":[],'
        b'"error":{"code":"server_error","message":"gone"},"usage":{"input_tokens":30,"output_tokens":4}}}'
    )
    provider.says(events(RESPONSES.before(), sse.write(failed, "response.failed")))
    await ask(bridge + RESPONSES.path, RESPONSES.request())
    usage = recorder.one(TokenUsage)
    assert (usage.input_tokens, usage.output_tokens) == (30, 4)
    assert "partial" not in usage.metadata


async def test_what_breaks_after_the_last_event_is_nobodys_loss(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(dialect.stream, CLOSE))
    answer = await ask(bridge + dialect.path, dialect.request())
    assert (answer.body, answer.complete) == (dialect.for_client, True)
    assert recorder.one(InterceptionEnded).status == "completed"


async def test_a_chat_stream_may_leave_out_its_last_event(
    bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """Some servers do not send `[DONE]`; what is told before that is whole."""
    provider.says(events(*CHAT.events[:-1]))
    answer = await ask(bridge + CHAT.path, CHAT.request())
    assert answer.complete
    assert recorder.one(InterceptionEnded).status == "completed"


async def test_a_silent_provider_is_given_up(dialect: Dialect, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(events(dialect.before(), asyncio.Event()))
    limits = TimeLimits(idle=0.2, keep_alive=0)
    async with bridged(provider.url, recorder, time_limits=limits) as url:
        answer = await ask(url + dialect.path, dialect.request())
    assert not answer.complete
    assert "idle limit of 0.2 s" in dialect.error_event_in(answer.body)
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "upstream_silent")
    assert ended.error_message == dialect.error_event_in(answer.body)


@pytest.mark.parametrize("said", ["nothing", "a head"])
async def test_a_silent_provider_is_a_timeout_where_no_answer_has_begun(
    said: str, dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(dialect.document)))]
    provider.says(raw(*([] if said == "nothing" else [head(200, fields)]), asyncio.Event()))
    limits = TimeLimits(first_byte=0.2, idle=0.2)
    async with bridged(provider.url, recorder, time_limits=limits, max_retries=3) as url:
        answer = await ask(url + dialect.path, dialect.request(stream=False))
    assert answer.status == 504
    kind, _, message = dialect.error_in(answer.body)
    assert kind == "timeout_error"
    assert "limit of 0.2 s" in message
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.http_status) == ("failed", 504)
    assert len(provider.asked) == 1


async def test_a_document_that_falls_silent_is_left_unfinished(
    dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    """It was on its way to the client, as it came; the rest is missing, and the client can tell."""
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(dialect.document)))]
    provider.says(raw(head(200, fields) + dialect.document[:50], asyncio.Event()))
    async with bridged(provider.url, recorder, time_limits=TimeLimits(idle=0.2)) as url:
        answer = await ask(url + dialect.path, dialect.request(stream=False))
    assert (answer.status, answer.body, answer.complete) == (200, dialect.document[:50], False)
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "upstream_silent")


async def test_a_slow_provider_is_not_silent(dialect: Dialect, provider: Provider, recorder: ListRecorder) -> None:
    """The limit is between two pieces, not for the whole."""
    turns = [asyncio.Event() for _ in range(6)]
    size = len(dialect.stream) // 5
    pieces = [dialect.stream[place * size : (place + 1) * size] for place in range(6)]
    provider.says(events(*(piece for pair in zip(turns, pieces, strict=True) for piece in pair if piece)))
    async with bridged(provider.url, recorder, time_limits=TimeLimits(idle=0.4)) as url:
        asking = asyncio.create_task(ask(url + dialect.path, dialect.request()))
        for turn in turns:
            await asyncio.sleep(0.1)
            turn.set()
        assert (await asking).body == dialect.for_client


KEEP_ALIVES = {
    "messages": b'event: ping\ndata: {"type": "ping"}\n\n',
    "chat": b": keep-alive\n\n",
    "responses": b'event: keepalive\ndata: {"type":"keepalive"}\n\n',
}


async def test_a_silent_stream_is_kept_alive(dialect: Dialect, provider: Provider, recorder: ListRecorder) -> None:
    """In the form that clients of the dialect accept; and only between two events."""
    turn = asyncio.Event()
    rest = b"".join(dialect.events[dialect.spoken + 1 :])
    provider.says(events(dialect.before(), turn, rest))
    sign = KEEP_ALIVES[dialect.name]
    async with (
        bridged(provider.url, recorder, time_limits=TimeLimits(keep_alive=0.05)) as url,
        begun(url + dialect.path, dialect.request()) as answer,
    ):
        await answer.until(dialect.before() + sign * 2)
        turn.set()
        await answer.rest()
    assert answer.complete
    signs = len(answer.body) - len(dialect.for_client)
    assert answer.body == dialect.before() + sign * (signs // len(sign)) + dialect.for_client[len(dialect.before()) :]
    assert recorder.one(InterceptionEnded).status == "completed"


async def test_no_sign_of_life_within_an_event(dialect: Dialect, provider: Provider, recorder: ListRecorder) -> None:
    turn = asyncio.Event()
    half = len(dialect.before()) + 30
    provider.says(events(dialect.stream[:half], turn, dialect.stream[half:]))
    body = dialect.request(stream_options={"include_usage": True})
    async with (
        bridged(provider.url, recorder, time_limits=TimeLimits(keep_alive=0.05)) as url,
        begun(url + dialect.path, body) as answer,
    ):
        await answer.until(dialect.stream[:half])
        await asyncio.sleep(0.2)
        turn.set()
        assert (await answer.rest()).body == dialect.stream


async def test_no_sign_of_life_where_it_is_switched_off(provider: Provider, recorder: ListRecorder) -> None:
    turn = asyncio.Event()
    provider.says(events(MESSAGES.before(), turn, b"".join(MESSAGES.events[MESSAGES.spoken + 1 :])))
    async with (
        bridged(provider.url, recorder, time_limits=TimeLimits(keep_alive=0)) as url,
        begun(url + MESSAGES.path, MESSAGES.request()) as answer,
    ):
        await answer.until(MESSAGES.said)
        await asyncio.sleep(0.1)
        turn.set()
        assert (await answer.rest()).body == MESSAGES.for_client


def test_the_bridge_says_what_the_dialect_knows(dialect: Dialect) -> None:
    assert dialect.wire.keep_alive == KEEP_ALIVES[dialect.name]


async def test_a_broken_passthrough_answer_does_not_end_well(bridge: str, provider: Provider) -> None:
    provider.says(Reply([head(200, [("Content-Length", "10")]) + b"half", CLOSE]))
    answer = await ask(f"{bridge}/openai/v1/models", method="GET")
    assert (answer.status, answer.body, answer.complete) == (200, b"half", False)
