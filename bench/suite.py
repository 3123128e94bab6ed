"""What is measured, how often, and the numbers to reach."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from bench.answers import CHAT_COMPLETIONS, RESPONSES
from bench.measures import (
    STAGGER,
    Spread,
    alone,
    bytes_per_idle_stream,
    cpu_per_unit,
    crowd,
    spread,
)
from bench.process import NotServingError, Process
from bench.report import Row
from bench.workload import Request, blocking, streaming

if TYPE_CHECKING:
    from bench.targets import Gateway, Target

T = TypeVar("T")
Running = Mapping[str, Process]

BURST = 200
"""Deltas of a stream that comes in a burst."""

LARGE_BODY = 400_000
"""Bytes of a request of 100,000 tokens."""


@dataclass(frozen=True)
class Effort:
    """How much is done: rounds over all targets, and a factor for the work within one."""

    rounds: int
    long_rounds: int
    """Rounds of what takes a second or more by itself."""
    scale: float
    starts: int

    def times(self, full: int) -> int:
        """So many repetitions, scaled."""
        return max(2, round(full * self.scale))


FULL = Effort(rounds=8, long_rounds=3, scale=1.0, starts=3)
QUICK = Effort(rounds=3, long_rounds=1, scale=0.25, starts=1)


@dataclass(frozen=True)
class Cost:
    """A row that is CPU time per unit."""

    what: str
    unit: str
    request: Request
    times: int
    connections: int
    units: int
    limit: float
    stagger: float = 0.0


COSTS = (
    Cost("blocking request, 10 KB body", "µs CPU", blocking(10_000), 100, 16, 1, 1.8),
    Cost("blocking request, 400 KB body", "µs CPU", blocking(LARGE_BODY), 25, 16, 1, 1.5),
    Cost("event in a burst, Messages", "µs CPU", streaming(BURST, "burst"), 75, 4, BURST, 1.5),
    Cost("event in a burst, Chat", "µs CPU", streaming(BURST, "burst", CHAT_COMPLETIONS), 75, 4, BURST, 1.5),
    Cost("event in a burst, Responses", "µs CPU", streaming(BURST, "burst", RESPONSES), 75, 4, BURST, 1.5),
    Cost("event, 5 ms apart", "µs CPU", streaming(BURST, "5ms"), 1, 32, BURST, 1.5, STAGGER),
)

Note = Callable[[str], None]


async def alternate(running: Running, rounds: int, measure: Callable[[Process], Awaitable[T]]) -> dict[str, list[T]]:
    """Measure every target in turn, so often, so that a change of the machine's mood meets them all."""
    found: dict[str, list[T]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, process in running.items():
            found[name].append(await measure(process))
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each target's figures."""
    return {name: median(figures) for name, figures in found.items()}


async def lifecycle(targets: Sequence[Target], effort: Effort, note: Note) -> tuple[list[Row], list[Target]]:
    """Start-up, memory at start and memory per idle stream; and which targets serve at all."""
    started: dict[str, list[float]] = {}
    resident: dict[str, float] = {}
    idle: dict[str, float] = {}
    serving: list[Target] = []
    for target in targets:
        note(f"starting {target.name}")
        try:
            for n in range(effort.starts):
                process = target.start()
                try:
                    started.setdefault(target.name, []).append(await process.ready())
                    resident[target.name] = process.resident_bytes() / 1e6
                    if n == 0:
                        idle[target.name] = await bytes_per_idle_stream(process, 500) / 1024
                finally:
                    process.stop()
            serving.append(target)
        except NotServingError as fault:
            if target.name == "bare":
                raise
            started.pop(target.name, None)
            note(f"[yellow]{target.name} is left out:[/] {fault}")
    rows = [
        Row("from start to ready", "s", medians(started), limit=1.0),
        Row("resident memory at start", "MB", resident, limit=90),
        Row("memory per idle stream", "KB", idle, limit=64),
    ]
    return rows, serving


async def costs(running: Running, effort: Effort, note: Note) -> list[Row]:
    """CPU time per request and per event."""
    rows = []
    for cost in COSTS:
        note(cost.what)
        times = cost.times if cost.times == 1 else effort.times(cost.times)

        async def measure(process: Process, cost: Cost = cost, times: int = times) -> float:
            return await cpu_per_unit(process, cost.request, times, cost.connections, cost.units, cost.stagger)

        found = medians(await alternate(running, effort.rounds, measure))
        rows.append(Row(cost.what, cost.unit, found, limit=cost.limit, of_ratio=True))
    return rows


async def flatness(running: Running, effort: Effort, note: Note) -> list[Row]:
    """Whether an event of a very long stream costs what one of a short stream does."""
    note("long streams")
    found = {}
    for deltas, times in ((1_000, 20), (100_000, 1)):
        request = streaming(deltas, "1ms-x50")

        async def measure(
            process: Process, request: Request = request, times: int = times, deltas: int = deltas
        ) -> float:
            return await cpu_per_unit(process, request, times, 1, deltas)

        found[deltas] = medians(await alternate(running, effort.long_rounds, measure))
    growth = {name: found[100_000][name] / found[1_000][name] for name in running}
    return [
        Row("event of a stream of 1,000", "µs CPU", found[1_000]),
        Row("event of a stream of 100,000", "µs CPU", found[100_000]),
        Row("growth from 1,000 to 100,000 events", "times", growth, limit=1.15),
    ]


async def latencies(running: Running, provider: Process, effort: Effort, note: Note) -> list[Row]:
    """What a client feels when it is alone: first byte and whole answer.

    Client and provider share a core, and the kernel lets the provider end a burst before the client may look what time
    it is, unless the provider gives way.
    """
    provider.give_way()
    rows = []
    for what, request, times in (
        ("blocking request, 10 KB", blocking(10_000), 2_000),
        ("blocking request, 400 KB", blocking(LARGE_BODY), 600),
        (f"stream of {BURST} events", streaming(BURST, "burst"), 1_000),
    ):
        note(f"latency, {what}")
        seen = await alone(running, request, effort.times(times))
        if request.events:
            first = {name: spread([each.time_to_first_byte for each in all_]) for name, all_ in seen.items()}
            rows += _spread_rows(f"{what}: first byte", first)
        rows += _spread_rows(
            f"{what}: whole", {name: spread([each.latency for each in all_]) for name, all_ in seen.items()}
        )
    return rows


def _spread_rows(what: str, found: Mapping[str, Spread]) -> list[Row]:
    middle = {name: each.median for name, each in found.items()}
    worst = {name: each.p99 for name, each in found.items()}
    return [
        Row(f"{what}, median", "ms", middle, limit=1.4, of_ratio=True),
        Row(f"{what}, 99th percentile", "ms", worst, limit=1.4, of_ratio=True),
    ]


async def delays(running: Running, effort: Effort, note: Note) -> list[Row]:
    """How long small events are on their way; an interplay of Nagle and delayed acknowledgements shows as 40 ms."""
    note("delay of an event")

    async def measure(process: Process) -> Spread:
        return (await crowd(process, 1, effort.times(BURST), "5ms")).delay

    found = await alternate(running, effort.long_rounds, measure)
    worst = medians({name: [each.p99 for each in spreads] for name, spreads in found.items()})
    return [Row("delay of an event 5 ms apart, 99th percentile", "ms", worst, limit=20)]


async def many_streams(running: Running, effort: Effort, note: Note) -> list[Row]:
    """512 paced streams at once, on all the machine's cores."""
    note("512 streams at once")
    found = await alternate(running, effort.long_rounds, lambda process: crowd(process, 512, 64, "20ms"))
    lost = {name: float(sum(each.lost_events for each in crowds)) for name, crowds in found.items()}
    silence = medians({name: [each.longest_silence for each in crowds] for name, crowds in found.items()})
    worst = medians({name: [each.delay.p99 for each in crowds] for name, crowds in found.items()})
    failed = next((each.failed for each in found.get("gateway", []) if each.failed), "")
    return [
        Row("512 streams, 64 events 20 ms apart: events lost", "", lost, limit=0, note=failed),
        Row("512 streams: longest silence within one", "ms", silence, limit=500),
        Row("512 streams: delay of an event, 99th percentile", "ms", worst),
    ]


async def recorded(target: Gateway, sent: int) -> Row:
    """Whether every exchange of the run stands in the database, complete; waits a little for the last ones."""
    for _ in range(50):
        if target.recorded() >= sent:
            break
        await asyncio.sleep(0.2)
    return Row("exchanges that are not in the database", "", {"gateway": float(sent - target.recorded())}, limit=0)


def cores() -> tuple[set[int], set[int]] | None:
    """One core for the proxy, one for load and provider; None where there are not two."""
    usable = sorted(os.sched_getaffinity(0))
    return ({usable[0]}, {usable[1]}) if len(usable) > 1 else None
