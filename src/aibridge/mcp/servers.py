"""The MCP servers of a gateway, together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from aibridge.actor import Actor
from aibridge.http_client.connecting import Connecting
from aibridge.mcp.arguments import ArgumentsError, read_arguments
from aibridge.mcp.config import ServerConfig, Timing
from aibridge.mcp.names import offered_names
from aibridge.mcp.policy import Gatekeeper, Policy
from aibridge.mcp.results import tool_result
from aibridge.mcp.selection import Selection
from aibridge.mcp.spans import Starting
from aibridge.mcp.toolbox import Catalogue, InjectedTool, Outcome
from aibridge.tracer import NO_TRACER, Tracer
from aibridge.wire.tools import OfferedTool, TextPart, ToolResult, failure

if TYPE_CHECKING:
    from aibridge.mcp.connection import Connection

_log = logging.getLogger("aibridge.mcp")

_LONGEST_ERROR = 500
"""Characters of what a tool says of its error that are kept as the outcome's."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """How it is with one server."""

    name: str
    connected: bool
    error: str | None
    """Why it is not, where that is known; nothing secret."""
    tools: int
    """How many tools it has that are offered."""


class ToolServers:
    """A `Toolbox` of MCP servers. Raises `ValueError` where two have one name.

    `call_timeout` is in seconds. `max_result_size` is in bytes, and so much of a result goes to the model; an answer
    that is many times larger is not even read.
    """

    def __init__(
        self,
        configs: Sequence[ServerConfig],
        *,
        call_timeout: float = 60.0,
        max_result_size: int = 2**20,
        policy: Policy = "allow",
        connecting: Connecting | None = None,
        timing: Timing | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        if len({config.name for config in configs}) < len(configs):
            raise ValueError("each MCP server needs a name of its own")
        self._call_timeout = call_timeout
        self._max_result_size = max_result_size
        self._gatekeeper = Gatekeeper(policy)
        self._configs = {config.name: config for config in configs}
        self._selections = {each.name: Selection(each.name, each.tool_allow, each.tool_deny) for each in configs}
        self._connections: dict[str, Connection] = {}
        self._catalogue = Catalogue()
        if configs:
            # The package behind it takes more than a second to import; who has no servers need not wait for that.
            from aibridge.mcp.connection import Connection

            starting = Starting(tracer, self._configs)
            self._connections = {
                config.name: Connection(
                    config,
                    self._assemble,
                    starting,
                    connecting=connecting or Connecting(),
                    timing=timing or Timing(),
                    max_answer_size=8 * max(max_result_size, 2**20),
                )
                for config in configs
            }

    async def start(self) -> None:
        """Begin to connect to all servers, side by side; returns at once."""
        for connection in self._connections.values():
            connection.start()

    async def aclose(self) -> None:
        """Leave all servers, and stop those that were started."""
        await asyncio.gather(*(connection.aclose() for connection in self._connections.values()))
        self._gatekeeper.close()

    @property
    def states(self) -> tuple[ServerState, ...]:
        """How it is with each server, in the order in which they are configured."""
        offered = [tool.server for tool in self._catalogue.tools.values()]
        return tuple(
            ServerState(name, connection.connected, connection.error, offered.count(name))
            for name, connection in self._connections.items()
        )

    def catalogue(self) -> Catalogue:
        """The tools that can be called now; the same object as long as they are the same."""
        return self._catalogue

    async def call(self, tool: InjectedTool, arguments: str, actor: Actor) -> Outcome:
        """Call a tool with arguments as the model sent them; see `Toolbox.call`."""
        began = perf_counter()
        result, error = await self._call(tool, arguments, actor)
        return Outcome(result, error, perf_counter() - began)

    async def _call(self, tool: InjectedTool, arguments: str, actor: Actor) -> tuple[ToolResult, str | None]:
        try:
            given = read_arguments(arguments)
        except ArgumentsError as fault:
            return _failed(f"{fault}; the tool was not called")
        if refusal := await self._gatekeeper.refusal(actor, tool, given):
            return _failed(refusal)
        connection = self._connections.get(tool.server)
        if connection is None:
            return _failed(f"there is no MCP server {tool.server}")
        try:
            async with asyncio.timeout(self._call_timeout):
                answer = await connection.call(tool.name, given)
        except TimeoutError:
            connection.look_again()
            _log_fault(tool, "TimeoutError")
            return _failed(f"the tool did not answer within {self._call_timeout:g} s")
        except Exception as fault:  # noqa: BLE001  # the model is told, and the exchange goes on
            _log_fault(tool, type(fault).__name__)
            return _failed(f"the tool could not be called: {str(fault)[:_LONGEST_ERROR] or type(fault).__name__}")
        result = tool_result(answer, self._max_result_size)
        return result, _said(result) if result.is_error else None

    def _assemble(self) -> None:
        """Build the catalogue anew, after a server's tools have changed."""
        listed = {
            (server, tool.name): tool
            for server, connection in self._connections.items()
            for tool in connection.tools
            if tool.name in self._selections[server]
        }
        names = offered_names(listed)
        catalogue = Catalogue(
            InjectedTool(
                server,
                self._configs[server].location,
                name,
                OfferedTool(names[server, name], tool.description, tool.input_schema),
            )
            for (server, name), tool in listed.items()
        )
        if catalogue.tools != self._catalogue.tools:
            self._catalogue = catalogue


def _failed(error: str) -> tuple[ToolResult, str]:
    return failure(error), error


def _said(result: ToolResult) -> str:
    """What a tool says of its error."""
    texts = [part.text for part in result.parts if isinstance(part, TextPart)]
    return (texts[0] if texts else "")[:_LONGEST_ERROR] or "the tool reported an error"


def _log_fault(tool: InjectedTool, fault: str) -> None:
    _log.warning("MCP server %s: a call of the tool %s failed: %s", tool.server, tool.name, fault)
