"""Removing, in the background, what has had its time."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from time import perf_counter

from aibridge.errors import RecordingError
from aibridge.recording.retention import Pruner, limits
from aibridge.server.settings import Retention as RetentionSettings

_log = logging.getLogger("aibridge.server")

EVERY = 600.0
"""Seconds between two looks for what has had its time."""
_SHORTEST_REST = 0.05
"""Seconds between two steps of the pruner, at least."""
_REST = 9
"""How many times as long as a step took is rested after it, at least."""


class Retention:
    """Has a pruner do its work at a quiet pace. Of several gateways with one store, one at a time does it."""

    def __init__(self, pruner: Pruner, settings: RetentionSettings) -> None:
        self._pruner, self._settings = pruner, settings

    async def run(self) -> None:
        """Prune now and then until cancelled. What goes wrong is told in the log, and tried again the next time."""
        while True:
            try:
                await self.prune()
            except RecordingError as error:
                _log.warning("what has had its time stays for now: %s", error)
            except Exception:  # noqa: BLE001  # retention must not end with one fault
                _log.exception("what has had its time stays for now")
            await asyncio.sleep(EVERY)

    async def prune(self) -> None:
        """Remove what has had its time by now, unless somebody else is about it."""
        rows = size = 0
        async with self._pruner.alone() as alone:
            if not alone:
                return
            began = perf_counter()
            settings = self._settings
            async for removal in self._pruner.prune(limits(datetime.now(UTC), settings.contents, settings.figures)):
                rows += removal.rows
                size += removal.bytes
                await asyncio.sleep(max(_SHORTEST_REST, _REST * (perf_counter() - began)))
                began = perf_counter()
        if rows:
            _log.info("retention: %d rows had their time, with about %d bytes", rows, size)
