"""Serving an ASGI application, such as a bridge, on a free port of loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry

from aibridge import (
    AnthropicProvider,
    CopilotProvider,
    Metrics,
    OpenAIProvider,
    Recorder,
    Redaction,
    RequestBridge,
    TimeLimits,
    as_actor,
)
from aibridge.bridge.asgi import Receive, Scope, Send
from aibridge.server.http1.connection import Connection
from aibridge.tracer import Tracer
from support.waiting import until

Application = Callable[[Any, Any, Any], Awaitable[None]]

KEY = "sk-of-the-gateway-0123456789"
"""The gateway's own credential at every provider."""


class _Server(uvicorn.Server):
    """One that stops when it is told to, without looking for signals now and then."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, but without its pause: what a test began is over when the test is."""
        for server in self.servers:
            server.close()
        for connection in [*self.server_state.connections]:
            connection.shutdown()
        if tasks := [*self.server_state.tasks]:
            _, late = await asyncio.wait(tasks, timeout=1)
            for task in late:
                task.cancel()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serving(app: Application, *, lifespan: bool = False, by_uvicorn: bool = False) -> AsyncIterator[str]:
    """The URL at which the application is served, in this event loop: as the product does it, or uvicorn alone."""
    config = uvicorn.Config(
        app,
        http="httptools" if by_uvicorn else Connection,
        ws="none",
        lifespan="on" if lifespan else "off",
        interface="asgi3",
        log_config=None,
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = asyncio.create_task(server.serve([listening]))
        await until(lambda: server.started or running.done(), "the server has started")
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.stop.set()
            await running


def bridge_to(
    upstream: str,
    recorder: Recorder,
    *,
    metrics: Metrics | None = None,
    time_limits: TimeLimits | None = None,
    max_body_size: int = 32 << 20,
    redaction: Redaction | None = None,
    tracer: Tracer | None = None,
    propagate_traces: bool = False,
    **settings: Any,
) -> RequestBridge:
    """A bridge with a provider of each type, all at the same place; `settings` are those of the providers."""
    settings = {"api_key": KEY, "max_retries": 0, **settings}
    providers = [
        AnthropicProvider(upstream, **settings),
        OpenAIProvider(upstream + "/v1", **settings),
        CopilotProvider(upstream, **settings),
    ]
    metrics = metrics or Metrics(CollectorRegistry())
    return RequestBridge(
        providers,
        recorder,
        metrics,
        time_limits=time_limits,
        max_body_size=max_body_size,
        redaction=redaction,
        tracer=tracer,
        propagate_traces=propagate_traces,
    )


def asked_by(actor: str, bridge: RequestBridge, metadata: Mapping[str, str] | None = None) -> Application:
    """The bridge behind an authentication that believes everybody to be this actor."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await bridge(as_actor(scope, actor, metadata), receive, send)

    return application


@asynccontextmanager
async def bridged(upstream: str, recorder: Recorder, **settings: Any) -> AsyncIterator[str]:
    """The URL of a bridge to this upstream, which is asked by `ada`; `settings` are those of `bridge_to`."""
    async with bridge_to(upstream, recorder, **settings) as bridge, serving(asked_by("ada", bridge)) as url:
        yield url
