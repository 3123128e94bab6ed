"""What injected tools cost: a gateway with MCP servers beside one without, and the delay of a turn that calls one."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench import client, workload
from bench.answers import CHAT_COMPLETIONS, MESSAGES, RESPONSES
from bench.mcp_server import NAME
from bench.measures import STAGGER, TURN, Spread, cpu_per_unit, repeat, spread
from bench.process import NotServingError, Process
from bench.report import Row
from bench.suite import BURST, LARGE_BODY, alternate, cores, medians, recorded
from bench.targets import Gateway, environment, free_port
from bench.workload import Request, blocking, streaming, tool_turn, without_tool_turn

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
    ("tool at once, Messages", tool_turn(0), without_tool_turn()),
    ("tool at once, Chat", tool_turn(0, CHAT_COMPLETIONS), without_tool_turn(CHAT_COMPLETIONS)),
    ("tool at once, Responses", tool_turn(0, RESPONSES), without_tool_turn(RESPONSES)),
    ("tool of 20 ms, Messages", tool_turn(20), without_tool_turn()),
    ("tool at once, Messages, 400 KB", tool_turn(0, size=LARGE_BODY), without_tool_turn(size=LARGE_BODY)),
)
"""What, the request, and the same without a call."""


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
    folder = folder / "tools"
    folder.mkdir()  # before anything is measured
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
        everywhere = os.sched_getaffinity(0)
        if apart := cores():
            for process in running.values():
                process.pin(apart[0])
            for process in (provider, few, many):
                process.pin(apart[1])
            os.sched_setaffinity(0, apart[1])
        rows += await _events({name: running[name] for name in (WITHOUT, WITH_FEW)}, effort, note)
        rows += await _requests({name: running[name] for name in (WITHOUT, WITH_MANY)}, effort, note)
        rows += await _tool_turns(running[WITH_FEW], provider, few, effort, note)
        os.sched_setaffinity(0, everywhere)
        kept = await recorded(targets[1], running[WITH_FEW].answered)
        return [*rows, replace(kept, figures={WITH_FEW: kept.figures["gateway"]}, measured=WITH_FEW)]


async def _lifecycle(targets: Sequence[Gateway], effort: Effort, note: Note) -> list[Row]:
    """From start to ready and to the tools, and resident memory once they are there."""
    ready: dict[str, list[float]] = {target.name: [] for target in targets}
    connected: dict[str, list[float]] = {target.name: [] for target in targets if target.name != WITHOUT}
    resident: dict[str, list[float]] = {target.name: [] for target in targets}
    for _ in range(effort.starts):
        for target in targets:
            note(f"starting {target.name}")
            process = target.start()
            try:
                ready[target.name].append(await process.ready())
                if target.name in connected:
                    connected[target.name].append(await _connected(process))
                await process.settled_cpu_seconds()
                resident[target.name].append(process.resident_bytes() / 1e6)
            finally:
                process.stop()
    return [
        Row("from start to ready", "s", medians(ready)),
        Row("from start to tools offered", "s", medians(connected)),
        Row("resident memory at start", "MB", medians(resident)),
    ]


async def _connected(process: Process) -> float:
    """Wait until a gateway has its MCP servers, and say how many seconds that took from the start of the process."""
    connection = await client.connect(process.port)
    try:
        while (taken := time.monotonic() - process.started) < CONNECTED_LIMIT:
            if b"warnings" not in (await connection.exchange(workload.ready())).tail:
                return taken
            await asyncio.sleep(0.005)
    finally:
        connection.close()
    raise NotServingError(f"the gateway was not connected with its MCP server within {taken:.1f} s")


async def _events(running: Mapping[str, Process], effort: Effort, note: Note) -> list[Row]:
    """What an event costs that is relayed while tools are offered and none is called."""
    rows = []
    for what, request, full, connections, stagger in EVENTS:
        note(what)
        times = full if full == 1 else effort.times(full)

        measure = partial(_cpu_per_unit, request, times, connections, BURST, stagger)
        found = medians(await alternate(running, effort.rounds, measure))
        rows.append(Row(what, "µs CPU", found, 1.3, of_ratio=True, measured=WITH_FEW, beside=WITHOUT))
    return rows


async def _cpu_per_unit(
    request: Request, times: int, connections: int, units: int, stagger: float, process: Process
) -> float:
    return await cpu_per_unit(process, request, times, connections, units, stagger)


async def _requests(running: Mapping[str, Process], effort: Effort, note: Note) -> list[Row]:
    """What it costs to offer many tools with a request."""
    rows = []
    for what, request, full in REQUESTS:
        note(what)
        times = effort.times(full)

        found = medians(await alternate(running, effort.rounds, partial(_cpu_per_unit, request, times, 8, 1, 0.0)))
        added = {WITH_MANY: found[WITH_MANY] - found[WITHOUT]}
        rows.append(Row(what, "µs CPU", found))
        rows.append(Row(f"{what}: added", "µs CPU", added, 2_000, measured=WITH_MANY))
    return rows


async def _tool_turns(
    gateway: Process, provider: Process, mcp_server: Process, effort: Effort, note: Note
) -> list[Row]:
    """How much longer than the provider and the MCP server an exchange takes, and what of that the tool's turn adds."""
    rows = []
    if apart := cores():
        # The MCP server is not done when its result is sent. On a core with it, the provider would have to wait for it;
        # the gateway has nothing to do while the provider answers.
        provider.pin(apart[0])
    for what, request, without in TOOL_TURNS:
        note(what)
        times = effort.times(400)
        plain = await added_delay(gateway, provider, mcp_server, without, times, calls=0)
        delay = await added_delay(gateway, provider, mcp_server, request, times, calls=1)
        rows.append(Row(f"{what}: delay of the exchange, median", "ms", {WITH_FEW: delay.median}))
        rows.append(Row(f"{what}: delay of the exchange, 99th percentile", "ms", {WITH_FEW: delay.p99}))
        by_turn = {WITH_FEW: delay.median - plain.median}
        rows.append(Row(f"{what}: added by the turn, median", "ms", by_turn, 3, measured=WITH_FEW))
    return rows


async def added_delay(
    gateway: Process, provider: Process, mcp_server: Process, request: Request, times: int, *, calls: int
) -> Spread:
    """The time of exchanges with so many calls each, without what provider and MCP server say that they took."""
    await repeat(gateway, request, TURN)
    skipped = len(await _spent(provider, 0)), len(await _spent(mcp_server, 0))
    seen = await repeat(gateway, request, times)
    turns = (await _spent(provider, skipped[0] + (1 + calls) * times))[skipped[0] :]
    tools = (await _spent(mcp_server, skipped[1] + calls * times))[skipped[1] :]
    elsewhere = [
        sum(turns[n * (1 + calls) : (n + 1) * (1 + calls)]) + sum(tools[n * calls : (n + 1) * calls])
        for n in range(times)
    ]
    return spread([exchange.latency - other for exchange, other in zip(seen, elsewhere, strict=True)])


async def _spent(process: Process, lines: int) -> list[float]:
    """The times in seconds that a server has written to its log, once it has written so many."""
    while True:
        told = [line.split()[1] for line in process.log.read_text().splitlines() if line.startswith("spent ")]
        if len(told) >= lines:
            return [int(nanoseconds) / 1e9 for nanoseconds in told]
        await asyncio.sleep(0.05)
