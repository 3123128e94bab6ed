"""The sums of `aibridge.recording.rollups` in SQLite."""

# ruff: noqa: S608 - what is put into the SQL are names of tables and columns

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from aibridge.recording.rollups import (
    FIGURES,
    KEY,
    MOST,
    Cutting,
    Figures,
    Outcome,
    Place,
    Tally,
    Whose,
    rebuilding,
)
from aibridge.recording.sqlite_rows import execute_rows, utc

_PLACES = f"""
SELECT id, started_at, {", ".join(Whose._fields)} FROM aibridge_interceptions
WHERE id IN (SELECT value FROM json_each(?))
"""
_ANY_EARLY_FIGURES = "SELECT 1 FROM aibridge_early_figures LIMIT 1"
_TAKE_EARLY_FIGURES = f"""
DELETE FROM aibridge_early_figures WHERE interception_id IN (SELECT value FROM json_each(?))
RETURNING interception_id, {", ".join(FIGURES)}
"""


def _adding(table: str, key: Sequence[str]) -> str:
    added = ", ".join(f"{name} = min({name} + excluded.{name}, {MOST})" for name in FIGURES)
    return f"""
        INSERT INTO {table} ({", ".join((*key, *FIGURES))}) VALUES {{rows}}
        ON CONFLICT ({", ".join(key)}) DO UPDATE SET {added}
    """


_ADD_HOURS, _ADD_DAYS = (_adding(f"aibridge_{period}_usage", KEY) for period in ("hourly", "daily"))
_KEEP_EARLY_FIGURES = _adding("aibridge_early_figures", ["interception_id"])

CUTTING = Cutting(
    hour="substr({time}, 1, 13) || ':00:00.000000+00:00'",
    day="substr({time}, 1, 10) || 'T00:00:00.000000+00:00'",
    total="sum({count})",
)


def count(db: sqlite3.Connection, fresh: Mapping[type[Any], Sequence[Any]], outcomes: Sequence[Outcome]) -> list[str]:
    """Add to the sums what records that were not there before come to, by their types.

    Those interceptions are returned whose tool usages were there before them.
    """
    tally = Tally(fresh, outcomes)
    if tally.begun and db.execute(_ANY_EARLY_FIGURES).fetchone():
        for name, *figures in db.execute(_TAKE_EARLY_FIGURES, (_ids(tally.begun),)).fetchall():
            tally.waited(name, tuple(figures))
    if elsewhere := tally.elsewhere:
        for name, started_at, *whose in db.execute(_PLACES, (_ids(elsewhere),)):
            tally.place(name, datetime.fromisoformat(started_at), whose)
    hours, days, early = tally.additions()
    execute_rows(db, _ADD_HOURS, [*hours.items()], _sum_rows)
    execute_rows(db, _ADD_DAYS, [*days.items()], _sum_rows)
    execute_rows(db, _KEEP_EARLY_FIGURES, [(name, *figures) for name, figures in early.items()], iter)
    return tally.askers


def _sum_rows(sums: Sequence[tuple[Place, Figures]]) -> Iterator[tuple[object, ...]]:
    starts = utc([place.starts_at for place, _ in sums])
    for starts_at, (place, figures) in zip(starts, sums, strict=True):
        yield starts_at, *place.whose, *figures


def rebuild(db: sqlite3.Connection) -> None:
    """Make all sums anew from the records, while nobody else writes."""
    db.execute("BEGIN IMMEDIATE")
    for statement in rebuilding(CUTTING):
        db.execute(statement)
    db.execute("COMMIT")


def _ids(names: Sequence[str]) -> str:
    """Ids as one JSON text: to ask for all of them at once costs far less than one after another."""
    return msgspec.json.encode(names).decode()
