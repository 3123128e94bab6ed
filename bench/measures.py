"""The ways of measuring one running proxy: each takes a running process and gives plain figures."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING

from bench import client
from bench.client import Exchange
from bench.workload import Request, streaming

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.process import Process

STAGGER = 0.0007
"""Seconds between the starts of paced streams, so that their events do not all fall due together."""

TURN = 25
"""Exchanges that a proxy gets before the next one has its turn."""


async def repeat(process: Process, request: Request, times: int, connections: int = 1) -> list[Exchange]:
    """Send the request so often on each of so many connections at once, one exchange after another on each."""

    async def one() -> list[Exchange]:
        connection = await client.connect(process.port)
        try:
            seen = [await connection.exchange(request) for _ in range(times)]
            process.answered += times
            return seen
        finally:
            connection.close()

    return [seen for each in await asyncio.gather(*(one() for _ in range(connections))) for seen in each]


async def alone(running: Mapping[str, Process], request: Request, times: int) -> dict[str, list[Exchange]]:
    """Send the request so often to each proxy, one exchange at a time, on one connection that is kept.

    The proxies take turns every few exchanges, so that a disturbance from outside meets them alike.
    """
    connections = {name: await client.connect(process.port) for name, process in running.items()}
    seen: dict[str, list[Exchange]] = {name: [] for name in running}
    for _ in range(times // TURN):
        for name, connection in connections.items():
            seen[name] += [await connection.exchange(request) for _ in range(TURN)]
            running[name].answered += TURN
    for connection in connections.values():
        connection.close()
    return seen


async def cpu_per_unit(
    process: Process, request: Request, times: int, connections: int, units: int, stagger: float = 0.0
) -> float:
    """CPU time of the proxy for a unit (a request, or one of a stream's events), in microseconds."""
    before = await process.settled_cpu_seconds()

    async def later(n: int) -> None:
        await asyncio.sleep(n * stagger)
        await repeat(process, request, times)

    await asyncio.gather(*(later(n) for n in range(connections)))
    spent = await process.settled_cpu_seconds() - before
    return spent / (times * connections * units) * 1e6


@dataclass(frozen=True)
class Spread:
    """Median and 99th percentile, in milliseconds."""

    median: float
    p99: float


def spread(seconds: Sequence[float]) -> Spread:
    """Median and 99th percentile of some times."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return Spread(cuts[49] * 1e3, cuts[98] * 1e3)


@dataclass(frozen=True)
class Crowd:
    """What many streams at once came to."""

    lost_events: int
    """Events that did not come, those of failed streams included."""
    failed: str
    """Why the first failed stream failed; empty where none did."""
    longest_silence: float
    """Within any stream, in milliseconds."""
    delay: Spread
    """From the provider's sending to the client's receipt of an event."""


async def crowd(process: Process, streams: int, deltas: int, pace: str) -> Crowd:
    """Open so many paced streams at once and follow each to its end."""
    request = streaming(deltas, pace)
    connections = [await client.connect(process.port, take_delays=True) for _ in range(streams)]

    async def one(connection: client.Connection, n: int) -> Exchange:
        await asyncio.sleep(n * STAGGER)
        return await connection.exchange(request)

    ends = await asyncio.gather(*(one(c, n) for n, c in enumerate(connections)), return_exceptions=True)
    for connection in connections:
        connection.close()
    process.answered += sum(isinstance(end, Exchange) for end in ends)
    faults = [end for end in ends if isinstance(end, BaseException)]
    return Crowd(
        lost_events=sum(request.events - min(connection.current.events, request.events) for connection in connections),
        failed=repr(faults[0]) if faults else "",
        longest_silence=max(connection.current.longest_silence for connection in connections) * 1e3,
        delay=spread([delay for connection in connections for delay in connection.current.delays]),
    )


async def bytes_per_idle_stream(process: Process, streams: int) -> float:
    """Resident memory that a stream costs which has begun and stays silent."""
    request = streaming(1, "stall")
    await repeat(process, streaming(1, "burst"), times=20, connections=4)
    before = process.resident_bytes()
    connections = [await client.connect(process.port) for _ in range(streams)]
    await asyncio.gather(*(connection.begin(request) for connection in connections))
    await process.settled_cpu_seconds()
    after = process.resident_bytes()
    for connection in connections:
        connection.close()
    return (after - before) / streams
