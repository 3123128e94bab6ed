"""Whether the gateway's memory stays flat under a day's load, in minutes: `python -m bench.soak --minutes 10`.

Clients ask without a pause, in every dialect, for documents and for streams, and some leave in the middle of an answer.
All is well where memory did not grow after the first quarter, and where every answer is in the database.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import linear_regression, mean

from bench import client
from bench.answers import CHAT_COMPLETIONS, MESSAGES, RESPONSES
from bench.process import Process
from bench.suite import recorded
from bench.targets import Gateway, start_provider
from bench.workload import blocking, streaming

CLIENTS = 8
LEAVES = 20
"""After so many requests a client gives one up once its answer has begun, which would take seconds."""

GROWTH = 0.05
"""By how much of itself memory may grow from the first quarter's end to the end, before it counts as growing."""

DAY = 24 * 3600

_REQUESTS = [
    request
    for dialect in (MESSAGES, CHAT_COMPLETIONS, RESPONSES)
    for request in (blocking(10_000, dialect), streaming(50, "burst", dialect), streaming(10, "burst", dialect, 40_000))
]
_GIVEN_UP = streaming(2000, "5ms")


async def ask(gateway: Process, until: float, begin_with: int) -> None:
    """One client, until a time of the monotonic clock."""
    number = begin_with
    connection = await client.connect(gateway.port)
    while time.monotonic() < until:
        number += 1
        await connection.exchange(_REQUESTS[number % len(_REQUESTS)])
        gateway.answered += 1
        if number % LEAVES == 0:
            await connection.begin(_GIVEN_UP)
            connection.close()
            connection = await client.connect(gateway.port)
    connection.close()


async def sample(gateway: Process, until: float) -> list[tuple[float, float]]:
    """The gateway's resident memory in MB, second by second."""
    began, found = time.monotonic(), []
    while (now := time.monotonic()) < until:
        found.append((now - began, gateway.resident_bytes() / 1e6))
        if len(found) % 30 == 0:
            print(f"{now - began:6.0f} s  {found[-1][1]:6.1f} MB  {gateway.answered:9,} answers", flush=True)
        await asyncio.sleep(1)
    return found


async def endures(folder: Path, minutes: float) -> bool:
    """Whether all is well after so many minutes; tells the figures."""
    provider = start_provider(folder)
    try:
        await provider.ready()
        target = Gateway(folder, provider.port)
        gateway = target.start()
        try:
            await gateway.ready()
            until = time.monotonic() + 60 * minutes
            async with asyncio.TaskGroup() as group:
                sampling = group.create_task(sample(gateway, until))
                for number in range(CLIENTS):
                    group.create_task(ask(gateway, until, 7 * number))
            missing = await recorded(target, gateway.answered)
        finally:
            gateway.stop()
    finally:
        provider.stop()
    memory = sampling.result()
    settled = memory[len(memory) // 4 :]
    slope, _ = linear_regression(*zip(*settled, strict=True))
    begin, end = (mean(each for _, each in part) for part in (settled[:10], settled[-10:]))
    grown = slope * (settled[-1][0] - settled[0][0]) / begin
    lost = missing.figures["gateway"]
    print(
        f"{gateway.answered:,} answers in {minutes:g} minutes, as many as {gateway.answered / DAY:.1f} a second in a "
        f"day: {begin:.1f} MB after a quarter of the time, {end:.1f} MB at the end, a trend of {100 * grown:+.1f} %; "
        f"{lost:g} answers are not in the database"
    )
    return grown <= GROWTH and not lost
