"""What injected tools cost: a gateway with MCP servers beside the same gateway without, and a turn in which one is called."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import client, workload
from bench.answers import CHAT_COMPLETIONS, MESSAGES, RESPONSES
from bench.measures import STAGGER, TURN, Spread, cpu_per_unit, repeat, spread
from bench.mcp_server import NAME
from bench.process import Process
from bench.report import Row
from bench.suite import BURST, LARGE_BODY, alternate, cores, medians, recorded
from bench.targets import Gateway, environment, free_port
from bench.workload import Request, blocking, streaming, tool_turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.suite import Effort, Note

FEW = 10
"""Tools of an ordinary server."""

MANY = 200
"""Tools of many servers together."""

CONNECTED_LIMIT = 20.0
"""Seconds that a gateway may take until it is connected with its MCP servers."""

WITHOUT, WITH_FEW, WITH_MANY = "gateway", "10 tools", "200 tools"
COLUMNS = (WITHOUT, WITH_FEW, WITH_MANY)

MCP_SERVER = """
[[mcp_servers]]
name = "{name}"
url = "http://127.0.0.1:{port}/mcp"
"""

EVENTS = (
    ("event in a burst, Messages", streaming(BURST, "burst"), 75, 4, 0.0),
    ("event in a burst, Chat", streaming(BURST, "burst", CHAT_COMPLETIONS), 75, 4, 0.0),
    ("event in a burst, Responses", streaming(BURST, "burst", RESPONSES), 75, 4, 0.0),
    ("event, 5 ms apart, Messages", streaming(BURST, "5ms"), 1, 32, STAGGER),
    ("event, 5 ms apart, Chat", streaming(BURST, "5ms", CHAT_COMPLETIONS), 1, 32, STAGGER),
    ("event, 5 ms apart, Responses", streaming(BURST, "5ms", RESPONSES), 1, 32, STAGGER),
)
"""What, request, repetitions on each connection, connections, seconds between their starts."""

REQUESTS = tuple(
    (f"blocking request, {size}, {name}", blocking(length, dialect), times)
    for size, length, times in (("10 KB", 10_000, 50), ("400 KB", LARGE_BODY, 15))
    for name, dialect in (("Messages", MESSAGES), ("Chat", CHAT_COMPLETIONS), ("Responses", RESPONSES))
)
"""What, request, repetitions on each of 8 connections."""

TOOL_TURNS = (
    ("tool at once, Messages", tool_turn(0)),
    ("tool at once, Chat", tool_turn(0, CHAT_COMPLETIONS)),
    ("tool at once, Responses", tool_turn(0, RESPONSES)),
    ("tool of 20 ms, Messages", tool_turn(20)),
    ("tool at once, Messages, 400 KB", tool_turn(0, size=LARGE_BODY)),
)


class GatewayWithTools(Gateway):
    """The gateway, with an MCP server in its settings."""

    def __init__(self, name: str, folder: Path, upstream: int, mcp_server: int) -> None:
        super().__init__(folder, upstream)
        self.name = name
        self.mcp_server = mcp_server

    def command(self, folder: Path, port: int) -> Sequence[str]:
        command = super().command(folder, port)
        with (folder / "aibridge.toml").open("a") as config:
            config.write(MCP_SERVER.format(name=NAME, port=self.mcp_server))
        return command


async def tools(folder: Path, effort: Effort, note: Note) -> list[Row]:
    """Start what is needed, and measure all of it."""
    folder.mkdir()
    with ExitStack() as stack:

        async def started(module: str, *arguments: str) -> Process:
            port = free_port()
            command = [sys.executable, "-m", module, "--port", str(port), *arguments]
            process = Process(command, port, folder / f"{module}-{port}.log", environment())
            stack.callback(process.stop)
            await process.ready()
            return process

        provider = await started("bench.tool_provider")
        few = await started("bench.mcp_server", "--tools", str(FEW))
        many = await started("bench.mcp_server", "--tools", str(MANY))
        targets = [
            Gateway(folder, provider.port),
            GatewayWithTools(WITH_FEW, folder, provider.port, few.port),
            GatewayWithTools(WITH_MANY, folder, provider.port, many.port),
        ]
        rows = await _lifecycle(targets, effort, note)
        running: dict[str, Process] = {}
        for target in targets:
            running[target.name] = target.start()
            stack.callback(running[target.name].stop)
            await running[target.name].ready()
            await _connected(running[target.name])
        with _Apart(running.values(), [provider, few, many]):
            rows += await _events({name: running[name] for name in (WITHOUT, WITH_FEW)}, effort, note)
            rows += await _requests({name: running[name] for name in (WITHOUT, WITH_MANY)}, effort, note)
            rows += await _tool_turns(running[WITH_FEW], provider, few, effort, note)
        rows += [await recorded(target, running[target.name].answered) for target in targets[1:2]]
        return rows
