"""The official SDKs see through the bridge what they see without it: messages, streams and exceptions alike."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from aibridge.records import InterceptionEnded, PromptUsage, TokenUsage, ToolUsage
from aibridge.server import simulated_upstream
from support.recorder import ListRecorder
from support.serving import bridged

MODEL = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-5.5"}
TIDES = {"type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]}
ANTHROPIC_TOOLS: list[Any] = [{"name": "read_tides", "description": "Tides.", "input_schema": TIDES}]
CHAT_TOOLS: list[Any] = [{"type": "function", "function": {"name": "read_tides", "parameters": TIDES}}]
RESPONSES_TOOLS: list[Any] = [{"type": "function", "name": "read_tides", "parameters": TIDES, "strict": False}]


@pytest.fixture(scope="module")
def simulated() -> Iterator[str]:
    """Both providers, doing what the prompt says in double square brackets."""
    with simulated_upstream.serve() as url:
        yield url


@pytest.fixture
async def through(simulated: str, recorder: ListRecorder) -> AsyncIterator[str]:
    """The URL of a bridge before them."""
    async with bridged(simulated, recorder) as url:
        yield url


def claude(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="sk-ant-of-the-client", max_retries=0, timeout=10)


def gpt(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="sk-of-the-client", max_retries=0, timeout=10)


def message(client: anthropic.Anthropic, prompt: str) -> Any:
    return client.messages.create(
        model=MODEL["anthropic"], max_tokens=100, messages=[{"role": "user", "content": prompt}], tools=ANTHROPIC_TOOLS
    )


def message_events(client: anthropic.Anthropic, prompt: str) -> Any:
    told = client.messages.create(
        model=MODEL["anthropic"],
        max_tokens=100,
        messages=[{"role": "user", "content": prompt}],
        tools=ANTHROPIC_TOOLS,
        stream=True,
    )
    return list(told)


def message_stream(client: anthropic.Anthropic, prompt: str) -> Any:
    with client.messages.stream(
        model=MODEL["anthropic"], max_tokens=100, messages=[{"role": "user", "content": prompt}], tools=ANTHROPIC_TOOLS
    ) as stream:
        return "".join(stream.text_stream), stream.get_final_message()


def count_tokens(client: anthropic.Anthropic, prompt: str) -> Any:
    return client.messages.count_tokens(model=MODEL["anthropic"], messages=[{"role": "user", "content": prompt}])


def claude_models(client: anthropic.Anthropic, prompt: str) -> Any:
    return [*client.models.list()], client.models.retrieve(MODEL["anthropic"])


def completion(client: openai.OpenAI, prompt: str) -> Any:
    return client.chat.completions.create(
        model=MODEL["openai"], messages=[{"role": "user", "content": prompt}], tools=CHAT_TOOLS
    )


def completion_chunks(client: openai.OpenAI, prompt: str) -> Any:
    told = client.chat.completions.create(
        model=MODEL["openai"], messages=[{"role": "user", "content": prompt}], tools=CHAT_TOOLS, stream=True
    )
    return list(told)


def completion_stream(client: openai.OpenAI, prompt: str) -> Any:
    with client.chat.completions.stream(
        model=MODEL["openai"],
        messages=[{"role": "user", "content": prompt}],
        tools=CHAT_TOOLS,
        stream_options={"include_usage": True},
    ) as stream:
        return [event.type for event in stream], stream.get_final_completion()


def response(client: openai.OpenAI, prompt: str) -> Any:
    return client.responses.create(model=MODEL["openai"], input=prompt, tools=RESPONSES_TOOLS)


def response_events(client: openai.OpenAI, prompt: str) -> Any:
    return list(client.responses.create(model=MODEL["openai"], input=prompt, tools=RESPONSES_TOOLS, stream=True))


def response_stream(client: openai.OpenAI, prompt: str) -> Any:
    with client.responses.stream(model=MODEL["openai"], input=prompt, tools=RESPONSES_TOOLS) as stream:
        return [event.type for event in stream], stream.get_final_response()


def gpt_models(client: openai.OpenAI, prompt: str) -> Any:
    return [*client.models.list()], client.models.retrieve(MODEL["openai"])


CLAUDES: list[Callable[..., Any]] = [message, message_events, message_stream]
GPTS: list[Callable[..., Any]] = [
    completion,
    completion_chunks,
    completion_stream,
    response,
    response_events,
    response_stream,
]

PROMPTS = {
    "a text": "Tell me of the tide.",
    "a tool": '[[call read_tides {"harbour": "Lyme"}]]',
    "two tools": 'Both, please. [[call read_tides {"harbour": "Lyme"}]] [[call read_tides {"harbour": "Poole"}]]',
    "a thought": "[[think Lyme keeps a gauge]] Tell me of the tide.",
    "an error status": "[[fail 400]]",
    "an unknown key": "[[fail 401]]",
    "a rate limit": "[[fail 429]]",
    "an overloaded provider": "[[fail 529]]",
    "an error inside": "Tell me of the tide. [[error]]",
}


def outcome(ask: Callable[..., Any], client: Any, prompt: str) -> str:
    """What the SDK's user gets, be it an answer or an exception, but for what differs between any two answers."""
    try:
        told = repr(ask(client, prompt))
    except (anthropic.APIError, openai.APIError) as error:
        told = f"{type(error).__name__}: {error.message} {error.body} {getattr(error, 'status_code', None)}"
    except RuntimeError as error:  # a stream helper that met what it can not make sense of
        told = f"{type(error).__name__}: {error}"
    return _settled(told)


def _settled(told: str) -> str:
    """Ids and times are new in every answer; the tokens of input depend on the text of the request."""
    told = re.sub(r"\b(msg|toolu|req|call|chatcmpl|resp|fc|rs|ctc)[_-][A-Za-z0-9]+", r"\1", told)
    told = re.sub(r"\b(created|created_at|completed_at)=[\d.]+", r"\1", told)
    return re.sub(
        r"\b((?:input|prompt|total)_tokens|obfuscation|signature|encrypted_content)=('[^']*'|\d+)", r"\1", told
    )


async def same(ask: Callable[..., Any], client: Callable[[str], Any], direct: str, through: str, prompt: str) -> str:
    with client(direct) as one, client(through) as other:
        without = await asyncio.to_thread(outcome, ask, one, prompt)
        told = await asyncio.to_thread(outcome, ask, other, prompt)
    assert told == without
    return told


@pytest.mark.parametrize("ask", CLAUDES)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
async def test_anthropics(ask: Any, prompt: str, simulated: str, through: str, recorder: ListRecorder) -> None:
    told = await same(ask, claude, simulated, f"{through}/anthropic", prompt)
    _check(told, prompt, recorder)


@pytest.mark.parametrize("ask", GPTS)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
async def test_openais(ask: Any, prompt: str, simulated: str, through: str, recorder: ListRecorder) -> None:
    told = await same(ask, gpt, f"{simulated}/v1", f"{through}/openai/v1", prompt)
    _check(told, prompt, recorder)


def _check(told: str, prompt: str, recorder: ListRecorder) -> None:
    """What happened is recorded as what it was."""
    assert recorder.one(PromptUsage).prompt == prompt
    fails = "fail" in prompt or "[[error]]" in prompt
    assert recorder.one(InterceptionEnded).status == ("failed" if fails else "completed")
    assert ("Error" in told.split(":")[0] or "ResponseFailedEvent" in told) is fails
    if not fails:
        assert recorder.one(TokenUsage).output_tokens > 0
        calls = recorder.all(ToolUsage)
        assert [call.tool for call in calls] == ["read_tides"] * prompt.count("[[call")
        assert [json.loads(call.input) for call in calls] == [json.loads(j) for j in re.findall(r"\{.*?\}", prompt)]


@pytest.mark.parametrize("ask", [count_tokens, claude_models])
async def test_anthropics_other_calls(ask: Any, simulated: str, through: str, recorder: ListRecorder) -> None:
    await same(ask, claude, simulated, f"{through}/anthropic", "Tell me of the tide.")
    assert not recorder.records


async def test_openais_other_calls(simulated: str, through: str, recorder: ListRecorder) -> None:
    await same(gpt_models, gpt, f"{simulated}/v1", f"{through}/openai/v1", "")
    assert not recorder.records


async def test_an_agents_loop(through: str, recorder: ListRecorder) -> None:
    """A call, its result, the answer: three messages of one conversation, one prompt."""
    prompt = '[[call read_tides {"harbour": "Lyme"}]][[then]]High water is at six.'
    async with anthropic.AsyncAnthropic(base_url=f"{through}/anthropic", api_key="sk-ant-x", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": prompt}]
        asked = {"model": MODEL["anthropic"], "max_tokens": 100, "tools": ANTHROPIC_TOOLS}
        first = await client.messages.create(messages=messages, **asked)  # type: ignore[call-overload]
        call = next(block for block in first.content if block.type == "tool_use")
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "06:12"}
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        second = await client.messages.create(messages=messages, **asked)  # type: ignore[call-overload]
    assert second.stop_reason == "end_turn"
    assert recorder.one(PromptUsage).prompt == prompt
    assert recorder.one(ToolUsage).provider_tool_call_id == call.id


BREAKS = "Tell me of the tide, at length. [[cut]]"


@pytest.mark.parametrize(
    ("ask", "client", "path"),
    [
        (message_events, claude, "/anthropic"),
        (message_stream, claude, "/anthropic"),
        (completion_chunks, gpt, "/openai/v1"),
        (completion_stream, gpt, "/openai/v1"),
    ],
)
async def test_a_stream_that_breaks_is_an_error_to_the_sdk(ask: Any, client: Any, path: str, through: str) -> None:
    """It must not look like an answer that has come to its end; and the message tells what happened."""
    with client(through + path) as sdk, pytest.raises((anthropic.APIError, openai.APIError)) as raised:
        await asyncio.to_thread(ask, sdk, BREAKS)
    assert "broke off" in str(raised.value) or "closed the connection" in str(raised.value)


@pytest.mark.parametrize("helper", [False, True])
async def test_a_response_that_breaks_has_failed(helper: bool, through: str) -> None:
    """The SDK hands on the event that says so, with the id of the response that had begun; then it finds the cut."""
    kinds: list[str] = []

    def listen(client: openai.OpenAI) -> None:
        if helper:
            with client.responses.stream(model=MODEL["openai"], input=BREAKS) as stream:
                kinds.extend(event.type for event in stream)  # keeps what came before the fault
        else:
            told = client.responses.create(model=MODEL["openai"], input=BREAKS, stream=True)
            kinds.extend(event.type for event in told)

    with gpt(f"{through}/openai/v1") as sdk, pytest.raises(openai.APIConnectionError):
        await asyncio.to_thread(listen, sdk)
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.failed"


async def test_refusals_of_the_bridge_are_the_sdks_usual_exceptions(through: str) -> None:
    """Its own faults have the provider's shape."""
    with claude(f"{through}/anthropic") as client:
        with pytest.raises(anthropic.BadRequestError, match="`model`"):
            await asyncio.to_thread(client.post, "/v1/messages", body={"messages": []}, cast_to=object)
        with pytest.raises(anthropic.NotFoundError, match="route not supported"):
            await asyncio.to_thread(client.messages.batches.list)
    with gpt(f"{through}/openai/v1") as other:
        with pytest.raises(openai.BadRequestError, match="`model`"):
            await asyncio.to_thread(other.post, "/chat/completions", body={"messages": []}, cast_to=object)
        with pytest.raises(openai.NotFoundError, match="route not supported"):
            await asyncio.to_thread(other.embeddings.create, model="m", input="x")
