"""What the bridge needs of MCP servers: which tools there are now, and calling one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aibridge.actor import Actor
from aibridge.wire.tools import OfferedTool, OfferedTools, ToolResult

PREFIX = "bmcp_"
"""What the name of every injected tool begins with."""


@dataclass(frozen=True, slots=True)
class InjectedTool:
    """A tool of an MCP server, and how it is offered."""

    server: str
    """The server's name in the settings."""
    server_url: str
    """Where the server is; of one that is started by a command, `stdio:<command>` without its arguments."""
    name: str
    """The bare name, as the server knows it."""
    offered: OfferedTool


class Catalogue:
    """The tools that can be injected at one moment, sorted by the name under which they are offered. Immutable."""

    def __init__(self, tools: Iterable[InjectedTool] = ()) -> None:
        self.tools: Mapping[str, InjectedTool] = {
            tool.offered.name: tool for tool in sorted(tools, key=lambda tool: tool.offered.name)
        }
        self.offers = OfferedTools(tool.offered for tool in self.tools.values())
        """What the model is shown, in order."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went; `error` is None where it went well, and `duration` is in seconds."""

    result: ToolResult
    error: str | None
    duration: float


class Toolbox(Protocol):
    """The MCP servers of a gateway, together."""

    def catalogue(self) -> Catalogue:
        """The tools that can be called now; the same object as long as they are the same."""

    async def call(self, tool: InjectedTool, arguments: str, actor: Actor) -> Outcome:
        """Call a tool with arguments as the model sent them (JSON text, perhaps broken).

        Never raises but for a cancellation: what goes wrong is an outcome, with a result that tells the model.
        """
