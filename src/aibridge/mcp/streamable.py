"""Streamable HTTP (https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http).

The transport of the `mcp` package hands each message on through several tasks and streams, and opens a connection for
each call that is answered with a stream; a call that was cancelled keeps its request open until the server answers it,
a broken connection of one call ends the session with all others, and an answer may be of any size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
from anyio.abc import TaskGroup
from mcp import MCPError
from mcp.client._transport import TransportStreams
from mcp.client.auth import OAuthFlowError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp.types import (
    CONNECTION_CLOSED,
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from aibridge.mcp.events import Events, Place
from aibridge.mcp.http import Answer, SessionClient, is_json, is_stream, read_up_to
from aibridge.mcp.messages import TOO_LARGE, read_message, too_large, write_message, write_request
from aibridge.mcp.outgoing import MOST_WAITING, NO_MESSAGE, REFUSED, Outgoing, Response, Session

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
        outgoing = Posts(client, to_session, max_answer_size, on_session_end, on_doubt, tasks)
        try:
            yield incoming, outgoing
        finally:
            with anyio.move_on_after(_GOODBYE_LIMIT, shield=True):
                await outgoing.say_goodbye()
            tasks.cancel_scope.cancel()


class Posts(Outgoing):
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
        if isinstance(message, JSONRPCRequest):
            if message.method == "initialize":
                self._version = None  # what a question before it has said is not agreed on
            await self._pass_on(await self.ask(message.id, message.method, message.params, stamped or {}))
            return
        headers = self._headers_of_message(stamped or {})
        if not (_cancels(message) and self._version in MODERN_PROTOCOL_VERSIONS):  # a closed connection says it
            await self._tell(message, headers)
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/initialized":
            self._tasks.start_soon(self._listen)

    async def ask(
        self, request: RequestId, method: str, params: Mapping[str, Any] | None, stamped: Mapping[str, str]
    ) -> Response:
        """Send a request, and wait for its answer; `stamped` are headers of its own.

        The answer is told by where it came from; some servers lose the id. Raises what `send` does.
        """
        headers = self._headers_of_message(stamped, agreed=method != "initialize")
        async with self._client.exchange(
            "POST",
            self._client.url,
            headers,
            write_request(request, method, params),
            may_be_silent=method in _ENDING_OTHERWISE,
        ) as answer:
            self._client.refused_with = answer.status if answer.status >= 400 else None
            if answer.status == 404 and _SESSION_ID in headers:
                self._on_session_end()
                raise MCPError(SESSION_ENDED, "the session has ended")
            if method == "initialize":
                self._session_id = answer.header("mcp-session-id") or self._session_id
            if is_stream(answer):
                said = await self._answer_in_stream(answer, request)
            elif is_json(answer):
                said = await self._answer_in_document(answer)
            elif answer.ok and answer.status != 202:
                raise MCPError(REFUSED, "the server answered with neither JSON nor a stream of events")
            else:
                raise _refusal(answer)
        said.id = request
        return said

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

    def _headers_of_message(self, stamped: Mapping[str, str], *, agreed: bool = True) -> dict[str, str]:
        if agreed and stamped:
            self._version = stamped.get(MCP_PROTOCOL_VERSION_HEADER, self._version)
        return {**self._headers(), "Accept": _ACCEPTED, "Content-Type": "application/json", **stamped}

    async def _answer_in_document(self, answer: Answer) -> Response:
        """The message that an answer is."""
        text = await read_up_to(answer, self._limit)
        if text is None:
            raise MCPError(TOO_LARGE, too_large(self._limit))
        try:
            message = read_message(text)
        except ValueError:
            message = None
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            return message
        raise MCPError(PARSE_ERROR, NO_MESSAGE) if answer.ok else _refusal(answer)

    async def _answer_in_stream(self, answer: Answer, request: RequestId) -> Response:
        """Pass on what a stream holds up to the answer. One that ends before is resumed, where its events have ids."""
        place = Place()
        said, failures = await self._read_stream(answer, place, request), 0
        while said is None:
            if not place.id or failures == _MOST_FAILURES:
                raise MCPError(CONNECTION_CLOSED, "the server ended the stream without an answer")
            await asyncio.sleep(place.retry)
            failures += 1
            try:
                async with self._client.exchange(
                    "GET", self._client.url, self._headers(place), may_be_silent=True
                ) as resumed:
                    if is_stream(resumed):
                        said, failures = await self._read_stream(resumed, place, request), 0
            except aiohttp.ClientError:
                pass
        return said

    async def _read_stream(self, answer: Answer, place: Place, request: RequestId) -> Response | None:
        try:
            return await self._hear(Events(answer, self._limit, place), request)
        except aiohttp.ClientError:
            return None

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
                        await self._hear(Events(answer, self._limit, place))
                    elif answer.status < 500:
                        return
            except (aiohttp.ClientError, OAuthFlowError, MCPError):
                pass
            self._on_doubt()
            await asyncio.sleep(max(place.retry, _BETWEEN_STREAMS))


def _cancels(message: JSONRPCMessage) -> bool:
    return isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled"


def _refusal(answer: Answer) -> MCPError:
    return MCPError(REFUSED, f"the server answered HTTP {answer.status}")
