"""Reaching a server: streamable HTTP, HTTP+SSE, or a program's standard input and output."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
from mcp.client._transport import TransportStreams
from mcp.shared.dispatcher import Dispatcher
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher

from aibridge.http_client.connecting import Connecting
from aibridge.mcp.calling import Calling
from aibridge.mcp.config import ServerConfig
from aibridge.mcp.http import SessionClient
from aibridge.mcp.http_sse import http_sse
from aibridge.mcp.program import program
from aibridge.mcp.streamable import Posts, streamable_http
from aibridge.mcp.tapped import Tapped

# This library logs messages; what an operator needs to know is logged here instead.
for _name in ("mcp", "client"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)


class Channel:
    """One way to one server, for one session.

    `max_answer_size` is in bytes and `patience`, for all but calls and streams, in seconds. `on_end` is called when
    nothing more can come from the server, and `on_doubt` when that may be so.
    """

    def __init__(
        self,
        config: ServerConfig,
        connecting: Connecting,
        *,
        max_answer_size: int,
        patience: float,
        on_end: Callable[[], None],
        on_doubt: Callable[[], None],
    ) -> None:
        self._config = config
        self._connecting = connecting
        self._max_answer_size = max_answer_size
        self._patience = patience
        self._on_end = on_end
        self._on_doubt = on_doubt
        self._http: SessionClient | None = None

    @property
    def refused_with(self) -> int | None:
        """The HTTP status of the server's last answer, where it was an error."""
        return self._http.refused_with if self._http else None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Dispatcher[Any]]:
        """What a session sends its requests by, and hears the server."""
        async with self._streams() as (read, write):
            tapped = Tapped(read, self._config.name, self._on_end)
            yield Calling(tapped, write) if isinstance(write, Posts) else JSONRPCDispatcher(tapped, write)

    def _streams(self) -> AbstractAsyncContextManager[TransportStreams]:
        config = self._config
        if config.command:
            return program(config.command, config.environment, self._max_answer_size)
        return self._over_http()

    @asynccontextmanager
    async def _over_http(self) -> AsyncIterator[TransportStreams]:
        self._http = client = SessionClient(self._config, self._connecting, self._patience)
        try:
            if self._config.transport == "sse":
                streams = http_sse(client, self._max_answer_size, self._patience)
            else:
                streams = streamable_http(client, self._max_answer_size, self._on_end, self._on_doubt)
            async with streams as both:
                yield both
        finally:
            with anyio.CancelScope(shield=True):
                await client.aclose()
