"""Reading what was recorded, exchange by exchange, in order of time and in pages of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeAlias

from aibridge.recording.contents import CONTENTS
from aibridge.recording.stores import is_postgresql, sqlite_path
from aibridge.records import InterceptionEnded, ModelThought, PromptUsage, TokenUsage, ToolUsage

PAGE = 500
"""Exchanges that are read at once."""

Exchange: TypeAlias = dict[str, Any]
"""The columns of an interception, its sums of tokens, and a list for each table of `FACTS`.

Times are aware, metadata are objects, and the provider's own usage is an object or None.
"""

FACTS: dict[str, type[Any]] = {
    "token_usages": TokenUsage,
    "user_prompts": PromptUsage,
    "tool_usages": ToolUsage,
    "model_thoughts": ModelThought,
}
"""The tables of what belongs to an interception, without `aibridge_` before their names, each with its record."""

SUMS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
"""The columns of token usages that are summed up for each exchange."""


class Position(NamedTuple):
    """How far one has read: the time and the id of the last interception."""

    started_at: datetime
    id: str


class History(Protocol):
    """What one store holds. Raises `RecordingError` where it can not be read."""

    def exchanges(self, since: Position, until: datetime) -> Iterator[list[Exchange]]:
        """The exchanges that began after a position and before a time, in their order; never an empty list."""


def from_time(time: datetime | None) -> Position:
    """The position before all that began at a time, or before everything."""
    return Position(time or datetime(1, 1, 1, tzinfo=UTC), "")


def without_contents(exchange: Exchange) -> Exchange:
    """The exchange with its contents emptied; that a tool failed stays to be seen."""
    emptied = exchange | {name: _empty(exchange[name]) for name in CONTENTS[InterceptionEnded]}
    for table, record in FACTS.items():
        names = CONTENTS.get(record, ())
        emptied[table] = [fact | {name: _empty(fact[name]) for name in names} for fact in exchange[table]]
    return emptied


def _empty(text: str | None) -> str | None:
    return None if text is None else ""


def put_together(interceptions: list[dict[str, Any]], facts: dict[str, Iterable[dict[str, Any]]]) -> list[Exchange]:
    """The exchanges of interceptions, with the rows of each table that belong to one of them."""
    own: dict[str, dict[str, list[dict[str, Any]]]] = {
        each["id"]: {table: [] for table in FACTS} for each in interceptions
    }
    for table, rows in facts.items():
        for row in rows:
            own[row.pop("interception_id")][table].append(row)
    return [{**each, **_sums(own[each["id"]]["token_usages"]), **own[each["id"]]} for each in interceptions]


def _sums(usages: list[dict[str, Any]]) -> dict[str, int]:
    return {"turns": len(usages), **{name: sum(usage[name] for usage in usages) for name in SUMS}}


def history_of(url: str) -> AbstractContextManager[History]:
    """What the store holds that a setting `storage.url` means."""
    if is_postgresql(url):
        from aibridge.recording.postgres.history import reading_postgresql

        return reading_postgresql(url)
    from aibridge.recording.sqlite_history import reading_sqlite

    return reading_sqlite(sqlite_path(url))
