"""`aibridge db`: which schema a database has, and bringing it up to date."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aibridge.recording.schema import REVISION, migration
from aibridge.recording.sqlite import SQLiteStore
from aibridge.server.cli import main
from support.postgres import PASSWORD, PostgreSQL

VERSION_1 = Path(__file__).parents[1] / "recording" / "sqlite_version_1.sql"
EXCHANGE = """
INSERT INTO aibridge_interceptions (
    id, initiator_id, provider, provider_name, model, started_at, metadata, client, credential_kind, credential_hint,
    route, streaming
) VALUES (
    '01980c5e-0000-7000-8000-000000000000', 'ada', 'openai', 'openai', 'gpt-5', '2026-03-01T12:30:00.000000+00:00',
    '{}', 'Codex', 'byok', '', '/v1/responses', '1'
);
INSERT INTO aibridge_token_usages VALUES (
    '01980c5e-0000-7000-8000-000000000001', '01980c5e-0000-7000-8000-000000000000', NULL, 3, 5, 7, 0, '{}',
    '2026-03-01T12:30:01.000000+00:00'
);
"""


def db(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["db", *arguments])


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of a SQLite database that the first version made."""
    path = tmp_path / "records.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1.read_text() + EXCHANGE)
    return f"sqlite:///{path}"


@pytest.fixture
def old_postgresql(postgresql: PostgreSQL) -> str:
    """The URL of a PostgreSQL database with the first version of the schema."""
    url = postgresql.new_database()
    postgresql.run(migration("postgresql", None, "0001") + EXCHANGE, url=url)
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

    usage = CliRunner().invoke(main, ["usage", "--by", "day", "--json", "--database", url])
    assert json.loads(usage.output)["total"]["input_tokens"] == 3, "what there was is in the sums"


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
    postgresql.run(sql, url=old_postgresql)
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
