"""A client that speaks HTTP/1.1 to the byte: it sees what a socket sees, and how an answer ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from support.waiting import LIMIT

ID = "X-AIBridge-Interception-Id"


@dataclass
class Answer:
    """An answer, as far as it came."""

    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes] = field(default_factory=list)
    complete: bool = False
    """It came to the end that HTTP demands, not just to the end of the connection."""
    connection: asyncio.StreamReader = field(repr=False, default_factory=asyncio.StreamReader)

    @property
    def body(self) -> bytes:
        """What came of the body so far."""
        if len(self.pieces) > 1:
            self.pieces[:] = [b"".join(self.pieces)]
        return self.pieces[0] if self.pieces else b""

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for found, value in self.headers if found.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The only value of a header; None where there is none."""
        values = self.all(name)
        assert len(values) < 2, f"{name} was sent more than once: {values}"
        return values[0] if values else None

    @property
    def id(self) -> str:
        """The interception's."""
        found = self.header(ID)
        assert found, f"the answer carries no {ID}"
        return found

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    async def more(self) -> bool:
        """Read the next piece of the body; False where there is none."""
        if self.complete:
            return False
        try:
            if self.header("Transfer-Encoding") == "chunked":
                size = int(await self.connection.readuntil(b"\r\n"), 16)
                piece = (await self.connection.readexactly(size + 2))[:-2]
                self.complete = size == 0
            else:
                wanted = int(self.header("Content-Length") or 0) - len(self.body)
                piece = await self.connection.readexactly(wanted)
                self.complete = True
        except asyncio.IncompleteReadError as cut:
            if not self.header("Transfer-Encoding"):
                self.pieces.append(cut.partial)
            return False
        except ConnectionError:
            return False
        self.pieces.append(piece)
        return not self.complete

    async def until(self, wanted: bytes) -> None:
        """Read until the body holds this."""
        async with asyncio.timeout(LIMIT):
            while wanted not in self.body:
                assert await self.more(), f"the answer ended without {wanted!r}: {self.body!r}"

    async def rest(self) -> Answer:
        """Read all that is still to come."""
        async with asyncio.timeout(LIMIT):
            while await self.more():
                pass
        return self


@asynccontextmanager
async def begun(
    url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, method: str = "POST"
) -> AsyncIterator[Answer]:
    """The answer to one request on a connection of its own, once its head is there; leaving closes the connection."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    async with said(url, "\r\n".join([*lines, "", ""]).encode() + body, of_head=method == "HEAD") as answer:
        yield answer


@asynccontextmanager
async def said(url: str, request: bytes, *, of_head: bool = False) -> AsyncIterator[Answer]:
    """The same for a request that is sent as it stands, be it HTTP or not."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 16)
    try:
        sending = asyncio.ensure_future(_send(writer, request))
        try:
            async with asyncio.timeout(LIMIT):
                text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            yield Answer(int(status_line.split(" ")[1]), headers, [], of_head, reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    await writer.drain()


async def ask(url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, method: str = "POST") -> Answer:
    """The whole answer to one request."""
    async with begun(url, body, headers, method) as answer:
        return await answer.rest()


async def say(url: str, request: bytes) -> Answer:
    """The whole answer to a request that is sent as it stands."""
    async with said(url, request) as answer:
        return await answer.rest()
