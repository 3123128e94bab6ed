"""The way of a session's messages to a server with a URL, and of what it answers into the session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from mcp import MCPError
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, PARSE_ERROR, JSONRPCError, JSONRPCMessage, JSONRPCResponse, RequestId

from aibridge.mcp.events import Events
from aibridge.mcp.messages import TOO_LARGE, read_message, too_large
from aibridge.wire.sse import EventTooLarge

Response = JSONRPCResponse | JSONRPCError
"""What a request is answered with."""

Session = MemoryObjectSendStream[SessionMessage | Exception]
"""Takes what the server says."""

REFUSED = -32902
"""The code of the error that stands for an answer that only has a status."""

MOST_WAITING = 16
"""Messages that may wait for the session; a server that says more has to wait for it too."""

NO_MESSAGE = "the answer is no message of the protocol"


class Outgoing(ABC):
    """A stream of messages as `mcp.Client` wants it.

    A request is sent, and its answer waited for, in the task that sends it: once that is cancelled no connection is
    open any more, and a fault is that of one request alone.
    """

    def __init__(self, session: Session, limit: int) -> None:
        self._session = session
        self._limit = limit

    @abstractmethod
    async def send(self, item: SessionMessage) -> None:
        """Send a message.

        Raises `MCPError` where the answer is none, and what `SessionClient.exchange` raises.
        """

    async def aclose(self) -> None:  # noqa: B027  # a stream has it
        """Nothing is left to do."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _pass_on(self, message: JSONRPCMessage) -> None:
        """Give a message to the session, unless that is over."""
        try:
            self._session.send_nowait(SessionMessage(message))
        except anyio.WouldBlock:
            await self._session.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise MCPError(CONNECTION_CLOSED, "Connection closed") from None

    async def _hear(self, events: Events, request: RequestId | None = None) -> Response | None:
        """Give the session what stands in events, up to the answer to a request; that one, if it comes."""
        while event := await self._next(events):
            name, data = event
            if name != "message" or not data:
                continue
            try:
                message = read_message(data)
            except ValueError:
                if request is None:
                    continue  # nobody waits for it
                raise MCPError(PARSE_ERROR, NO_MESSAGE) from None
            if request is not None and isinstance(message, JSONRPCResponse | JSONRPCError):
                return message
            await self._pass_on(message)
        return None

    async def _next(self, events: Events) -> tuple[str, bytes] | None:
        try:
            return await events.next()
        except EventTooLarge:
            raise MCPError(TOO_LARGE, too_large(self._limit)) from None
