"""Stores to test with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aibridge.recording.postgres.store import PostgresStore
from aibridge.recording.sqlite import SQLiteStore
from support.postgres import PostgreSQL

from .kept import Kept, reading_postgresql, reading_sqlite


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """Each kind of store in turn."""
    if request.param == "sqlite":
        with closing(SQLiteStore(tmp_path / "records.db")) as sqlite:
            yield Kept(f"sqlite:///{sqlite.path}", sqlite, reading_sqlite(sqlite.path))
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        url = server.new_database()
        with closing(PostgresStore(url)) as store:
            yield Kept(url, store, reading_postgresql(server, url))
