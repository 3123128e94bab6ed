"""An MCP server of protocol version 2025-06-18 over streamable HTTP, written by hand so that it can misbehave."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

Tool = Callable[[dict[str, Any], web.Request], Awaitable[Any]]
"""Gives a result, or a response that is sent as it is."""


def text(told: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": told}]}


async def echo(arguments: dict[str, Any], _: web.Request) -> Any:
    return text(json.dumps(arguments))


class LegacyServer:
    """Serves `tools`, each with what a list of tools says of it; a test changes them as it likes."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {"echo": echo}
        self.descriptions: dict[str, Any] = {}
        self.page_size = 100
        self.answers_as_stream = False
        self.refuse: Callable[[web.Request], web.Response | None] = lambda _: None
        self.get: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        """Answers a GET; where it does not, it gets the stream of what the server says unasked."""
        self.tls: ssl.SSLContext | None = None
        self.sessions: set[str] = set()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.running = 0
        """How many calls are being served."""
        self.cancelled = 0
        self.listings = 0
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._listeners: dict[str, asyncio.Queue[str]] = {}
        self._sessions_ever = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        """Listen; after a stop, at the same port and with no session known."""
        app = web.Application(client_max_size=8 << 20)
        app.add_routes(
            [web.post("/mcp", self._post), web.get("/mcp", self._get), web.delete("/mcp", self._delete)],
        )
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection, those in the middle of a call too."""
        self.sessions.clear()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def announce_change(self) -> None:
        """Tell every session that the tools are others."""
        for listener in self._listeners.values():
            listener.put_nowait("notifications/tools/list_changed")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if self.get and (answer := await self.get(request)):
            return answer
        session = request.headers.get("mcp-session-id", "")
        if session not in self.sessions:
            return web.Response(status=404)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        listener = self._listeners[session] = asyncio.Queue()
        try:
            while True:
                message = json.dumps({"jsonrpc": "2.0", "method": await listener.get()})
                await response.write(f"event: message\ndata: {message}\n\n".encode())
        finally:
            del self._listeners[session]

    async def _delete(self, request: web.Request) -> web.Response:
        self.sessions.discard(request.headers.get("mcp-session-id", ""))
        return web.Response(status=200)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        await self.thawed.wait()
        if refusal := self.refuse(request):
            return refusal
        message = await request.json()
        if message["method"] == "notifications/cancelled":
            self.cancelled += 1
        if "id" not in message:
            return web.Response(status=202)
        if message["method"] == "initialize":
            self._sessions_ever += 1
            session = f"session-{self._sessions_ever}"
            self.sessions.add(session)
            return _json(message, result=self._about(), headers={"mcp-session-id": session})
        if message["method"] == "server/discover":
            return _json(message, error={"code": -32601, "message": "Method not found"})
        if request.headers.get("mcp-session-id") not in self.sessions:
            return web.Response(status=404)
        if message["method"] == "tools/list":
            return _json(message, result=self._list(message.get("params") or {}))
        return await self._call(message, request)

    def _about(self) -> dict[str, Any]:
        return {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "legacy", "version": "1"},
        }

    def _list(self, params: dict[str, Any]) -> dict[str, Any]:
        self.listings += 1
        begin = int(params.get("cursor") or 0)
        end = begin + self.page_size
        listed = [
            {"name": name, "inputSchema": {"type": "object"}, **self.descriptions.get(name, {})} for name in self.tools
        ]
        more = {"nextCursor": str(end)} if end < len(listed) else {}
        return {"tools": [{k: v for k, v in tool.items() if v is not None} for tool in listed[begin:end]], **more}

    async def _call(self, message: dict[str, Any], request: web.Request) -> web.StreamResponse:
        tool = self.tools.get(message["params"]["name"])
        if tool is None:
            return _json(message, error={"code": -32602, "message": "Unknown tool"})
        self.running += 1
        try:
            if self.answers_as_stream:
                return await self._stream(message, request, tool)
            result = await tool(message["params"].get("arguments") or {}, request)
            return result if isinstance(result, web.StreamResponse) else _json(message, result=result)
        finally:
            self.running -= 1

    async def _stream(self, message: dict[str, Any], request: web.Request, tool: Tool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        with suppress(ConnectionResetError):  # the caller may be gone already
            await response.prepare(request)
            await response.write(b"id: 1\nretry: 50\ndata:\n\n")
            result = await tool(message["params"].get("arguments") or {}, request)
            answer = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
            await response.write(f"event: message\ndata: {answer}\n\n".encode())
        return response


def _json(message: dict[str, Any], headers: dict[str, str] | None = None, **members: Any) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], **members}, headers=headers)


@asynccontextmanager
async def running() -> AsyncIterator[LegacyServer]:
    """The server, listening at a free port."""
    server = LegacyServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
