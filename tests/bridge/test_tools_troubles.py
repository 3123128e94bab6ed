"""What goes wrong while injected tools are about: the client is told as its dialect has it, and it is recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from aibridge.records import InterceptionEnded, TokenUsage, ToolUsage
from support.client import ask, begun
from support.dialects import DIALECTS
from support.dialects import Dialect as Exchange
from support.provider import CLOSE, Provider, Reply, document, error, events, raw
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.speech import PROMPT, SPEECHES, TIDES, Call, Part, Speech, Text
from support.tools import SERVER_URL, Tools, bridge_with, bridged_with, turn
from support.waiting import until

MESSAGES, CHAT, RESPONSES = SPEECHES
LOOK: list[Part] = [Text("I look."), Call("call_1", TIDES)]
SHAPES: dict[str, Exchange] = dict(zip((speech.dialect.name for speech in SPEECHES), DIALECTS, strict=True))

every_speech = pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: str(speech.dialect.name))


@pytest.fixture
async def tools() -> Tools:
    return Tools()


@every_speech
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_during_a_call(
    speech: Speech, stream: bool, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    """The call is ended too, and recorded as what it came to."""
    tools.go_on.clear()
    provider.says(turn(speech, 1, LOOK, stream=stream))
    async with bridged_with(tools, provider.url, recorder) as url:
        asking = asyncio.create_task(ask(url + speech.path, speech.request(speech.asked(PROMPT), stream=stream)))
        await until(lambda: tools.begun, "the call began")
        asking.cancel()
        await until(lambda: recorder.all(InterceptionEnded), "the end was recorded")
    assert tools.cancelled == 1
    assert len(provider.asked) == 1
    call = recorder.one(ToolUsage)
    assert (call.tool, call.injected, call.server_url, call.invocation_error) == (
        "tides",
        True,
        SERVER_URL,
        "cancelled",
    )
    assert recorder.one(InterceptionEnded).status == "cancelled"
    assert "partial" not in recorder.one(TokenUsage).metadata, "the turn itself was whole"


@every_speech
async def test_a_client_that_leaves_in_a_later_turn(
    speech: Speech, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    second = speech.stream(2, [Text("At six in the morning.")])
    provider.says(turn(speech, 1, LOOK), events(second[: second.index(b"At six") + 20], asyncio.Event()))
    async with bridged_with(tools, provider.url, recorder) as url:
        async with begun(url + speech.path, speech.request(speech.asked(PROMPT))) as answer:
            await answer.until(b"I l")
            await until(lambda: len(provider.asked) == 2, "the second turn was asked for")
        await until(lambda: recorder.all(InterceptionEnded), "the end was recorded")
        await until(provider.last.left.is_set, "the upstream request was ended")
    assert recorder.one(InterceptionEnded).status == "cancelled"
    assert recorder.one(ToolUsage).invocation_error is None


@every_speech
async def test_a_gateway_that_stops_during_a_call(
    speech: Speech, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    tools.go_on.clear()
    provider.says(turn(speech, 1, LOOK))
    own_bridge = bridge_with(tools, provider.url, recorder)
    async with (
        serving(asked_by("ada", own_bridge)) as url,
        begun(url + speech.path, speech.request(speech.asked(PROMPT))) as answer,
    ):
        await until(lambda: tools.begun, "the call began")
        await own_bridge.shutdown(grace=0)
        await answer.rest()
    assert not answer.complete
    assert "stopping" in SHAPES[speech.dialect.name].error_event_in(answer.body)
    assert tools.cancelled == 1
    assert recorder.one(ToolUsage).invocation_error == "cancelled"
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "shutting_down")


def _cut(speech: Speech) -> Reply:
    second = speech.stream(2, [Text("At six in the morning.")])
    return events(second[: len(second) * 2 // 3], CLOSE)


BROKEN: dict[str, tuple[Callable[[Speech], Reply], str]] = {
    "overloaded": (lambda speech: error(529, "Overloaded"), "529: Overloaded"),
    "JSON instead of events": (
        lambda speech: document(speech.document(2, [Text("At six.")])),
        "is no event stream",
    ),
    "no answer": (lambda speech: raw(CLOSE), "closed the connection"),
    "cut": (_cut, "broke off"),
    "ends before its end": (
        lambda speech: events(speech.stream(2, [Text("At six.")])[:200]),
        "ended before it was complete",
    ),
}


@every_speech
@pytest.mark.parametrize("why", BROKEN)
async def test_a_second_turn_that_breaks_a_stream(
    speech: Speech, why: str, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    """The client has had the first turn's text: it is told by the dialect's error event, and by a cut."""
    reply, said = BROKEN[why]
    provider.says(turn(speech, 1, LOOK), reply(speech))
    async with bridged_with(tools, provider.url, recorder) as url:
        answer = await ask(url + speech.path, speech.request(speech.asked(PROMPT)))
    assert answer.status == 200
    assert not answer.complete
    assert b"I l" in answer.body
    message = SHAPES[speech.dialect.name].error_event_in(answer.body)
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.http_status, ended.error_message) == ("failed", 200, message)
    assert said in message
    assert recorder.all(TokenUsage)[0].output_tokens == 10
    assert recorder.one(ToolUsage).tool == "tides"


@every_speech
async def test_a_second_turn_that_breaks_before_anything_was_sent(
    speech: Speech, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    """Without a stream nothing was sent yet: the client gets a proper error, the provider's own where there is one."""
    request = speech.request(speech.asked(PROMPT), stream=False)
    first = turn(speech, 1, LOOK, stream=False)
    overloaded = error(529, "Overloaded", [("Retry-After", "7")])
    async with bridged_with(tools, provider.url, recorder) as url:
        provider.says(first, overloaded)
        answer = await ask(url + speech.path, request)
        assert (answer.status, answer.header("Retry-After")) == (529, "7")
        assert answer.json()["error"]["message"] == "Overloaded"
        provider.says(first, raw(CLOSE))
        answer = await ask(url + speech.path, request)
        assert answer.status == 502
        assert "closed the connection" in SHAPES[speech.dialect.name].error_in(answer.body)[2]
    ended = recorder.all(InterceptionEnded)
    assert [(end.status, end.http_status) for end in ended] == [("failed", 529), ("failed", 502)]
    assert [usage.output_tokens for usage in recorder.all(TokenUsage)] == [10, 10]


ERRORS = {
    "messages": b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
    "chat_completions": b'data: {"error":{"type":"server_error","message":"Overloaded"}}\n\n',
    "responses": (
        b'event: response.failed\ndata: {"type":"response.failed","sequence_number":2,"response":{"id":"resp_2",'
        b'"status":"failed","error":{"code":"server_error","message":"Overloaded"},"output":[]}}\n\n'
    ),
}


@every_speech
async def test_an_error_that_the_provider_tells_within_the_second_turn(
    speech: Speech, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    second = speech.stream(2, [Text("At six.")])
    begun_well = second[: second.index(b"\n\n") + 2]
    provider.says(turn(speech, 1, LOOK), events(begun_well, ERRORS[speech.dialect.name]))
    async with bridged_with(tools, provider.url, recorder) as url:
        answer = await ask(url + speech.path, speech.request(speech.asked(PROMPT)))
    last = json.loads(answer.body.removesuffix(b"\n\n").rpartition(b"data: ")[2])
    assert "Overloaded" in json.dumps(last)
    if speech is RESPONSES:
        numbers = [json.loads(line[6:])["sequence_number"] for line in answer.body.splitlines() if line[:5] == b"data:"]
        assert numbers == list(range(len(numbers)))
    assert recorder.one(InterceptionEnded).error_message == "Overloaded"


@every_speech
async def test_a_call_that_was_begun_when_its_turn_broke_off_is_not_run(
    speech: Speech, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    """What the model would have asked for is not known."""
    first = speech.stream(1, LOOK)
    at = first.rindex(b"call_1") + 60
    provider.says(events(first[:at], CLOSE))
    async with bridged_with(tools, provider.url, recorder) as url:
        answer = await ask(url + speech.path, speech.request(speech.asked(PROMPT)))
    assert not answer.complete
    assert not tools.begun
    SHAPES[speech.dialect.name].error_event_in(answer.body)
    assert recorder.one(InterceptionEnded).status == "failed"
