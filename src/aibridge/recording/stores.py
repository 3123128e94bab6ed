"""Where records end up: what a store must offer, and which one a URL means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aibridge.errors import RecordingError, SettingsError
from aibridge.records import Record

_ALLOWED = "sqlite:///relative.db, sqlite:////absolute/path.db or postgresql://user:password@host/database"


class UnstorableError(RecordingError):
    """These records can never be stored, however often it is tried; any other error may pass."""


class Store(Protocol):
    """Keeps records for good. Used by one thread at a time; the calls block."""

    def store(self, records: Sequence[Record], /) -> None:
        """Keep records, all or none, and on the disk by the time that this returns; to keep one again changes nothing.

        They may come in any order, an interception's end before its beginning included. UnstorableError is raised
        where one of them can never be kept, RecordingError or anything else where trying again may help. The text
        of an error is logged, so it must name no secret.
        """

    def close(self) -> None:
        """Give back what the store holds."""


def store_for(url: str) -> Store:
    """Open the store that a setting `storage.url` means: a SQLite file, or a PostgreSQL database.

    SettingsError is raised for any other URL, RecordingError where the database can not be used. One that is not
    there yet, or is empty, gets its tables.
    """
    if is_postgresql(url):
        from aibridge.recording.postgres.store import PostgresStore

        return PostgresStore(url)
    from aibridge.recording.sqlite import SQLiteStore

    return SQLiteStore(sqlite_path(url))


def is_postgresql(url: str) -> bool:
    """Whether a URL is that of a PostgreSQL database."""
    return urlsplit(url).scheme in {"postgres", "postgresql"}


def sqlite_path(url: str) -> Path:
    """The file that a SQLite URL means; SettingsError for any other URL."""
    scheme = urlsplit(url).scheme
    if scheme != "sqlite":
        raise SettingsError(f"storage.url: found a URL of scheme {scheme!r}; allowed is {_ALLOWED}")
    path = url[len("sqlite:///") :]
    if not url.startswith("sqlite:///") or path in {"", "/", ":memory:"}:
        raise SettingsError(f"storage.url: found no path of a database file in it; allowed is {_ALLOWED}")
    return Path(path)
