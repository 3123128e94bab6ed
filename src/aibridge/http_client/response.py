"""Answers as they come over a connection in HTTP/1.1.

The connections are made and kept by aiohttp's connector. Its own way of reading costs more than all that the gateway
does with an answer; here, httptools parses, and what has come lies ready as it came.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from aibridge.http_client.kept import Kept

MOST_UNREAD = 128 << 10
"""Bytes of a body that lie ready before its connection is no longer read from; one reading more may come on top."""

LONGEST_HEAD = 64 << 10
"""Bytes of a head, or of what stands between the chunks of a body, that are waited for to become whole."""

_LOOKING = 15.0
"""Seconds after which deadlines are looked at; those that are nearer are looked after by themselves."""


class NoAnswerError(aiohttp.ClientError):
    """The head of an answer did not come in time."""


class Response:
    """An answer as it comes. Once it is done with, it must be released or closed."""

    __slots__ = (
        "_connection",
        "_error",
        "_paused",
        "_waiter",
        "complete",
        "loop",
        "pieces",
        "raw_headers",
        "reason",
        "status",
        "unread",
        "writing",
    )

    def __init__(self, connection: ResponseProtocol, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        """0 until the head is there."""
        self.reason = b""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        """All of the body has come; it may still have to be taken."""
        self.pieces: list[bytes] = []
        """Of the body, not taken yet."""
        self.unread = 0
        """Bytes that came since the body was last taken, those around it included."""
        self.writing: asyncio.Task[None] | None = None
        """What still writes the request."""
        self.loop = loop
        self._connection: ResponseProtocol | None = connection
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False

    async def head(self) -> None:
        """Wait for the head. Raises what `fail` was told where it does not come."""
        while not self.status:
            if self._error:
                raise self._error
            await self._change()

    @property
    def begun(self) -> bool:
        """Something of the body lies ready."""
        return bool(self.pieces)

    async def more(self) -> None:
        """Wait until `take` has something to tell, be it the end."""
        while not (self.pieces or self.complete or self._error):
            await self._change()

    def take(self) -> bytes:
        """What lies ready of the body; empty at its end.

        Raises `aiohttp.ClientError` where all was taken that came before the body broke off, or what `fail` was told.
        """
        pieces = self.pieces
        if not pieces:
            if self._error:
                raise self._error
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.unread = 0
        if self._paused:
            self._paused = False
            if transport := self._transport():
                transport.resume_reading()
        return data

    @property
    def taken(self) -> bool:
        """All of the body has come, and was taken."""
        return self.complete and not self.pieces

    def fail(self, error: Exception) -> None:
        """Give up what has not come yet."""
        if not self.complete and self._error is None:
            self._error = error
            self.wake()

    def wake(self) -> None:
        """Have whoever waits look what has come."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def pause(self) -> None:
        """Let no more come until what lies ready of the body is taken."""
        if self.pieces and not self._paused and (transport := self._transport()):
            self._paused = True
            transport.pause_reading()

    def _transport(self) -> asyncio.Transport | None:
        transport = None if self._connection is None else self._connection.transport
        return None if transport is None or transport.is_closing() else transport

    def _change(self) -> asyncio.Future[None]:
        self._waiter = waiter = self.loop.create_future()
        return waiter

    def release(self) -> None:
        """Let another request have the connection, if that is possible: the body was read to its end."""
        connection, writing = self._connection, self.writing
        if connection is None:
            return
        transport = connection.transport
        if (writing and not writing.done()) or (transport and transport.get_write_buffer_size()):
            self.close()  # the answer came before the request's end
        else:
            self._connection = None
            connection.rest()

    def let_end(self, limit: float) -> None:
        """Nobody reads on: the connection is used again if the end comes within so many seconds, else closed."""
        closing = self.loop.call_later(limit, self.close)

        def drop(_: object = None) -> None:
            if self.pieces:
                self.take()
            if self.complete:
                closing.cancel()
                self.release()
            elif self._error:
                closing.cancel()
                self.close()
            else:
                self._change().add_done_callback(drop)

        drop()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if self.writing:
            self.writing.cancel()
        if connection is not None:
            connection.give_up()


class ResponseProtocol(ResponseHandler):
    """One connection, as aiohttp's connector wants it; what the connector asks of a proxy is read in aiohttp's way."""

    __slots__ = (
        "_deadline",
        "_headers",
        "_held",
        "_http",
        "_kept",
        "_last",
        "_look_at",
        "_looking",
        "_pending",
        "_reason",
        "_response",
        "_without_body",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._held: Connection | None = None
        self._kept: Kept | None = None
        self._http: HttpResponseParser | None = None
        self._response: Response | None = None  # until all of it has come
        self._without_body = False  # whatever its head says
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._pending = 0  # bytes of which nothing has come yet
        self._last = False  # nothing more can be asked
        self._deadline = 0.0  # of a head, or of the next request
        self._look_at = 0.0
        self._looking: asyncio.TimerHandle | None = None

    def hold(self, connection: Connection, kept: Kept) -> None:
        """Keep what the connector has made also between requests, when it is among those that are kept."""
        self._held, self._kept = connection, kept

    def begin(self, method: str, deadline: float) -> Response:
        """The answer to the request that is written now; its head must have come when the loop's clock says so."""
        self._without_body, had_no_body = method == "HEAD", self._without_body
        self._pending = 0
        self._response = response = Response(self, self._loop)
        self._expect(deadline)
        if self._http is None:
            self._http = _parser(self)
            self._drain_tail()  # what is said before anything is asked, is said because nothing is to be asked
        elif had_no_body:  # it is still to come, as far as the parser knows
            self._http = _parser(self)
        return response

    def rest(self) -> None:
        """The request is over; wait for the next one, if there can be one."""
        kept = self._kept
        if kept is None or self._last or self._response:
            self.give_up()
        else:
            self._expect(self._loop.time() + kept.seconds)
            kept.put(self)

    def give_up(self) -> None:
        """The request is over, and there will be no other one."""
        self.leave()
        if self._kept:
            self._kept.ended()

    def leave(self) -> None:
        """Close the connection; what is not sent yet never will be."""
        held, self._held = self._held, None
        if held:
            if self.transport is not None and self.transport.get_write_buffer_size():
                self.transport.abort()
            held.close()

    @property
    def usable(self) -> bool:
        """A request can be sent; at least, nothing is known that speaks against it."""
        return self.is_connected() and self._loop.time() < self._deadline

    def _expect(self, deadline: float) -> None:
        """Look after the deadline: with a timer that looks now and then, and most requests cost none of their own."""
        self._deadline = deadline
        if self._looking is None or deadline < self._look_at:
            if self._looking:
                self._looking.cancel()
            self._look_at = min(deadline, self._loop.time() + _LOOKING)
            self._looking = self._loop.call_at(self._look_at, self._look)

    def _look(self) -> None:
        self._looking = None
        if self._response and self._response.status:
            return
        if self._loop.time() < self._deadline:
            self._expect(self._deadline)
        elif self._response:
            self._response.fail(NoAnswerError())
        elif self._kept:
            self._kept.lose(self)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        response, http = self._response, self._http
        if http is None:
            super().data_received(data)
        elif response is None:
            self._break_off()  # nothing was asked
        else:
            self._pending += len(data)
            response.unread += len(data)
            try:
                http.feed_data(data)
                if self._pending > LONGEST_HEAD:
                    raise HttpParserError("what is neither head nor body has no end")
            except HttpParserUpgrade:
                self._last = True
            except HttpParserError as error:
                self._break_off()
                failed = aiohttp.ClientPayloadError("broken") if response.status else aiohttp.ClientError("not HTTP")
                failed.__cause__ = error
                response.fail(failed)
            if response.status:
                response.wake()
            if response.unread > MOST_UNREAD and not response.complete:
                response.pause()

    def _break_off(self) -> None:
        """What comes is not HTTP, or nothing was asked that it could answer."""
        self._last = True
        if self.transport:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins: that of the answer, or of what may come before it."""
        if self._response is None:
            raise HttpParserError("there is more than one answer")
        self._headers = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if 0 in value:
            raise HttpParserError("a header holds a null character")
        self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        response, http = self._response, self._http
        assert response
        assert http
        status = http.get_status_code()
        if status < 200 and status != 101:  # RFC 9110, 15.2: there is more to come
            return
        if self._pending > LONGEST_HEAD and _length(self._reason, self._headers) > LONGEST_HEAD:
            raise HttpParserError("the head is too long")
        self._pending = 0
        response.status, response.reason, response.raw_headers = status, self._reason, self._headers
        self._headers = []  # trailers mean nothing here (RFC 9110, 6.5.1)
        self._last = not http.should_keep_alive()
        if self._without_body:
            response.complete = True
            self._response = None

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        if self._response is None:
            raise HttpParserError("the answer has no body")
        self._pending = 0
        self._response.pieces.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole, or what came before it."""
        response = self._response
        if response and response.status:
            response.complete = True
            self._response = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """There is no connection any more."""
        response, self._response, self._http = self._response, None, None
        self._last = True
        if self._looking:
            self._looking.cancel()
            self._looking = None
        if self._kept:
            self._kept.lose(self)
        if response:
            if response.status and exc is None and _ends_with_connection(response):
                response.complete = True
                response.wake()
            else:
                response.fail(_loss(exc, begun=response.status > 0))
        super().connection_lost(exc)


def _parser(connection: ResponseProtocol) -> HttpResponseParser:
    """As lenient as aiohttp's: folded headers, lines that end without CR, and spaces after a chunk's size are taken."""
    parser = HttpResponseParser(connection)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser


def _length(reason: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(reason) + sum(len(name) + len(value) for name, value in headers)


def _ends_with_connection(response: Response) -> bool:
    """The end of the connection is that of the body (RFC 9112, 6.3)."""
    coding = b""
    for name, value in response.raw_headers:
        match name.lower():
            case b"content-length":
                return False
            case b"transfer-encoding":
                coding = value
    return not coding.lower().endswith(b"chunked")


def _loss(cause: BaseException | None, *, begun: bool) -> aiohttp.ClientError:
    if begun:
        error: aiohttp.ClientError = aiohttp.ClientPayloadError("the connection was lost")
    elif isinstance(cause, OSError):
        error = aiohttp.ClientOSError(*cause.args)
    else:
        error = aiohttp.ServerDisconnectedError()
    error.__cause__ = cause
    return error
