"""How long records are kept: contents and figures each for a period of their own.

What is as old as its period goes: of contents, prompts and thoughts altogether, and of tool calls and ends the texts;
of figures, whole interceptions with all that belongs to them. How old a record is, is read from its id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from aibridge.recording.contents import Mark
from aibridge.recording.stores import is_postgresql, sqlite_path

EXPIRED: Mark = "expired"
"""What `metadata["contents"]` says of a record whose contents' time is over."""


class Limits(NamedTuple):
    """Contents and figures from before these times go, figures by whole days; None where they stay."""

    contents: datetime | None
    figures: datetime | None


def limits(now: datetime, contents: float, figures: float) -> Limits:
    """The limits at a time, from periods in seconds; 0 keeps for ever."""
    return Limits(
        now - timedelta(seconds=contents) if contents else None, now - timedelta(seconds=figures) if figures else None
    )


def by_days(limits: Limits) -> Limits:
    """The limits with that of figures at the beginning of its day, UTC: of a day, all figures are there, or none.

    So `aibridge.recording.rollups` can tell which sums can be made anew from the records, and which are what is left.
    """
    if limits.figures is None:
        return limits
    return limits._replace(figures=limits.figures.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0))


Of: TypeAlias = Literal["rows", "contents"]
"""What of a table is removed: whole rows, or the contents of rows that stay."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What is removed of one table."""

    table: str
    """Without `aibridge_` before its name."""
    of: Of
    rows: int
    bytes: int
    """About how much room that gives back, in bytes."""


class Pruner(Protocol):
    """Removes from one store what has had its time. Raises `RecordingError` where it can not."""

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """To be entered while pruning: whether no other gateway prunes the same store just now."""

    async def expired(self, limits: Limits) -> list[Removal]:
        """What `prune` would remove now; only what there is of it."""

    def prune(self, limits: Limits) -> AsyncIterator[Removal]:
        """Remove it step by step. Between two steps nothing is locked, so the caller sets the pace."""


def pruner_for(url: str) -> Pruner:
    """The pruner for the store that a setting `storage.url` means."""
    if is_postgresql(url):
        from aibridge.recording.postgres.retention import PostgresPruner

        return PostgresPruner(url)
    from aibridge.recording.sqlite_retention import SQLitePruner

    return SQLitePruner(sqlite_path(url))
