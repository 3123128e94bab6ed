"""A provider on loopback that says what a test tells it to, byte for byte, and keeps every request whole.

It writes HTTP/1.1 by hand, because a test must be able to break it anywhere.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self, TypeAlias


class Break(Enum):
    """How a connection ends before its time."""

    CLOSE = auto()
    RESET = auto()


CLOSE, RESET = Break.CLOSE, Break.RESET

Piece: TypeAlias = bytes | asyncio.Event | Break
"""Bytes to write, an event to wait for, or the end of the connection."""

Fields: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """What is written to the socket for one request, head included; it can be said once where `pieces` is an iterator.

    Unless `reusable`, the connection is closed after it.
    """

    pieces: Iterable[Piece]
    reusable: bool = True


def document(body: bytes, status: int = 200, headers: Fields = (), content_type: str = "application/json") -> Reply:
    """An answer with a Content-Length."""
    fields = [("Content-Type", content_type), *headers, ("Content-Length", str(len(body)))]
    return Reply([head(status, fields) + body])


def events(*pieces: Piece, headers: Fields = ()) -> Reply:
    """An event stream, each piece of bytes in a chunk of its own."""
    return chunked(pieces, [("Content-Type", "text/event-stream"), *headers])


def chunked(pieces: Iterable[Piece], headers: Fields, status: int = 200) -> Reply:
    """An answer of chunks (RFC 9112, 7.1)."""

    def framed() -> Iterable[Piece]:
        yield head(status, [*headers, ("Transfer-Encoding", "chunked")])
        for piece in pieces:
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if isinstance(piece, bytes) else piece
        yield b"0\r\n\r\n"

    return Reply(list(framed()) if isinstance(pieces, Sequence) else framed())


def raw(*pieces: Piece) -> Reply:
    """Bytes as they stand, whatever they are; then the connection is closed."""
    return Reply(pieces, reusable=False)


def error(status: int, message: str = "not now", headers: Fields = ()) -> Reply:
    """An error in a shape that all dialects understand."""
    told = {"type": "error", "error": {"type": "scripted_error", "message": message, "code": None}}
    return document(json.dumps(told).encode(), status, headers)


def head(status: int, headers: Fields) -> bytes:
    """The head of an answer, to its blank line."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


@dataclass
class Asked:
    """One request that the provider got."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    arrived: float
    """By the event loop's clock."""
    written: int = 0
    """Bytes of the answer that the socket took."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The bridge closed the connection before it had the whole answer."""

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for found, value in self.headers if found.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The only value of a header; None where there is none."""
        values = self.all(name)
        assert len(values) < 2, f"{name} was sent more than once: {values}"
        return values[0] if values else None

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Provider:
    """The listening provider. Without a reply to give it answers 418, which no test expects."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self.asked: list[Asked] = []
        self.connections = 0
        """How many there were in all."""
        self._replies: list[Reply] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=1 << 20, ssl=self._tls)
        self._serving: set[asyncio.Task[None]] = set()
        self.port: int = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'https' if self._tls else 'http'}://{host}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def says(self, *replies: Reply) -> None:
        """Give these replies to the next requests, in turn; the last one also to all that follow."""
        self._replies = list(replies)

    @property
    def last(self) -> Asked:
        """The last request."""
        return self.asked[-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        try:
            while asked := await _read(reader):
                self.asked.append(asked)
                if not await self._reply(asked, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    def _next(self) -> Reply:
        if not self._replies:
            return error(418, "the test has told the provider nothing")
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    async def _reply(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Say the next reply; False where the connection is of no more use."""
        reply = self._next()
        watching = asyncio.create_task(_watch(reader, asked))
        try:
            for piece in reply.pieces:
                if piece is RESET:
                    told: socket.socket = writer.get_extra_info("socket")
                    told.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if isinstance(piece, Break) or asked.left.is_set():
                    return False
                if isinstance(piece, asyncio.Event):
                    await _either(piece, asked.left)
                else:
                    writer.write(piece)
                    await writer.drain()
                    asked.written += len(piece)
        except ConnectionError:
            asked.left.set()
            return False
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return reply.reusable


async def _watch(reader: asyncio.StreamReader, asked: Asked) -> None:
    """Note that the other side has left; between requests it says nothing else."""
    try:
        await reader.read(1)
    except ConnectionError:
        pass
    asked.left.set()


async def _either(*happenings: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(each.wait()) for each in happenings]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    by_name = {name.lower(): value for name, value in headers}
    assert "transfer-encoding" not in by_name, "a request of known length needs no chunks"
    body = await reader.readexactly(int(by_name.get("content-length", 0)))
    return Asked(method, target, headers, body, asyncio.get_running_loop().time())
