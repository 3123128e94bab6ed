"""The spans of connecting to MCP servers. docs/tracing.md lists them."""

from __future__ import annotations

from collections.abc import Iterable

from aibridge.mcp.config import ServerConfig
from aibridge.tracer import Span, Tracer

_NAMES = {"streamable-http": "StreamableHTTPServerProxy", "sse": "SSEServerProxy", "stdio": "StdioServerProxy"}


class Starting:
    """Connecting to all servers for the first time: one span, which is over when each has been tried once."""

    def __init__(self, tracer: Tracer, servers: Iterable[str]) -> None:
        self._tracer = tracer
        self._left = set(servers)
        self._span = tracer.start("ServerProxyManager.Init")

    def attempt(self, config: ServerConfig) -> Attempt:
        """An attempt to connect to a server begins; those after its first one are parts of nothing."""
        name = _NAMES["stdio" if config.command else config.transport]
        told = {"mcp_server_name": config.name, "mcp_server_url": config.location}
        first = config.name in self._left
        span = self._span.child(f"{name}.Init", told) if first else self._tracer.start(f"{name}.Init", told)
        return Attempt(self, config.name, name, span)

    def tried(self, server: str) -> None:
        """How it is with a server is known."""
        self._left.discard(server)
        if not self._left:
            self._span.end()


class Attempt:
    """One attempt to connect to a server, and to list its tools."""

    def __init__(self, starting: Starting, server: str, name: str, span: Span) -> None:
        self._starting, self._server, self._name, self._span = starting, server, name, span
        self._fetching: Span | None = None

    def fetching(self) -> None:
        """There is a session; its tools are about to be listed."""
        told = {"mcp_server_name": self._server, "mcp.method.name": "tools/list"}
        self._fetching = self._span.child(f"{self._name}.Init.fetchTools", told, side="client")

    def connected(self, tools: int) -> None:
        """It has so many tools."""
        if self._fetching:
            self._fetching.set({"mcp_tool_count": tools})
        self._end(None)

    def ended(self, error: str) -> None:
        """It has failed, unless it had connected before."""
        self._end(error)

    def _end(self, error: str | None) -> None:
        for span in (self._fetching, self._span):
            if span:
                span.end("connection_error" if error else None, error)
        self._starting.tried(self._server)
