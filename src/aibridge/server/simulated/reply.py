"""Sending an answer, with what goes wrong in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from aibridge.server.simulated.exchange import Dialect, Exchange, Ids
    from aibridge.server.simulated.script import Step

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Reply:
    """Sends one answer."""

    def __init__(self, receive: Receive, send: Send, new_id: Ids, pause: float) -> None:
        self.new_id = new_id
        self._receive = receive
        self._send = send
        self._pause = pause
        self._request_id = new_id("req_")

    async def document(self, document: dict[str, Any], status: int = 200, step: Step | None = None) -> None:
        """Send a JSON document."""
        content = msgspec.json.encode(document)
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        if status == 429:
            headers["retry-after"] = "1"
        await self._start(status, headers)
        half = len(content) // 2 if step else 0
        await self._body(content[:half])
        if step and not await self._goes_on(step):
            return
        await self._body(content[half:], more=False)

    async def error(self, dialect: Dialect, status: int, message: str) -> None:
        """Send an error in the dialect's own shape."""
        await self.document(dialect.error(status, message, self._request_id), status)

    async def stream(self, dialect: Dialect, exchange: Exchange) -> None:
        """Send server-sent events, with what goes wrong in the middle of them."""
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
        step = exchange.answer.step
        events = dialect.events(exchange)
        half = len(events) // 2
        for event in events[:half]:
            await self._body(event)
            await asyncio.sleep(self._pause)
        if not await self._goes_on(step):
            return
        if step.error:
            await self._body(dialect.failure(exchange, half), more=False)
            return
        for event in events[half:]:
            await self._body(event)
            await asyncio.sleep(self._pause)
        await self._body(b"", more=False)

    async def _goes_on(self, step: Step) -> bool:
        """Stall, if the prompt asks for it; False where the answer ends here, so that the connection is cut."""
        if step.stall:
            try:
                await asyncio.wait_for(self._receive(), step.stall)
            except TimeoutError:
                pass
            else:
                return False  # the client has left
        return not step.cut

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        headers = {
            **headers,
            "request-id": self._request_id,
            "x-request-id": self._request_id,
            "anthropic-ratelimit-requests-remaining": "3999",
            "x-ratelimit-remaining-requests": "3999",
            "openai-processing-ms": "7",
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _body(self, content: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})
