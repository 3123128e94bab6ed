"""What there is to remove from PostgreSQL, step by step, and the SQL that measures and removes it."""

# ruff: noqa: S608 - the names of tables and columns are made here, and every value is a parameter

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple

import asyncpg

from aibridge.errors import RecordingError
from aibridge.recording.postgres.connection import MIGRATING, Connection
from aibridge.recording.postgres.partitions import TABLES, first_id, name_of, week_at, weeks_of
from aibridge.recording.retention import EXPIRED, Limits, Of, by_days
from aibridge.records import least_id

BATCH = 500
"""Rows that one statement removes, or whose texts it removes, where that is done row by row."""

_LOCK_TIMEOUT = "500ms"
"""How long others may have to wait behind the wish for a lock on a table that they use."""
_ATTEMPTS = 20

_CONTENTS = ("aibridge_user_prompts", "aibridge_model_thoughts")
"""The tables whose rows are nothing without their contents."""
_EARLY = ("aibridge_early_ends", "aibridge_early_figures")
_TOOLS = "aibridge_tool_usages"
_ERRORS = "aibridge_interceptions"
_TEXTS = {_TOOLS: ("input", "invocation_error"), _ERRORS: ("error_message",)}
"""The columns of contents in rows that stay, by table."""


class Part(NamedTuple):
    """Something to remove, of one table."""

    table: str
    of: Of
    query: str
    """Tells how many rows and bytes of it there are."""
    values: tuple[object, ...] = ()


class AtOnce(NamedTuple):
    """What is removed at once."""

    parts: list[Part]
    act: Callable[[Connection], Awaitable[None]]
    even_if_empty: bool = False
    partition: str = ""
    """The week's table, which need not be looked through again once there is nothing in it."""


class InBatches(NamedTuple):
    """What is removed by a statement that takes a batch of it, and tells how many rows and bytes these were."""

    parts: list[Part]
    statement: str
    partition: str = ""


async def steps_of(connection: Connection, limits: Limits) -> list[AtOnce | InBatches]:
    """All that there may be to remove, in the order in which it is removed."""
    limits = by_days(limits)
    weeks = {table: await weeks_of(connection, table) for table in TABLES}
    steps: list[AtOnce | InBatches] = []
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


def _dropped(tables: list[str], week: int) -> AtOnce:
    async def drop(connection: Connection) -> None:
        await _in_a_moment(connection, f"DROP TABLE {', '.join(name_of(table, week) for table in tables)}")

    return AtOnce([_rows_of(table, week) for table in tables], drop, even_if_empty=True)


def _truncated(table: str, week: int) -> AtOnce:
    async def truncate(connection: Connection) -> None:
        await _in_a_moment(connection, f"TRUNCATE {name_of(table, week)}")

    return AtOnce([_rows_of(table, week)], truncate)


def _exchanged(week: int) -> AtOnce:
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

    return AtOnce([Part(_TOOLS, "contents", _texts_of(_TOOLS, name))], exchange, partition=name)


def _emptied(table: str, partition: str, before: datetime | None = None, since: datetime | None = None) -> InBatches:
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
    part = Part(table, "contents", f"{_texts_of(table, partition)} AND {span}", values)
    return InBatches([part], statement, "" if before else partition)


def _loose(table: str, before: datetime, since: datetime | None = None) -> InBatches:
    """The rows of a table that are in no week, by their time."""
    span, values = _span(table, before, since)
    measure = f"""
        SELECT count(*), coalesce(sum(pg_column_size(loose.*)), 0)::bigint FROM {table}_default AS loose WHERE {span}
    """
    return InBatches([Part(table, "rows", measure, values)], _deleting(f"{table}_default", "id", span))


def _span(table: str, before: datetime | None, since: datetime | None) -> tuple[str, tuple[datetime, ...]]:
    """A condition for rows of a span of time, and its values."""
    time_of = "started_at" if table == "aibridge_interceptions" else "created_at"
    limits = [(limit, sign) for limit, sign in ((before, "<"), (since, ">=")) if limit]
    conditions = [f"{time_of} {sign} ${number}" for number, (_, sign) in enumerate(limits, 1)]
    return " AND ".join(conditions) or "true", tuple(limit for limit, _ in limits)


def _early(table: str, before: datetime) -> InBatches:
    """What waits for interceptions that never came."""
    key = "interception_id"
    measure = f"""
        SELECT count(*), coalesce(sum(pg_column_size(early.*)), 0)::bigint FROM {table} AS early WHERE {key} < $1
    """
    return InBatches([Part(table, "rows", measure, (least_id(before),))], _deleting(table, key, f"{key} < $1"))


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


def _rows_of(table: str, week: int) -> Part:
    name = name_of(table, week)
    return Part(table, "rows", f"SELECT count(*), pg_total_relation_size('{name}') FROM {name}")


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
