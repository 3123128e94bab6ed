"""Injected tools run between the turns of one message, while the client listens."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from aibridge import Metrics, TimeLimits
from aibridge.actor import Actor
from aibridge.mcp.toolbox import InjectedTool, Outcome
from aibridge.records import InterceptionEnded, PromptUsage, TokenUsage, ToolUsage
from support.client import Answer, ask, begun
from support.provider import Provider, Reply, chunked, document, events
from support.recorder import ListRecorder
from support.speech import HARBOURS, OWN, PROMPT, SPEECHES, TIDES, Call, Part, Speech, Text, Thinking
from support.tools import SERVER_URL, Tools, bridged_with, histories, turn
from support.waiting import LIMIT, until

MESSAGES, CHAT, RESPONSES = SPEECHES

LOOK: list[Part] = [Thinking("hm"), Text("I look."), Call("call_1", TIDES), Call("call_2", HARBOURS, "{}")]
ANSWER: list[Part] = [Text("At six.")]

every_speech = pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: str(speech.dialect.name))
both_ways = pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])


@pytest.fixture
async def tools() -> Tools:
    return Tools()


@pytest.fixture
async def bridge(tools: Tools, provider: Provider, recorder: ListRecorder) -> AsyncIterator[str]:
    async with bridged_with(tools, provider.url, recorder) as url:
        yield url


@every_speech
@both_ways
async def test_calls_run_and_the_client_gets_one_message(
    speech: Speech, stream: bool, bridge: str, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    provider.says(turn(speech, 1, LOOK, stream=stream), turn(speech, 2, ANSWER, stream=stream))
    answer = await ask(bridge + speech.path, speech.request(speech.asked(PROMPT), stream=stream))

    assert (answer.status, answer.complete) == (200, True)
    message = speech.heard(answer.body, stream=stream)
    assert message.content == speech.shown([*LOOK, *ANSWER])
    assert message.output_tokens == 30
    assert sorted((name, actor) for name, _, actor in tools.begun) == [("harbours", "ada"), ("tides", "ada")]
    assert {"harbour": "Lyme", "day": 1} in [json.loads(arguments) for _, arguments, _ in tools.begun]

    asked = speech.asked(PROMPT)
    results = speech.results([("call_1", "the tides"), ("call_2", "the harbours")])
    assert histories(speech, provider) == [asked, [*asked, *speech.said(LOOK), *results]]

    assert recorder.one(PromptUsage).prompt == PROMPT
    ended = recorder.one(InterceptionEnded)
    assert (ended.interception_id, ended.status, ended.http_status) == (answer.id, "completed", 200)
    usages = recorder.all(TokenUsage)
    assert [(usage.input_tokens, usage.output_tokens) for usage in usages] == [(1, 10), (2, 20)]
    assert len({usage.provider_response_id for usage in usages}) == 2, "one row for each turn"
    calls = recorder.all(ToolUsage)
    assert sorted((call.tool, call.provider_tool_call_id) for call in calls) == [
        ("harbours", "call_2"),
        ("tides", "call_1"),
    ]
    for call in calls:
        assert (call.injected, call.server_url, call.invocation_error) == (True, SERVER_URL, None)
        assert call.provider_response_id == usages[0].provider_response_id
        assert call.metadata == {"duration_ms": 250.0}
    assert {call.input for call in calls} == {arguments for _, arguments, _ in tools.begun}
    if stream:
        assert Call("", "").arguments in {call.input for call in calls}, "as the model wrote them"


@every_speech
async def test_what_is_said_is_with_the_client_at_once_in_every_turn(
    speech: Speech, bridge: str, provider: Provider
) -> None:
    pauses = asyncio.Event(), asyncio.Event()
    turns: list[list[Part]] = [[Text("early and late"), LOOK[2]], [Text("anon and last")]]
    halves = []
    for number, parts in enumerate(turns, 1):
        told = speech.stream(number, parts)
        at = told.index(b"data: ", told.index(b"early a" if number == 1 else b"anon a"))
        halves.append((told[:at], told[at:]))
    provider.says(*(events(first, pause, rest) for (first, rest), pause in zip(halves, pauses, strict=True)))
    async with begun(bridge + speech.path, speech.request(speech.asked(PROMPT))) as answer:
        await answer.until(b"early a")
        assert b"late" not in answer.body
        pauses[0].set()
        await answer.until(b"anon a")
        assert b"last" not in answer.body
        pauses[1].set()
        await answer.rest()
    assert speech.heard(answer.body, stream=True).content == speech.shown(
        [Text("early and late"), Text("anon and last")]
    )


class Meeting(Tools):
    """Tools that answer once two calls run at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.both = asyncio.Barrier(2)

    async def call(self, tool: InjectedTool, arguments: str, actor: Actor) -> Outcome:
        async with asyncio.timeout(5):
            await self.both.wait()
        return await super().call(tool, arguments, actor)


@every_speech
async def test_calls_of_one_turn_run_side_by_side(speech: Speech, provider: Provider, recorder: ListRecorder) -> None:
    """One after the other, neither would ever return."""
    provider.says(turn(speech, 1, LOOK), turn(speech, 2, ANSWER))
    async with bridged_with(Meeting(), provider.url, recorder) as url:
        answer = await ask(url + speech.path, speech.request(speech.asked(PROMPT)))
    assert speech.heard(answer.body, stream=True).content == speech.shown([*LOOK, *ANSWER])


@every_speech
async def test_signs_of_life_while_tools_run(
    speech: Speech, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    provider.says(turn(speech, 1, LOOK), turn(speech, 2, ANSWER))
    tools.go_on.clear()
    async with (
        bridged_with(tools, provider.url, recorder, time_limits=TimeLimits(keep_alive=0.02)) as url,
        begun(url + speech.path, speech.request(speech.asked(PROMPT))) as answer,
    ):
        await _signs_in(answer, speech)
        tools.go_on.set()
        await answer.rest()
    message = speech.heard(answer.body, stream=True)
    assert message.content == speech.shown([*LOOK, *ANSWER])
    assert message.keep_alives >= 3


@every_speech
async def test_signs_of_life_while_a_later_turn_is_awaited(
    speech: Speech, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    """The provider takes its time to begin the second turn; to the client that is silence as well."""
    pause = asyncio.Event()
    provider.says(turn(speech, 1, LOOK), Reply([pause, *turn(speech, 2, ANSWER).pieces]))
    async with (
        bridged_with(tools, provider.url, recorder, time_limits=TimeLimits(keep_alive=0.02)) as url,
        begun(url + speech.path, speech.request(speech.asked(PROMPT))) as answer,
    ):
        await until(lambda: len(provider.asked) == 2, "the second turn was asked for")
        await _signs_in(answer, speech, within=1)
        pause.set()
        await answer.rest()
    assert speech.heard(answer.body, stream=True).content == speech.shown([*LOOK, *ANSWER])


async def _signs_in(answer: Answer, speech: Speech, within: float = LIMIT) -> None:
    """Read until three signs of life have come, beside those of the provider."""
    sign = {"messages": b"event: ping", "chat_completions": b": keep-alive", "responses": b"event: keepalive"}
    due = 3 + speech.stream(1, LOOK).count(b"event: ping")
    async with asyncio.timeout(within):
        while answer.body.count(sign[speech.dialect.name]) < due:
            assert await answer.more()


@every_speech
@both_ways
async def test_a_call_that_fails_is_a_result_that_says_so(
    speech: Speech, stream: bool, bridge: str, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    tools.fault = "no such harbour"
    provider.says(turn(speech, 1, [LOOK[2]], stream=stream), turn(speech, 2, ANSWER, stream=stream))
    answer = await ask(bridge + speech.path, speech.request(speech.asked(PROMPT), stream=stream))
    assert speech.heard(answer.body, stream=stream).content == speech.shown(ANSWER)
    assert "no such harbour" in json.dumps(histories(speech, provider)[1][-1])
    assert recorder.one(ToolUsage).invocation_error == "no such harbour"
    assert recorder.one(InterceptionEnded).status == "completed"


@every_speech
@both_ways
async def test_the_loop_is_bounded(
    speech: Speech, stream: bool, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    """In the last turn no tool is offered; where the model calls one all the same, its message ends there."""
    replies = [turn(speech, n, [Text(f"{n}."), Call(f"call_{n}", TIDES)], stream=stream) for n in (1, 2, 3)]
    provider.says(*replies)
    async with bridged_with(tools, provider.url, recorder, max_turns=3) as url:
        answer = await ask(url + speech.path, speech.request(speech.asked(PROMPT), stream=stream))
    message = speech.heard(answer.body, stream=stream)
    assert message.content == speech.shown([Text("1."), Text("2."), Text("3.")])
    assert message.stop == speech.heard(speech.answer(1, ANSWER, stream=stream), stream=stream).stop
    assert [TIDES in json.dumps(asked.json()["tools"]) for asked in provider.asked] == [True, True, False]
    assert len(recorder.all(ToolUsage)) == len(recorder.all(TokenUsage)) == 3
    assert recorder.one(InterceptionEnded).status == "completed"


@every_speech
@both_ways
async def test_a_turn_with_calls_of_both_sides_ends_the_message(
    speech: Speech, stream: bool, bridge: str, provider: Provider, tools: Tools, recorder: ListRecorder
) -> None:
    mixed: list[Part] = [Text("Both."), Call("call_1", TIDES), Call("call_2", OWN)]
    provider.says(turn(speech, 1, mixed, stream=stream))
    answer = await ask(bridge + speech.path, speech.request(speech.asked(PROMPT), stream=stream))
    assert speech.heard(answer.body, stream=stream).content == speech.shown(mixed)
    assert len(provider.asked) == 1
    calls = {call.tool: call.injected for call in recorder.all(ToolUsage)}
    assert calls == {"tides": True, OWN: False}
    assert recorder.one(InterceptionEnded).status == "completed"


@pytest.mark.parametrize(
    ("speech", "stop", "early"),
    [(MESSAGES, b'"tool_use", "stop_s', b'"max_tokens", "stop_s'), (CHAT, b'"tool_calls"}', b'"length"}')],
)
@both_ways
async def test_a_call_of_a_turn_that_was_broken_off_is_recorded_and_not_run(
    speech: Speech,
    stop: bytes,
    early: bytes,
    stream: bool,
    bridge: str,
    provider: Provider,
    tools: Tools,
    recorder: ListRecorder,
) -> None:
    told = speech.answer(1, [Text("I look."), Call("call_1", TIDES)], stream=stream).replace(stop, early)
    provider.says(events(told) if stream else document(told))
    answer = await ask(bridge + speech.path, speech.request(speech.asked(PROMPT), stream=stream))
    message = speech.heard(answer.body, stream=stream)
    assert message.content == speech.shown([Text("I look.")])
    assert message.stop == early.split(b'"')[1].decode()
    assert (tools.begun, len(provider.asked)) == ([], 1)
    call = recorder.one(ToolUsage)
    assert (call.tool, call.injected, call.server_url) == ("tides", True, SERVER_URL)
    assert (call.invocation_error, call.metadata) == ("the answer was cut before the call", {})
    assert recorder.one(InterceptionEnded).status == "completed"


@every_speech
async def test_a_request_that_forbids_tools_is_not_touched(
    speech: Speech, bridge: str, provider: Provider, tools: Tools
) -> None:
    choice: Any = {"type": "none"} if speech is MESSAGES else "none"
    request = speech.request(speech.asked(PROMPT), tool_choice=choice)
    provider.says(turn(speech, 1, [LOOK[2]]))
    answer = await ask(bridge + speech.path, request)
    assert provider.last.body == request
    assert answer.body == speech.stream(1, [LOOK[2]])
    assert not tools.begun


@every_speech
async def test_compressed_requests_go_upstream_unpacked(speech: Speech, bridge: str, provider: Provider) -> None:
    """What is edited can not be sent as it came."""
    provider.says(turn(speech, 1, LOOK), turn(speech, 2, ANSWER))
    packed = gzip.compress(speech.request(speech.asked(PROMPT)))
    answer = await ask(bridge + speech.path, packed, {"Content-Encoding": "gzip"})
    assert speech.heard(answer.body, stream=True).content == speech.shown([*LOOK, *ANSWER])
    assert [asked.all("Content-Encoding") for asked in provider.asked] == [[], []]
    assert TIDES in json.dumps(provider.asked[0].json()["tools"])


@every_speech
async def test_compressed_answers_reach_the_client_unpacked(speech: Speech, bridge: str, provider: Provider) -> None:
    fields = [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip")]
    packed = [gzip.compress(speech.stream(number, parts)) for number, parts in ((1, LOOK), (2, ANSWER))]
    provider.says(*(chunked([each[:99], each[99:]], fields) for each in packed))
    answer = await ask(bridge + speech.path, speech.request(speech.asked(PROMPT)))
    assert answer.header("Content-Encoding") is None
    assert speech.heard(answer.body, stream=True).content == speech.shown([*LOOK, *ANSWER])


async def test_usage_of_chat_is_counted_in_every_turn_and_withheld(
    bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(turn(CHAT, 1, LOOK), turn(CHAT, 2, ANSWER))
    request = CHAT.request(CHAT.asked(PROMPT), stream_options={"include_usage": False})
    answer = await ask(bridge + CHAT.path, request)
    assert b"prompt_tokens" not in answer.body
    assert CHAT.heard(answer.body, stream=True).output_tokens is None
    assert [usage.output_tokens for usage in recorder.all(TokenUsage)] == [10, 20]


async def test_invocations_and_selections_are_counted(
    provider: Provider, tools: Tools, recorder: ListRecorder, registry: CollectorRegistry
) -> None:
    mixed: list[Part] = [Call("call_1", TIDES), Call("call_2", OWN)]
    provider.says(turn(MESSAGES, 1, LOOK), turn(MESSAGES, 2, mixed))
    async with bridged_with(tools, provider.url, recorder, metrics=Metrics(registry)) as url:
        await ask(url + MESSAGES.path, MESSAGES.request(MESSAGES.asked(PROMPT)))
    at = {"provider": "anthropic", "model": "m"}
    for name, count in (("tides", 2), ("harbours", 1)):
        labels = {**at, "server": "sea", "name": name}
        assert registry.get_sample_value("injected_tool_invocations_total", labels) == count
    labels = {**at, "name": OWN}
    assert registry.get_sample_value("non_injected_tool_selections_total", labels) == 1


async def test_two_of_the_providers_documents_are_one_answer_with_a_length(bridge: str, provider: Provider) -> None:
    """The head of the client's answer is that of the last turn, but for what no longer fits."""
    first, second = (MESSAGES.document(number, parts) for number, parts in ((1, LOOK), (2, ANSWER)))
    provider.says(document(first, headers=[("X-Turn", "1")]), document(second, headers=[("X-Turn", "2")]))
    answer = await ask(bridge + MESSAGES.path, MESSAGES.request(MESSAGES.asked(PROMPT), stream=False))
    assert answer.header("X-Turn") == "2"
    assert answer.complete
    assert answer.json()["id"] == "msg_1"
