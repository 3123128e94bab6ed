"""MCP servers: their tools, and calling one."""
