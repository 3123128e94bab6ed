"""The sums of `aibridge.recording.rollups` in PostgreSQL."""

# ruff: noqa: S608 - what is put into the SQL are names of tables and columns

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aibridge.recording.postgres.connection import STORING, Connection
from aibridge.recording.rollups import (
    FIGURES,
    MOST,
    Cutting,
    Figures,
    Outcome,
    Place,
    Tally,
    Whose,
    rebuilding,
)

_PLACES = f"""
SELECT id, started_at, {", ".join(Whose._fields)} FROM aibridge_interceptions WHERE id = ANY($1::uuid[])
"""
_TAKE_EARLY_FIGURES = f"""
DELETE FROM aibridge_early_figures WHERE interception_id = ANY($1::uuid[])
RETURNING interception_id, {", ".join(FIGURES)}
"""


def _adding(table: str, key: Mapping[str, str], unique: str) -> str:
    """The statement that adds figures to a table of sums; `key` tells the types of its other columns."""
    columns = {**key, **dict.fromkeys(FIGURES, "bigint")}
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), 1))
    added = ", ".join(
        f"{name} = CAST(least(CAST(sums.{name} AS numeric) + excluded.{name}, {MOST}) AS bigint)" for name in FIGURES
    )
    return f"""
        INSERT INTO {table} AS sums ({", ".join(columns)}) SELECT * FROM unnest({arrays})
        ON CONFLICT ({unique}) DO UPDATE SET {added}
    """


_KEY = {"starts_at": "timestamptz", **dict.fromkeys(Whose._fields, "text")}
_UNIQUE = f"starts_at, md5({' || chr(31) || '.join(Whose._fields)})"
_ADD_HOURS, _ADD_DAYS = (_adding(f"aibridge_{period}_usage", _KEY, _UNIQUE) for period in ("hourly", "daily"))
_KEEP_EARLY_FIGURES = _adding("aibridge_early_figures", {"interception_id": "uuid"}, "interception_id")

CUTTING = Cutting(
    hour="date_trunc('hour', {time}, 'UTC')",
    day="date_trunc('day', {time}, 'UTC')",
    total=f"CAST(least(sum({{count}}), {MOST}) AS bigint)",
)


async def count(
    connection: Connection, fresh: Mapping[type[Any], Sequence[Any]], outcomes: Sequence[Outcome]
) -> list[str]:
    """Add to the sums what records that were not there before come to, by their types.

    The interceptions are returned whose tool usages were there before them.
    """
    tally = Tally(fresh, outcomes)
    if tally.begun:
        for name, *figures in await connection.fetch(_TAKE_EARLY_FIGURES, tally.begun):
            tally.waited(str(name), tuple(figures))
    if elsewhere := tally.elsewhere:
        for name, started_at, *whose in await connection.fetch(_PLACES, elsewhere):
            tally.place(str(name), started_at, whose)
    hours, days, early = tally.additions()
    for statement, rows in (
        (_ADD_HOURS, _sum_rows(hours)),
        (_ADD_DAYS, _sum_rows(days)),
        (_KEEP_EARLY_FIGURES, [(name, *figures) for name, figures in early.items()]),
    ):
        if rows:
            await connection.execute(statement, *map(list, zip(*rows, strict=True)))
    return tally.askers


def _sum_rows(sums: Mapping[Place, Figures]) -> list[tuple[object, ...]]:
    return [(start, *whose, *figures) for (start, whose), figures in sums.items()]


async def rebuild(connection: Connection) -> None:
    """Make all sums anew from the records, within a transaction; nobody else may relate records meanwhile."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", STORING)
    for statement in rebuilding(CUTTING):
        await connection.execute(statement, timeout=None)
