"""What another program finds in the database once records are stored."""

from __future__ import annotations

import json
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from aibridge.errors import RecordingError
from aibridge.recording import threads
from aibridge.recording.sqlite import VERSION, SQLiteStore
from aibridge.recording.stores import UnstorableError
from aibridge.records import ModelThought

from . import samples
from .samples import end_of, interception, prompt, rows, tokens, tool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    store.close()


TABLES = {
    "aibridge_interceptions": (
        "id initiator_id provider provider_name model started_at ended_at metadata client client_session_id user_agent "
        "thread_parent_id thread_root_id correlating_tool_call_id credential_kind credential_hint route streaming "
        "status http_status error_type error_message"
    ),
    "aibridge_token_usages": (
        "id interception_id provider_response_id input_tokens output_tokens cache_read_input_tokens "
        "cache_write_input_tokens metadata created_at provider_usage"
    ),
    "aibridge_user_prompts": "id interception_id provider_response_id prompt metadata created_at",
    "aibridge_tool_usages": (
        "id interception_id provider_response_id provider_tool_call_id server_url tool input injected "
        "invocation_error metadata created_at"
    ),
    "aibridge_model_thoughts": "id interception_id provider_response_id content metadata created_at",
}


@pytest.mark.parametrize("table", TABLES)
def test_the_columns_are_those_that_are_documented(store: SQLiteStore, path: Path, table: str) -> None:
    assert [name for (name,) in rows(path, f"SELECT name FROM pragma_table_info('{table}')")] == TABLES[table].split()


def test_every_record_becomes_a_row(store: SQLiteStore, path: Path) -> None:
    east = timezone(timedelta(hours=2))
    store.store(
        [
            interception("i", started_at=datetime(2026, 3, 1, 14, 0, 0, 5, tzinfo=east), metadata={"a": 1, "b": 1}),
            prompt("i", "Fix it."),
            tokens("i", id="t", cache_read_input_tokens=7, metadata={"tier": "x"}, provider_usage='{ "tier":"x"}'),
            tool("i", "toolu_1", id="u", injected=True, server_url="https://mcp.example/", invocation_error="no"),
            ModelThought(
                id="m",
                interception_id="i",
                provider_response_id="msg_1",
                content="Hm.",
                metadata={"source": "thinking"},
                created_at=samples.NOON,
            ),
            end_of("i", status="failed", http_status=502, error_type="e", error_message="m", metadata={"b": 2}),
        ]
    )
    assert rows(path, "SELECT * FROM aibridge_token_usages") == [
        ("t", "i", "msg_1", 3, 5, 7, 0, '{"tier":"x"}', "2026-03-01T12:00:00.000000+00:00", '{ "tier":"x"}')
    ]
    assert rows(path, "SELECT prompt FROM aibridge_user_prompts") == [("Fix it.",)]
    assert rows(path, "SELECT server_url, tool, injected, invocation_error FROM aibridge_tool_usages") == [
        ("https://mcp.example/", "bash", True, "no")
    ]
    assert rows(path, "SELECT content, metadata FROM aibridge_model_thoughts") == [("Hm.", '{"source":"thinking"}')]
    assert rows(path, "SELECT started_at, ended_at, streaming, status, http_status FROM aibridge_interceptions") == [
        ("2026-03-01T12:00:00.000005+00:00", "2026-03-01T12:00:01.000000+00:00", True, "failed", 502)
    ]
    ((metadata,),) = rows(path, "SELECT metadata FROM aibridge_interceptions")
    assert json.loads(metadata) == {"a": 1, "b": 2}


def test_nul_characters_stay_and_lone_surrogates_become_visible(store: SQLiteStore, path: Path) -> None:
    store.store([interception("i", metadata={"k\ud800": ["v\udfff\x00"]}), prompt("i", "a\x00b \ud800 c")])
    assert rows(path, "SELECT prompt FROM aibridge_user_prompts") == [("a\x00b \\ud800 c",)]
    ((metadata,),) = rows(path, "SELECT metadata FROM aibridge_interceptions")
    assert json.loads(metadata) == {"k\\ud800": ["v\\udfff\x00"]}


def test_the_database_is_private_and_in_wal_mode(store: SQLiteStore, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert store._connection is not None
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,), "what is stored is on the disk"
    assert rows(path, "PRAGMA user_version") == [(VERSION,)]


def test_a_database_of_a_newer_version_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(RecordingError, match=r"newer aibridge \(schema 999, this one knows \d+\): upgrade"):
        SQLiteStore(path)


def test_a_database_of_an_older_version_is_upgraded_by_whoever_comes_first(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "sqlite_version_1.sql").read_text())
        connection.execute(
            "INSERT INTO aibridge_token_usages VALUES ('old', 'i', NULL, 1, 1, 0, 0, '{}', '2026-03-01')"
        )
        connection.commit()

    together = threading.Barrier(4)

    def open_and_store(number: int) -> None:
        together.wait()
        with closing(SQLiteStore(path)) as upgraded:
            upgraded.store([tokens("i", id=f"new-{number}", provider_usage="{}")])

    with ThreadPoolExecutor(4) as processes:
        list(processes.map(open_and_store, range(4)))
    found = dict(rows(path, "SELECT id, provider_usage FROM aibridge_token_usages"))
    assert found == {"old": None} | {f"new-{number}": "{}" for number in range(4)}


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_text("Once upon a time there was a file that was no database. " * 20)
    with pytest.raises(RecordingError, match="file is not a database"):
        SQLiteStore(path)


def test_a_locked_database_is_a_fault_that_passes(store: SQLiteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RecordingError, match="database is locked") as caught:
            store.store([interception("i")])
        assert not isinstance(caught.value, UnstorableError)
        other.execute("ROLLBACK")
    store.store([interception("i")])
    assert rows(path, "SELECT id FROM aibridge_interceptions") == [("i",)]


def test_several_may_open_a_new_database_at_once(path: Path) -> None:
    faults: list[Exception] = []

    def open_it() -> None:
        try:
            SQLiteStore(path).close()
        except RecordingError as fault:
            faults.append(fault)

    openers = [threading.Thread(target=open_it) for _ in range(8)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert faults == []


def test_linking_never_scans_a_table(store: SQLiteStore, path: Path) -> None:
    statements = [text for name, text in vars(threads).items() if name.startswith("_") and name.isupper()]
    assert len(statements) >= 6
    for statement in statements:
        if "{column}" in statement:
            continue
        with closing(sqlite3.connect(path)) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", ("[]",) * statement.count("?")).fetchall()
        steps = [step[3] for step in plan if "json_each" not in step[3]]  # the parameter
        assert not [step for step in steps if step.startswith("SCAN") and "thread" not in step and "ROW" not in step]
        assert not [step for step in steps if "TEMP B-TREE" in step]
