"""The sums of `aibridge.recording.rollups` in SQLite."""

# ruff: noqa: S608 - what is put into the SQL are names of tables and columns

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from aibridge.recording.rollups import (
    FIGURES,
    KEY,
    MOST,
    Cutting,
    Figures,
    Outcome,
    Place,
    Whose,
    additions,
    counted,
    hour_of,
    place_of,
    rebuilding,
)
from aibridge.recording.sqlite_rows import execute_rows, utc
from aibridge.records import Interception, Record

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


def count(
    db: sqlite3.Connection, fresh: Iterable[Record], begun: Sequence[Interception], outcomes: Sequence[Outcome]
) -> list[str]:
    """Add to the sums what records that were not there before come to; `begun` are the interceptions among them.

    Those interceptions are returned whose tool usages were there before them.
    """
    changes = counted(fresh, outcomes)
    places = {record.id: place_of(record) for record in begun}
    askers = []
    if places and db.execute(_ANY_EARLY_FIGURES).fetchone():
        for name, *figures in db.execute(_TAKE_EARLY_FIGURES, (_ids(places),)).fetchall():
            changes.append((name, tuple(figures)))
            if figures[FIGURES.index("tool_calls")]:
                askers.append(name)
    elsewhere = {name for name, _ in changes if name not in places}
    if elsewhere:
        for name, started_at, *whose in db.execute(_PLACES, (_ids(elsewhere),)):
            places[name] = Place(hour_of(datetime.fromisoformat(started_at)), Whose(*whose))
    hours, days, early = additions(changes, places)
    execute_rows(db, _ADD_HOURS, [*hours.items()], _sum_row)
    execute_rows(db, _ADD_DAYS, [*days.items()], _sum_row)
    execute_rows(db, _KEEP_EARLY_FIGURES, [(name, *figures) for name, figures in early.items()], tuple)
    return askers


def _sum_row(of_place: tuple[Place, Figures]) -> tuple[object, ...]:
    (starts_at, whose), figures = of_place
    return utc(starts_at), *whose, *figures


def rebuild(db: sqlite3.Connection) -> None:
    """Make all sums anew from the records, while nobody else writes."""
    db.execute("BEGIN IMMEDIATE")
    for statement in rebuilding(CUTTING):
        db.execute(statement)
    db.execute("COMMIT")


def _ids(names: Iterable[str]) -> str:
    """Ids as one JSON text: to ask for all of them at once costs far less than one after another."""
    return msgspec.json.encode(list(names)).decode()
