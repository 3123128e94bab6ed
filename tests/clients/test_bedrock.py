"""Claude Code, which takes the gateway for Anthropic, at Amazon Bedrock."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aibridge import BedrockProvider, RequestBridge
from aibridge.records import Interception, InterceptionEnded, ToolUsage
from support.bedrock import KEY_ID, REGION, SECRET, Bedrock, chunks, frames, is_signed, without_aws
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.speech import SPEECHES, Call, Part, Text

from .agents import KEY, ClaudeCode

pytestmark = pytest.mark.clients

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


def told(number: int, *parts: Part) -> list[bytes]:
    """The frames of a turn."""
    events = SPEECHES[0].stream(number, parts).split(b"\n\n")[:-1]
    return chunks(event + b"\n\n" for event in events)


async def test_a_prompt_a_tool_and_an_answer(
    installed: None, tmp_path: Path, recorder: ListRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_aws(monkeypatch, tmp_path)
    call = Call("toolu_1", "Bash", '{"command": "echo from $((1 + 1)) shells", "description": "d"}')
    async with Bedrock() as upstream:
        upstream.says(frames(*told(1, Text("I look."), call)), frames(*told(2, Text("There are two."))))
        keys = {"access_key": KEY_ID, "access_key_secret": SECRET}
        provider = BedrockProvider(upstream.url, name="anthropic", region=REGION, model=MODEL, **keys)
        bridge = RequestBridge([provider], recorder)
        async with bridge, serving(asked_by("ada", bridge)) as url:
            claude = ClaudeCode(tmp_path, url)
            answer = await asyncio.to_thread(claude.ask, "How many shells are there?")
    assert answer.text == "There are two."

    first, second = (asked.json() for asked in upstream.asked)
    assert "from 2 shells" in str(second["messages"])
    for asked in upstream.asked:
        assert is_signed(asked, SECRET)
        assert KEY not in str(asked.headers)
    taken = {"anthropic_version", "anthropic_beta", "max_tokens", "messages", "system", "tools", "thinking"}
    assert first.keys() - taken == {"context_management"}, "what Bedrock takes of Claude Code's requests"
    assert first["thinking"]["type"] == "enabled"
    assert 0 < first["thinking"]["budget_tokens"] < first["max_tokens"]
    assert "context-management-2025-06-27" in first["anthropic_beta"]

    assert {begun.client for begun in recorder.all(Interception)} == {"Claude Code"}
    assert {begun.client_session_id for begun in recorder.all(Interception)} == {answer.session}
    assert recorder.one(ToolUsage).tool == "Bash"
    assert {ended.status for ended in recorder.all(InterceptionEnded)} == {"completed"}
