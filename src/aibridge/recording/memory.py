"""What clients were not shown of their conversations, kept for when those go on.

Unlike records this is read on the path of a request, so it is found by key in a table of its own, behind a cache; and
it expires. Any process can find what another one kept.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, time
from typing import Protocol

from aibridge.recording.stores import is_postgresql, sqlite_path

_log = logging.getLogger("aibridge.recording")

LIFETIME = 7 * 24 * 3600.0
"""How long something is remembered by default, in seconds."""

CACHE_SIZE = 16 << 20
"""How much is kept in memory beside the database, in bytes."""

_FORGETTING = 3600.0
"""Seconds after which what has expired is forgotten once more; it is not found even before that."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS aibridge_remembered_turns (
    initiator_id TEXT NOT NULL,
    key TEXT NOT NULL,
    hidden BLOB NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (initiator_id, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS aibridge_remembered_turns_expiry ON aibridge_remembered_turns (expires_at);
"""


class TurnMemory(Protocol):
    """Keeps, for an actor, what the client was not shown of a message, under keys by which the message is known."""

    async def remember(self, initiator_id: str, keys: Sequence[str], hidden: bytes) -> None:
        """Keep it; where that fails, the conversation goes on without it."""

    async def recall(self, initiator_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        """What is kept under any of the keys."""


class CachedTurnMemory(ABC):
    """Turns in a database, behind a cache. A database that is not to be had is done without."""

    _faults: tuple[type[Exception], ...]
    """What is raised where the database can not be used."""

    def __init__(self, *, lifetime: float = LIFETIME) -> None:
        self._lifetime = lifetime
        self._cache: OrderedDict[tuple[str, str], bytes | None] = OrderedDict()
        self._cached = 0
        self._forget_at = 0.0  # by `monotonic`

    async def remember(self, initiator_id: str, keys: Sequence[str], hidden: bytes) -> None:
        """Keep it, durably before this returns."""
        for key in keys:
            self._put(initiator_id, key, hidden)
        try:
            await self._write(initiator_id, keys, hidden)
            if (now := monotonic()) >= self._forget_at:
                self._forget_at = now + _FORGETTING
                await self._forget()
        except self._faults as error:
            _log.warning("a turn is remembered by this process only, until the database can be written: %s", error)

    async def recall(self, initiator_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        """What is kept; each key is looked up in the database once."""
        known = {key: self._cache[initiator_id, key] for key in keys if (initiator_id, key) in self._cache}
        missing = [key for key in keys if key not in known]
        found = {key: hidden for key, hidden in known.items() if hidden}
        if missing:
            try:
                found |= await self._read(initiator_id, missing)
            except self._faults as error:
                _log.warning("hidden turns could not be looked up: %s", error)
            else:
                for key in missing:
                    if (initiator_id, key) not in self._cache:  # it may have been remembered meanwhile
                        self._put(initiator_id, key, found.get(key))
        return found

    @abstractmethod
    async def aclose(self) -> None:
        """Close the database."""

    @abstractmethod
    async def _write(self, initiator_id: str, keys: Sequence[str], hidden: bytes) -> None:
        """Keep it in the database."""

    @abstractmethod
    async def _forget(self) -> None:
        """Remove from the database what has expired."""

    @abstractmethod
    async def _read(self, initiator_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        """What the database has."""

    def _put(self, initiator_id: str, key: str, hidden: bytes | None) -> None:
        if (initiator_id, key) in self._cache:
            self._cached -= _weight(key, self._cache.pop((initiator_id, key)))
        self._cache[initiator_id, key] = hidden
        self._cached += _weight(key, hidden)
        while self._cached > CACHE_SIZE and self._cache:
            (_, oldest), dropped = self._cache.popitem(last=False)
            self._cached -= _weight(oldest, dropped)


class SQLiteTurnMemory(CachedTurnMemory):
    """Turns in the SQLite database of the records, which is opened at first use."""

    _faults = (sqlite3.Error,)

    def __init__(self, path: Path, *, lifetime: float = LIFETIME) -> None:
        super().__init__(lifetime=lifetime)
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    async def aclose(self) -> None:
        """Close the database."""
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None

    async def _write(self, initiator_id: str, keys: Sequence[str], hidden: bytes) -> None:
        await asyncio.to_thread(self._write_now, initiator_id, keys, hidden)

    async def _forget(self) -> None:
        await asyncio.to_thread(self._forget_now)

    async def _read(self, initiator_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        return await asyncio.to_thread(self._read_now, initiator_id, keys)

    def _write_now(self, initiator_id: str, keys: Sequence[str], hidden: bytes) -> None:
        expires_at = time() + self._lifetime
        with self._lock, self._open() as database:
            rows = [(initiator_id, key, hidden, expires_at) for key in keys]
            database.executemany("INSERT OR REPLACE INTO aibridge_remembered_turns VALUES (?, ?, ?, ?)", rows)

    def _forget_now(self) -> None:
        with self._lock, self._open() as database:
            database.execute("DELETE FROM aibridge_remembered_turns WHERE expires_at < ?", (time(),))

    def _read_now(self, initiator_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        sql = "SELECT hidden FROM aibridge_remembered_turns WHERE initiator_id = ? AND key = ? AND expires_at >= ?"
        now = time()
        with self._lock, self._open() as database:
            for key in keys:
                with closing(database.execute(sql, (initiator_id, key, now))) as rows:
                    if row := rows.fetchone():
                        found[key] = row[0]
        return found

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=1.0, check_same_thread=False)
            try:
                connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing
                # Who stores records does it far more often, and nobody waits for that.
                connection.execute("PRAGMA wal_autocheckpoint = 10000")
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def memory_for(url: str, *, lifetime: float) -> CachedTurnMemory:
    """The memory in the database that a setting `storage.url` means."""
    if is_postgresql(url):
        from aibridge.recording.postgres.memory import PostgresTurnMemory

        return PostgresTurnMemory(url, lifetime=lifetime)
    return SQLiteTurnMemory(sqlite_path(url), lifetime=lifetime)


def _weight(key: str, hidden: bytes | None) -> int:
    return len(key) + len(hidden or b"") + 200
