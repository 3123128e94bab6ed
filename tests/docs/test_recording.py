"""docs/recording.md has every table and column that the databases have, and these have the same ones."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from aibridge.recording.postgres.store import PostgresStore
from aibridge.recording.sqlite import SQLiteStore
from support.postgres import PostgreSQL

from .pages import ROOT, code, page, rows, section

SUMS = {"aibridge_hourly_usage", "aibridge_daily_usage"}
"""They have a section together."""

OWN = {"aibridge_early_ends", "aibridge_early_figures", "aibridge_remembered_turns", "aibridge_schema_version"}
"""Tables that are nobody else's to read."""


def test_every_column_is_there(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "aibridge.db").close()
    with closing(sqlite3.connect(tmp_path / "aibridge.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in set(tables) - OWN:
            columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
            heading = "Sums by hour and day" if table in SUMS else table
            told = [code(row[0])[0] for row in rows(section(page("recording.md"), heading))]
            assert sorted(told) == sorted(columns), table


def test_the_tables_that_nobody_else_reads_are_named() -> None:
    for table in OWN:
        assert f"`{table}`" in page("recording.md")


async def test_postgresql_has_the_same_columns(tmp_path: Path, postgresql: PostgreSQL) -> None:
    SQLiteStore(tmp_path / "aibridge.db").close()
    url = postgresql.new_database()
    PostgresStore(url).close()
    with closing(sqlite3.connect(tmp_path / "aibridge.db")) as database:
        for table in {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}:
            columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
            query = "SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position"
            assert [name for (name,) in postgresql.rows(query, table, url=url)] == columns, table


def test_the_tests_that_show_it_are_there() -> None:
    told = [code(cell)[0] for *_, cell in rows(section(page("recording.md"), "What shows it"))]
    assert len(told) > 15
    for file, name in (test.split("::") for test in told):
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"
