"""Where the gateway spends its time: one kind of request, many times, under cProfile.

cProfile makes Python calls look dearer than they are beside work done in C; what it shows is where to look, and
`scripts/bench` shows whether a change has helped.
"""

from __future__ import annotations

import io
import pstats
import sys
from typing import TYPE_CHECKING

from bench.measures import STAGGER, cpu_per_unit
from bench.suite import BURST, LARGE_BODY
from bench.targets import Gateway, start_provider
from bench.workload import blocking, streaming

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

SCENARIOS = {
    "blocking": (blocking(10_000), 150, 16, 1),
    "large": (blocking(LARGE_BODY), 30, 16, 1),
    "burst": (streaming(BURST, "burst"), 100, 4, BURST),
    "paced": (streaming(BURST, "5ms"), 2, 32, BURST),
}
"""By name: request, repetitions on each connection, connections, units (requests, or events) in one."""

PROFILED = """
import cProfile, signal, sys
from aibridge.server.cli import main
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
profiler = cProfile.Profile()
try:
    profiler.runcall(main)
finally:
    profiler.dump_stats({statistics!r})
"""
"""Runs the gateway's command in this process; the statistics are written once SIGTERM has ended it."""


async def profile(scenario: str, folder: Path, console: Console) -> None:
    """Run the gateway under the profiler for one scenario, and print the functions that cost most."""
    request, times, connections, units = SCENARIOS[scenario]
    statistics = folder / "statistics"
    provider = start_provider(folder)
    try:
        await provider.ready()
        wrapper = [sys.executable, "-c", PROFILED.format(statistics=str(statistics))]
        gateway = Gateway(folder, provider.port, wrapper).start()
        try:
            await gateway.ready()
            spent = await cpu_per_unit(gateway, request, times, connections, units, STAGGER)
        finally:
            gateway.stop()
    finally:
        provider.stop()
    exchanges = times * connections
    console.print(f"{scenario}: {spent:.1f} µs CPU a unit with the profiler on; {exchanges} exchanges\n")
    for order in ("tottime", "cumtime"):
        text = io.StringIO()
        pstats.Stats(str(statistics), stream=text).sort_stats(order).print_stats(30)
        console.print(text.getvalue().partition("Ordered by")[2], highlight=False, markup=False, soft_wrap=True)
