"""The schema: a new database is the same as one that went through every version, and is made more quickly."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from aibridge.recording.schema import migration


def test_a_new_database_is_as_one_that_was_upgraded() -> None:
    new, upgraded = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    new.executescript(migration("sqlite", None))
    upgraded.executescript(migration("sqlite", None, "0001"))
    upgraded.executescript(migration("sqlite", "0001"))
    assert schema(new) == schema(upgraded)
    assert version(new) == version(upgraded)


def schema(database: sqlite3.Connection) -> set[tuple[str, str]]:
    return {*database.execute("SELECT name, sql FROM sqlite_schema")}


def version(database: sqlite3.Connection) -> list[tuple[str]]:
    return database.execute("SELECT version_num FROM aibridge_schema_version").fetchall()


def test_a_new_database_is_made_without_what_migrates_old_ones(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from aibridge.recording.sqlite import SQLiteStore
SQLiteStore(Path({str(tmp_path / "new.db")!r})).close()
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
