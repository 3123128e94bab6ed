"""The simulated provider: answers at once, or at an exact pace, so that what is measured is the proxy before it.

The request's model says what is wanted: `bench-200-burst` streams 200 deltas as fast as they are taken,
`bench-64-20ms` one every 20 ms, `bench-1000-1ms-x50` fifty at once every millisecond, `bench-1-stall` one, and
then nothing more until the client leaves. Without `"stream":true` the answer is one JSON document, at once. Any
path that ends in a dialect's own is answered in that dialect; any `GET` is answered 200, so that the readiness of a
proxy can be asked for through it.

It runs on asyncio's own loop, whose transports send each write at once: a burst is one segment per event, as a
provider that flushes every event sends it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from typing import cast

import httptools

from bench.answers import DIALECTS, MESSAGES

MODEL = re.compile(rb'"model"\s*:\s*"bench-(\d+)-(burst|stall|(\d+)ms(?:-x(\d+))?)"')
STREAM = re.compile(rb'"stream"\s*:\s*true')
LOOKED_AT = 4096
"""Bytes at the start of a request's body in which its model and `stream` must stand."""

HEADERS = (
    b"HTTP/1.1 200 OK\r\n"
    b"request-id: req_011BenchBenchBenchBench\r\n"
    b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n"
    b"anthropic-ratelimit-requests-limit: 4000\r\n"
    b"anthropic-ratelimit-requests-remaining: 3999\r\n"
    b"anthropic-ratelimit-tokens-limit: 2000000\r\n"
    b"anthropic-ratelimit-tokens-remaining: 1999000\r\n"
    b"cache-control: no-cache\r\n"
    b"server: bench\r\n"
)
STREAM_HEADERS = HEADERS + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
JSON_HEADERS = HEADERS + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


class Answering(asyncio.Protocol):
    """One connection; requests on it are answered one after another."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A proxy has connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.timer: asyncio.TimerHandle | None = None
        self.writable = True
        self.left = 0
        self.dialect = MESSAGES
        self.on_message_begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy has gone; what was still to be sent is not."""
        self.left = 0
        if self.timer:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self.parser.feed_data(data)

    def pause_writing(self) -> None:
        """The proxy takes no more for now."""
        self.writable = False

    def resume_writing(self) -> None:
        """The proxy takes more again."""
        self.writable = True
        if self.left and not self.timer:
            self.burst()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.body = b""

    def on_url(self, url: bytes) -> None:
        """The request's target, or a part of it."""
        self.url += url

    def on_body(self, body: bytes) -> None:
        """Bytes of the body; only its start is kept."""
        if len(self.body) < LOOKED_AT:
            self.body += body

    def on_message_complete(self) -> None:
        """The request is there: answer it."""
        if self.parser.get_method() == b"GET":
            self.transport.write(JSON_HEADERS % (2, b"{}"))
            return
        path = self.url.decode()
        self.dialect = next((dialect for dialect in DIALECTS if path.endswith(dialect.path)), MESSAGES)
        if not STREAM.search(self.body):
            self.transport.write(JSON_HEADERS % (len(self.dialect.whole), self.dialect.whole))
            return
        model = MODEL.search(self.body)
        assert model, f"the model of a streaming request must be as {MODEL.pattern!r} says"
        self.left, self.sent = int(model[1]), 0
        self.transport.write(STREAM_HEADERS + self.dialect.head)
        if model[2] == b"burst":
            self.burst()
        elif model[2] == b"stall":
            self.send_delta()
        else:
            self.pace, self.at_once = int(model[3]) / 1000, int(model[4] or 1)
            self.due = self.loop.time()
            self.tick()

    # The ways of sending a stream.

    def send_delta(self) -> None:
        """Send one delta, which says when that was."""
        self.left -= 1
        self.transport.write(self.dialect.delta_now(time.monotonic_ns(), self.sent))
        self.sent += 1

    def burst(self) -> None:
        """Send as much of the stream as the proxy takes."""
        while self.left and self.writable:
            self.send_delta()
        if not self.left:
            self.transport.write(self.dialect.tail)

    def tick(self) -> None:
        """Send what is due, and the rest when that is due; late ticks do not move those after them."""
        if not self.left:
            self.timer = None
            self.transport.write(self.dialect.tail)
            return
        deltas = min(self.at_once, self.left)
        self.left -= deltas
        self.transport.write(self.dialect.delta_now(time.monotonic_ns(), self.sent) * deltas)
        self.sent += deltas
        self.due += self.pace
        self.timer = self.loop.call_at(self.due, self.tick)


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until told to stop."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The simulated provider of the benchmark.")
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))
