"""Connections that are kept between the requests to a host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aibridge.http_client.response import ResponseProtocol


class Kept:
    """The connections to one host that nothing is asked on, and how many requests may be under way to it.

    aiohttp's connector keeps connections too, but takes three times as long to hand one out and take it back. `most` is
    0 for any number, and `seconds` is how long a connection is kept that nothing is asked on.
    """

    __slots__ = ("_free", "_idle", "limited", "seconds")

    def __init__(self, most: int, seconds: float) -> None:
        self.limited = most > 0
        """A request has to be `admitted` first."""
        self.seconds = seconds
        self._free = asyncio.Semaphore(most) if most else None
        self._idle: dict[ResponseProtocol, None] = {}

    async def admitted(self) -> None:
        """Wait until one more request may be under way."""
        assert self._free
        await self._free.acquire()

    def ended(self) -> None:
        """It is no longer under way, and its connection is closed."""
        if self._free:
            self._free.release()

    def take(self) -> ResponseProtocol | None:
        """The connection that was used last, if it can be used again; None where there is none."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable:
                return connection
            connection.leave()
        return None

    def put(self, connection: ResponseProtocol) -> None:
        """It is no longer under way, and its connection is kept for the next one."""
        self._idle[connection] = None
        if self._free:
            self._free.release()

    def lose(self, connection: ResponseProtocol) -> None:
        """A connection is gone, or was kept for long enough."""
        if connection in self._idle:
            del self._idle[connection]
            connection.leave()
