"""Removing from PostgreSQL what has had its time: whole weeks at once, and no row by itself.

A week whose figures have had their time is dropped. One whose contents have: its prompts and thoughts are truncated,
and its tool calls are copied without their texts into a table that then takes their place. So nothing is left behind
for VACUUM, and the tables that others work with are locked for moments only. Row by row goes what is little: the texts
of errors, and what is in no week.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from aibridge.recording.postgres.connection import Connection, connect_settings, faults_told
from aibridge.recording.postgres.removing import BATCH, AtOnce, InBatches, steps_of
from aibridge.recording.retention import Limits, Of, Removal

PRUNING = 0x6169_6272_0003
"""The advisory lock of whoever prunes."""

_STATEMENT_TIMEOUT = 3600.0
"""For copying a week, in seconds."""
_LOOK_AGAIN = 24 * 3600.0
"""Seconds after which weeks are looked through again that had no contents: some may have arrived late."""


class PostgresPruner:
    """Prunes one database, on connections of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._empty: set[str] = set()
        """Weeks' tables that have been looked through and have no contents."""
        self._forget_at = 0.0

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Hold an advisory lock, which the server gives back when the connection ends."""
        async with self._connected() as connection:
            with faults_told(self._url):
                alone = bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", PRUNING))
            yield alone

    async def expired(self, limits: Limits) -> list[Removal]:
        """What `prune` would remove now."""
        sums: dict[tuple[str, Of], tuple[int, int]] = {}
        async with self._connected() as connection:
            with faults_told(self._url):
                for part in [part for step in await steps_of(connection, limits) for part in step.parts]:
                    rows, size = _figures(await connection.fetchrow(part.query, *part.values))
                    before = sums.get((part.table, part.of), (0, 0))
                    sums[part.table, part.of] = (before[0] + rows, before[1] + size)
        return [_removal(table, of, rows, size) for (table, of), (rows, size) in sums.items() if rows]

    async def prune(self, limits: Limits) -> AsyncIterator[Removal]:
        """Remove it: a week, or a batch of rows, in each step."""
        if time.monotonic() >= self._forget_at:
            self._empty.clear()
            self._forget_at = time.monotonic() + _LOOK_AGAIN
        async with self._connected() as connection:
            with faults_told(self._url):
                steps = await steps_of(connection, limits)
            for step in steps:
                if step.partition in self._empty:
                    continue
                more = True
                while more:
                    with faults_told(self._url):
                        removals, more = await _take(connection, step)
                    for removal in removals:
                        yield removal
                if step.partition:
                    self._empty.add(step.partition)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        with faults_told(self._url):
            connection = await asyncpg.connect(self._url, **connect_settings(statement_timeout=_STATEMENT_TIMEOUT))
        try:
            yield connection
            await connection.close(timeout=5.0)
        finally:
            connection.terminate()


async def _take(connection: Connection, step: AtOnce | InBatches) -> tuple[list[Removal], bool]:
    """Take a step: what it removed, and whether there may be more."""
    if isinstance(step, InBatches):
        (part,) = step.parts
        rows, size = _figures(await connection.fetchrow(step.statement, *part.values))
        return [_removal(part.table, part.of, rows, size)] if rows else [], rows == BATCH
    removals = []
    for part in step.parts:
        rows, size = _figures(await connection.fetchrow(part.query, *part.values))
        if rows:
            removals.append(_removal(part.table, part.of, rows, size))
    if removals or step.even_if_empty:
        await step.act(connection)
    return removals, False


def _figures(row: asyncpg.Record | None) -> tuple[int, int]:
    assert row is not None
    return int(row[0]), int(row[1])


def _removal(table: str, of: Of, rows: int, size: int) -> Removal:
    return Removal(table=table.removeprefix("aibridge_"), of=of, rows=rows, bytes=size)
