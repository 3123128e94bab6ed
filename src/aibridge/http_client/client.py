"""HTTP/1.1 on aiohttp's connections: its connector makes them, and requests are written here.

aiohttp's own way of sending costs more than all that the gateway does itself, for it serves redirects, cookies,
uploads and middleware. Of aiohttp this takes the connector: looking up hosts, trying their addresses, TLS and proxies.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, partial

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http import StreamWriter
from yarl import URL

from aibridge.http_client.connecting import Connecting
from aibridge.http_client.kept import Kept
from aibridge.http_client.response import NoAnswerError, Response, ResponseProtocol

Headers = Iterable[tuple[str, str]]

_NO_BODY_MEANT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 8.6: others say that they have none

_IDEMPOTENT = _NO_BODY_MEANT | {"PUT", "DELETE"}  # RFC 9110, 9.2.2

_PIECE = 1 << 20  # bytes of a body that are handed to a socket at a time

_MOST_TARGETS = 512

_LONGEST_GOODBYE = 2.0
"""Seconds until a connection must be closed."""


class _Target:
    """What requests to one URL have in common."""

    def __init__(self, asked: aiohttp.ClientRequest, kept: Kept) -> None:
        self.asked = asked
        """What the connector needs to know; it is never sent."""
        self.kept = kept
        url, fields = asked.url, [*asked.headers.items()]
        self._name = url.raw_path_qs
        if asked.proxy is not None and not asked.is_ssl():  # RFC 9112, 3.2.2: the proxy is told the whole
            self._name = str(url)
            if credentials := aiohttp.BasicAuth.from_url(asked.proxy):
                fields.append(("Proxy-Authorization", credentials.encode()))
        self._fields = _lines(fields)

    def head(self, method: str, headers: Headers, length: int) -> bytes:
        """The head of a request whose body has this many bytes. ValueError for headers that would break out of it."""
        length_told = f"Content-Length: {length}\r\n" if length or method not in _NO_BODY_MEANT else ""
        return f"{method} {self._name} HTTP/1.1\r\n{self._fields}{_lines(headers)}{length_told}\r\n".encode()


def _lines(headers: Headers) -> str:
    lines = [*map(": ".join, headers), ""]
    fields = "\r\n".join(lines)
    if not (fields.count("\n") == fields.count("\r") == len(lines) - 1) or "\0" in fields:
        raise ValueError("a header of a request holds a line end or a null character")
    return fields


class Client:
    """Sends requests, and keeps connections for the next ones. To be made within a running event loop.

    `connect_limit` is how many seconds may pass until there is a connection; waiting for one that is free, where their
    number is limited, is not counted. `headers` are sent with every request; a `Host` among them is sent as it is.
    """

    def __init__(self, connecting: Connecting, connect_limit: float, headers: Mapping[str, str] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self._connecting = connecting
        self._connect_limit = connect_limit
        self._headers = headers
        self._connector = aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=connecting.dns_ttl,  # type: ignore[arg-type]  # what it does with it, a float can do
            resolver=connecting.resolver,
        )
        # What it makes for each connection; it has no parameter for that.
        self._connector._factory = partial(ResponseProtocol, self.loop)  # type: ignore[assignment]
        self._target = lru_cache(_MOST_TARGETS)(self._target_of)
        self._kept: dict[ConnectionKey, Kept] = defaultdict(partial(Kept, connecting.per_host, connecting.kept_for))

    async def send(self, peer: str, method: str, url: str, headers: Headers, body: bytes, *, limit: float) -> Response:
        """Send a request, and wait for the head of its answer for at most `limit` seconds.

        `peer` is the name of who is asked, for `Connecting.tls`.

        Raises `NoAnswerError` where that has passed, TimeoutError for the connect limit, and other errors of aiohttp's
        and OSError where there is no connection, it is lost, or what comes is not HTTP.
        """
        target = self._target(peer, url)
        try:
            return await self._exchange(target, method, headers, body, limit)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if method not in _IDEMPOTENT:
                raise
        # The connection may have been one that was kept, and that was closed in the same moment.
        return await self._exchange(target, method, headers, body, limit)

    async def _exchange(self, target: _Target, method: str, headers: Headers, body: bytes, limit: float) -> Response:
        deadline, kept = self.loop.time() + limit, target.kept
        if kept.limited:
            try:
                async with asyncio.timeout_at(deadline):
                    await kept.admitted()
            except TimeoutError as error:
                raise NoAnswerError from error
        connection = kept.take()
        if connection is None:
            connection = await self._connected(target, deadline)
        response = connection.begin(method, deadline)
        try:
            response.writing = self._write(connection, target.head(method, headers, len(body)), body)
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def _connected(self, target: _Target, deadline: float) -> ResponseProtocol:
        """A new connection."""
        limit = min(deadline - self.loop.time(), self._connect_limit)
        timeout = aiohttp.ClientTimeout(connect=limit, sock_connect=self._connect_limit)
        try:
            connection = await self._connector.connect(target.asked, [], timeout)
        except BaseException as error:
            target.kept.ended()
            if isinstance(error, TimeoutError) and self.loop.time() >= deadline:
                raise NoAnswerError from error
            raise
        protocol = connection.protocol
        assert isinstance(protocol, ResponseProtocol)
        protocol.hold(connection, target.kept)
        return protocol

    def _write(self, protocol: ResponseProtocol, head: bytes, body: bytes) -> asyncio.Task[None] | None:
        """Write a request: at once, but where its body is so long that all other exchanges would wait for it."""
        transport = protocol.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        if len(body) > _PIECE:
            transport.write(head)
            return asyncio.create_task(_write_in_pieces(StreamWriter(protocol, self.loop), body))
        transport.writelines((head, body))
        return None

    async def aclose(self) -> None:
        """Close every connection. For peers that take no more of what was sent, this waits no longer than a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_GOODBYE):
                await self._connector.close()

    def _target_of(self, peer: str, url: str) -> _Target:
        parsed, proxies = URL(url, encoded=True), self._connecting.proxies
        asked = aiohttp.ClientRequest(
            "GET",
            parsed,
            headers=self._headers,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            loop=self.loop,
            proxy=proxies.of(parsed) if proxies else None,
            ssl=self._connecting.tls.get(peer, True),
        )
        return _Target(asked, self._kept[asked.connection_key])


async def _write_in_pieces(writer: StreamWriter, body: bytes) -> None:
    whole = memoryview(body)
    with suppress(OSError, aiohttp.ClientError):  # whoever waits for the answer is told of it
        for start in range(0, len(body), _PIECE):
            await writer.write(whole[start : start + _PIECE])
