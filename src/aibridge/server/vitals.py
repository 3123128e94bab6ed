"""How the gateway itself is: what its metrics tell beside those of the exchanges."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from aibridge.recording.ledger import Ledger

if TYPE_CHECKING:
    from aibridge.mcp.servers import ToolServers

EVERY = 2.0
"""Seconds between two looks, so that a scrape of one worker tells of the others as well."""


class Vitals:
    """Looks after the journal and the MCP servers of one process, and keeps their metrics."""

    def __init__(
        self, ledger: Ledger, tool_servers: ToolServers | None, registry: CollectorRegistry, namespace: str
    ) -> None:
        self._ledger, self._tool_servers = ledger, tool_servers
        self._lag = Gauge(
            "recording_lag_bytes",
            "Journal entries that are not in the store yet, in bytes.",
            registry=registry,
            namespace=namespace,
            multiprocess_mode="livesum",
        )
        self._unsafe = Counter(
            "recording_unsafe_interceptions",
            "Interceptions that went on though the journal could not be written.",
            registry=registry,
            namespace=namespace,
        )
        self._connected = Gauge(
            "mcp_server_connected",
            "Whether an MCP server can be called (1) or not (0); among several workers, whether by each of them.",
            ("server",),
            registry=registry,
            namespace=namespace,
            multiprocess_mode="livemin",
        )
        self._told = 0

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """Bring the metrics up to date."""
        self._lag.set(self._ledger.lag)
        self._unsafe.inc(self._ledger.unrecorded - self._told)
        self._told = self._ledger.unrecorded
        for state in self._tool_servers.states if self._tool_servers else ():
            self._connected.labels(state.name).set(state.connected)

    def warnings(self) -> list[str]:
        """What is wrong though exchanges can be carried."""
        found = [self._ledger.problem] if self._ledger.problem else []
        states = self._tool_servers.states if self._tool_servers else ()
        return found + [
            f"MCP server {state.name} is not connected: {state.error or 'not yet'}"
            for state in states
            if not state.connected
        ]
