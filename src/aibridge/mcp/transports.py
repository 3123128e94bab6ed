"""Reaching a server: streamable HTTP, HTTP+SSE, or a program's standard input and output."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from aibridge.mcp.config import ServerConfig
from aibridge.mcp.http import SessionClient
from aibridge.mcp.oauth import authorization
from aibridge.mcp.program import program
from aibridge.mcp.tapped import Tapped

# These libraries log messages, session ids and whole URLs; what an operator needs to know is logged here instead.
for _name in ("mcp", "client", "httpx2", "httpcore2"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)

_SILENCE = 3600.0
"""Seconds without an event after which an SSE connection is taken for dead."""


class Channel:
    """One way to one server, for one session.

    `max_answer_size` is in bytes and `patience`, for all but calls and streams, in seconds. `on_end` is called when
    nothing more can come from the server, and `on_doubt` when that may be so.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        max_answer_size: int,
        patience: float,
        on_end: Callable[[], None],
        on_doubt: Callable[[], None],
    ) -> None:
        self._config = config
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
    async def open(self) -> AsyncIterator[TransportStreams]:
        """The streams of messages, in the form that `mcp.Client` takes."""
        async with AsyncExitStack() as stack:
            read, write = await self._connect(stack)
            yield Tapped(read, self._config.name, self._on_end), write

    async def _connect(self, stack: AsyncExitStack) -> TransportStreams:
        config = self._config
        if config.command:
            return await stack.enter_async_context(program(config.command, config.environment, self._max_answer_size))
        assert config.url
        if config.transport == "sse":
            return await stack.enter_async_context(
                sse_client(
                    config.url,
                    headers=dict(config.headers),
                    timeout=self._patience,
                    sse_read_timeout=_SILENCE,
                    httpx_client_factory=self._client,
                    auth=authorization(config),
                )
            )
        client = self._client(config.headers, httpx2.Timeout(self._patience), authorization(config))
        await stack.enter_async_context(client)
        return await stack.enter_async_context(
            streamable_http_client(config.url, http_client=client, max_sse_event_size=self._max_answer_size)
        )

    def _client(
        self, headers: Mapping[str, str] | None = None, timeout: Any = None, auth: httpx2.Auth | None = None
    ) -> SessionClient:
        self._http = SessionClient(
            self._max_answer_size,
            self._on_end,
            self._on_doubt,
            headers={**(headers or {})},
            timeout=timeout,
            auth=auth,
        )
        return self._http
