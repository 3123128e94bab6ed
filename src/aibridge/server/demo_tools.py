"""The MCP server of the demo, as a program of its own: one tool, over standard input and output."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("demo", log_level="CRITICAL")


@server.tool()
def high_water(harbour: str) -> str:
    """Tell when the tide is high in a harbour today."""
    return f"At {harbour}, at 10:42 and 23:07."


if __name__ == "__main__":
    server.run()
