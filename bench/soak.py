"""What many streams that clients left leave behind in the gateway: nothing.

`python -m bench.soak` starts the gateway as its users would, asks for 50,000 streams that never end, and leaves each of
them after its first event. What is open and how much memory is taken is looked at after every tenth of them.
With `--minutes` it sees instead how the gateway endures full load (see `bench.endurance`).
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from rich.console import Console
from rich.table import Table

from bench import client
from bench.endurance import endures
from bench.targets import Gateway, start_provider
from bench.workload import streaming

if TYPE_CHECKING:
    from bench.process import Process

AT_ONCE = 50
"""Streams that are open at a time."""

MOST_GROWTH = 5.0
"""MB that memory may grow by in the second half; in the first, what is kept on purpose fills."""


@dataclass(frozen=True)
class Looked:
    """What there is at one moment."""

    left: int
    """Streams that were left so far."""
    descriptors: int
    """Open files and sockets of the gateway."""
    providers: int
    """Open sockets of the provider."""
    running: int
    """Exchanges that the gateway says it has."""
    memory: float
    """Resident, in MB."""


async def leave(port: int, times: int) -> None:
    """Open so many streams, one after another, and leave each after its first event."""
    request = streaming(1, "stall")
    for _ in range(times):
        connection = await client.connect(port)
        await connection.begin(request)
        connection.close()


def _descriptors(process: Process) -> int:
    return sum(1 for pid in process.pids() for _ in Path(f"/proc/{pid}/fd").iterdir())


def _running(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("aibridge_interceptions_inflight{")))


async def look(gateway: Process, provider: Process, left: int) -> Looked:
    """What there is once the gateway has come to rest."""
    await gateway.settled_cpu_seconds()
    running = await asyncio.to_thread(_running, gateway.port)
    await gateway.settled_cpu_seconds()
    memory = gateway.resident_bytes() / 1e6
    return Looked(left, _descriptors(gateway), _descriptors(provider), running, memory)


async def soak(folder: Path, streams: int) -> list[Looked]:
    """What there was at the start, and after each tenth of the streams."""
    provider = start_provider(folder)
    try:
        await provider.ready()
        gateway = Gateway(folder, provider.port).start()
        try:
            await gateway.ready()
            looked = [await look(gateway, provider, 0)]
            for tenth in range(1, 11):
                each = streams // 10 // AT_ONCE
                await asyncio.gather(*(leave(gateway.port, each) for _ in range(AT_ONCE)))
                looked.append(await look(gateway, provider, tenth * each * AT_ONCE))
            return looked
        finally:
            gateway.stop()
    finally:
        provider.stop()


def main() -> None:
    """Print what was found; exit with 1 where something was left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, help="of full load, instead of streams that are left")
    arguments = parser.parse_args()
    streams: int = arguments.streams
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    if arguments.minutes:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            sys.exit(not uvloop.run(endures(Path(folder), arguments.minutes)))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        looked = uvloop.run(soak(Path(folder), streams))
    table = Table("streams left", "gateway's descriptors", "provider's", "running exchanges", "memory, MB")
    for each in looked:
        table.add_row(
            f"{each.left:,}", str(each.descriptors), str(each.providers), str(each.running), f"{each.memory:.1f}"
        )
    console = Console()
    console.print(table)
    first, half, last = looked[0], looked[5], looked[-1]
    clean = last.descriptors <= first.descriptors and last.providers <= first.providers and last.running == 0
    grown = last.memory - half.memory
    console.print(f"{time.monotonic() - began:.0f} s; memory grew by {grown:.1f} MB in the second half")
    sys.exit(not (clean and grown <= MOST_GROWTH))


if __name__ == "__main__":
    main()
