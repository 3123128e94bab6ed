"""The SQL of the schema: what is kept for empty databases is what the migrations come to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from aibridge.recording.schema import Dialect, migration, written_by_alembic


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_what_is_kept_is_what_the_migrations_come_to(dialect: Dialect) -> None:
    assert migration(dialect, None) == written_by_alembic(dialect, None), "run scripts/schema"


def test_a_new_database_is_made_without_what_migrates_old_ones(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from aibridge.recording.sqlite import SQLiteStore
SQLiteStore(Path({str(tmp_path / "new.db")!r})).close()
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
