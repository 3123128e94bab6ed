"""Removing from PostgreSQL what has had its time: whole weeks at once, and no row by itself.

A week whose figures have had their time is dropped. One whose contents have: its prompts and thoughts are truncated,
and its tool calls are copied without their texts into a table that then takes their place. So nothing is left behind
for VACUUM, and the tables that others work with are locked for moments only. Row by row goes what is little: the texts
of errors, and what is in no week.
"""

# ruff: noqa: S608 - the names of tables and columns are made here, and every value is a parameter

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import asyncpg

from aibridge.errors import RecordingError
from aibridge.recording.postgres.connection import MIGRATING, Connection, connect_settings, faults_told
from aibridge.recording.postgres.partitions import TABLES, first_id, name_of, week_at, weeks_of
from aibridge.recording.retention import EXPIRED, Limits, Of, Removal, by_days
from aibridge.records import least_id

PRUNING = 0x6169_6272_0003
"""The advisory lock of whoever prunes."""

BATCH = 500
"""Rows that one statement removes, or whose texts it removes, where that is done row by row."""

_STATEMENT_TIMEOUT = 3600.0
"""For copying a week, in seconds."""
_LOCK_TIMEOUT = "500ms"
"""How long others may have to wait behind the wish for a lock on a table that they use."""
_ATTEMPTS = 20
_LOOK_AGAIN = 24 * 3600.0
"""Seconds after which weeks are looked through again that had no contents: some may have arrived late."""

_CONTENTS = ("aibridge_user_prompts", "aibridge_model_thoughts")
"""The tables whose rows are nothing without their contents."""
_EARLY = ("aibridge_early_ends", "aibridge_early_figures")
_TOOLS = "aibridge_tool_usages"
_ERRORS = "aibridge_interceptions"
_TEXTS = {_TOOLS: ("input", "invocation_error"), _ERRORS: ("error_message",)}
"""The columns of contents in rows that stay, by table."""


class _Part(NamedTuple):
    """Something to remove, of one table."""

    table: str
    of: Of
    query: str
    """Tells how many rows and bytes of it there are."""
    values: tuple[object, ...] = ()


class _AtOnce(NamedTuple):
    """What is removed at once."""

    parts: list[_Part]
    act: Callable[[Connection], Awaitable[None]]
    even_if_empty: bool = False
    partition: str = ""
    """The week's table, which need not be looked through again once there is nothing in it."""


class _InBatches(NamedTuple):
    """What is removed by a statement that takes a batch of it, and tells how many rows and bytes these were."""

    parts: list[_Part]
    statement: str
    partition: str = ""


class PostgresPruner:
    """Prunes one database, on connections of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._empty: set[str] = set()
        """Weeks' tables that have been looked through and have no contents."""
        self._forget_at = 0.0

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Hold an advisory lock, which the server gives back when the connection ends."""
        async with self._connected() as connection:
            with faults_told(self._url):
                alone = bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", PRUNING))
            yield alone

    async def expired(self, limits: Limits) -> list[Removal]:
        """What `prune` would remove now."""
        sums: dict[tuple[str, Of], tuple[int, int]] = {}
        async with self._connected() as connection:
            with faults_told(self._url):
                for part in [part for step in await _steps(connection, limits) for part in step.parts]:
                    rows, size = _figures(await connection.fetchrow(part.query, *part.values))
                    before = sums.get((part.table, part.of), (0, 0))
                    sums[part.table, part.of] = (before[0] + rows, before[1] + size)
        return [_removal(table, of, rows, size) for (table, of), (rows, size) in sums.items() if rows]

    async def prune(self, limits: Limits) -> AsyncIterator[Removal]:
        """Remove it: a week, or a batch of rows, in each step."""
        if time.monotonic() >= self._forget_at:
            self._empty.clear()
            self._forget_at = time.monotonic() + _LOOK_AGAIN
        async with self._connected() as connection:
            with faults_told(self._url):
                steps = await _steps(connection, limits)
            for step in steps:
                if step.partition in self._empty:
                    continue
                more = True
                while more:
                    with faults_told(self._url):
                        removals, more = await _take(connection, step)
                    for removal in removals:
                        yield removal
                if step.partition:
                    self._empty.add(step.partition)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        with faults_told(self._url):
            connection = await asyncpg.connect(self._url, **connect_settings(statement_timeout=_STATEMENT_TIMEOUT))
        try:
            yield connection
            await connection.close(timeout=5.0)
        finally:
            connection.terminate()


async def _steps(connection: Connection, limits: Limits) -> list[_AtOnce | _InBatches]:
    """All that there may be to remove, in the order in which it is removed."""
    limits = by_days(limits)
    weeks = {table: await weeks_of(connection, table) for table in TABLES}
    steps: list[_AtOnce | _InBatches] = []
    dropped = week_at(limits.figures) if limits.figures else None
    if limits.figures:
        going = sorted({week for found in weeks.values() for week in found if dropped and week < dropped})
        steps += [_dropped([table for table in TABLES if week in weeks[table]], week) for week in going]
        steps += [_loose(table, limits.figures) for table in reversed(TABLES)]
        steps += [_early(table, limits.figures) for table in _EARLY]
    if limits.contents:
        expired = week_at(limits.contents)
        for table in TABLES:
            left = [week for week in weeks[table] if week < expired and not (dropped and week < dropped)]
            if table in _CONTENTS:
                steps += [_truncated(table, week) for week in left]
                steps.append(_loose(table, limits.contents, limits.figures))
            elif table == _TOOLS:
                steps += [_exchanged(week) for week in left]
                steps.append(_emptied(table, f"{table}_default", limits.contents, limits.figures))
            elif table == _ERRORS:
                steps += [_emptied(table, name_of(table, week)) for week in left]
                steps.append(_emptied(table, f"{table}_default", limits.contents, limits.figures))
    return steps


def _dropped(tables: list[str], week: int) -> _AtOnce:
    async def drop(connection: Connection) -> None:
        await _in_a_moment(connection, f"DROP TABLE {', '.join(name_of(table, week) for table in tables)}")

    return _AtOnce([_rows_of(table, week) for table in tables], drop, even_if_empty=True)


def _truncated(table: str, week: int) -> _AtOnce:
    async def truncate(connection: Connection) -> None:
        await _in_a_moment(connection, f"TRUNCATE {name_of(table, week)}")

    return _AtOnce([_rows_of(table, week)], truncate)


def _exchanged(week: int) -> _AtOnce:
    """A week of tool calls whose texts go: a table without them takes its place."""
    name, least, beyond = name_of(_TOOLS, week), first_id(week), first_id(week + 1)

    async def exchange(connection: Connection) -> None:
        columns = [row[0] for row in await connection.fetch(_COLUMNS, _TOOLS)]
        values = {"metadata": _marked("metadata"), **{text: _emptied_text(text) for text in _TEXTS[_TOOLS]}}
        async with connection.transaction():
            await connection.execute(f"""
                LOCK TABLE {name} IN SHARE MODE;
                CREATE TABLE {name}_next (
                    LIKE {_TOOLS} INCLUDING ALL,
                    CONSTRAINT within_week CHECK (id >= '{least}' AND id < '{beyond}')
                );
                INSERT INTO {name}_next ({", ".join(columns)})
                SELECT {", ".join(values.get(column, column) for column in columns)} FROM {name};
            """)
            await _in_a_moment(
                connection,
                f"""
                ALTER TABLE {_TOOLS} DETACH PARTITION {name};
                DROP TABLE {name};
                ALTER TABLE {name}_next RENAME TO {name};
                ALTER TABLE {_TOOLS} ATTACH PARTITION {name} FOR VALUES FROM ('{least}') TO ('{beyond}');
                ALTER TABLE {name} DROP CONSTRAINT within_week;
                """,
            )

    return _AtOnce([_Part(_TOOLS, "contents", _texts_of(_TOOLS, name))], exchange, partition=name)


def _emptied(table: str, partition: str, before: datetime | None = None, since: datetime | None = None) -> _InBatches:
    """The texts of some rows, batch by batch: those of a week, or those of a span of time."""
    span, values = _span(table, before, since)
    where = f"{_has_texts(table)} AND {span}"
    emptied = ", ".join(f"{text} = {_emptied_text(text)}" for text in _TEXTS[table])
    statement = f"""
        WITH chosen AS (SELECT id, {_texts_size(table)} AS size FROM {partition} WHERE {where} LIMIT {BATCH}),
        emptied AS (
            UPDATE {partition} AS kept SET {emptied}, metadata = {_marked("kept.metadata")}
            FROM chosen WHERE kept.id = chosen.id RETURNING size
        )
        SELECT count(*), coalesce(sum(size), 0)::bigint FROM emptied
    """
    part = _Part(table, "contents", f"{_texts_of(table, partition)} AND {span}", values)
    return _InBatches([part], statement, "" if before else partition)


def _loose(table: str, before: datetime, since: datetime | None = None) -> _InBatches:
    """The rows of a table that are in no week, by their time."""
    span, values = _span(table, before, since)
    measure = f"""
        SELECT count(*), coalesce(sum(pg_column_size(loose.*)), 0)::bigint FROM {table}_default AS loose WHERE {span}
    """
    return _InBatches([_Part(table, "rows", measure, values)], _deleting(f"{table}_default", "id", span))


def _span(table: str, before: datetime | None, since: datetime | None) -> tuple[str, tuple[datetime, ...]]:
    """A condition for rows of a span of time, and its values."""
    time_of = "started_at" if table == "aibridge_interceptions" else "created_at"
    limits = [(limit, sign) for limit, sign in ((before, "<"), (since, ">=")) if limit]
    conditions = [f"{time_of} {sign} ${number}" for number, (_, sign) in enumerate(limits, 1)]
    return " AND ".join(conditions) or "true", tuple(limit for limit, _ in limits)


def _early(table: str, before: datetime) -> _InBatches:
    """What waits for interceptions that never came."""
    key = "interception_id"
    measure = f"""
        SELECT count(*), coalesce(sum(pg_column_size(early.*)), 0)::bigint FROM {table} AS early WHERE {key} < $1
    """
    return _InBatches([_Part(table, "rows", measure, (least_id(before),))], _deleting(table, key, f"{key} < $1"))


def _deleting(table: str, key: str, where: str) -> str:
    return f"""
        WITH gone AS (
            DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {where} LIMIT {BATCH}) RETURNING *
        )
        SELECT count(*), coalesce(sum(pg_column_size(gone.*)), 0)::bigint FROM gone
    """


_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def _rows_of(table: str, week: int) -> _Part:
    name = name_of(table, week)
    return _Part(table, "rows", f"SELECT count(*), pg_total_relation_size('{name}') FROM {name}")


def _texts_of(table: str, name: str) -> str:
    return f"SELECT count(*), coalesce(sum({_texts_size(table)}), 0)::bigint FROM {name} WHERE {_has_texts(table)}"


def _texts_size(table: str) -> str:
    return " + ".join(f"octet_length(coalesce({text}, ''))" for text in _TEXTS[table])


def _has_texts(table: str) -> str:
    return "(" + " OR ".join(f"{text} <> ''" for text in _TEXTS[table]) + ")"


def _emptied_text(text: str) -> str:
    return f"CASE WHEN {text} IS NOT NULL THEN '' END"


def _marked(metadata: str) -> str:
    return f"""{metadata} || '{{"contents": "{EXPIRED}"}}'"""


async def _take(connection: Connection, step: _AtOnce | _InBatches) -> tuple[list[Removal], bool]:
    """Take a step: what it removed, and whether there may be more."""
    if isinstance(step, _InBatches):
        (part,) = step.parts
        rows, size = _figures(await connection.fetchrow(step.statement, *part.values))
        return [_removal(part.table, part.of, rows, size)] if rows else [], rows == BATCH
    removals = []
    for part in step.parts:
        rows, size = _figures(await connection.fetchrow(part.query, *part.values))
        if rows:
            removals.append(_removal(part.table, part.of, rows, size))
    if removals or step.even_if_empty:
        await step.act(connection)
    return removals, False


def _figures(row: asyncpg.Record | None) -> tuple[int, int]:
    assert row is not None
    return int(row[0]), int(row[1])


def _removal(table: str, of: Of, rows: int, size: int) -> Removal:
    return Removal(table=table.removeprefix("aibridge_"), of=of, rows=rows, bytes=size)


async def _in_a_moment(connection: Connection, statements: str) -> None:
    """Do what takes a moment once it has its locks, without letting others wait long behind the wish for these."""
    for attempt in range(_ATTEMPTS):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATING)
                await connection.execute(statements)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.1 * (attempt + 1))
        else:
            return
    raise RecordingError("what has had its time is in use by others for longer than usual: it is tried again later")
