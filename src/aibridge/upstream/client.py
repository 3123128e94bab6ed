"""HTTP/1.1 on aiohttp's connections: it opens and keeps them, and parses what comes back; requests are written here.

aiohttp's own way of sending costs more than all that the gateway does itself, for it serves redirects, cookies,
uploads and middleware. Of aiohttp this takes the connector (addresses, TLS, proxies, limits, connections that are
kept) and the protocol that it makes for each connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import lru_cache

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage, StreamWriter
from aiohttp.streams import StreamReader
from yarl import URL

from aibridge.providers.interpreter import Headers
from aibridge.upstream.connecting import Connecting

_NO_BODY_MEANT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 8.6: others say that they have none

_IDEMPOTENT = _NO_BODY_MEANT | {"PUT", "DELETE"}  # RFC 9110, 9.2.2

_PIECE = 1 << 20  # bytes of a body that are handed to a socket at a time

_LONGEST_LINE = 64 << 10  # bytes of a header

_MOST_TARGETS = 512


class NoAnswerError(aiohttp.ClientError):
    """The head of an answer did not come in time."""


class Response:
    """An answer whose head is there. Once it is done with, it must be released or closed."""

    __slots__ = ("_connection", "_writing", "content", "headers", "raw_headers", "reason", "status")

    def __init__(
        self,
        head: RawResponseMessage,
        content: StreamReader,
        connection: Connection,
        writing: asyncio.Task[None] | None,
    ) -> None:
        self.status: int = head.code
        self.reason: str = head.reason
        self.headers = head.headers
        self.raw_headers = head.raw_headers
        self.content = content
        """The body."""
        self._connection = connection
        self._writing = writing

    def lost(self) -> asyncio.Future[None] | None:
        """Is done when the connection is gone; None where it is."""
        protocol = self._connection.protocol
        return None if protocol is None else protocol.closed

    def release(self) -> None:
        """Let another request have the connection, if that is possible: the body was read to its end."""
        transport = self._connection.transport
        writes = self._writing and not self._writing.done()
        if writes or (transport and transport.get_write_buffer_size()):  # the answer came before the request's end
            self.close()
        else:
            self._connection.release()

    def close(self) -> None:
        """Close the connection."""
        if self._writing:
            self._writing.cancel()
        self._connection.close()


class _Target:
    """What requests to one URL have in common."""

    def __init__(self, asked: aiohttp.ClientRequest) -> None:
        self.asked = asked
        """What the connector needs to know; it is never sent."""
        url = asked.url
        self._by_proxy = asked.proxy is not None and not asked.is_ssl()  # RFC 9112, 3.2.2: the proxy is told the whole
        self._name = str(url) if self._by_proxy else url.raw_path_qs
        self._fields = self._own_fields()

    def _own_fields(self) -> str:
        return "".join(f"{name}: {value}\r\n" for name, value in self.asked.headers.items())

    def head(self, method: str, headers: Headers, length: int) -> bytes:
        """The head of a request whose body has this many bytes. ValueError for headers that would break out of it."""
        # The connector may have put there what the proxy asks for.
        own = self._own_fields() if self._by_proxy else self._fields
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        if length or method not in _NO_BODY_MEANT:
            lines.append(f"Content-Length: {length}\r\n")
        fields = "".join(lines)
        if fields.count("\n") != len(lines) or fields.count("\r") != len(lines) or "\0" in fields:
            raise ValueError("a header of a request holds a line end or a null character")
        return f"{method} {self._name} HTTP/1.1\r\n{own}{fields}\r\n".encode()


class Client:
    """Sends requests, and keeps connections for the next ones. To be made within a running event loop.

    `connect_limit` is how many seconds may pass until there is a connection; waiting for one that is free, where their
    number is limited, is not counted.
    """

    def __init__(self, connecting: Connecting, connect_limit: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._connecting = connecting
        self._connect_limit = connect_limit
        self._connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=connecting.per_host,
            ttl_dns_cache=connecting.dns_ttl,  # type: ignore[arg-type]  # what it does with it, a float can do
            resolver=connecting.resolver,
        )
        self._target = lru_cache(_MOST_TARGETS)(self._target_of)
        self._timeout = lru_cache(_MOST_TARGETS)(self._timeout_of)

    async def send(
        self, provider: str, method: str, url: str, headers: Headers, body: bytes, *, limit: float
    ) -> Response:
        """Send a request, and wait for the head of its answer for at most `limit` seconds.

        Raises `NoAnswerError` where that has passed, TimeoutError for the connect limit, and other errors of aiohttp's
        and OSError where there is no connection, it is lost, or what comes is not HTTP.
        """
        target = self._target(provider, url)
        once_more = method in _IDEMPOTENT
        while True:
            try:
                return await self._exchange(target, method, headers, body, limit)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not once_more:
                    raise
                once_more = False  # a connection that was kept may have been closed in the same moment

    async def _exchange(self, target: _Target, method: str, headers: Headers, body: bytes, limit: float) -> Response:
        deadline = self._loop.time() + limit
        try:
            connection = await self._connector.connect(target.asked, [], self._timeout(limit))
        except TimeoutError as error:
            if self._loop.time() >= deadline:
                raise NoAnswerError from error
            raise
        protocol, writing = connection.protocol, None
        assert protocol is not None
        overdue = self._loop.call_at(deadline, protocol.set_exception, NoAnswerError())
        try:
            protocol.set_response_params(
                skip_payload=method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                max_line_size=_LONGEST_LINE,
                max_field_size=_LONGEST_LINE,
            )
            writing = self._write(protocol, target.head(method, headers, len(body)), body)
            answered, content = await protocol.read()
            while answered.code < 200 and answered.code != 101:  # RFC 9110, 15.2: there is more to come
                answered, content = await protocol.read()
        except BaseException as error:
            if writing:
                writing.cancel()
            connection.close()
            if isinstance(error, HttpProcessingError):
                raise aiohttp.ClientError("not HTTP") from error
            raise
        finally:
            overdue.cancel()
        return Response(answered, content, connection, writing)

    def _write(self, protocol: ResponseHandler, head: bytes, body: bytes) -> asyncio.Task[None] | None:
        """Write a request: at once, but where its body is so long that all other exchanges would wait for it."""
        transport = protocol.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        if len(body) > _PIECE:
            transport.write(head)
            return asyncio.create_task(_write_in_pieces(StreamWriter(protocol, self._loop), body))
        transport.writelines((head, body))
        return None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connector.close()

    def _target_of(self, provider: str, url: str) -> _Target:
        parsed, proxies = URL(url, encoded=True), self._connecting.proxies
        return _Target(
            aiohttp.ClientRequest(
                "GET",
                parsed,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
                loop=self._loop,
                proxy=proxies.of(parsed) if proxies else None,
                ssl=self._connecting.tls.get(provider, True),
            )
        )

    def _timeout_of(self, limit: float) -> aiohttp.ClientTimeout:
        # `connect` is about looking up the address too, but also about waiting for a connection to become free.
        connect = limit if self._connecting.per_host else min(limit, self._connect_limit)
        return aiohttp.ClientTimeout(connect=connect, sock_connect=self._connect_limit)


async def _write_in_pieces(writer: StreamWriter, body: bytes) -> None:
    whole = memoryview(body)
    with suppress(OSError, aiohttp.ClientError):  # whoever waits for the answer is told of it
        for start in range(0, len(body), _PIECE):
            await writer.write(whole[start : start + _PIECE])
