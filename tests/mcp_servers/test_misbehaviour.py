"""Servers that hang, die, flap, forget, lie and change their minds."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from aibridge.mcp import http
from aibridge.mcp.config import ServerConfig
from aibridge.mcp.servers import ToolServers
from aibridge.mcp.toolbox import Catalogue, InjectedTool, Outcome
from aibridge.wire.tools import TextPart

from . import halving_server
from .conftest import ADA, until
from .halving_server import HALF
from .legacy_server import LegacyServer, echo, text

Start = Callable[..., Awaitable[ToolServers]]


def config(server: LegacyServer, **settings: Any) -> ServerConfig:
    return ServerConfig(name="old", url=server.url, **settings)


def tool(servers: ToolServers, name: str) -> InjectedTool:
    return servers.catalogue().tools[f"bmcp_old_{name}"]


async def call(servers: ToolServers, name: str, arguments: str = "{}") -> Outcome:
    return await servers.call(tool(servers, name), arguments, ADA)


async def hang(_: dict[str, Any], __: web.Request) -> Any:
    await asyncio.sleep(3600)


async def cut_connection(_: dict[str, Any], request: web.Request) -> Any:
    assert request.transport
    request.transport.abort()
    await asyncio.sleep(3600)


# Down, and up again


async def test_a_server_that_is_down_delays_nobody_and_its_tools_appear_when_it_comes(
    start: Start, legacy: LegacyServer, caplog: pytest.LogCaptureFixture
) -> None:
    await legacy.stop()
    servers = ToolServers([config(legacy)])
    began = time.monotonic()
    await servers.start()
    assert time.monotonic() - began < 0.1
    await servers.aclose()

    servers = await start(config(legacy), wait=False)
    await until(lambda: servers.states[0].error)
    assert {state.error for state in servers.states} == {"the server can not be reached"}
    assert not servers.catalogue().tools

    await legacy.start()

    await until(lambda: servers.catalogue().tools)
    assert servers.states[0].connected
    assert servers.states[0].error is None
    assert [record.message for record in caplog.records if "can not be reached" in record.message][1:] == []


async def test_a_flapping_server_comes_and_goes(start: Start, legacy: LegacyServer) -> None:
    servers = await start(config(legacy))
    offered_before = tool(servers, "echo")
    for _ in range(3):
        await legacy.stop()
        await until(lambda: not servers.catalogue().tools)
        refused = await servers.call(offered_before, "{}", ADA)
        assert refused.error == "the tool could not be called: the server can not be reached"
        await legacy.start()
        await until(lambda: servers.catalogue().tools)
        assert (await call(servers, "echo")).error is None


async def test_a_server_that_forgets_its_sessions_gets_a_new_one_and_the_call(
    start: Start, legacy: LegacyServer
) -> None:
    servers = await start(config(legacy))
    before = servers.catalogue()
    await asyncio.sleep(0.3)  # long enough to be a connection that was good

    legacy.sessions.clear()

    assert (await call(servers, "echo", '{"a":1}')).result.parts == (TextPart('{"a": 1}'),)
    assert servers.catalogue() is before


async def test_a_connection_that_breaks_in_a_call_costs_that_call_alone(start: Start, legacy: LegacyServer) -> None:
    released = asyncio.Event()

    async def wait(_: dict[str, Any], __: web.Request) -> Any:
        await released.wait()
        return text("released")

    legacy.tools |= {"cut": cut_connection, "wait": wait}
    servers = await start(config(legacy))
    waiting = asyncio.create_task(call(servers, "wait"))
    await until(lambda: legacy.running)

    cut = await call(servers, "cut")

    assert cut.error
    assert cut.error.startswith("the tool could not be called: ")
    released.set()
    assert (await waiting).result.parts == (TextPart("released"),)


async def test_a_server_that_freezes_is_left_and_found_again(start: Start, legacy: LegacyServer) -> None:
    servers = await start(config(legacy), call_timeout=0.2)
    frozen = tool(servers, "echo")
    legacy.thawed.clear()

    assert (await servers.call(frozen, "{}", ADA)).error == "the tool did not answer within 0.2 s"
    await until(lambda: not servers.catalogue().tools)
    assert servers.states[0].error == "the server did not answer in time"

    legacy.thawed.set()
    await until(lambda: servers.catalogue().tools)
    assert (await call(servers, "echo")).error is None


async def test_a_server_that_refuses_the_credentials_says_so(start: Start, legacy: LegacyServer) -> None:
    legacy.refuse = lambda request: (
        None if request.headers.get("authorization") == "Bearer s3cret" else web.Response(status=401)
    )
    servers = await start(config(legacy, headers={"Authorization": "Bearer wr0ng"}), wait=False)
    await until(lambda: servers.states[0].error)
    assert servers.states[0].error is not None
    assert "HTTP 401" in servers.states[0].error

    servers = await start(config(legacy, headers={"Authorization": "Bearer s3cret"}))
    assert (await call(servers, "echo")).error is None


# Lists of tools


async def test_all_pages_of_a_list_are_read_and_names_fit_every_provider(start: Start, legacy: LegacyServer) -> None:
    legacy.page_size = 7
    legacy.tools = dict.fromkeys([*(f"tool{i}" for i in range(30)), "a.b", "a_b", "ü" * 80], echo)
    servers = await start(config(legacy))
    names = list(servers.catalogue().tools)
    assert len(names) == 33
    assert names == sorted(names)
    assert all(len(name) <= 64 and name.isascii() for name in names)
    for each in servers.catalogue().tools.values():
        assert (await servers.call(each, "{}", ADA)).error is None


async def test_one_tool_that_is_ill_described_does_not_cost_the_others(start: Start, legacy: LegacyServer) -> None:
    whole = {"$defs": {"x": {"enum": [1, 2]}}, "type": "object", "properties": {"b": {"$ref": "#/$defs/x"}, "a": True}}
    legacy.descriptions = {
        "whole": {"inputSchema": {**whole, "additionalProperties": False}, "description": "Whole."},
        "none": {"inputSchema": None},
        "array": {"inputSchema": {"type": "array"}},
        "broken": {"inputSchema": {"type": "object", "properties": 5}},
        "odd": {"description": 7, "annotations": "none", "outputSchema": {"type": "object", "required": ["x"]}},
    }
    legacy.tools = {"": echo, **dict.fromkeys(legacy.descriptions, echo)}

    servers = await start(config(legacy))

    schemas = {each.name: each.offered.input_schema for each in servers.catalogue().tools.values()}
    assert schemas.pop("whole") == json.dumps({**whole, "additionalProperties": False}, separators=(",", ":")).encode()
    assert schemas == dict.fromkeys(["none", "array", "broken", "odd"], b'{"type":"object"}')
    assert [tool(servers, name).offered.description for name in ("whole", "odd")] == ["Whole.", ""]
    assert (await call(servers, "odd")).error is None


async def test_a_changed_list_gives_a_new_catalogue_and_an_equal_one_the_same(
    start: Start, legacy: LegacyServer
) -> None:
    servers = await start(config(legacy))
    before = servers.catalogue()
    await until(lambda: legacy._listeners)
    listings = legacy.listings

    await legacy.announce_change()
    await until(lambda: legacy.listings > listings)
    legacy.tools["second"] = echo
    await legacy.announce_change()

    await until(lambda: "bmcp_old_second" in servers.catalogue().tools)
    assert isinstance(before, Catalogue)
    assert list(before.tools) == ["bmcp_old_echo"]


async def test_denied_tools_are_not_offered_and_doubt_is_told_once(
    start: Start, legacy: LegacyServer, caplog: pytest.LogCaptureFixture
) -> None:
    legacy.tools = dict.fromkeys(("read_file", "read_secret", "write_file"), echo)
    servers = await start(config(legacy, tool_allow="^read_", tool_deny="secret$"))
    await legacy.announce_change()
    assert list(servers.catalogue().tools) == ["bmcp_old_read_file"]
    assert len([record for record in caplog.records if "both allowed and denied" in record.message]) == 1


# Calls


@pytest.mark.parametrize("as_stream", [False, True])
async def test_a_call_that_is_given_up_leaves_no_connection(
    start: Start, legacy: LegacyServer, as_stream: bool
) -> None:
    legacy.tools["hang"] = hang
    legacy.answers_as_stream = as_stream
    servers = await start(config(legacy), call_timeout=0.2)

    outcome = await call(servers, "hang")

    assert outcome.error == "the tool did not answer within 0.2 s"
    await until(lambda: not legacy.running)
    await until(lambda: legacy.cancelled)
    assert (await call(servers, "echo")).error is None


async def test_an_answer_that_is_none_is_told_and_the_server_stays(start: Start, legacy: LegacyServer) -> None:
    async def nonsense(_: dict[str, Any], __: web.Request) -> Any:
        return web.Response(text="<html>", content_type="text/html")

    async def unavailable(_: dict[str, Any], __: web.Request) -> Any:
        return web.Response(status=503)

    async def shapeless(_: dict[str, Any], __: web.Request) -> Any:
        return {"content": "words"}

    legacy.tools |= {"nonsense": nonsense, "unavailable": unavailable, "shapeless": shapeless}
    servers = await start(config(legacy))
    outcomes = [await call(servers, name) for name in ("nonsense", "unavailable", "shapeless")]
    assert all(outcome.error and outcome.result.is_error for outcome in outcomes)
    assert outcomes[1].error == "the tool could not be called: the server answered HTTP 503"
    assert (await call(servers, "echo")).error is None


WHOLE = (TextPart(HALF[:-1] + "\ufffd"),)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_that_was_cut_within_a_character_is_passed_on(
    start: Start, legacy: LegacyServer, stream: bool
) -> None:
    async def half(_: dict[str, Any], __: web.Request) -> Any:
        return text(HALF)

    legacy.tools["half"] = half
    legacy.answers_as_stream = stream
    servers = await start(config(legacy), call_timeout=5.0)
    outcome = await call(servers, "half")
    assert (outcome.error, outcome.result.parts) == (None, WHOLE)


async def test_a_program_may_cut_a_text_within_a_character_too(start: Start) -> None:
    command = [sys.executable, halving_server.__file__]
    servers = await start(ServerConfig(name="old", command=command), call_timeout=5.0)
    outcome = await call(servers, "half")
    assert (outcome.error, outcome.result.parts) == (None, WHOLE)


async def test_broken_arguments_are_told_to_the_model_and_not_sent(start: Start, legacy: LegacyServer) -> None:
    served: list[Any] = []

    async def note(arguments: dict[str, Any], _: web.Request) -> Any:
        served.append(arguments)
        return text("noted")

    legacy.tools["note"] = note
    servers = await start(config(legacy))
    for broken in ('{"a":', "[1]", "nonsense", '{"a":' * 100 + "1" + "}" * 100):
        outcome = await call(servers, "note", broken)
        assert outcome.error
        assert outcome.result.is_error
        assert "the tool was not called" in outcome.error
    assert served == []

    assert (await call(servers, "note", "")).error is None
    assert (await call(servers, "note", r'{"n":123456789012345678901234567890,"cut":"\ud83d"}')).error is None
    assert served == [{}, {"n": 123456789012345678901234567890, "cut": "�"}]


async def test_what_the_policy_denies_is_not_called(start: Start, legacy: LegacyServer) -> None:
    servers = await start(config(legacy), policy={"bmcp_old_echo": "deny"})
    outcome = await call(servers, "echo")
    assert outcome.error == "the gateway's policy does not allow this call"
    assert outcome.result.is_error


async def test_nothing_secret_is_logged(start: Start, legacy: LegacyServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    legacy.tools |= {"hang": hang, "cut": cut_connection}
    url = legacy.url + "?key=s3cret"
    headers = {"Authorization": "Bearer s3cret"}
    servers = await start(ServerConfig(name="old", url=url, headers=headers), call_timeout=0.2)
    for name in ("echo", "hang", "cut"):
        outcome = await call(servers, name, '{"word":"c0ntent"}')
    await legacy.stop()
    await until(lambda: servers.states[0].error)
    told = caplog.text + repr(servers.states) + repr(servers.catalogue().tools) + repr(outcome.error)
    assert "s3cret" not in told
    assert "c0ntent" not in told
    assert "session-1" not in told


async def test_ten_thousand_cancelled_calls_leave_everything_as_it_was(
    start: Start, legacy: LegacyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How many connections are kept depends on how many calls ran at once, so on how busy the machine is.
    monkeypatch.setattr(http, "_IDLE", 0.1)
    legacy.tools["hang"] = hang
    servers = await start(config(legacy))
    hanging = tool(servers, "hang")
    cancelled = 0

    async def cancelled_call() -> None:
        nonlocal cancelled
        calling = asyncio.create_task(servers.call(hanging, "{}", ADA))
        await asyncio.sleep(random.choice([0, 0, 0.001, 0.01, 0.05]))
        calling.cancel()
        await asyncio.wait([calling])
        cancelled += calling.cancelled()  # on a busy machine the server may be taken for gone, which ends calls as well

    async def many(thousands: int) -> None:
        for _ in range(10 * thousands):
            legacy.answers_as_stream = not legacy.answers_as_stream
            await asyncio.gather(*(cancelled_call() for _ in range(100)))
            gc.collect()  # or the height of memory tells how busy the machine is
        await until(lambda: not legacy.running)

    await many(2)
    before = await settled()
    await many(10)
    # Connections that are kept close one by one; the server, which is in this process as well, has a task for each.
    await until(lambda: len(asyncio.all_tasks()) <= before.tasks + 2 and open_files() <= before.files + 2)
    after = await settled()

    assert cancelled > 10_000
    assert after.objects < before.objects + 1_000
    # How high it rises before cycles are collected depends on how busy the machine is; 10 KB a call would show.
    assert after.memory < before.memory + 80 * 2**20
    assert (await call(servers, "echo")).error is None
    busy = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - busy < 0.1, "something spins"


class Held(NamedTuple):
    """What the process holds; memory in bytes."""

    tasks: int
    files: int
    objects: int
    memory: int


async def settled() -> Held:
    """What is held once the number of tasks does not sink any more."""
    tasks = len(asyncio.all_tasks())
    while True:
        await asyncio.sleep(0.3)
        if len(asyncio.all_tasks()) >= tasks:
            return held()
        tasks = len(asyncio.all_tasks())


def held() -> Held:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(len(asyncio.all_tasks()), open_files(), len(gc.get_objects()), pages * resource.getpagesize())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_closed_toolbox_leaves_no_task(legacy: LegacyServer) -> None:
    legacy.tools["hang"] = hang
    others = asyncio.all_tasks()
    servers = ToolServers([config(legacy), ServerConfig(name="down", url="http://127.0.0.1:9/mcp")])
    await servers.start()
    await until(lambda: servers.catalogue().tools)
    calling = asyncio.create_task(call(servers, "hang"))
    await until(lambda: legacy.running)

    await servers.aclose()

    assert (await calling).error == "the tool could not be called: the gateway has left the server"
    assert (await call(servers, "echo")).error == "the tool could not be called: the gateway has left the server"
    assert not any(state.connected for state in servers.states)
    await until(lambda: not legacy.running)
    assert not legacy.sessions
    ours = {task for task in asyncio.all_tasks() - others if "aiohttp" not in repr(task)}
    assert not ours
