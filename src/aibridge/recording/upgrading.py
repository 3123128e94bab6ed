"""Which schema a database has, and bringing it to this program's, whatever kind of database it is."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from aibridge.errors import RecordingError
from aibridge.recording.schema import REVISION, migration
from aibridge.recording.stores import is_postgresql, sqlite_path

State: TypeAlias = Literal["empty", "old", "current", "newer"]


class Schema(NamedTuple):
    """The revision that a database has (None: no schema at all), and the one that this program needs."""

    found: str | None
    needed: str = REVISION

    @property
    def state(self) -> State:
        """What is to be said of the database."""
        if self.found is None:
            return "empty"
        if self.found == self.needed:
            return "current"
        return "old" if self.found < self.needed else "newer"


def schema_of(url: str) -> Schema:
    """The schema of the database that a URL means. Nothing is changed; RecordingError where it can not be read."""
    if not is_postgresql(url):
        return Schema(_sqlite_revision(sqlite_path(url)))
    from aibridge.recording.postgres import connection as postgres

    async def look() -> str | None:
        with postgres.faults_told(url):
            connection = await postgres.connect(url)
            try:
                return await postgres.revision(connection)
            finally:
                await connection.close()

    return Schema(asyncio.run(look()))


def upgrade(url: str) -> Schema:
    """Bring a database up to date, and return the schema that it had. RecordingError where that can not be done."""
    if not is_postgresql(url):
        from aibridge.recording.sqlite import SQLiteStore

        before = schema_of(url)
        SQLiteStore(sqlite_path(url)).close()
        return before
    from aibridge.recording.postgres import connection as postgres

    async def change() -> str | None:
        with postgres.faults_told(url):
            connection = await postgres.connect(url)
            try:
                return await postgres.upgrade(connection, url)
            finally:
                await connection.close()

    return Schema(asyncio.run(change()))


def script(url: str) -> str:
    """The SQL that `upgrade` would run, to be run in one transaction; empty where there is nothing to do."""
    schema = schema_of(url)
    if schema.state in {"current", "newer"}:
        return ""
    if is_postgresql(url):
        return migration("postgresql", schema.found)
    from aibridge.recording import sqlite

    return sqlite.script(int(schema.found or 0))


def _sqlite_revision(path: Path) -> str | None:
    if not path.is_file():
        return None
    from aibridge.recording.sqlite import version

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            found = version(db)
    except sqlite3.Error as error:
        raise RecordingError(f"the database {path} can not be read: {error}") from error
    return f"{found:04}" if found else None
