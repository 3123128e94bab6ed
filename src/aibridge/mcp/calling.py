"""Calls that take the short way: their answer is waited for where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import anyio
from mcp import MCPError
from mcp.shared.dispatcher import CallOptions
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp.types import JSONRPCError, RequestId

from aibridge.mcp.streamable import Posts
from aibridge.mcp.tapped import Tapped

_FAREWELL_LIMIT = 5.0
"""Seconds that it may take to tell a server that a call is cancelled."""


class Calling(JSONRPCDispatcher[TransportContext]):
    """What a session over streamable HTTP sends its requests by.

    The package's own way leads each answer through the task that reads all that a server says, and through two streams.
    Over HTTP a call is answered where it was sent, so most of that way can be saved.
    """

    def __init__(self, incoming: Tapped, outgoing: Posts) -> None:
        super().__init__(incoming, outgoing)
        self._posts = outgoing
        self._ids = count(1)

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: RequestId | None = None,
    ) -> dict[str, Any]:
        """Send a request, and wait for its result; see `Dispatcher.send_raw_request`."""
        options = CallOptions(request_id=next(self._ids)) | (opts or {})
        if method != "tools/call":
            return await super().send_raw_request(method, params, options, _related_request_id=_related_request_id)
        request = options["request_id"]
        try:
            answer = await self._posts.ask(request, method, params, options.get("headers", {}))
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(_FAREWELL_LIMIT, shield=True):
                await self.notify("notifications/cancelled", {"requestId": request, "reason": "the caller has left"})
            raise
        if isinstance(answer, JSONRPCError):
            error = answer.error
            raise MCPError(error.code, error.message, error.data)
        return answer.result
