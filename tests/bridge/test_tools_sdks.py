"""The official SDKs put together one message out of what the gateway made of two turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from aibridge.recording.memory import SQLiteTurnMemory
from support.provider import Provider
from support.recorder import ListRecorder
from support.speech import PROMPT, SPEECHES, TIDES, Call, Part, Text
from support.tools import Tools, bridged_with, turn

MESSAGES, CHAT, RESPONSES = SPEECHES
LOOK: list[Part] = [Text("I look."), Call("call_1", TIDES)]
ANSWER: list[Part] = [Text("At six.")]
PROMPTS: Any = [{"role": "user", "content": PROMPT}]


@pytest.fixture
async def bridge(provider: Provider, recorder: ListRecorder) -> AsyncIterator[str]:
    async with bridged_with(Tools(), provider.url, recorder) as url:
        yield url


def claude(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=f"{url}/anthropic", api_key="sk-ant-x", max_retries=0, timeout=10)


def gpt(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/openai/v1", api_key="sk-x", max_retries=0, timeout=10)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_message(stream: bool, bridge: str, provider: Provider) -> None:
    def ask() -> anthropic.types.Message:
        with claude(bridge) as client:
            if not stream:
                return client.messages.create(model="m", max_tokens=9, messages=PROMPTS)
            with client.messages.stream(model="m", max_tokens=9, messages=PROMPTS) as told:
                assert "".join(told.text_stream) == "I look.At six."
                return told.get_final_message()

    provider.says(turn(MESSAGES, 1, LOOK, stream=stream), turn(MESSAGES, 2, ANSWER, stream=stream))
    message = await asyncio.to_thread(ask)
    assert [block.text for block in message.content if block.type == "text"] == ["I look.", "At six."]
    assert (message.id, message.stop_reason) == ("msg_1", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 30)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_completion(stream: bool, bridge: str, provider: Provider) -> None:
    def ask() -> Any:
        with gpt(bridge) as client:
            if not stream:
                return client.chat.completions.create(model="m", messages=PROMPTS)
            with client.chat.completions.stream(
                model="m", messages=PROMPTS, stream_options={"include_usage": True}
            ) as told:
                for _ in told:
                    pass
                return told.get_final_completion()

    provider.says(turn(CHAT, 1, LOOK, stream=stream), turn(CHAT, 2, ANSWER, stream=stream))
    completion = await asyncio.to_thread(ask)
    (choice,) = completion.choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("I look.At six.", None, "stop")
    assert (completion.id, completion.usage.completion_tokens) == ("chatcmpl_1", 30)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_response(stream: bool, bridge: str, provider: Provider) -> None:
    def ask() -> Any:
        with gpt(bridge) as client:
            if not stream:
                return client.responses.create(model="m", input=PROMPT)
            told: list[Any] = list(client.responses.create(model="m", input=PROMPT, stream=True))
            return told[-1].response

    provider.says(turn(RESPONSES, 1, LOOK, stream=stream), turn(RESPONSES, 2, ANSWER, stream=stream))
    response = await asyncio.to_thread(ask)
    assert response.output_text == "I look.At six."
    assert (response.id, response.usage.output_tokens) == ("resp_2", 30)


async def test_without_a_memory_the_last_id_of_a_response_is_one_to_go_on_from(bridge: str, provider: Provider) -> None:
    """Events carry the first turn's id, the response at the end the last one's: `previous_response_id` must lead to all
    that was said, and nobody would know whereto the first one's leads.
    """

    def events() -> list[Any]:
        with gpt(bridge) as client:
            return list(client.responses.create(model="m", input=PROMPT, stream=True))

    provider.says(turn(RESPONSES, 1, LOOK), turn(RESPONSES, 2, ANSWER))
    told = await asyncio.to_thread(events)
    assert (told[0].type, told[0].response.id) == ("response.created", "resp_1")
    assert (told[-1].type, told[-1].response.id) == ("response.completed", "resp_2")
    assert [event.sequence_number for event in told] == list(range(len(told)))


@pytest.mark.parametrize("tools_then", [True, False], ids=["with tools", "without tools"])
async def test_a_response_has_one_id_which_leads_to_all_that_was_said(
    provider: Provider, recorder: ListRecorder, tmp_path: Path, tools_then: bool
) -> None:
    """OpenAI's stream helper wants one id throughout; the next request goes on from it, through another process."""
    memories = SQLiteTurnMemory(tmp_path / "aibridge.db"), SQLiteTurnMemory(tmp_path / "aibridge.db")

    def helped(url: str) -> Any:
        with gpt(url) as client, client.responses.stream(model="m", input=PROMPT) as told:
            return told.get_final_response()

    def go_on(url: str, response_id: str) -> Any:
        with gpt(url) as client:
            return client.responses.create(model="m", input="And then?", previous_response_id=response_id)

    provider.says(turn(RESPONSES, 1, LOOK), turn(RESPONSES, 2, ANSWER), turn(RESPONSES, 3, ANSWER, stream=False))
    async with bridged_with(Tools(), provider.url, recorder, memory=memories[0]) as url:
        response = await asyncio.to_thread(helped, url)
    assert (response.id, response.output_text) == ("resp_1", "I look.At six.")
    tools = Tools()
    if not tools_then:
        tools.remove_all()
    async with bridged_with(tools, provider.url, recorder, memory=memories[1]) as url:
        await asyncio.to_thread(go_on, url, response.id)
    assert provider.asked[-1].json()["previous_response_id"] == "resp_2"
    for memory in memories:
        await memory.aclose()
