"""HTTP with SSE, the transport of protocol version 2024-11-05.

All that the server says comes as events of one stream, whose first one names where messages are posted to
(https://modelcontextprotocol.io/specification/2024-11-05/basic/transports#http-with-sse).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import anyio
from mcp import MCPError
from mcp.client._transport import TransportStreams
from mcp.client.auth import OAuthFlowError
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCRequest
from yarl import URL

from aibridge.mcp.events import Events, Place
from aibridge.mcp.faults import ConnectionEnded
from aibridge.mcp.http import SessionClient, is_stream
from aibridge.mcp.messages import write_message
from aibridge.mcp.outgoing import MOST_WAITING, REFUSED, Outgoing, Session


@asynccontextmanager
async def http_sse(client: SessionClient, max_answer_size: int, patience: float) -> AsyncIterator[TransportStreams]:
    """The streams of a session over HTTP with SSE.

    `max_answer_size` bounds each event, in bytes; one that is larger ends the session. `patience` is in seconds, until
    it is known where messages go. Raises `aiohttp.ClientError`, `ConnectionEnded` and `TimeoutError`.
    """
    to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](MOST_WAITING)
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    async with (
        client.exchange("GET", client.url, headers, may_be_silent=True) as answer,
        to_session,
        incoming,
        anyio.create_task_group() as tasks,
    ):
        client.refused_with = answer.status if answer.status >= 400 else None
        if not is_stream(answer):
            raise ConnectionEnded
        events = Events(answer, max_answer_size, Place())
        with anyio.fail_after(patience):
            outgoing = _Posts(client, to_session, max_answer_size, await _endpoint(client.url, events))
        tasks.start_soon(outgoing.listen, events)
        yield incoming, outgoing
        tasks.cancel_scope.cancel()


async def _endpoint(url: URL, events: Events) -> URL:
    """Where messages go; it has to be where the stream comes from, as credentials are sent along."""
    while event := await events.next():
        name, data = event
        if name == "endpoint":
            endpoint = url.join(URL(data.decode(errors="replace")))
            if endpoint.origin() == url.origin():
                return endpoint
            break
    raise ConnectionEnded


class _Posts(Outgoing):
    """Sends each message as a POST, whose answer says no more than whether it was taken."""

    def __init__(self, client: SessionClient, session: Session, limit: int, endpoint: URL) -> None:
        super().__init__(session, limit)
        self._client = client
        self._endpoint = endpoint

    async def send(self, item: SessionMessage) -> None:
        """Send a message; see `Outgoing.send`."""
        asks = isinstance(item.message, JSONRPCRequest)
        headers = {"Content-Type": "application/json"}
        try:
            async with self._client.exchange("POST", self._endpoint, headers, write_message(item.message)) as answer:
                if asks and not answer.ok:
                    raise MCPError(REFUSED, f"the server answered HTTP {answer.status}")
        except (aiohttp.ClientError, OAuthFlowError):
            if asks:
                raise

    async def listen(self, events: Events) -> None:
        """Pass on all events; their end is that of the session."""
        async with self._session:
            try:
                await self._hear(events)
            except (aiohttp.ClientError, MCPError):
                pass  # as good as an end
