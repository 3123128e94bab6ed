"""What clients were not shown of their conversations, kept for when those go on.

Unlike records this is read on the path of a request, so it is found by key in a table of its own, behind a cache; and
it expires. Any process can find what another one kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Protocol, TypeVar

from aibridge.recording.stores import is_postgresql, sqlite_path

T = TypeVar("T")

_log = logging.getLogger("aibridge.recording")

LIFETIME = 7 * 24 * 3600.0
"""How long something is remembered by default, in seconds."""

CACHE_SIZE = 16 << 20
"""How much is kept in memory beside the database, in bytes."""

_BETWEEN_CHECKPOINTS = 4 << 20
"""Bytes written after which the write-ahead log of SQLite begins anew."""

_PAGES = 12 << 10
"""Bytes that a key takes of it, beside what is kept."""

_LARGEST_AT_ONCE = 256 << 10
"""Bytes that are written while the event loop waits."""

_MOST_AT_ONCE = 64
"""Keys that are looked for while the event loop waits."""

_PATIENCE = 1000
"""Milliseconds for which another process is waited for that writes."""

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

_WRITE = "INSERT OR REPLACE INTO aibridge_remembered_turns SELECT ?1, value, ?2, ?3 FROM json_each(?4)"
_READ = """
SELECT key, hidden FROM aibridge_remembered_turns
WHERE initiator_id = ? AND expires_at >= ? AND key IN (SELECT value FROM json_each(?))
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
    """Turns in an SQLite file of their own beside that of the records (`path`), which is opened at first use.

    What takes some microseconds is done at once, since the way through a thread takes much longer, and a request waits
    for it. What has to wait, for a disk or for another process, is done in a thread. In the file of the records, this
    would have to wait for whoever stores those.
    """

    _faults = (sqlite3.Error, OSError)

    def __init__(self, path: Path, *, lifetime: float = LIFETIME) -> None:
        super().__init__(lifetime=lifetime)
        self.path = path.with_name(f"{path.name}-turns")
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._written = _BETWEEN_CHECKPOINTS  # since the last checkpoint

    async def aclose(self) -> None:
        """Close the database."""
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None

    async def _write(self, initiator_id: str, keys: Sequence[str], hidden: bytes) -> None:
        def write(database: sqlite3.Connection) -> None:
            database.execute(_WRITE, (initiator_id, hidden, time() + self._lifetime, json.dumps(keys)))

        tidy = self._written >= _BETWEEN_CHECKPOINTS
        self._written = (0 if tidy else self._written) + len(keys) * (len(hidden) + _PAGES)
        await self._do(write, at_once=len(hidden) <= _LARGEST_AT_ONCE, tidy=tidy)

    async def _forget(self) -> None:
        def forget(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM aibridge_remembered_turns WHERE expires_at < ?", (time(),))

        await self._do(forget, at_once=False)

    async def _read(self, initiator_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        def read(database: sqlite3.Connection) -> dict[str, bytes]:
            return dict(database.execute(_READ, (initiator_id, time(), json.dumps(keys))).fetchall())

        return await self._do(read, at_once=len(keys) <= _MOST_AT_ONCE)

    async def _do(self, work: Callable[[sqlite3.Connection], T], *, at_once: bool = True, tidy: bool = False) -> T:
        """Do something with the database: at once, unless it has to wait for something."""
        if self._connection and at_once and not tidy and self._lock.acquire(blocking=False):
            try:
                return work(self._connection)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            finally:
                self._lock.release()
        return await asyncio.to_thread(self._do_patiently, work, tidy=tidy)

    def _do_patiently(self, work: Callable[[sqlite3.Connection], T], *, tidy: bool = False) -> T:
        """The same, whatever it waits for; to `tidy` is to bring into its place what was written before."""
        with self._lock:
            database = self._connection = self._connection or self._open()
            database.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
            try:
                if tidy:  # the next to write waits for a disk then; so it is this one
                    database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
                return work(database)
            finally:
                database.execute("PRAGMA busy_timeout = 0")

    def _open(self) -> sqlite3.Connection:
        with suppress(FileExistsError):
            self.path.touch(mode=0o600, exist_ok=False)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection


def memory_for(url: str, *, lifetime: float) -> CachedTurnMemory:
    """The memory in the database that a setting `storage.url` means."""
    if is_postgresql(url):
        from aibridge.recording.postgres.memory import PostgresTurnMemory

        return PostgresTurnMemory(url, lifetime=lifetime)
    return SQLiteTurnMemory(sqlite_path(url), lifetime=lifetime)


def _weight(key: str, hidden: bytes | None) -> int:
    return len(key) + len(hidden or b"") + 200
