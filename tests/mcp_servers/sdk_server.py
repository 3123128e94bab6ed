"""A server written with the Python SDK, over any transport: `sdk_server.py stdio`, or `sdk_server.py http PORT`.

Over HTTP the path `/mcp` is streamable HTTP, and `/sse` the older transport.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server.mcpserver import Audio, Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from starlette.applications import Starlette

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

server = MCPServer("sdk", log_level="CRITICAL")


class Unit(Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@server.tool()
def echo(text: str) -> str:
    """Say the same again."""
    return text


@server.tool(structured_output=False)
def weather(city: str, unit: Unit = Unit.CELSIUS) -> str:
    return f"{city}: 20 {unit.value}"


@server.tool()
async def hang() -> str:
    await asyncio.sleep(3600)
    return "never"


@server.tool()
async def die() -> str:
    os._exit(1)


@server.tool()
def fail() -> str:
    raise ToolError("no such city")


@server.tool()
def large(size: int) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text="x" * size)])


@server.tool()
def variety() -> CallToolResult:
    """One of each kind of content."""
    content: list[Any] = [
        TextContent(type="text", text="words"),
        Image(data=b"pixels", format="png").to_image_content(),
        Audio(data=b"sounds", format="wav").to_audio_content(),
        EmbeddedResource(
            type="resource", resource=TextResourceContents(uri="file:///a.txt", mime_type="text/plain", text="a")
        ),
        EmbeddedResource(type="resource", resource=BlobResourceContents(uri="file:///b.bin", blob="AAAA")),
        ResourceLink(type="resource_link", name="c", uri="file:///c.txt", mime_type="text/plain"),
    ]
    return CallToolResult(content=content)


@server.tool()
def structured() -> CallToolResult:
    return CallToolResult(content=[], structured_content={"degrees": 20, "unit": "celsius"})


@server.tool()
async def grow(context: Context) -> str:
    """Add a tool, and say so to whoever listens."""
    server.add_tool(echo, name="newcomer")
    await context.notify_tools_changed()
    await context.session.send_tool_list_changed()
    return "grown"


def both() -> Starlette:
    """One application with the routes of both HTTP transports."""
    apps = [server.streamable_http_app(), server.sse_app()]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in apps:
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    return Starlette(routes=[route for app in apps for route in app.routes], lifespan=lifespan)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        uvicorn.run(both(), host="127.0.0.1", port=int(sys.argv[2]), log_level="error", timeout_graceful_shutdown=1)
