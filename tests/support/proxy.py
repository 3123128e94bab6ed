"""An HTTP proxy on loopback, as companies have one: it connects to whom it is asked to, and passes requests on."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from urllib.parse import urlsplit


class Proxy:
    """The listening proxy. With `password`, it wants to know who asks; `everything_is` is where all hosts are."""

    def __init__(self, *, password: str = "", everything_is: tuple[str, int] | None = None) -> None:
        self.asked: list[str] = []
        """The first line of each request."""
        self.tunnelled = b""
        """What went through tunnels towards the other side."""
        self._password, self._everything_is = password, everything_is

    async def __aenter__(self) -> Proxy:
        self._serving: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        try:
            await self._pass_on(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.asked.append(line)
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if self._password and self._who(headers) != self._password:
            writer.write(b"HTTP/1.1 407 Who asks?\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        method, target, _ = line.split(" ")
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there = self._everything_is or (str(url.hostname), url.port or 80)
        other_reader, other_writer = await asyncio.open_connection(*there)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:  # RFC 9112, 3.2.2: what was asked in absolute form is passed on in the origin's
                kept = [field for field in fields if not field.lower().startswith("proxy-")]
                path = (url.path or "/") + (f"?{url.query}" if url.query else "")
                other_writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "", ""]).encode("latin-1"))
            there_and_back = (self._copy(reader, other_writer, keep=True), self._copy(other_reader, writer))
            await asyncio.wait([asyncio.ensure_future(it) for it in there_and_back], return_when="FIRST_COMPLETED")
        finally:
            other_writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool = False) -> None:
        while data := await reader.read(1 << 16):
            if keep:
                self.tunnelled += data
            writer.write(data)
            await writer.drain()

    @staticmethod
    def _who(headers: dict[str, str]) -> str:
        scheme, _, told = headers.get("proxy-authorization", "").partition(" ")
        return b64decode(told).decode() if scheme == "Basic" else ""
