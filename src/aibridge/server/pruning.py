"""Removing at once, for an operator who waits for it, what has had its time."""

from __future__ import annotations

import asyncio

from aibridge.recording.retention import Limits, Of, Removal, pruner_for

_REST = 0.005
"""Seconds between two steps, in which others may write."""


def pruned(url: str, limits: Limits, *, dry_run: bool) -> list[Removal]:
    """What was removed from the store of a URL, or would be, one for each table. Raises `RecordingError`."""
    return asyncio.run(_pruned(url, limits, dry_run=dry_run))


async def _pruned(url: str, limits: Limits, *, dry_run: bool) -> list[Removal]:
    pruner = pruner_for(url)
    if dry_run:
        return await pruner.expired(limits)
    sums: dict[tuple[str, Of], Removal] = {}
    async for each in pruner.prune(limits):
        before = sums.get((each.table, each.of))
        sums[each.table, each.of] = Removal(
            table=each.table,
            of=each.of,
            rows=each.rows + (before.rows if before else 0),
            bytes=each.bytes + (before.bytes if before else 0),
        )
        await asyncio.sleep(_REST)
    return list(sums.values())
