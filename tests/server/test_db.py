"""`aibridge db`: which schema a database has, and bringing it up to date."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aibridge.recording.postgres.store import PostgresStore
from aibridge.recording.schema import REVISION
from aibridge.recording.sqlite import SQLiteStore
from aibridge.server.cli import main
from support.postgres import PASSWORD, PostgreSQL

VERSION_1 = Path(__file__).parents[1] / "recording" / "sqlite_version_1.sql"


def db(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["db", *arguments])


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of a SQLite database that the first version made."""
    path = tmp_path / "records.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1.read_text())
    return f"sqlite:///{path}"


@pytest.fixture
def old_postgresql(postgresql: PostgreSQL) -> str:
    """The URL of a PostgreSQL database as it was before there was the provider's own usage."""
    url = postgresql.new_database()
    PostgresStore(url).close()
    postgresql.rows("ALTER TABLE aibridge_token_usages DROP COLUMN provider_usage", url=url)
    postgresql.rows("UPDATE aibridge_schema_version SET version_num = '0001'", url=url)
    return url


@pytest.mark.parametrize("kind", ["old", "old_postgresql"])
def test_an_old_database_is_upgraded(kind: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(kind)
    before = db("status", "--database", url)
    assert before.exit_code == 1
    assert f"has schema 0001, this aibridge needs {REVISION}: run `aibridge db upgrade`" in before.output

    upgraded = db("upgrade", "--database", url)
    assert (upgraded.exit_code, upgraded.output) == (0, f"The database has schema {REVISION} now, 0001 before.\n")

    after = db("status", "--json", "--database", url)
    assert after.exit_code == 0
    assert json.loads(after.output) == {"found": REVISION, "needed": REVISION, "state": "current"}
    assert db("upgrade", "--database", url).output == f"The database has schema {REVISION} already.\n"


def test_an_upgraded_database_is_like_a_new_one(old: str, tmp_path: Path) -> None:
    db("upgrade", "--database", old)
    SQLiteStore(tmp_path / "new.db").close()

    def columns(path: str) -> dict[str, list[str]]:
        with closing(sqlite3.connect(path)) as database:
            tables = database.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'index')").fetchall()
            return {name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")] for (name,) in tables}

    assert columns(old.removeprefix("sqlite:///")) == columns(f"{tmp_path}/new.db")


def test_the_sql_of_an_upgrade_does_what_the_upgrade_does(old_postgresql: str, postgresql: PostgreSQL) -> None:
    sql = db("upgrade", "--sql", "--database", old_postgresql).output
    assert "ADD COLUMN provider_usage" in sql
    for statement in filter(str.strip, sql.split(";")):
        postgresql.rows(statement, url=old_postgresql)
    assert db("status", "--database", old_postgresql).exit_code == 0
    assert db("upgrade", "--sql", "--database", old_postgresql).output == ""


def test_a_new_database_is_made_by_the_first_start_or_before(postgresql: PostgreSQL, tmp_path: Path) -> None:
    for url in (postgresql.new_database(), f"sqlite:///{tmp_path}/records.db"):
        assert db("status", "--database", url).exit_code == 0
        assert db("upgrade", "--database", url).output == f"The database has schema {REVISION} now.\n"
        assert "which this aibridge needs" in db("status", "--database", url).output


def test_a_newer_database_is_left_alone(old_postgresql: str, postgresql: PostgreSQL) -> None:
    postgresql.rows("UPDATE aibridge_schema_version SET version_num = '9999'", url=old_postgresql)
    assert db("status", "--database", old_postgresql).exit_code == 1
    refused = db("upgrade", "--database", old_postgresql)
    assert refused.exit_code == 2
    assert "upgrade aibridge" in refused.output


def test_what_is_no_database_is_told_without_its_password(postgresql: PostgreSQL) -> None:
    refused = db("status", "--database", postgresql.url("missing"))
    assert refused.exit_code == 2
    assert 'database "missing" does not exist' in refused.output
    assert PASSWORD not in refused.output
