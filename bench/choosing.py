"""What it costs to choose the key, the provider and to ask the circuit breaker, in µs of CPU for a request.

Run it with `python -m bench.choosing`. Like `bench.own_cost` it has no sockets, and here nothing is stored either: the
bridge answers the same request with one key and no breaker, and with what there is to choose. The rounds of all take
turns, so that what else the machine does meets each alike; the figures are the lowest.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING
from unittest.mock import patch

import uvloop
from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, ModelRoute, RequestBridge
from aibridge.http_client.client import Client
from aibridge.observe.metrics import Metrics
from aibridge.upstream.breaker import DEFAULT_POLICY, BreakerPolicy
from bench.own_cost import answer_at_once, client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aibridge.records import Record

ROUNDS = 40
REQUESTS = 200
"""In one round."""

KEYS = [f"sk-ant-bench-{number}-0123456789abcdef" for number in range(4)]


class Nowhere:
    """A recorder that keeps nothing."""

    async def _drop(self, record: Record) -> None: ...

    record_interception = record_interception_ended = record_token_usage = record_prompt_usage = _drop
    record_tool_usage = record_model_thought = _drop


def bridge(keys: int, providers: int = 1, breaker: BreakerPolicy | None = DEFAULT_POLICY) -> RequestBridge:
    """A bridge that is asked at `/anthropic`: a provider, or a route to several."""
    names = ["anthropic"] if providers == 1 else [f"provider-{number}" for number in range(providers)]
    configured = [AnthropicProvider("http://127.0.0.1:1", name=name, api_keys=KEYS[:keys]) for name in names]
    routes = [ModelRoute("anthropic", configured, allow=["*"])] if providers > 1 else []
    return RequestBridge(configured, Nowhere(), Metrics(CollectorRegistry()), routes=routes, breaker=breaker)


async def costs(bridges: Mapping[str, RequestBridge]) -> dict[str, float]:
    """What a request costs at each bridge, in µs."""
    ask = client(10_000)
    lowest = dict.fromkeys(bridges, float("inf"))
    for each in bridges.values():
        await ask(each)
    gc.collect()
    gc.freeze()
    for _ in range(ROUNDS):
        for name, each in bridges.items():
            before = time.thread_time()
            for _ in range(REQUESTS):
                await ask(each)
            lowest[name] = min(lowest[name], (time.thread_time() - before) / REQUESTS * 1e6)
    return lowest


async def measure() -> None:
    """Print the costs, and what is added to the least."""
    bridges = {
        "one key, no circuit breaker": bridge(1, breaker=None),
        "one key": bridge(1),
        "four keys": bridge(4),
        "a route to three providers with four keys each": bridge(4, providers=3),
    }
    found = await costs(bridges)
    least = next(iter(found.values()))
    for name, cost in found.items():
        print(f"{name:<48} {cost:6.1f} µs, + {cost - least:4.1f}")
    await asyncio.gather(*(each.shutdown(0) for each in bridges.values()))


if __name__ == "__main__":
    with patch.object(Client, "send", answer_at_once):
        uvloop.run(measure())
