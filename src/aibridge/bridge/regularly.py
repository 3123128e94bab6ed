"""Doing something at regular intervals, for as long as something else lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType


class Regularly:
    """While it is entered, does something every so many seconds; never, for 0.

    Most of what it accompanies is over before the first time, and pays for no more than a timer.
    """

    def __init__(self, every: float, act: Callable[[], Awaitable[None]]) -> None:
        self._every, self._act = every, act
        self._timer: asyncio.TimerHandle | None = None
        self._acting: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        if self._every:
            self._timer = asyncio.get_running_loop().call_later(self._every, self._begin)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer:
            self._timer.cancel()
        if self._acting:
            self._acting.cancel()

    def _begin(self) -> None:
        self._acting = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            await self._act()
            await asyncio.sleep(self._every)
