"""Clients that ask without a pause, and keep what became of each request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import quantiles
from types import TracebackType

from support.client import ask
from support.dialects import MESSAGES
from support.process import ACTOR, Gateway

_BROKEN = (OSError, asyncio.IncompleteReadError, AssertionError, TimeoutError)
"""How a request fails that meets a gateway which is killed."""


@dataclass
class Load:
    """Some clients of a gateway, each with one request for a stream at a time."""

    gateway: Gateway
    clients: int = 6
    pause: float = 0.0
    """Seconds between two requests of a client."""
    completed: list[str] = field(default_factory=list)
    """The interceptions of answers that came whole, in the order in which they did."""
    refused: Counter[int] = field(default_factory=Counter)
    """Answers of another status than 200."""
    broken: int = 0
    """Requests without a whole answer."""
    took: list[tuple[float, float]] = field(default_factory=list)
    """When each whole answer was asked for, on the monotonic clock, and how long it took in seconds."""

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self.clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for fault in ended:
            if not isinstance(fault, asyncio.CancelledError) and isinstance(fault, BaseException) and error is None:
                raise fault

    async def _ask(self) -> None:
        url = self.gateway.url + MESSAGES.path
        while True:
            began = time.monotonic()
            try:
                answer = await ask(url, MESSAGES.request(), ACTOR)
            except _BROKEN:
                self.broken += 1
                await asyncio.sleep(0.05)
                continue
            if not answer.complete:
                self.broken += 1
            elif answer.status != 200:
                self.refused[answer.status] += 1
                await asyncio.sleep(0.01)
            else:
                self.completed.append(answer.id)
                self.took.append((began, time.monotonic() - began))
            if self.pause:
                await asyncio.sleep(self.pause)

    def percentiles(self, since: float, until: float) -> tuple[float, float]:
        """The median and the 99th percentile of what answers took, in ms, that were asked for between two times."""
        took = [each * 1000 for began, each in self.took if since <= began < until]
        cuts = quantiles(took, n=100)
        return cuts[49], cuts[98]
