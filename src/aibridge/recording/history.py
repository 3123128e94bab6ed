"""Reading what was recorded, exchange by exchange, in order of time and in pages of bounded size."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from aibridge.errors import RecordingError
from aibridge.recording.contents import CONTENTS
from aibridge.recording.stores import sqlite_path
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


def summed_up(interception: dict[str, Any], facts: dict[str, list[dict[str, Any]]]) -> Exchange:
    """An exchange of an interception and the rows that belong to it."""
    usages = facts.get("token_usages", ())
    sums = {name: sum(usage[name] for usage in usages) for name in SUMS}
    return {**interception, "turns": len(usages), **sums, **{table: facts.get(table, []) for table in FACTS}}


@contextmanager
def history_of(url: str) -> Iterator[History]:
    """What the store holds that a setting `storage.url` means."""
    with _SQLiteHistory.opened(sqlite_path(url)) as history:
        yield history


class _SQLiteHistory:
    """Reads page by page, so that the write-ahead log of a running gateway can be cut between two of them."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[_SQLiteHistory]:
        if not path.is_file():
            raise RecordingError(f"there is no database {path}: say with --database or --config where it is")
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with _told(path), closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            yield cls(db, path)

    def exchanges(self, since: Position, until: datetime) -> Iterator[list[Exchange]]:
        while page := self._page(since, until):
            yield page
            since = Position(page[-1]["started_at"], page[-1]["id"])

    def _page(self, since: Position, until: datetime) -> list[Exchange]:
        with _told(self._path):
            self._db.execute("BEGIN")
            try:
                found = self._db.execute(
                    f"""
                    SELECT * FROM aibridge_interceptions
                    WHERE started_at >= :time AND (started_at > :time OR id > :id) AND started_at < :until
                    ORDER BY started_at, id LIMIT {PAGE}
                    """,  # noqa: S608 - all is a parameter that is not a constant
                    {"time": _text(since.started_at), "id": since.id, "until": _text(until)},
                )
                interceptions = [_read(row) for row in found]
                facts = self._facts([interception["id"] for interception in interceptions])
            finally:
                self._db.execute("ROLLBACK")
        return [summed_up(interception, facts[interception["id"]]) for interception in interceptions]

    def _facts(self, ids: list[str]) -> defaultdict[str, dict[str, list[dict[str, Any]]]]:
        facts: defaultdict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        wanted = (msgspec.json.encode(ids).decode(),)
        for table in FACTS:
            query = f"""
                SELECT * FROM aibridge_{table} WHERE interception_id IN (SELECT value FROM json_each(?))
                ORDER BY created_at, id
            """  # noqa: S608 - the table is one of FACTS
            for row in map(_read, self._db.execute(query, wanted)):
                facts[row.pop("interception_id")][table].append(row)
        return facts


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise RecordingError(f"the database {path} can not be read as one of aibridge: {error}") from error


_READ: dict[str, Callable[[Any], Any]] = {
    "started_at": datetime.fromisoformat,
    "ended_at": datetime.fromisoformat,
    "created_at": datetime.fromisoformat,
    "metadata": msgspec.json.decode,
    "provider_usage": msgspec.json.decode,
    "streaming": bool,
    "injected": bool,
}


def _read(row: sqlite3.Row) -> dict[str, Any]:
    columns = dict(row)
    return columns | {name: read(columns[name]) for name, read in _READ.items() if columns.get(name) is not None}


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")
