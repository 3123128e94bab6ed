"""Removing from SQLite what has had its time, in transactions so short that no writer has to wait long."""

# ruff: noqa: S608 - the names of tables and columns stand below, and every value is a parameter

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from aibridge.errors import RecordingError
from aibridge.recording.retention import EXPIRED, Limits, Of, Removal, by_days
from aibridge.records import least_id

T = TypeVar("T")

BATCH = 500
"""Rows that one transaction removes."""
STRIDE = 5000
"""Rows that are looked through at once for contents."""

_BUSY_TIMEOUT = 30.0
"""How long a step waits for its turn, in seconds: SQLite gives it to whoever asks at the right moment."""
_LOOK_AGAIN = 24 * 3600.0
"""Seconds after which rows are looked through again that had no contents: some may have arrived late."""

_CONTENTS = ("user_prompts", "model_thoughts")
"""The tables whose rows are nothing without their contents."""
_TEXTS = {"tool_usages": ("input", "invocation_error"), "interceptions": ("error_message",)}
"""The columns of contents in rows that stay, by table."""
_EARLY = ("early_ends", "early_figures")
"""What waits for an interception that may never come."""
_FIGURES = ("token_usages", "tool_usages", *_CONTENTS, *_EARLY, "interceptions")
"""All tables, the interceptions themselves last, so that a row that is left has its interception."""


class SQLitePruner:
    """Prunes one database, on a connection of its own. What is removed is overwritten in the file, not just left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._empty_until: dict[str, str] = {}
        """By table: ids below this one have been looked through for contents."""
        self._forget_at = 0.0

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Hold the folder's `flock(2)`; not the database's own: to close its file would let go of SQLite's locks."""
        descriptor = os.open(self._path.absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    async def expired(self, limits: Limits) -> list[Removal]:
        """What `prune` would remove now."""
        return await asyncio.to_thread(self._expired, by_days(limits))

    async def prune(self, limits: Limits) -> AsyncIterator[Removal]:
        """Remove it, a batch in each step."""
        limits = by_days(limits)
        if time.monotonic() >= self._forget_at:
            self._empty_until.clear()
            self._forget_at = time.monotonic() + _LOOK_AGAIN
        if limits.figures:
            beyond = least_id(limits.figures)
            for table in _FIGURES:
                async for removal in self._delete(table, beyond):
                    yield removal
        if limits.contents:
            beyond = least_id(limits.contents)
            for table in _CONTENTS:
                async for removal in self._delete(table, beyond):
                    yield removal
            for table in _TEXTS:
                async for removal in self._empty(table, beyond):
                    yield removal

    async def _delete(self, table: str, beyond: str) -> AsyncIterator[Removal]:
        while True:
            removal = await self._step(partial(_delete, table=table, beyond=beyond))
            if removal.rows:
                yield removal
            if removal.rows < BATCH:
                return

    async def _empty(self, table: str, beyond: str) -> AsyncIterator[Removal]:
        after = self._empty_until.get(table, "")
        while after < beyond:
            ids, last = await self._step(partial(_with_contents, table=table, after=after, beyond=beyond))
            for start in range(0, len(ids), BATCH):
                yield await self._step(partial(_empty, table=table, ids=ids[start : start + BATCH]))
            after = self._empty_until[table] = last

    async def _step(self, step: Callable[[sqlite3.Connection], T]) -> T:
        def take() -> T:
            with self._connected() as db:
                return step(db)

        return await asyncio.to_thread(take)

    def _expired(self, limits: Limits) -> list[Removal]:
        found = []
        with self._connected() as db:
            db.execute("BEGIN")
            figures = least_id(limits.figures) if limits.figures else ""
            contents = max(least_id(limits.contents), figures) if limits.contents else figures
            for table in _FIGURES:
                beyond = contents if table in _CONTENTS else figures
                found.append(_measured(db, table, "rows", f"{_key(table)} < ?", _columns(db, table), (beyond,)))
            for table, texts in _TEXTS.items():
                where = f"id >= ? AND id < ? AND {_has_contents(table)}"
                found.append(_measured(db, table, "contents", where, texts, (figures, contents)))
        return [removal for removal in found if removal.rows]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)) as db:
                db.execute("PRAGMA secure_delete = ON")
                yield db
        except sqlite3.Error as error:
            raise RecordingError(
                f"the database {self._path} can not be pruned ({error}): see that it is there, that this user may "
                "write it, and that no other program keeps it locked"
            ) from error


def _delete(db: sqlite3.Connection, table: str, beyond: str) -> Removal:
    key = _key(table)
    chosen = f"{key} IN (SELECT {key} FROM aibridge_{table} WHERE {key} < ? ORDER BY {key} LIMIT {BATCH})"
    db.execute("BEGIN IMMEDIATE")
    removal = _measured(db, table, "rows", chosen, _columns(db, table), (beyond,))
    db.execute(f"DELETE FROM aibridge_{table} WHERE {chosen}", (beyond,))
    db.execute("COMMIT")
    return removal


def _with_contents(db: sqlite3.Connection, table: str, after: str, beyond: str) -> tuple[list[str], str]:
    """The next rows that have contents, of the next `STRIDE`; and up to which id these go."""
    rows = db.execute(
        f"SELECT id, {_has_contents(table)} FROM aibridge_{table} WHERE id > ? AND id < ? ORDER BY id LIMIT {STRIDE}",
        (after, beyond),
    ).fetchall()
    last = rows[-1][0] if len(rows) == STRIDE else beyond
    return [found for found, has_contents in rows if has_contents], last


def _empty(db: sqlite3.Connection, table: str, ids: list[str]) -> Removal:
    texts = _TEXTS[table]
    chosen, values = "id IN (SELECT value FROM json_each(?))", (msgspec.json.encode(ids).decode(),)
    db.execute("BEGIN IMMEDIATE")
    removal = _measured(db, table, "contents", chosen, texts, values)
    emptied = ", ".join(f"{text} = CASE WHEN {text} IS NOT NULL THEN '' END" for text in texts)
    marked = f"metadata = json_set(metadata, '$.contents', '{EXPIRED}')"
    db.execute(f"UPDATE aibridge_{table} SET {emptied}, {marked} WHERE {chosen}", values)
    db.execute("COMMIT")
    return removal


def _measured(
    db: sqlite3.Connection, table: str, of: Of, where: str, columns: tuple[str, ...], values: tuple[str, ...]
) -> Removal:
    size = " + ".join(f"coalesce(length(CAST({column} AS BLOB)), 0)" for column in columns)
    query = f"SELECT count(*), coalesce(sum({size}), 0) FROM aibridge_{table} WHERE {where}"
    rows, size_found = db.execute(query, values).fetchone()
    return Removal(table=table, of=of, rows=rows, bytes=size_found)


def _columns(db: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(name for _, name, *_ in db.execute(f"PRAGMA table_info(aibridge_{table})"))


def _key(table: str) -> str:
    return "interception_id" if table in _EARLY else "id"


def _has_contents(table: str) -> str:
    return "(" + " OR ".join(f"coalesce({text}, '') <> ''" for text in _TEXTS[table]) + ")"
