"""A real MCP server behind the bridge."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aibridge.mcp.config import ServerConfig
from aibridge.mcp.servers import ToolServers
from aibridge.records import ToolUsage
from support.client import ask
from support.provider import Provider
from support.recorder import ListRecorder
from support.speech import PROMPT, SPEECHES, Call, Part, Speech, Text
from support.tools import bridged_with, turn
from support.waiting import until

PROGRAM = Path(__file__).parents[1] / "mcp_servers" / "sdk_server.py"


@pytest.fixture
async def servers() -> AsyncIterator[ToolServers]:
    config = ServerConfig(name="sdk", command=[sys.executable, str(PROGRAM), "stdio"], tool_allow="^(echo|fail)$")
    servers = ToolServers([config])
    await servers.start()
    try:
        await until(lambda: servers.catalogue().tools, "the server's tools")
        yield servers
    finally:
        await servers.aclose()


async def test_its_tools_are_offered_and_run(servers: ToolServers, provider: Provider, recorder: ListRecorder) -> None:
    async with bridged_with(servers, provider.url, recorder) as url:
        for speech in SPEECHES:
            await _converse(speech, url, provider)
    calls = recorder.all(ToolUsage)
    assert [call.tool for call in calls[::2]] == ["echo"] * 3
    for call in calls:
        assert (call.injected, call.server_url) == (True, f"stdio:{sys.executable}")
        assert call.metadata["duration_ms"] > 0
        assert (call.invocation_error is None) is (call.tool == "echo")


async def _converse(speech: Speech, url: str, provider: Provider) -> None:
    called: list[Part] = [
        Call("call_1", "bmcp_sdk_echo", '{"text": "high water"}'),
        Call("call_2", "bmcp_sdk_fail", "{}"),
    ]
    provider.says(turn(speech, 1, called), turn(speech, 2, [Text("At six.")]))
    answer = await ask(url + speech.path, speech.request(speech.asked(PROMPT)))
    assert speech.heard(answer.body, stream=True).content == speech.shown([Text("At six.")])
    first, second = provider.asked[-2:]
    assert b'"bmcp_sdk_echo"' in first.body
    assert b'"bmcp_sdk_fail"' in first.body
    assert b"bmcp_sdk_hang" not in first.body
    told = str(second.json()[speech.history])
    assert "high water" in told
    assert "no such city" in told
