"""What operators and models get of real servers, over each transport."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable

import pytest

from aibridge.mcp.config import ServerConfig
from aibridge.mcp.servers import ToolServers
from aibridge.mcp.toolbox import Outcome
from aibridge.wire.tools import ImagePart, ResourcePart, TextPart

from .conftest import ADA, SDK_SERVER, until

Start = Callable[..., Awaitable[ToolServers]]


@pytest.fixture(params=["streamable-http", "sse", "stdio"])
def config(request: pytest.FixtureRequest, sdk_server: str) -> ServerConfig:
    """The same server, by each way to reach it."""
    if request.param == "stdio":
        return ServerConfig(name="sdk", command=[sys.executable, SDK_SERVER, "stdio"])
    path = "mcp" if request.param == "streamable-http" else "sse"
    return ServerConfig(name="sdk", url=f"{sdk_server}/{path}", transport=request.param)


async def call(servers: ToolServers, name: str, arguments: object = None) -> Outcome:
    tool = servers.catalogue().tools[f"bmcp_sdk_{name}"]
    return await servers.call(tool, "" if arguments is None else json.dumps(arguments), ADA)


async def test_a_server_from_its_first_tool_to_its_last_word(start: Start, config: ServerConfig) -> None:
    servers = await start(config)

    offers = servers.catalogue().offers
    assert [offer.name for offer in offers] == sorted(offer.name for offer in offers)
    echo = servers.catalogue().tools["bmcp_sdk_echo"]
    assert (echo.server, echo.name, echo.server_url) == ("sdk", "echo", config.location)
    assert echo.offered.description == "Say the same again."

    weather = json.loads(servers.catalogue().tools["bmcp_sdk_weather"].offered.input_schema)
    assert weather["$defs"]["Unit"]["enum"] == ["celsius", "fahrenheit"]
    assert list(weather["properties"]) == ["city", "unit"]

    outcome = await call(servers, "echo", {"text": "grüße"})
    assert outcome.result.parts == (TextPart("grüße"),)
    assert outcome.error is None
    assert 0 < outcome.duration < 10

    failed = await call(servers, "fail")
    assert failed.result.is_error
    assert failed.error
    assert "no such city" in failed.error

    various = await call(servers, "variety")
    assert various.result.parts == (
        TextPart("words"),
        ImagePart("cGl4ZWxz", "image/png"),
        TextPart("[audio, audio/wav: it can not be passed on]"),
        ResourcePart("file:///a.txt", "text/plain", text="a"),
        ResourcePart("file:///b.bin", blob="AAAA"),
        ResourcePart("file:///c.txt", "text/plain"),
    )
    plain = await call(servers, "structured")
    assert plain.result.parts == (TextPart('{"degrees":20,"unit":"celsius"}'),)


async def test_tools_that_come_while_the_server_runs_are_offered(start: Start) -> None:
    servers = await start(ServerConfig(name="sdk", command=[sys.executable, SDK_SERVER, "stdio"]))
    before = servers.catalogue()
    assert servers.catalogue() is before

    await call(servers, "grow")

    await until(lambda: "bmcp_sdk_newcomer" in servers.catalogue().tools)
    assert "bmcp_sdk_newcomer" not in before.tools


async def test_a_call_that_hangs_is_ended_and_the_server_stays(start: Start, config: ServerConfig) -> None:
    servers = await start(config, call_timeout=0.3)

    outcome = await call(servers, "hang")

    assert outcome.error == "the tool did not answer within 0.3 s"
    assert outcome.result.is_error
    assert outcome.result.parts == (TextPart(outcome.error),)
    assert (await call(servers, "echo", {"text": "still here"})).error is None


async def test_a_program_that_dies_in_a_call_is_started_again(start: Start) -> None:
    servers = await start(ServerConfig(name="sdk", command=[sys.executable, SDK_SERVER, "stdio"]))

    outcome = await call(servers, "die")

    assert outcome.error == "the tool could not be called: Connection closed"
    await until(lambda: not servers.states[0].connected)
    await until(lambda: servers.states[0].connected)
    assert (await call(servers, "echo", {"text": "back"})).error is None


async def test_a_result_of_50_megabytes_is_cut_or_refused(start: Start, config: ServerConfig) -> None:
    servers = await start(config, max_result_size=10_000)

    cut = await call(servers, "large", {"size": 20_000})
    words, note = cut.result.parts
    assert isinstance(words, TextPart)
    assert words.text == "x" * (10_000 - 64)
    assert note == TextPart(
        "[cut: the result has 20064 bytes, of which no more than 10000 are passed on; ask for less at once]"
    )
    huge = await call(servers, "large", {"size": 50_000_000})
    assert sum(len(part.text) for part in huge.result.parts if isinstance(part, TextPart)) < 11_000
    await until(lambda: servers.states[0].connected)
    assert (await call(servers, "echo", {"text": "still here"})).error is None
