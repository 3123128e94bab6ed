"""A real MCP server over streamable HTTP, made with the official SDK, whose tools do nothing or wait a known time.

After each call it writes a line `spent <ns>` to its log: from the arrival of the call's HTTP request to the sending of
its result, the SDK's own work included. Who measures a gateway can so leave out what was the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NAME = "bench"
"""What the server is called in the gateway's settings."""

_SCHEMA = {
    "type": "object",
    "properties": {
        "owner": {"type": "string", "description": "Account that the repository belongs to, as in its address."},
        "repository": {"type": "string", "description": "Name of the repository, without its owner."},
        "state": {"type": "string", "enum": ["open", "closed", "all"], "description": "Which ones are listed."},
        "page": {"$ref": "#/$defs/page"},
        "milliseconds": {"type": "integer", "minimum": 0, "description": "How long the tool takes."},
    },
    "$defs": {"page": {"type": "integer", "minimum": 1, "description": "Page of the results, 100 on each."}},
    "required": ["owner"],
}
_DESCRIPTION = "Lists what a repository has, newest first, with who made it and when it was changed last. " * 3


def tool_name(number: int) -> str:
    """The name of a tool as the server knows it."""
    return f"list_things_{number:03d}"


async def call(_context: Any, params: Any) -> CallToolResult:
    """Run a tool: wait as long as the arguments say."""
    if wait := params.arguments.get("milliseconds"):
        await asyncio.sleep(wait / 1000)
    return CallToolResult(content=[TextContent(type="text", text="There are 3: one, two and three.")])


class Timed:
    """The server as an ASGI application that times its calls, and answers `GET /readyz` by itself."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        if scope.get("path") == "/readyz":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        began = time.monotonic_ns()
        is_call = False

        async def receiving() -> dict[str, Any]:
            nonlocal is_call
            message = await receive()
            is_call = is_call or b'"tools/call"' in message.get("body", b"")
            return message

        async def sending(message: dict[str, Any]) -> None:
            await send(message)
            if is_call and b'"result"' in message.get("body", b""):
                print(f"spent {time.monotonic_ns() - began}", flush=True)

        await self._app(scope, receiving, sending)


def serve(port: int, tools: int) -> None:
    """Serve so many tools on 127.0.0.1 until told to stop."""
    listed = [Tool(name=tool_name(n), description=_DESCRIPTION, input_schema=_SCHEMA) for n in range(tools)]

    async def list_tools(_context: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    server = Server(NAME, on_list_tools=list_tools, on_call_tool=call)
    app = Timed(server.streamable_http_app())
    uvicorn.run(app, port=port, log_level="error", access_log=False, timeout_graceful_shutdown=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The MCP server of the benchmark.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tools", type=int, required=True)
    arguments = parser.parse_args()
    serve(arguments.port, arguments.tools)
