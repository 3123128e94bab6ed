"""Reading what was recorded from PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from aibridge.recording.history import FACTS, PAGE, Exchange, Position, put_together
from aibridge.recording.postgres.connection import Connection, connect, faults_told
from aibridge.recording.postgres.loop import LoopThread

_INTERCEPTIONS = """
SELECT * FROM aibridge_interceptions
WHERE started_at >= $1 AND (started_at > $1 OR id > $2::text::uuid) AND started_at < $3
ORDER BY started_at, id LIMIT $4
"""
_NO_ID = "00000000-0000-0000-0000-000000000000"


@contextmanager
def reading_postgresql(url: str) -> Iterator[PostgresHistory]:
    """Connect to a database, to read alone."""
    thread = LoopThread("aibridge-history")
    try:
        with faults_told(url):
            connection = thread.run(connect(url, settings={"default_transaction_read_only": "on"}))
        try:
            yield PostgresHistory(connection, thread, url)
        finally:
            thread.run(connection.close(timeout=5.0))
    finally:
        thread.close()


class PostgresHistory:
    """Reads page by page, each from one moment."""

    def __init__(self, connection: Connection, thread: LoopThread, url: str) -> None:
        self._connection, self._thread, self._url = connection, thread, url

    def exchanges(self, since: Position, until: datetime) -> Iterator[list[Exchange]]:
        """The exchanges of a span of time; see `History`."""
        while page := self._thread.run(self._page(since, until)):
            yield page
            since = Position(page[-1]["started_at"], page[-1]["id"])

    async def _page(self, since: Position, until: datetime) -> list[Exchange]:
        connection = self._connection
        with faults_told(self._url):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                rows = await connection.fetch(_INTERCEPTIONS, since.started_at, since.id or _NO_ID, until, PAGE)
                ids = [row["id"] for row in rows]
                facts = {table: await connection.fetch(_facts(table), ids) for table in FACTS}
        return put_together([*map(_read, rows)], {table: map(_read, found) for table, found in facts.items()})


def _facts(table: str) -> str:
    return f"SELECT * FROM aibridge_{table} WHERE interception_id = ANY($1::uuid[]) ORDER BY created_at, id"  # noqa: S608


def _read(row: asyncpg.Record) -> dict[str, Any]:
    columns = {name: str(value) if isinstance(value, UUID) else value for name, value in row.items()}
    return columns | {
        name: msgspec.json.decode(columns[name])
        for name in ("metadata", "provider_usage")
        if columns.get(name) is not None
    }
