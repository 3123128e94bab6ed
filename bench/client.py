"""The load generator's client: HTTP/1.1 on one connection, measuring what a client of the proxy would feel."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import httptools

from bench.answers import SENT_AT

if TYPE_CHECKING:
    from bench.workload import Request

TIME_LIMIT = 60.0
"""Seconds after which an exchange is given up."""


class ExchangeError(Exception):
    """An answer was cut, or was not what was asked for."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer as the client saw them; times are in seconds."""

    started: float = 0.0
    first_byte: float = 0.0
    """When the first byte of the answer's body came."""
    ended: float = 0.0
    events: int = 0
    longest_silence: float = 0.0
    """The longest time without a byte, from the first byte to the last."""
    delays: list[float] = field(default_factory=list)
    """How long each delta was on its way from the provider; filled where it was asked for."""
    status: int = 0
    tail: bytes = b""

    @property
    def time_to_first_byte(self) -> float:
        """From the sending of the request to the first byte of the answer's body."""
        return self.first_byte - self.started

    @property
    def latency(self) -> float:
        """From the sending of the request to the last byte of the answer."""
        return self.ended - self.started


class Connection(asyncio.Protocol):
    """A connection to a proxy; exchanges on it come one after another."""

    transport: asyncio.Transport

    def __init__(self, *, take_delays: bool) -> None:
        self.take_delays = take_delays
        self.parser = httptools.HttpResponseParser(self)
        self.current = Exchange()
        self.begun: asyncio.Future[None] | None = None
        self.done: asyncio.Future[None] | None = None

    async def begin(self, request: Request) -> None:
        """Send a request, and wait for the first byte of the answer's body."""
        loop = asyncio.get_running_loop()
        self.begun, self.done = loop.create_future(), loop.create_future()
        self.current = Exchange(started=time.monotonic())
        self.transport.write(request.data)
        async with asyncio.timeout(TIME_LIMIT):
            await self.begun

    async def exchange(self, request: Request) -> Exchange:
        """Send a request and read its whole answer; raises ExchangeError where that is not complete."""
        await self.begin(request)
        assert self.done
        async with asyncio.timeout(TIME_LIMIT):
            await self.done
        seen = self.current
        if seen.status != 200:
            raise ExchangeError(f"answered {seen.status}: {seen.tail!r}")
        if seen.events != request.events or not seen.tail.endswith(request.ending):
            raise ExchangeError(f"{seen.events} events of {request.events}, the last bytes {seen.tail!r}")
        return seen

    def close(self) -> None:
        """Leave, whether or not the answer is complete."""
        self.begun = self.done = None
        self.transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy has closed the connection; an exchange that was under way fails."""
        waiting = self.done if self.begun and self.begun.done() else self.begun
        if waiting and not waiting.done():
            waiting.set_exception(ExchangeError(f"connection lost after {self.current.events} events: {exc}"))

    # What the parser calls.

    def on_body(self, body: bytes) -> None:
        """Bytes of the answer's body; they may be cut anywhere."""
        seen, now = self.current, time.monotonic()
        if not seen.first_byte:
            seen.first_byte = now
            seen.status = self.parser.get_status_code()
            if self.begun and not self.begun.done():
                self.begun.set_result(None)
        elif now - seen.ended > seen.longest_silence:
            seen.longest_silence = now - seen.ended
        seen.ended = now
        seen.events += body.count(b"\n\n") + (seen.tail.endswith(b"\n") and body.startswith(b"\n"))
        seen.tail = body[-200:] if len(body) >= 200 else (seen.tail + body)[-200:]
        if self.take_delays:
            seen.delays.extend(now - int(sent) / 1e9 for sent in SENT_AT.findall(body))

    def on_message_complete(self) -> None:
        """The answer is complete."""
        seen = self.current
        seen.ended = time.monotonic()
        seen.status = self.parser.get_status_code()
        for waiting in (self.begun, self.done):
            if waiting and not waiting.done():
                waiting.set_result(None)


async def connect(port: int, *, take_delays: bool = False) -> Connection:
    """A connection to a server on 127.0.0.1."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(take_delays=take_delays), "127.0.0.1", port)
    return connection
