"""What the gateway's own code costs for a request: without sockets, HTTP server and HTTP client, else as in production.

Run it with `python -m bench.own_cost`. It is quick, and steadier than `scripts/bench`, since it sees less of the
machine: the one to ask while working on the code. The figures are the lowest of several rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import uvloop
from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, RequestBridge, as_actor
from aibridge.http_client.client import Client
from aibridge.http_client.response import Response
from aibridge.observe import log
from aibridge.observe.metrics import Metrics
from aibridge.recording.ledger import Ledger
from aibridge.recording.stores import store_for
from bench.answers import MESSAGES
from bench.provider import HEADERS
from bench.workload import ACTOR, blocking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 8
REQUESTS = 500
"""In one round."""


_FIELDS = [line.split(b": ", 1) for line in HEADERS.split(b"\r\n")[1:-1]]
_RAW = [*((name, value) for name, value in _FIELDS), (b"content-type", b"application/json")]
_CONNECTION: Any = SimpleNamespace(transport=None, rest=lambda: None)


async def answer_at_once(client: Client, *request: object, limit: float) -> Response:
    """A response that took no time."""
    response = Response(_CONNECTION, client.loop)
    response.status, response.reason, response.raw_headers = 200, b"OK", _RAW
    response.pieces.append(MESSAGES.whole)
    response.complete = True
    return response


def client(size: int) -> Callable[[RequestBridge], Awaitable[None]]:
    """Sends the bridge a request with a body of about so many bytes."""
    head, _, body = blocking(size).data.partition(b"\r\n\r\n")
    start, *fields = head.split(b"\r\n")
    path = start.split()[1].decode()
    headers = [tuple(field.split(b": ", 1)) for field in fields if not field.startswith(b"x-user-id")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": headers}
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> dict[str, Any]:
        return message

    async def send(message: object) -> None:
        pass

    async def ask(bridge: RequestBridge) -> None:
        await bridge(as_actor({**scope}, ACTOR), receive, send)

    return ask


async def all_stored(ledger: Ledger) -> None:
    """Wait for the records of all requests to be in the database."""
    while ledger.lag:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.05)


async def measure(folder: Path, size: int, profiler: cProfile.Profile | None) -> None:
    """Print what a request costs."""
    store = store_for(f"sqlite:///{folder}/aibridge.db")
    ledger = Ledger(folder / "journal", store)
    await ledger.start()
    provider = AnthropicProvider("http://127.0.0.1:1", api_key="sk-ant-bench-0000000000000000")
    bridge = RequestBridge([provider], ledger, Metrics(CollectorRegistry()))
    ask = client(size)
    for _ in range(REQUESTS):
        await ask(bridge)
    gc.collect()
    gc.freeze()
    answering, storing = [], []
    for _ in range(ROUNDS):
        await all_stored(ledger)
        before, whole = time.thread_time(), time.process_time()
        for _ in range(REQUESTS):
            await ask(bridge)
        answering.append(time.thread_time() - before)
        await all_stored(ledger)
        storing.append(time.process_time() - whole - answering[-1])
    print(
        f"µs for a request with {size:,} bytes: answering {min(answering) / REQUESTS * 1e6:.0f}, "
        f"storing {min(storing) / REQUESTS * 1e6:.0f}"
    )
    if profiler:
        profiler.enable()
        for _ in range(REQUESTS * ROUNDS):
            await ask(bridge)
        profiler.disable()
    await bridge.shutdown(0)
    await ledger.aclose()


def main() -> None:
    """Measure, and show where the time goes if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000, help="bytes of the request's body")
    parser.add_argument("--profile", action="store_true", help="show the functions that cost most")
    arguments = parser.parse_args()
    log.configure("json", "info")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    profiler = cProfile.Profile() if arguments.profile else None
    with (
        tempfile.TemporaryDirectory(prefix="own-cost-") as folder,
        patch.object(Client, "send", answer_at_once),
    ):
        uvloop.run(measure(Path(folder), arguments.size, profiler))
    if profiler:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
