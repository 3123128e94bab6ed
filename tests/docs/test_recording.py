"""docs/recording.md has every table and column that the database has."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from aibridge.recording.sqlite import SQLiteStore

from .pages import code, page, rows, section


def test_every_column_is_there(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "aibridge.db").close()
    with closing(sqlite3.connect(tmp_path / "aibridge.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in set(tables) - {"aibridge_early_ends", "aibridge_remembered_turns", "aibridge_schema_version"}:
            columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
            told = [code(row[0])[0] for row in rows(section(page("recording.md"), table))]
            assert sorted(told) == sorted(columns), table
