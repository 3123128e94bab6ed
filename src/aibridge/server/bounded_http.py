"""HTTP/1.1 as uvicorn speaks it, with a bound on what a client can send that is neither a head nor a body."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_PENDING = 64 << 10
"""Bytes of a head, or of what stands between the chunks of a body, that are waited for to become whole."""


class BoundedHTTP(HttpToolsProtocol):
    """Closes a connection whose head has no end: nobody is known yet who could answer for the memory that it takes.

    The parser keeps a head until it is whole, however long it is. The bodies of requests are bounded by the bridge.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = 0
        self._in_head = False

    def data_received(self, data: bytes) -> None:
        """Read what came, and count what nothing came of."""
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MOST_PENDING and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is longer than {MOST_PENDING} bytes.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer of a body, which means nothing here (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._pending, self._in_head = 0, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._pending = 0
        super().on_message_complete()
