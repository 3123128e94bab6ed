"""What another program finds in the database once records are stored."""

from __future__ import annotations

import itertools
import json
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.errors import RecordingError
from aibridge.recording import threads
from aibridge.recording.sqlite import SQLiteStore
from aibridge.recording.stores import UnstorableError
from aibridge.records import ModelThought, Record

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


@settings(deadline=None, max_examples=40)
@given(st.lists(samples.records, max_size=8))
def test_any_record_can_be_stored_and_stored_again(records: list[Record]) -> None:
    with TemporaryDirectory() as directory, closing(SQLiteStore(Path(directory) / "records.db")) as store:
        store.store(records)
        before = everything(store.path)
        store.store(records)
        assert everything(store.path) == before


def everything(path: Path) -> list[list[Any]]:
    return [sorted(rows(path, f"SELECT * FROM {table}"), key=repr) for table in (*TABLES, "aibridge_early_ends")]


def test_nul_characters_stay_and_lone_surrogates_become_visible(store: SQLiteStore, path: Path) -> None:
    store.store([interception("i", metadata={"k\ud800": ["v\udfff\x00"]}), prompt("i", "a\x00b \ud800 c")])
    assert rows(path, "SELECT prompt FROM aibridge_user_prompts") == [("a\x00b \\ud800 c",)]
    ((metadata,),) = rows(path, "SELECT metadata FROM aibridge_interceptions")
    assert json.loads(metadata) == {"k\\ud800": ["v\\udfff\x00"]}


def test_an_end_waits_for_its_interception(store: SQLiteStore, path: Path) -> None:
    store.store([end_of("i", status="cancelled", http_status=None, metadata={"retries": 1})])
    store.store([end_of("other")])
    store.store([interception("i", metadata={"team": "a"})])
    ((status, metadata),) = rows(path, "SELECT status, metadata FROM aibridge_interceptions")
    assert status == "cancelled"
    assert json.loads(metadata) == {"team": "a", "retries": 1}
    assert rows(path, "SELECT interception_id FROM aibridge_early_ends") == [("other",)]


def test_a_batch_is_stored_whole_or_not_at_all(store: SQLiteStore, path: Path) -> None:
    with pytest.raises(UnstorableError, match="refuses a record"):
        store.store([interception("i"), tokens("i", input_tokens=2**63)])
    assert rows(path, "SELECT id FROM aibridge_interceptions") == []
    store.store([interception("i")])
    assert rows(path, "SELECT id FROM aibridge_interceptions") == [("i",)]


def test_the_database_is_private_and_in_wal_mode(store: SQLiteStore, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert rows(path, "PRAGMA user_version") == [(2,)]


def test_a_database_of_a_newer_version_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(RecordingError, match=r"newer aibridge \(schema 3, this one knows 2\): upgrade"):
        SQLiteStore(path)


def test_a_database_of_an_older_version_is_upgraded_by_whoever_comes_first(store: SQLiteStore, path: Path) -> None:
    store.store([tokens("i", id="old")])
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE aibridge_token_usages DROP COLUMN provider_usage")
        connection.execute("PRAGMA user_version = 1")

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


# Threads: `first` calls a tool, `second` answers it and calls another, `third` answers that one.

CONVERSATION: list[Record] = [
    interception("first", second=0),
    tool("first", "call-1", second=1),
    interception("second", second=2, correlating_tool_call_id="call-1"),
    tool("second", "call-2", second=3),
    interception("third", second=4, correlating_tool_call_id="call-2"),
]
LINKS = [("first", None, None), ("second", "first", "first"), ("third", "second", "first")]


def links(path: Path) -> list[Any]:
    return rows(path, "SELECT id, thread_parent_id, thread_root_id FROM aibridge_interceptions ORDER BY started_at")


def test_a_thread_is_linked_in_whatever_order_its_records_arrive(tmp_path: Path) -> None:
    for number, order in enumerate(itertools.permutations(CONVERSATION)):
        with closing(SQLiteStore(tmp_path / f"{number}.db")) as store:
            for record in order:
                store.store([record])
            assert links(store.path) == LINKS, order


def test_a_thread_is_linked_within_one_batch(store: SQLiteStore, path: Path) -> None:
    store.store(CONVERSATION[::-1])
    assert links(path) == LINKS


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_links_depend_on_the_records_alone(data: st.DataObject) -> None:
    """Even with few call ids that come again and again, and two initiators that use the same ones."""
    calls = st.sampled_from(["call-1", "call-2"])
    records: list[Record] = []
    for number in range(data.draw(st.integers(2, 7))):
        asked = data.draw(st.none() | calls)
        initiator = data.draw(st.sampled_from(["alice", "alice", "bob"]))
        name = f"i{number}"
        records.append(interception(name, second=number, initiator_id=initiator, correlating_tool_call_id=asked))
        records += [tool(name, data.draw(calls), second=number + 0.5) for _ in range(data.draw(st.integers(0, 2)))]

    with TemporaryDirectory() as directory:
        in_order, shuffled = Path(directory) / "1.db", Path(directory) / "2.db"
        with closing(SQLiteStore(in_order)) as store:
            store.store(records)
        remaining = data.draw(st.permutations(records))
        with closing(SQLiteStore(shuffled)) as store:
            while remaining:
                size = data.draw(st.integers(1, len(remaining)))
                store.store(remaining[:size])
                remaining = remaining[size:]
        assert links(shuffled) == links(in_order)


def test_the_newest_call_before_the_answer_counts(store: SQLiteStore, path: Path) -> None:
    store.store(
        [
            interception("old", second=0),
            tool("old", "call-1", second=1),
            interception("new", second=2),
            tool("new", "call-1", second=3),
            interception("answer", second=4, correlating_tool_call_id="call-1"),
            tool("answer", "call-1", second=5),
            interception("later", second=6),
            tool("later", "call-1", second=7),
        ]
    )
    assert ("answer", "new", "new") in links(path)


def test_another_initiators_call_is_no_parent(store: SQLiteStore, path: Path) -> None:
    store.store(
        [
            interception("theirs", initiator_id="bob"),
            tool("theirs", "call-1"),
            interception("mine", second=1, initiator_id="alice", correlating_tool_call_id="call-1"),
        ]
    )
    assert ("mine", None, None) in links(path)


def test_an_interception_is_never_its_own_parent(store: SQLiteStore, path: Path) -> None:
    store.store([interception("i", correlating_tool_call_id="call-1"), tool("i", "call-1")])
    assert links(path) == [("i", None, None)]


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
