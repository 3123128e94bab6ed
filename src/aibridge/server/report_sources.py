"""What reports are read from: a SQLite file or a PostgreSQL database, asked with the same queries.

A query names its values as `:name`, and the few things that the two kinds say differently as `{name}`, for which a
source has `words`. Rows come back with texts for ids and times, as SQLite has them.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote
from uuid import UUID

from aibridge.errors import RecordingError
from aibridge.recording.databases import schema_of
from aibridge.recording.stores import is_postgresql, sqlite_path

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aibridge.recording.postgres.connection import Connection


class ReportError(Exception):
    """There is nothing to report from, or not the thing asked for; the message names the cause and the remedy."""


class Source(Protocol):
    """A database that is asked."""

    @property
    def words(self) -> Mapping[str, str]:
        """What queries say differently to different kinds of databases."""

    def rows(self, query: str, values: Mapping[str, Any], *, few: bool = False) -> list[dict[str, Any]]:
        """What a query finds. Values may be texts, numbers, and aware times; a text may be the id of a record.

        `few` says that it is to look up some rows by their keys, and never to read a table as a whole.
        """

    def id_of(self, text: str) -> str | None:
        """The text as the id of a record, to be compared with ids; None where it can be none."""

    def ids_from(self, beginning: str) -> tuple[str, str] | None:
        """The least and the greatest id that begins so; None where none can."""


@contextmanager
def source_of(url: str) -> Iterator[Source]:
    """Open a database for reading, all from one moment. Raises `ReportError` where it can not be read."""
    with _postgresql(url) if is_postgresql(url) else _sqlite(sqlite_path(url)) as source:
        yield source


def _check_schema(url: str) -> None:
    try:
        schema = schema_of(url)
    except RecordingError as fault:
        raise ReportError(str(fault)) from fault
    if schema.state == "old":
        raise ReportError(
            f"the database has the schema of an older aibridge ({schema.found}, this one needs {schema.needed}): "
            "run `aibridge db upgrade`"
        )


class _SQLite:
    words = {
        "session": "coalesce(client_session_id, thread_root_id, id)",
        "chosen": "SELECT json_extract(value, '$[0]') AS session, json_extract(value, '$[1]') AS initiator_id, "
        "json_extract(value, '$[2]') AS id FROM json_each(:chosen)",
        "same_session": "interception.client_session_id = wanted.session",
        "is_session": "client_session_id = :key",
        "is_user": "initiator_id = :user",
        "day": "substr({time}, 1, 10)",
        "ids": "SELECT value FROM json_each(:ids)",
        "kept_order": "rowid",
    }

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def rows(self, query: str, values: Mapping[str, Any], *, few: bool = False) -> list[dict[str, Any]]:
        written = {name: _instant(value) if isinstance(value, datetime) else value for name, value in values.items()}
        return [dict(row) for row in self._database.execute(query, written)]

    def id_of(self, text: str) -> str | None:
        return text

    def ids_from(self, beginning: str) -> tuple[str, str] | None:
        return beginning, f"{beginning}\U0010ffff"


@contextmanager
def _sqlite(path: Path) -> Iterator[Source]:
    if not path.is_file():
        raise ReportError(
            f"there is no database {path}: start `aibridge serve`, which makes it with the first record, "
            "or say with --database or --config where it is"
        )
    _check_schema(f"sqlite:///{path}")
    try:
        database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5, isolation_level=None)
    except sqlite3.Error as fault:
        raise ReportError(f"the database {path} can not be opened: {fault}") from fault
    try:
        database.row_factory = sqlite3.Row
        database.execute("BEGIN")
        yield _SQLite(database)
    except sqlite3.Error as fault:
        raise ReportError(f"the database {path} can not be read as one of aibridge: {fault}") from fault
    finally:
        database.close()


class _PostgreSQL:
    words = {
        "session": "coalesce(client_session_id, CAST(thread_root_id AS text), CAST(id AS text))",
        "chosen": "SELECT value ->> 0 AS session, value ->> 1 AS initiator_id, CAST(value ->> 2 AS uuid) AS id "
        "FROM jsonb_array_elements(CAST(CAST(:chosen AS text) AS jsonb)) AS each (value)",
        # The indexes of texts hold their first 256 characters.
        "same_session": "left(interception.client_session_id, 256) = left(wanted.session, 256) "
        "AND interception.client_session_id = wanted.session",
        "is_session": "left(client_session_id, 256) = left(:key, 256) AND client_session_id = :key",
        "is_user": "left(initiator_id, 256) = left(:user, 256) AND initiator_id = :user",
        "day": "to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        "ids": "SELECT CAST(value AS uuid) FROM jsonb_array_elements_text(CAST(CAST(:ids AS text) AS jsonb)) "
        "AS each (value)",
        "kept_order": "id",
    }

    def __init__(self, connection: Connection, runner: asyncio.Runner) -> None:
        self._connection, self._runner = connection, runner
        self._few = False

    def rows(self, query: str, values: Mapping[str, Any], *, few: bool = False) -> list[dict[str, Any]]:
        names: list[str] = []

        def numbered(found: re.Match[str]) -> str:
            if found[1] not in names:
                names.append(found[1])
            return f"${names.index(found[1]) + 1}"

        query = re.sub(r"(?<!:):([a-z_]\w*)", numbered, query)
        arguments = [values[name] for name in names]
        found = self._runner.run(self._fetch(query, arguments, few=few))
        return [{name: _as_text(value) for name, value in row.items()} for row in found]

    async def _fetch(self, query: str, arguments: list[Any], *, few: bool) -> list[Any]:
        if few != self._few:  # which the planner can not know
            scans = "off" if few else "on"
            await self._connection.execute(
                f"SET LOCAL enable_hashjoin = {scans}; SET LOCAL enable_mergejoin = {scans}; "
                f"SET LOCAL enable_seqscan = {scans}"
            )
            self._few = few
        return await self._connection.fetch(query, *arguments)

    def id_of(self, text: str) -> str | None:
        with suppress(ValueError):
            return str(UUID(text))
        return None

    def ids_from(self, beginning: str) -> tuple[str, str] | None:
        digits = beginning.replace("-", "").lower()
        template = "00000000-0000-0000-0000-000000000000"
        if len(digits) > 32 or not re.fullmatch("[0-9a-f]*", digits):
            return None
        least = str(UUID(digits.ljust(32, "0")))
        if least[: len(beginning)] != beginning.lower()[: len(template)]:
            return None  # its hyphens are where no id has one
        return least, str(UUID(digits.ljust(32, "f")))


@contextmanager
def _postgresql(url: str) -> Iterator[Source]:
    import asyncio

    from aibridge.recording.postgres.connection import connect, faults_told

    _check_schema(url)

    async def opened() -> Connection:
        connection = await connect(url)
        await connection.set_type_codec("uuid", encoder=str, decoder=str, schema="pg_catalog")
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return connection

    with asyncio.Runner() as runner:
        try:
            with faults_told(url):
                connection = runner.run(opened())
                try:
                    yield _PostgreSQL(connection, runner)
                finally:
                    connection.terminate()
        except RecordingError as fault:
            raise ReportError(str(fault)) from fault


def _as_text(value: Any) -> Any:
    return _instant(value) if isinstance(value, datetime) else value


def _instant(time: datetime) -> str:
    """A time as SQLite has it, so that it compares as text."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")
