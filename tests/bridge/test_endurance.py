"""Clients that leave in the middle, thousands of times: nothing of their exchanges stays. See also `bench/soak.py`."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from aibridge.records import InterceptionEnded, Record
from support.client import begun
from support.dialects import DIALECTS, MESSAGES, Dialect
from support.provider import Provider, events
from support.recorder import ListRecorder
from support.serving import bridged
from support.waiting import until

AT_ONCE = 25
STREAMS = 2000


class Counting(ListRecorder):
    """Counts ends, and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = 0

    async def keep(self, record: Record) -> None:
        if isinstance(record, InterceptionEnded):
            assert record.status == "cancelled"
            self.ends += 1


async def leave(url: str, dialect: Dialect, times: int) -> None:
    for _ in range(times):
        async with begun(url + dialect.path, dialect.request()) as answer:
            await answer.until(dialect.said)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_streams_that_were_left_leave_nothing_behind(provider: Provider) -> None:
    recorder = Counting()
    async with bridged(provider.url, recorder) as url:
        tasks, files = len(asyncio.all_tasks()), open_files()

        async def objects_after(times: int) -> int:
            """Leave so many streams, and wait for what they took to be given back; how many objects there are then."""
            provider.says(events(MESSAGES.before(), asyncio.Event()))
            before = recorder.ends
            await asyncio.gather(*(leave(url, MESSAGES, times // AT_ONCE) for _ in range(AT_ONCE)))
            await until(lambda: recorder.ends == before + times, "all interceptions have ended")
            await until(lambda: open_files() <= files, "all connections are closed")
            await until(lambda: len(asyncio.all_tasks()) <= tasks, "all tasks have ended")
            provider.asked.clear()
            gc.collect()
            return len(gc.get_objects())

        few = await objects_after(4 * AT_ONCE)
        assert await objects_after(STREAMS) - few < STREAMS // 4  # a single one for each stream would show


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_an_exchange_is_freed_without_looking_for_it(dialect: Dialect, provider: Provider) -> None:
    """What refers to itself stays until garbage is collected, which happens seldom where a stream lasts for minutes."""
    recorder = Counting()
    async with bridged(provider.url, recorder) as url:
        provider.says(events(dialect.before(), asyncio.Event()))
        await leave(url, dialect, 5)
        await until(lambda: recorder.ends == 5, "all interceptions have ended")
        await until(lambda: all(asked.left.is_set() for asked in provider.asked), "all connections are closed")
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await leave(url, dialect, 5)
            await until(lambda: recorder.ends == 10, "all interceptions have ended")
            await until(lambda: all(asked.left.is_set() for asked in provider.asked), "all connections are closed")
            gc.collect()
            entangled = {type(it).__qualname__ for it in gc.garbage if type(it).__module__.startswith("aibridge")}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not entangled
