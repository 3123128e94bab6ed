"""HTTP/1.1 as uvicorn speaks it, with a bound on what a client can send that is neither a head nor a body."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aibridge.server.held_head import HeldHead

MOST_PENDING = 64 << 10
"""Bytes of a head, or of what stands between the chunks of a body, that are waited for to become whole."""


class BoundedHTTP(HttpToolsProtocol):
    """Closes a connection whose head has no end: nobody is known yet who could answer for the memory that it takes.

    The parser keeps a head until it is whole, however long it is. The bodies of requests are bounded by the bridge.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected."""
        super().connection_made(cast("asyncio.Transport", HeldHead(transport, self.loop)))

    def data_received(self, data: bytes) -> None:
        """Read what came, and count what nothing came of."""
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MOST_PENDING and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is longer than {MOST_PENDING} bytes.")

    def on_headers_complete(self) -> None:
        """The head is whole. What fields follow are trailers of the body, which mean nothing here (RFC 9110, 6.5.1)."""
        self._pending = 0
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._pending = 0
        super().on_message_complete()
