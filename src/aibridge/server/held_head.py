"""An answer's head and the beginning of its body in one write: one system call, and the client wakes once."""

from __future__ import annotations

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "


class HeldHead:
    """A transport that holds the head of an answer until its body begins, or nothing else is left to be done just now.

    Whatever else begins as a head does may be held as well, and is sent all the same.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.is_closing = transport.is_closing
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send this, after what is held."""
        if self._held:
            head, self._held = self._held, b""
            self._transport.writelines((head, data))
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._let_go)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close once all is sent."""
        self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        if self._held and not self.is_closing():
            head, self._held = self._held, b""
            self._transport.write(head)
