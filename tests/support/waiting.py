"""Waiting for a condition, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LIMIT = 15.0
"""Seconds that anything in a test may take."""


async def until(condition: Callable[[], object], what: str, within: float = LIMIT) -> None:
    """Return when the condition holds; fail, naming what was waited for, when it does not within so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        if loop.time() > deadline:
            raise AssertionError(f"waited {within:g} s in vain: {what}")
        await asyncio.sleep(0.005)


async def at_rest(value: Callable[[], int], for_seconds: float = 0.4, within: float = LIMIT) -> int:
    """The value of a counter, once it has not changed for so long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    last, since = value(), loop.time()
    while loop.time() - since < for_seconds:
        if loop.time() > deadline:
            raise AssertionError(f"the counter was still changing after {within:g} s, at {last}")
        await asyncio.sleep(0.01)
        if (now := value()) != last:
            last, since = now, loop.time()
    return last
