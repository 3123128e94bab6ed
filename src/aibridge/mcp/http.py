"""The HTTP client of one MCP session: it bounds and isolates what the transport over it does not.

In the transport of the `mcp` package a call that was cancelled keeps its request open until the server answers it,
a broken connection of one call ends the session with all others, and an answer may be of any size.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import httpx2
import msgspec

from aibridge.wire import json_bytes

SESSION_ENDED = -32901
"""The code of the error that stands for an answer 404: the server has forgotten the session."""
NOT_REACHED = -32902
"""The code of the error that stands for a broken connection, or an answer that only has a status."""

_NOTIFICATION_LIMIT = 5.0
_GOODBYE_LIMIT = 2.0
"""Seconds that a server may take to take note of something."""


class _Message(msgspec.Struct):
    """What has to be known of an outgoing JSON-RPC message."""

    method: str = ""
    id: int | str | None = None


_decoder = msgspec.json.Decoder(_Message)


class SessionClient(httpx2.AsyncClient):
    """Sends the requests of one session.

    `max_answer_size` bounds an answer that is no event stream, in bytes. `on_session_end` is called when the server
    says that it does not know the session (any more), for which the specification wants a new one
    (https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management). `on_doubt` is
    called when the stream of the server's own messages breaks off, which the transport keeps to itself.
    """

    def __init__(
        self, max_answer_size: int, on_session_end: Callable[[], None], on_doubt: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20), **options)
        self._max_answer_size = max_answer_size
        self._on_session_end = on_session_end
        self._on_doubt = on_doubt
        self.refused_with: int | None = None
        """The HTTP status of the last answer to a message, where it was an error."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request; a tool call that fails on the way gets an error as its answer, and no exception."""
        message = _decoder.decode(request.content) if request.method == "POST" and _is_json(request) else _Message()
        self._be_patient(request, message)
        call = _call.get()
        if call and not message.method.startswith("notifications/"):
            return await self._send_for(call, request, message, options)
        if request.method == "GET":
            return await self._open_stream(request, message, options)
        return await self._send(request, message, options)

    async def _send_for(self, call: _Call, request: httpx2.Request, message: _Message, options: Any) -> httpx2.Response:
        response = httpx2.Response(202, request=request)
        try:
            with call.may_be_abandoned():
                response = await self._send(request, message, options)
        except httpx2.TransportError as fault:
            if message.id is None:
                raise
            return _error(request, message, NOT_REACHED, type(fault).__name__)
        if response.is_error and message.id is not None and not _is_json(response):
            await response.aclose()
            return _error(request, message, NOT_REACHED, f"the server answered HTTP {response.status_code}")
        if not response.is_closed:
            response.stream = _Relayed(response.stream, call)
        return response

    async def _open_stream(self, request: httpx2.Request, message: _Message, options: Any) -> httpx2.Response:
        try:
            response = await self._send(request, message, options)
        except httpx2.TransportError:
            self._on_doubt()
            raise
        if response.is_success:
            response.stream = _Watched(response.stream, self._on_doubt)
        return response

    async def _send(self, request: httpx2.Request, message: _Message, options: Any) -> httpx2.Response:
        response = await super().send(request, **options)
        if message.id is not None:
            self.refused_with = response.status_code if response.is_error else None
        if response.status_code == 404 and "mcp-session-id" in request.headers:
            await response.aclose()
            self._on_session_end()
            return _error(request, message, SESSION_ENDED, "the session has ended")
        if message.id is not None and _is_json(response):
            return await self._read(response, request, message)
        return response

    async def _read(self, response: httpx2.Response, request: httpx2.Request, message: _Message) -> httpx2.Response:
        """The same answer with its body read, unless that is too large."""
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_answer_size:
                await response.aclose()
                told = f"the answer is larger than {self._max_answer_size} bytes"
                return _error(request, message, -32603, told)
        headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
        content = json_bytes.mended(bytes(body))
        return httpx2.Response(response.status_code, headers=headers, content=content, request=request)

    def _be_patient(self, request: httpx2.Request, message: _Message) -> None:
        """How long the server may be silent: as long as it likes on a stream and in a call, which ends otherwise."""
        timeout = request.extensions["timeout"]
        if request.method == "GET" or message.method == "tools/call":
            timeout["read"] = None
        elif request.method == "DELETE":
            request.extensions["timeout"] = dict.fromkeys(timeout, _GOODBYE_LIMIT)
        elif message.method.startswith("notifications/"):
            timeout["read"] = _NOTIFICATION_LIMIT


class _Call:
    """What is asked of a server for one tool call, one request after the other, until it is abandoned."""

    def __init__(self) -> None:
        self._abandoned = False
        self._waiting: anyio.CancelScope | None = None

    def abandon(self) -> None:
        self._abandoned = True
        if self._waiting:
            self._waiting.cancel()

    def may_be_abandoned(self) -> anyio.CancelScope:
        """A scope to wait in; it is left early when the call is abandoned."""
        self._waiting = anyio.CancelScope()
        if self._abandoned:
            self._waiting.cancel()
        return self._waiting


_call: ContextVar[_Call | None] = ContextVar("call", default=None)


@contextmanager
def abandonable() -> Iterator[None]:
    """A call made within has no connection open any more once this is left.

    The transport sends requests from tasks of its own, in the context of the one that made the call.
    """
    call = _Call()
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)
        call.abandon()


class _Relayed(httpx2.AsyncByteStream):
    """The body of an answer, line by line, until its end or until the call is abandoned."""

    def __init__(self, stream: Any, call: _Call) -> None:
        self._stream = stream
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        line: list[bytes] = []  # that has not ended yet
        while True:
            chunk = None
            with self._call.may_be_abandoned() as waiting:
                chunk = await anext(chunks, None)
            if waiting.cancelled_caught:
                yield _ABANDONED
            if chunk is None:
                yield json_bytes.mended(b"".join(line))
                return
            if (end := chunk.rfind(b"\n") + 1) > 0:
                yield json_bytes.mended(b"".join([*line, chunk[:end]]))
                line.clear()
            line.append(chunk[end:])

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Watched(httpx2.AsyncByteStream):
    """A body that calls `on_end` when it ends, for whatever reason."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        finally:
            self._on_end()

    async def aclose(self) -> None:
        await self._stream.aclose()


# An answer that nobody waits for any more, so that the transport does not try to resume the stream.
_ABANDONED = b'\n\nevent: message\ndata: {"jsonrpc":"2.0","id":0,"error":{"code":-32800,"message":"abandoned"}}\n\n'


def _is_json(message: httpx2.Request | httpx2.Response) -> bool:
    return str(message.headers.get("content-type", "")).lower().startswith("application/json")


def _error(request: httpx2.Request, message: _Message, code: int, text: str) -> httpx2.Response:
    """An answer that the transport understands, for a request without a usable one."""
    error = {"jsonrpc": "2.0", "id": message.id, "error": {"code": code, "message": text}}
    headers = {"content-type": "application/json"}
    return httpx2.Response(200, headers=headers, content=json_bytes.encode(error), request=request)
