"""How the gateway itself is: what its metrics and its readiness tell beside those of the exchanges."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from aibridge.bridge.bridge import RequestBridge
from aibridge.observe.metrics import Metrics
from aibridge.recording.ledger import Ledger

if TYPE_CHECKING:
    from aibridge.mcp.servers import ToolServers
    from aibridge.server.forwarding import Forwarder

EVERY = 1.0
"""Seconds between two looks: as old may be what a scrape of one worker tells of the others."""


PATIENCE = 5.0
"""Seconds in which an MCP server may say whether it is there before the gateway calls itself ready without it."""


class Vitals:
    """Looks after the journal, the keys of providers and the MCP servers of one process."""

    def __init__(
        self,
        ledger: Ledger,
        bridge: RequestBridge,
        tool_servers: ToolServers | None,
        metrics: Metrics,
        forwarder: Forwarder | None = None,
    ) -> None:
        self._ledger, self._bridge, self._tool_servers, self._metrics = ledger, bridge, tool_servers, metrics
        self._forwarder = forwarder
        self._unrecorded = 0
        self._began = monotonic()

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """Bring the metrics up to date."""
        self._metrics.recording_lag.set(self._ledger.lag)
        self._metrics.unrecorded.inc(self._ledger.unrecorded - self._unrecorded)
        self._unrecorded = self._ledger.unrecorded
        self._bridge.look()
        for state in self._tool_servers.states if self._tool_servers else ():
            self._metrics.mcp_connected.labels(state.name).set(state.connected)
        self._metrics.settle()

    def problems(self) -> list[str]:
        """What keeps exchanges from being carried, or from being carried as they should."""
        found = [] if self._ledger.can_record else [self._ledger.problem or "records can not be kept"]
        states = self._tool_servers.states if self._tool_servers else ()
        unknown = [state.name for state in states if not (state.connected or state.error)]
        if unknown and monotonic() - self._began < PATIENCE:
            found.append(f"MCP servers are being connected: {', '.join(unknown)}")
        return found

    def warnings(self) -> list[str]:
        """What is wrong though exchanges can be carried."""
        found = [self._ledger.problem] if self._ledger.problem else []
        found += self._bridge.warnings()
        if self._forwarder and self._forwarder.problem:
            found.append(f"the audit trail is not sent on: {self._forwarder.problem}")
        states = self._tool_servers.states if self._tool_servers else ()
        return found + [
            f"MCP server {state.name} is not connected: {state.error or 'not yet'}"
            for state in states
            if not state.connected
        ]
