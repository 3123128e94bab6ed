"""Reading what was recorded from SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from aibridge.errors import RecordingError
from aibridge.recording.history import FACTS, PAGE, Exchange, Position, put_together


@contextmanager
def reading_sqlite(path: Path) -> Iterator[SQLiteHistory]:
    """Open a database for reading alone."""
    if not path.is_file():
        raise RecordingError(f"there is no database {path}: say with --database or --config where it is")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with _told(path), closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        yield SQLiteHistory(db, path)


class SQLiteHistory:
    """Reads page by page, so that the write-ahead log of a running gateway can be cut between two of them."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    def exchanges(self, since: Position, until: datetime) -> Iterator[list[Exchange]]:
        """The exchanges of a span of time; see `History`."""
        while page := self._page(since, until):
            yield page
            since = Position(page[-1]["started_at"], page[-1]["id"])

    def _page(self, since: Position, until: datetime) -> list[Exchange]:
        with _told(self._path):
            self._db.execute("BEGIN")
            try:
                found = self._db.execute(
                    """
                    SELECT * FROM aibridge_interceptions
                    WHERE started_at >= :time AND (started_at > :time OR id > :id) AND started_at < :until
                    ORDER BY started_at, id LIMIT :page
                    """,
                    {"time": _text(since.started_at), "id": since.id, "until": _text(until), "page": PAGE},
                )
                interceptions = [_read(row) for row in found]
                ids = (msgspec.json.encode([each["id"] for each in interceptions]).decode(),)
                return put_together(interceptions, {table: self._facts(table, ids) for table in FACTS})
            finally:
                self._db.execute("ROLLBACK")

    def _facts(self, table: str, ids: tuple[str]) -> Iterator[dict[str, Any]]:
        query = f"""
            SELECT * FROM aibridge_{table} WHERE interception_id IN (SELECT value FROM json_each(?))
            ORDER BY created_at, id
        """  # noqa: S608 - the table is one of FACTS
        return map(_read, self._db.execute(query, ids))


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
