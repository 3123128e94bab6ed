"""What an operator does to a database, of whatever kind: its schema brought up to date, its sums made anew."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from aibridge.errors import RecordingError
from aibridge.recording.schema import REVISION
from aibridge.recording.stores import is_postgresql, sqlite_path

if TYPE_CHECKING:
    from aibridge.recording.postgres.connection import Connection

T = TypeVar("T")

_BUSY_TIMEOUT = 30.0

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
    from aibridge.recording.postgres.schema import revision

    return Schema(_in_postgresql(url, revision))


def upgrade(url: str) -> Schema:
    """Bring a database up to date, and return the schema that it had. RecordingError where that can not be done."""
    if not is_postgresql(url):
        from aibridge.recording.sqlite import SQLiteStore

        before = schema_of(url)
        SQLiteStore(sqlite_path(url)).close()
        return before
    from aibridge.recording.postgres import schema

    return Schema(_in_postgresql(url, partial(schema.upgrade, url=url)))


def script(url: str) -> str:
    """The SQL that `upgrade` would run, to be run in one transaction; empty where there is nothing to do."""
    schema = schema_of(url)
    if schema.state in {"current", "newer"}:
        return ""
    if is_postgresql(url):
        from aibridge.recording.postgres.schema import script as postgresql_script

        return postgresql_script(schema.found)
    from aibridge.recording import sqlite

    return sqlite.script(int(schema.found or 0))


def rebuild_rollups(url: str) -> None:
    """Make the sums by hour and day anew from the records. Gateways wait meanwhile before they store more.

    RecordingError is raised where that can not be done.
    """
    schema = schema_of(url)
    if schema.state != "current":
        raise RecordingError("the database has not the schema of this aibridge: see `aibridge db status`")
    if is_postgresql(url):
        from aibridge.recording.postgres.sums import rebuild as rebuild_in_postgresql

        async def rebuild(connection: Connection) -> None:
            async with connection.transaction():
                await rebuild_in_postgresql(connection)

        _in_postgresql(url, rebuild)
        return
    from aibridge.recording.sqlite_sums import rebuild as rebuild_in_sqlite

    path = sqlite_path(url)
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None)) as db:
            rebuild_in_sqlite(db)
    except sqlite3.Error as error:
        raise RecordingError(f"the sums of {path} can not be made anew: {error}") from error


def _in_postgresql(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do something on a connection of its own."""
    from aibridge.recording.postgres.connection import connect, faults_told

    async def connected() -> T:
        with faults_told(url):
            connection = await connect(url)
            try:
                return await work(connection)
            finally:
                await connection.close()

    return asyncio.run(connected())


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
