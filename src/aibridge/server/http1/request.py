"""One request of a connection and its answer, as an ASGI application sees them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any

from aibridge.bridge.asgi import Message, Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from aibridge.server.http1.connection import Connection

_log = logging.getLogger("aibridge.server")

MOST_UNREAD = 64 << 10
"""Bytes of a body that wait for the application before no more is read."""

_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}".encode() for each in HTTPStatus}

_BODILESS = frozenset({204, 304})  # RFC 9110, 6.4.1

_BROKEN = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]


class Request:
    """What came of a request, and how far its answer is."""

    __slots__ = (
        "_begun",
        "_chunked",
        "_connection",
        "_ended",
        "_left",
        "_lost",
        "_news",
        "_pieces",
        "_silent",
        "_told",
        "_unread",
        "awaits_continue",
        "keep_alive",
        "scope",
        "task",
        "whole",
    )

    def __init__(self, connection: Connection, scope: Scope, *, keep_alive: bool, awaits_continue: bool) -> None:
        self.scope = scope
        self.task: asyncio.Task[None] | None = None
        """Whose work it is."""
        self.keep_alive = keep_alive
        """The connection is to serve others after this one."""
        self.awaits_continue = awaits_continue
        """The client sends the body once it is asked for (RFC 9110, 10.1.1)."""
        self.whole = False
        """All of the body came."""
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._told = False  # the application knows the end of the body
        self._news: asyncio.Event | None = None
        self._lost = False
        self._begun = False
        self._ended = False
        self._silent = scope["method"] == "HEAD"
        self._chunked = False
        self._left: int | None = None  # bytes of the body that are still to be sent; None where nobody said how many

    @property
    def begun(self) -> bool:
        """The head of the answer is made."""
        return self._begun

    def feed(self, piece: bytes) -> bool:
        """Take a piece of the body; False where no more should be read for now."""
        if self._ended:  # the client goes on with what nobody wants
            return True
        self._pieces.append(piece)
        self._unread += len(piece)
        self._wake()
        return self._unread <= MOST_UNREAD

    def complete(self) -> None:
        """Take note that the body is whole."""
        self.whole = True
        self._wake()

    def lose(self) -> None:
        """Take note that the client is gone."""
        self._lost = True
        self._wake()

    async def answer(self, application: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        """Have the application answer; what it does not end is cut."""
        try:
            await application(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            pass  # the server stops
        except Exception:  # noqa: BLE001  # whatever it is, the next request is served
            _log.exception("a request failed within the gateway")
            if not self._begun and not self._lost:
                self._begin(500, _BROKEN)
                self._go_on(b"Internal Server Error", more=False)
        finally:
            self._connection.done(self)

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        if self.awaits_continue and not self._begun:
            self.awaits_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._lost and not self._ended:
            if self._pieces:
                piece = self._pieces.popleft()
                self._unread -= len(piece)
                self._told = self.whole and not self._pieces
                return {"type": "http.request", "body": piece, "more_body": not self._told}
            if self.whole and not self._told:
                self._told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            self._connection.resume_reading()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's `send`. What is sent to a client that is gone goes nowhere."""
        if self._connection.congested:
            await self._connection.drained()
        if self._lost:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        else:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, status: int, headers: Collection[tuple[bytes, bytes]]) -> None:
        if self._begun:
            raise RuntimeError("the head of the answer was sent before")
        told = b"".join(chain.from_iterable(headers))
        if b"\n" in told or b"\r" in told or b"\0" in told:
            raise ValueError("a header of the answer holds a line end or a null character")
        fields, own = dict(headers), []
        if (length := fields.get(b"content-length")) is not None:
            self._left = int(length)
        elif status not in _BODILESS and not self._silent:
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                own.append(b"transfer-encoding: chunked")
            else:  # RFC 9112, 6.3: the end of the connection is that of the body
                self.keep_alive = False
        if self.awaits_continue or fields.get(b"connection", b"").lower() == b"close":
            self.keep_alive = False  # whether the body still comes, nobody knows
        if not self.keep_alive and b"connection" not in fields:
            own.append(b"connection: close")
        self._begun = True
        self._silent = self._silent or status in _BODILESS
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
        self._connection.hold(b"\r\n".join([line, *map(b": ".join, headers), *own, b"\r\n"]))

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if not self._begun or self._ended:
            raise RuntimeError("a piece of an answer is sent before its head, or after its end")
        if self._silent:
            self._left, body = None, b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body of the answer is not as long as its Content-Length says")
        if not self._chunked:
            self._connection.write(body)
        elif not more:
            self._connection.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n")
        elif body:
            self._connection.write(b"%x\r\n%b\r\n" % (len(body), body))
        if not more:
            self._ended = True
            self._wake()
            self._connection.answered(self)

    def _wake(self) -> None:
        if self._news:
            self._news.set()
