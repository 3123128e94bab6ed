"""What a server sends, with an eye on what passes."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from types import TracebackType

import anyio
from mcp.client._transport import ReadStream
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse

from aibridge.mcp.listing import mend_listing


class Tapped:
    """What the server of that name sends. Lists of tools are mended, and `on_end` is called when no more can come."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], server: str, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._server = server
        self._on_end = on_end

    @property
    def last_context(self) -> Context | None:
        """Where the last message was sent from, for transports that know."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        try:
            item = await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._on_end()
            raise
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCResponse):
            mend_listing(item.message.result, self._server)
        return item

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    def __aiter__(self) -> Tapped:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Tapped:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)
