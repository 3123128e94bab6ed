"""Servers that others wrote, behind the gateway: an official SDK sees through it what it sees without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest

from aibridge import AnthropicProvider, OpenAIProvider, Provider, RequestBridge
from aibridge.records import InterceptionEnded, PromptUsage, TokenUsage, ToolUsage
from support.recorder import ListRecorder
from support.serving import asked_by, serving

from .conftest import HOUSE_KEY, SAID

pytestmark = pytest.mark.servers

PROMPT = "When is high water?"


@asynccontextmanager
async def before(provider: Provider, recorder: ListRecorder) -> AsyncIterator[str]:
    """The base URL of a provider behind a bridge."""
    async with RequestBridge([provider], recorder) as bridge, serving(asked_by("ada", bridge)) as url:
        yield f"{url}/{provider.name}"


def client(base_url: str, api_key: str = "of-nobody") -> openai.AsyncOpenAI:
    """OpenAI's SDK, which does not hide a failure by asking again."""
    return openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0)


async def streamed(sdk: openai.AsyncOpenAI, prompt: str = PROMPT, **more: Any) -> tuple[str, list[Any]]:
    """What a completion said, and its chunks."""
    request: Any = {"model": "tide-1", "messages": [{"role": "user", "content": prompt}], **more}
    async with sdk:
        chunks = [chunk async for chunk in await sdk.chat.completions.create(stream=True, **request)]
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), chunks


class TestLiteLLM:
    def provider(self, url: str, **settings: Any) -> OpenAIProvider:
        return OpenAIProvider(f"{url}/v1", name="litellm", **({"api_key": HOUSE_KEY} | settings))

    async def test_chat_completions(self, litellm: str, recorder: ListRecorder) -> None:
        async with before(self.provider(litellm, byok=False), recorder) as url:
            said, chunks = await streamed(client(f"{url}/v1"))
            plain, _ = await streamed(client(f"{litellm}/v1", HOUSE_KEY))
            assert said == plain == SAID
            assert not any(chunk.usage for chunk in chunks), "nobody asked for usage but the gateway"
            _, asked_for = await streamed(client(f"{url}/v1"), stream_options={"include_usage": True})
            assert asked_for[-1].usage.completion_tokens > 0
            async with client(f"{url}/v1") as sdk:
                messages: Any = [{"role": "user", "content": PROMPT}]
                whole = await sdk.chat.completions.create(model="tide-1", messages=messages)
            assert whole.choices[0].message.content == SAID
        assert {ended.status for ended in recorder.all(InterceptionEnded)} == {"completed"}
        assert [prompt.prompt for prompt in recorder.all(PromptUsage)] == [PROMPT] * 3
        counted = [(tokens.input_tokens, tokens.output_tokens) for tokens in recorder.all(TokenUsage)]
        assert counted == [(asked_for[-1].usage.prompt_tokens, asked_for[-1].usage.completion_tokens)] * 2 + [
            (whole.usage.prompt_tokens, whole.usage.completion_tokens)  # type: ignore[union-attr]
        ]

    async def test_messages(self, litellm: str, recorder: ListRecorder) -> None:
        provider = AnthropicProvider(litellm, name="house", api_key=HOUSE_KEY, byok=False)
        async with (
            before(provider, recorder) as url,
            anthropic.AsyncAnthropic(base_url=url, api_key="of-nobody", max_retries=0) as sdk,
        ):
            message = await sdk.messages.create(
                model="tide-1", max_tokens=50, messages=[{"role": "user", "content": PROMPT}]
            )
        assert [block.text for block in message.content if block.type == "text"] == [SAID]
        assert recorder.one(TokenUsage).output_tokens == message.usage.output_tokens

    async def test_its_errors_are_raised_as_they_are(self, litellm: str, recorder: ListRecorder) -> None:
        """Without a database to look a key up in, it takes a wrong one for a bad request."""
        async with before(self.provider(litellm), recorder) as url:
            with pytest.raises(openai.BadRequestError) as refused:
                await streamed(client(f"{url}/v1", "sk-wrong-key-0123456789"))
            with pytest.raises(openai.BadRequestError) as direct:
                await streamed(client(f"{litellm}/v1", "sk-wrong-key-0123456789"))
        assert (refused.value.message, refused.value.type) == (direct.value.message, direct.value.type)
        assert recorder.one(InterceptionEnded).http_status == 400

    async def test_models(self, litellm: str, recorder: ListRecorder) -> None:
        async with before(self.provider(litellm, byok=False), recorder) as url, client(f"{url}/v1") as sdk:
            assert [model.id async for model in sdk.models.list()] == ["tide-1"]


class TestAimock:
    """It speaks as OpenAI does at one path, and as others do at theirs."""

    @pytest.mark.parametrize(
        ("path", "settings"),
        [
            ("/v1", {}),
            ("/openai/deployments/tide-1", {"key_header": "api-key", "query": {"api-version": "2025-04-01-preview"}}),
            ("/api/v1", {"headers": {"HTTP-Referer": "https://tides.example.com", "X-Title": "Tides"}}),
        ],
        ids=["openai", "azure", "openrouter"],
    )
    async def test_chat_completions(
        self, path: str, settings: dict[str, Any], aimock: str, recorder: ListRecorder
    ) -> None:
        provider = OpenAIProvider(aimock + path, api_key="sk-any-0123456789", byok=False, **settings)
        tool: Any = {"type": "function", "function": {"name": "read_tides", "parameters": {"type": "object"}}}
        async with before(provider, recorder) as url:
            said, _ = await streamed(client(f"{url}/v1"))
            _, chunks = await streamed(client(f"{url}/v1"), "Read the gauge.", tools=[tool])
        assert said == SAID
        calls = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]
        assert "".join(call.function.arguments or "" for call in calls) == '{"port":"Lyme"}'
        assert [(used.tool, used.input) for used in recorder.all(ToolUsage)] == [("read_tides", '{"port":"Lyme"}')]
        assert [ended.status for ended in recorder.all(InterceptionEnded)] == ["completed"] * 2
        assert len(recorder.all(TokenUsage)) == 2

    async def test_responses(self, aimock: str, recorder: ListRecorder) -> None:
        provider = OpenAIProvider(f"{aimock}/v1", api_key="sk-any-0123456789", byok=False)
        async with before(provider, recorder) as url, client(f"{url}/v1") as sdk:
            stream = await sdk.responses.create(model="tide-1", input=PROMPT, stream=True)
            said = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
            whole = await sdk.responses.create(model="tide-1", input=PROMPT)
        assert said == whole.output_text == SAID
        assert [ended.status for ended in recorder.all(InterceptionEnded)] == ["completed"] * 2
