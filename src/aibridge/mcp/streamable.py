"""Streamable HTTP (https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http).

The transport of the `mcp` package hands each message on through several tasks and streams, and opens a connection for
each call that is answered with a stream; a call that was cancelled keeps its request open until the server answers it,
a broken connection of one call ends the session with all others, and an answer may be of any size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import anyio
from anyio.abc import TaskGroup
from mcp import MCPError
from mcp.client._transport import TransportStreams
from mcp.client.auth import OAuthFlowError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp.types import CONNECTION_CLOSED, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from aibridge.mcp.events import Events, Place
from aibridge.mcp.http import SessionClient, is_json, is_stream, read_up_to
from aibridge.mcp.messages import TOO_LARGE, too_large, write_message
from aibridge.mcp.outgoing import MOST_WAITING, REFUSED, Outgoing, Session

SESSION_ENDED = -32901
"""The code of the error that stands for an answer 404: the server has forgotten the session."""

_SESSION_ID = "Mcp-Session-Id"
_ACCEPTED = "application/json, text/event-stream"
_ENDING_OTHERWISE = ("tools/call", "subscriptions/listen")
"""Requests that a server may take any time for: whoever sends them knows when to stop."""
_GOODBYE_LIMIT = 2.0
"""Seconds that a server may take to take note of the end."""
_BETWEEN_STREAMS = 1.0
"""Seconds at least between two streams of what a server says unasked."""
_MOST_FAILURES = 2
"""In a row, before a stream is not asked for again."""


@asynccontextmanager
async def streamable_http(
    client: SessionClient, max_answer_size: int, on_session_end: Callable[[], None], on_doubt: Callable[[], None]
) -> AsyncIterator[TransportStreams]:
    """The streams of a session over streamable HTTP; the server is told when it ends.

    `max_answer_size` bounds an answer, and each event in one, in bytes. `on_session_end` is called when the server
    says that it does not know the session (any more), for which the specification wants a new one. `on_doubt` is called
    when the stream of the server's own messages breaks off, or a notification does not reach it.
    """
    to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](MOST_WAITING)
    async with to_session, incoming, anyio.create_task_group() as tasks:
        outgoing = _Posts(client, to_session, max_answer_size, on_session_end, on_doubt, tasks)
        try:
            yield incoming, outgoing
        finally:
            with anyio.move_on_after(_GOODBYE_LIMIT, shield=True):
                await outgoing.say_goodbye()
            tasks.cancel_scope.cancel()


class _Posts(Outgoing):
    """Sends each message as a POST."""

    def __init__(
        self,
        client: SessionClient,
        session: Session,
        limit: int,
        on_session_end: Callable[[], None],
        on_doubt: Callable[[], None],
        tasks: TaskGroup,
    ) -> None:
        super().__init__(session, limit)
        self._client = client
        self._on_session_end = on_session_end
        self._on_doubt = on_doubt
        self._tasks = tasks
        self._session_id: str | None = None
        self._version: str | None = None
        """The version of the protocol that was agreed on."""

    async def send(self, item: SessionMessage) -> None:
        """Send a message; see `Outgoing.send`."""
        message = item.message
        stamped = item.metadata.headers if isinstance(item.metadata, ClientMessageMetadata) else None
        if isinstance(message, JSONRPCRequest) and message.method == "initialize":
            self._version = None  # what a question before it has said is not agreed on
        elif stamped:
            self._version = stamped.get(MCP_PROTOCOL_VERSION_HEADER, self._version)
        headers = {**self._headers(), "Accept": _ACCEPTED, "Content-Type": "application/json", **(stamped or {})}
        if isinstance(message, JSONRPCRequest):
            await self._ask(message, headers)
        elif not (_cancels(message) and self._version in MODERN_PROTOCOL_VERSIONS):  # a closed connection says it
            await self._tell(message, headers)
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/initialized":
            self._tasks.start_soon(self._listen)

    async def say_goodbye(self) -> None:
        """Tell the server that the session is over."""
        if self._session_id:
            try:
                async with self._client.exchange("DELETE", self._client.url, self._headers()):
                    pass
            except (aiohttp.ClientError, OAuthFlowError):
                pass  # it is over all the same

    def _headers(self, place: Place | None = None) -> dict[str, str]:
        headers = {}
        if self._session_id:
            headers[_SESSION_ID] = self._session_id
        if self._version:
            headers[MCP_PROTOCOL_VERSION_HEADER] = self._version
        if place:
            headers["Accept"] = "text/event-stream"
        if place and place.id:
            headers["Last-Event-ID"] = place.id
        return headers

    async def _ask(self, request: JSONRPCRequest, headers: dict[str, str]) -> None:
        async with self._client.exchange(
            "POST",
            self._client.url,
            headers,
            write_message(request),
            may_be_silent=request.method in _ENDING_OTHERWISE,
        ) as answer:
            self._client.refused_with = answer.status if answer.status >= 400 else None
            if answer.status == 404 and _SESSION_ID in headers:
                self._on_session_end()
                raise MCPError(SESSION_ENDED, "the session has ended")
            if request.method == "initialize":
                self._session_id = answer.headers.get(_SESSION_ID) or self._session_id
            if is_stream(answer):
                await self._take_stream(answer, request)
            elif is_json(answer):
                await self._take_document(answer, request)
            elif answer.ok and answer.status != 202:
                raise MCPError(REFUSED, "the server answered with neither JSON nor a stream of events")
            else:
                raise _refusal(answer)

    async def _take_document(self, answer: aiohttp.ClientResponse, request: JSONRPCRequest) -> None:
        text = await read_up_to(answer, self._limit)
        if text is None:
            raise MCPError(TOO_LARGE, too_large(self._limit))
        try:
            await self._pass_on_answer(text, request.id)
        except MCPError:
            if answer.ok:
                raise
            raise _refusal(answer) from None

    async def _take_stream(self, answer: aiohttp.ClientResponse, request: JSONRPCRequest) -> None:
        """Pass on what a stream holds up to the answer. One that ends before is resumed, where its events have ids."""
        place = Place()
        answered, failures = await self._read_stream(answer, place, request), 0
        while not answered:
            if not place.id or failures == _MOST_FAILURES:
                raise MCPError(CONNECTION_CLOSED, "the server ended the stream without an answer")
            await asyncio.sleep(place.retry)
            failures += 1
            try:
                async with self._client.exchange(
                    "GET", self._client.url, self._headers(place), may_be_silent=True
                ) as resumed:
                    if is_stream(resumed):
                        answered, failures = await self._read_stream(resumed, place, request), 0
            except aiohttp.ClientError:
                pass

    async def _read_stream(self, answer: aiohttp.ClientResponse, place: Place, request: JSONRPCRequest) -> bool:
        try:
            return await self._pass_on_events(Events(answer, self._limit, place), request.id)
        except aiohttp.ClientError:
            return False

    async def _tell(self, message: JSONRPCMessage, headers: dict[str, str]) -> None:
        """Send what is not answered; it is not worth a fault."""
        try:
            async with self._client.exchange("POST", self._client.url, headers, write_message(message)) as answer:
                if answer.status == 404 and _SESSION_ID in headers:
                    self._on_session_end()
        except (aiohttp.ClientError, OAuthFlowError):
            self._on_doubt()

    async def _listen(self) -> None:
        """Pass on what the server says unasked, where it has a session and does so."""
        place, failures = Place(), 0
        while self._session_id and failures < _MOST_FAILURES:
            failures += 1
            try:
                async with self._client.exchange(
                    "GET", self._client.url, self._headers(place), may_be_silent=True
                ) as answer:
                    if is_stream(answer):
                        failures = 0
                        await self._pass_on_events(Events(answer, self._limit, place))
                    elif answer.status < 500:
                        return
            except (aiohttp.ClientError, OAuthFlowError, MCPError):
                pass
            self._on_doubt()
            await asyncio.sleep(max(place.retry, _BETWEEN_STREAMS))


def _cancels(message: JSONRPCMessage) -> bool:
    return isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled"


def _refusal(answer: aiohttp.ClientResponse) -> MCPError:
    return MCPError(REFUSED, f"the server answered HTTP {answer.status}")
