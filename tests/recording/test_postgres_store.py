"""What is PostgreSQL's own: types, partitions, several gateways at once, and faults that name no password."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from aibridge.errors import RecordingError
from aibridge.recording.postgres.partitions import TABLES, first_id, name_of, week_of
from aibridge.recording.postgres.store import PostgresStore
from aibridge.recording.schema import REVISION
from aibridge.recording.stores import UnstorableError
from aibridge.records import Interception, ModelThought, Record, new_id
from support.postgres import PASSWORD, PostgreSQL

from . import samples
from .samples import end_of, interception, prompt, tokens, tool


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.new_database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(url)) as store:
        yield store


def test_every_record_becomes_a_row_of_native_types(store: PostgresStore, postgresql: PostgreSQL, url: str) -> None:
    i, t, u, m = new_id(), new_id(), new_id(), new_id()
    store.store(
        [
            interception(i, metadata={"a": 1, "b": 1}),
            msgspec.structs.replace(prompt(i, "Fix it."), id=new_id()),
            tokens(i, id=t, cache_read_input_tokens=7, metadata={"tier": "x"}, provider_usage='{ "tier":"x"}'),
            tool(i, "toolu_1", id=u, injected=True, server_url="https://mcp.example/", invocation_error="no"),
            ModelThought(id=m, interception_id=i, provider_response_id="msg_1", content="Hm.", created_at=samples.NOON),
            end_of(i, status="failed", http_status=502, error_type="e", error_message="m", metadata={"b": 2}),
        ]
    )
    told = postgresql.rows(
        "SELECT id, started_at, ended_at, streaming, http_status FROM aibridge_interceptions", url=url
    )
    assert told == [(i, samples.NOON, samples.at(1), True, 502)]
    metadata = "SELECT metadata ->> 'a', metadata ->> 'b' FROM aibridge_interceptions"
    assert postgresql.rows(metadata, url=url) == [("1", "2")]
    assert postgresql.rows("SELECT * FROM aibridge_token_usages", url=url) == [
        (t, i, "msg_1", 3, 5, 7, 0, '{"tier": "x"}', samples.NOON, '{ "tier":"x"}')
    ]
    assert postgresql.rows("SELECT prompt FROM aibridge_user_prompts", url=url) == [("Fix it.",)]
    assert postgresql.rows("SELECT injected, invocation_error FROM aibridge_tool_usages", url=url) == [(True, "no")]
    assert postgresql.rows("SELECT content FROM aibridge_model_thoughts", url=url) == [("Hm.",)]


def test_nul_characters_and_lone_surrogates_become_visible(
    store: PostgresStore, postgresql: PostgreSQL, url: str
) -> None:
    i = new_id()
    text = 'a\x00b \ud800 c \\u0000 "'
    store.store([interception(i, metadata={"k\ud800": ["v\udfff\x00"]}, user_agent=text)])
    ((agent, metadata),) = postgresql.rows("SELECT user_agent, metadata FROM aibridge_interceptions", url=url)
    assert agent == 'a\\u0000b \\ud800 c \\u0000 "'
    assert json.loads(metadata) == {"k\\ud800": ["v\\udfff\\u0000"]}


def test_what_is_no_uuid_can_never_be_stored(store: PostgresStore) -> None:
    with pytest.raises(UnstorableError, match="refuses a record: ValueError"):
        store.store([interception("no-uuid")])


# Opening


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (PASSWORD, "hunter3", "password authentication failed"),
        ("/test_", "/missing_", 'database "missing_.*" does not exist'),
    ],
)
def test_what_no_waiting_would_mend_is_refused_at_once(url: str, right: str, wrong: str, message: str) -> None:
    with pytest.raises(RecordingError, match=message) as caught:
        PostgresStore(url.replace(right, wrong))
    assert "hunter" not in str(caught.value)


def test_a_server_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    server = PostgreSQL()
    try:
        url = server.new_database()
        server.stop()
        with caplog.at_level(logging.ERROR), closing(PostgresStore(url)) as store:
            with pytest.raises(RecordingError, match=f"127.0.0.1:{server.port}/test_.* can not be reached"):
                store.store([interception(new_id())])
            server.start()
            store.store([interception(new_id())])
        assert server.rows("SELECT count(*) FROM aibridge_interceptions", url=url) == [(1,)]
        assert "Records will wait in the journal" in caplog.text
        assert "hunter" not in caplog.text
    finally:
        server.close()


def test_several_may_open_a_new_database_at_once(url: str) -> None:
    def open_it(_: int) -> None:
        PostgresStore(url).close()

    with ThreadPoolExecutor(6) as openers:
        list(openers.map(open_it, range(6)))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0001", rf"older aibridge \(0001, this one needs {REVISION}\): run `aibridge db upgrade`"),
        ("9999", "newer aibridge .* upgrade aibridge"),
    ],
)
def test_another_schema_is_refused(postgresql: PostgreSQL, url: str, version: str, message: str) -> None:
    PostgresStore(url).close()
    postgresql.rows("UPDATE aibridge_schema_version SET version_num = $1", version, url=url)
    with pytest.raises(RecordingError, match=message):
        PostgresStore(url)


# Partitions


def id_of(week: int) -> str:
    return first_id(week)[:14] + "7" + new_id()[15:]


def places(postgresql: PostgreSQL, url: str) -> dict[str, str]:
    return dict(postgresql.rows("SELECT id, tableoid::regclass::text FROM aibridge_interceptions", url=url))


def test_what_is_stored_is_in_the_partition_of_its_week(store: PostgresStore, postgresql: PostgreSQL, url: str) -> None:
    this_week = week_of(new_id())
    assert this_week is not None
    ids = [id_of(this_week - weeks) for weeks in (0, 1, 3)]
    strange = [id_of(this_week + 500), id_of(this_week - 500), "6ba7b812-9dad-11d1-80b4-00c04fd430c8"]
    store.store([interception(each) for each in ids + strange])

    expected = {
        each: name_of("aibridge_interceptions", this_week - weeks) for each, weeks in zip(ids, (0, 1, 3), strict=True)
    }
    assert places(postgresql, url) == expected | dict.fromkeys(strange, "aibridge_interceptions_default")
    for table in TABLES:
        ahead = "SELECT to_regclass($1) IS NOT NULL"
        assert postgresql.rows(ahead, name_of(table, this_week + 1), url=url) == [(True,)]


def test_a_new_partition_gets_what_the_default_one_has_of_it(
    store: PostgresStore, postgresql: PostgreSQL, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was wrong for a while is right in the end."""
    this_week = week_of(new_id())
    assert this_week is not None
    early = id_of(this_week + 4)
    store.store([interception(early)])
    assert places(postgresql, url) == {early: "aibridge_interceptions_default"}

    later = time.time() + timedelta(weeks=4).total_seconds()
    monkeypatch.setattr("aibridge.recording.postgres.partitions.time", lambda: later)
    store.store([interception(early), end_of(early)])
    assert places(postgresql, url) == {early: name_of("aibridge_interceptions", this_week + 4)}
    assert postgresql.rows("SELECT status FROM aibridge_interceptions", url=url) == [("completed",)]


def test_a_conversation_that_goes_on_after_months_is_one_thread(
    store: PostgresStore, postgresql: PostgreSQL, url: str
) -> None:
    this_week = week_of(new_id())
    assert this_week is not None
    first, answer = id_of(this_week - 20), id_of(this_week)
    store.store([interception(first), tool(first, "call-1", id=id_of(this_week - 20))])
    store.store([interception(answer, second=5, correlating_tool_call_id="call-1")])
    linked = (
        "SELECT id, thread_parent_id, thread_root_id FROM aibridge_interceptions WHERE thread_parent_id IS NOT NULL"
    )
    assert postgresql.rows(linked, url=url) == [(answer, first, first)]


def test_the_monday_of_a_week_is_in_the_name_of_its_partition() -> None:
    id_of_a_sunday = "019c5f2a-1b00-7000-8000-000000000000"
    week = week_of(id_of_a_sunday)
    assert week is not None
    assert first_id(week) <= id_of_a_sunday < first_id(week + 1)
    assert name_of("t", week) == "t_20260209"


# Several gateways


def conversation(number: int, turns: int) -> list[list[Record]]:
    """A thread of interceptions, each with the call that the next one answers: two batches for each."""
    batches: list[list[Record]] = []
    for turn in range(turns):
        begun = interception(
            new_id(), second=2 * turn, correlating_tool_call_id=f"call-{number}-{turn - 1}" if turn else None
        )
        called = tool(begun.id, f"call-{number}-{turn}", second=2 * turn + 1, id=new_id())
        batches += [[begun], [called, end_of(begun.id, second=2 * turn + 1)]]
    return batches


def test_several_gateways_make_one_thread_of_what_each_has_of_it(postgresql: PostgreSQL, url: str) -> None:
    """Whichever of two transactions sees the other's records, one of them does."""
    gateways = [PostgresStore(url) for _ in range(3)]
    batches = [batch for number in range(10) for batch in conversation(number, 6)]

    def store(gateway: int) -> None:
        for batch in batches[gateway::3]:
            gateways[gateway].store(batch)

    with ThreadPoolExecutor(3) as processes:
        list(processes.map(store, range(3)))
    for gateway in gateways:
        gateway.close()

    begun = [record for batch in batches for record in batch if isinstance(record, Interception)]
    expected: dict[str, tuple[Any, Any]] = {}
    for first in range(0, len(begun), 6):
        thread = [record.id for record in begun[first : first + 6]]
        expected |= {own: (parent, thread[0]) for parent, own in itertools.pairwise(thread)}
        expected[thread[0]] = (None, None)
    found = postgresql.rows("SELECT id, thread_parent_id, thread_root_id FROM aibridge_interceptions", url=url)
    assert {name: (parent, root) for name, parent, root in found} == expected
    assert postgresql.rows("SELECT count(*) FROM aibridge_interceptions WHERE status IS NULL", url=url) == [(0,)]
    assert postgresql.rows("SELECT count(*) FROM aibridge_early_ends", url=url) == [(0,)]


def test_what_two_gateways_store_alike_is_there_once(postgresql: PostgreSQL, url: str) -> None:
    batch = [record for number in range(40) for part in conversation(number, 3) for record in part]

    def store(records: list[Record]) -> None:
        with closing(PostgresStore(url)) as gateway:
            for _ in range(3):
                gateway.store(records)

    with ThreadPoolExecutor(2) as processes:
        list(processes.map(store, [batch, batch]))
    assert postgresql.rows("SELECT count(*) FROM aibridge_interceptions", url=url) == [(120,)]
    assert postgresql.rows("SELECT count(*) FROM aibridge_tool_usages", url=url) == [(120,)]


def test_a_connection_that_was_cut_is_made_anew(store: PostgresStore, postgresql: PostgreSQL, url: str) -> None:
    store.store([interception(new_id())])
    assert postgresql.cut_connections() >= 1
    try:
        store.store([interception(new_id())])
    except RecordingError as fault:  # or it was noticed before
        assert "can not be" in str(fault)  # noqa: PT017
        store.store([interception(new_id())])
    assert postgresql.rows("SELECT count(*) FROM aibridge_interceptions", url=url) == [(2,)]
