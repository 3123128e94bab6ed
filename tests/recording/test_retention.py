"""What has had its time goes, and nothing else; and whoever writes meanwhile does not notice."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aibridge.errors import RecordingError
from aibridge.recording import sqlite_retention
from aibridge.recording.databases import rebuild_rollups
from aibridge.recording.postgres import removing
from aibridge.recording.postgres import retention as postgres_retention
from aibridge.recording.postgres.partitions import name_of, week_at
from aibridge.recording.retention import Limits, Of, Pruner, Removal, limits, pruner_for
from aibridge.recording.stores import sqlite_path, store_for
from aibridge.records import ModelThought, PromptUsage, Record, least_id
from support.postgres import PostgreSQL

from .kept import Read, reading_postgresql, reading_sqlite
from .samples import end_of, interception, tokens, tool

_TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
NOW = _TODAY - timedelta(days=(_TODAY.weekday() - 2) % 7)
"""A Wednesday: 30 days before, and 50 days before, a week has just begun, so that PostgreSQL's weeks do not show."""


def made(days_ago: float, number: int = 0) -> str:
    """An id made so many days ago."""
    return f"{least_id(NOW - timedelta(days=days_ago))[:24]}{number:012x}"


def exchange(days_ago: float) -> list[Record]:
    """An interception with a record of each kind, all with contents."""
    time, own = NOW - timedelta(days=days_ago), made(days_ago)
    return [
        interception(own, started_at=time, metadata={"team": "tides"}),
        PromptUsage(id=made(days_ago, 1), interception_id=own, prompt="When?", created_at=time),
        tokens(own, id=made(days_ago, 2), created_at=time),
        tool(own, "call", id=made(days_ago, 3), input='{"at": 1}', invocation_error="no", created_at=time),
        ModelThought(
            id=made(days_ago, 4), interception_id=own, provider_response_id=None, content="Hm.", created_at=time
        ),
        end_of(own, status="failed", error_message="When? is no question"),
    ]


@dataclass
class Books:
    """A database, as three programs see it: one that writes, one that prunes, and one that looks."""

    url: str
    read: Read

    def store(self, records: Iterable[Record]) -> None:
        with closing(store_for(self.url)) as store:
            store.store([*records])

    def pruner(self) -> Pruner:
        return pruner_for(self.url)

    def rows(self, query: str) -> list[Any]:
        return self.read(query, ())

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM aibridge_{table}")[0][0])


@pytest.fixture(params=["sqlite", "postgresql"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Books:
    """Interceptions of 5, 15, … 95 days ago, in each kind of store in turn."""
    if request.param == "sqlite":
        books = Books(f"sqlite:///{tmp_path}/records.db", reading_sqlite(tmp_path / "records.db"))
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        url = server.new_database()
        books = Books(url, reading_postgresql(server, url))
    books.store(record for days in range(5, 100, 10) for record in exchange(days))
    books.store([end_of(made(95, 9)), end_of(made(5, 9))])  # their beginnings never came
    return books


only_sqlite = pytest.mark.parametrize("books", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("books", ["postgresql"], indirect=True)


def age(days: float) -> float:
    return days * 24 * 3600


async def pruned(pruner: Pruner, limits: Limits) -> list[Removal]:
    return [removal async for removal in pruner.prune(limits)]


def summed(removals: list[Removal]) -> dict[tuple[str, Of], tuple[int, int]]:
    sums: dict[tuple[str, Of], tuple[int, int]] = {}
    for each in removals:
        before = sums.get((each.table, each.of), (0, 0))
        sums[each.table, each.of] = (before[0] + each.rows, before[1] + each.bytes)
    return sums


def counted(removals: list[Removal]) -> dict[tuple[str, Of], int]:
    return {what: rows for what, (rows, _) in summed(removals).items()}


async def test_contents_go_and_figures_stay(books: Books) -> None:
    usages = books.rows("SELECT interception_id, input_tokens FROM aibridge_token_usages ORDER BY id")
    await pruned(books.pruner(), limits(NOW, age(30), 0))
    assert books.count("interceptions") == 10
    assert books.rows("SELECT interception_id, input_tokens FROM aibridge_token_usages ORDER BY id") == usages
    assert books.count("user_prompts") == books.count("model_thoughts") == 3
    tools = books.rows("SELECT tool, input, invocation_error, metadata FROM aibridge_tool_usages ORDER BY id")
    assert [(*tool[:3], json.loads(tool[3])) for tool in tools] == [
        *[("bash", "", "", {"contents": "expired"})] * 7,
        *[("bash", '{"at": 1}', "no", {})] * 3,
    ]
    ends = books.rows("SELECT status, error_message, metadata FROM aibridge_interceptions ORDER BY id")
    assert [(*end[:2], json.loads(end[2])) for end in ends] == [
        *[("failed", "", {"team": "tides", "contents": "expired"})] * 7,
        *[("failed", "When? is no question", {"team": "tides"})] * 3,
    ]


async def test_figures_go_with_everything_that_belongs_to_them(books: Books) -> None:
    await pruned(books.pruner(), limits(NOW, 0, age(50)))
    for table in ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts"):
        assert books.count(table) == 5
    assert books.count("early_ends") == 1
    assert books.rows("SELECT DISTINCT prompt FROM aibridge_user_prompts") == [("When?",)]


async def test_sums_outlive_the_figures(books: Books) -> None:
    def sums() -> list[Any]:
        tables = ("hourly", "daily")
        query = "SELECT sum(interceptions), sum(failed), sum(input_tokens), count(*) FROM aibridge_{}_usage"
        return [tuple(map(int, row)) for table in tables for row in books.rows(query.format(table))]

    books.store([tokens(made(95, 8), id=made(95, 7), created_at=NOW)])
    before = sums()
    assert before == [(10, 10, 30, 10)] * 2
    await pruned(books.pruner(), limits(NOW, age(30), age(50)))
    assert sums() == before
    assert books.count("early_figures") == 0
    await asyncio.to_thread(rebuild_rollups, books.url)
    assert sums() == before, "made anew from the records, where there are any"


@pytest.mark.parametrize("periods", [(30, 0), (0, 50), (30, 50), (50, 30)])
async def test_what_would_be_removed_is_what_is_removed(books: Books, periods: tuple[int, int]) -> None:
    wanted = limits(NOW, age(periods[0]), age(periods[1]))
    pruner = books.pruner()
    told = await pruner.expired(wanted)
    assert books.count("interceptions") == 10, "to ask changes nothing"
    assert summed(told) == summed(await pruned(pruner, wanted))
    assert await pruner.expired(wanted) == []
    assert await pruned(pruner, wanted) == []
    assert sum(each.bytes for each in told) > 0


async def test_for_ever_means_that(books: Books) -> None:
    nothing = limits(NOW, 0, 0)
    assert await books.pruner().expired(nothing) == []
    assert await pruned(books.pruner(), nothing) == []


async def test_what_arrives_late_is_found_the_next_day(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite_retention, postgres_retention):
        monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)
    wanted, pruner = limits(NOW, age(30), 0), books.pruner()
    await pruned(pruner, wanted)
    books.store(exchange(44))
    assert counted(await pruned(pruner, wanted)) == {
        ("user_prompts", "rows"): 1,
        ("model_thoughts", "rows"): 1,
        ("tool_usages", "contents"): 1,
        ("interceptions", "contents"): 1,
    }


async def test_what_arrives_late_can_be_stored_where_figures_are_gone(books: Books) -> None:
    wanted, pruner = limits(NOW, 0, age(50)), books.pruner()
    with closing(store_for(books.url)) as before:
        before.store(exchange(64))
        await pruned(pruner, wanted)
        before.store(exchange(63))
    books.store(exchange(84))
    assert books.count("interceptions") == 7
    assert counted(await pruned(pruner, wanted))["interceptions", "rows"] == 2
    assert books.count("interceptions") == 5


async def test_one_at_a_time(books: Books) -> None:
    async with books.pruner().alone() as first, books.pruner().alone() as second:
        assert (first, second) == (True, False)
    async with books.pruner().alone() as second:
        assert second


def writing(books: Books, record: Callable[[int], Record], stopping: threading.Event, took: list[float]) -> None:
    """Store one record after another, and note how long each takes."""
    with closing(store_for(books.url)) as store:
        while not stopping.is_set():
            begun = time.perf_counter()
            store.store([record(len(took))])
            took.append(time.perf_counter() - begun)
            time.sleep(0.005)  # as a gateway lets records gather


async def test_a_writer_is_not_held_up(books: Books) -> None:
    for start in range(100, 15_100, 1500):
        ids = [made(60, number) for number in range(start, start + 1500)]
        books.store(tool(made(60), "call", id=each, input="x" * 1000, created_at=NOW) for each in ids)
    stopping, took = threading.Event(), list[float]()
    late = threading.Thread(target=writing, args=(books, lambda number: interception(made(1, number)), stopping, took))
    late.start()
    steps = []
    try:
        async for removal in books.pruner().prune(limits(NOW, age(30), 0)):
            steps.append(removal.rows)
            await asyncio.sleep(0.002)
    finally:
        stopping.set()
        await asyncio.to_thread(late.join)
    assert sum(steps) >= 15_000
    assert len(took) > 5
    assert max(took) < 1.0, "with SQLite, a writer gives up after a second"
    assert books.rows("SELECT count(*) FROM aibridge_tool_usages WHERE input <> ''")[0][0] == 3


@only_sqlite
async def test_a_transaction_of_sqlite_removes_few(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_retention, "BATCH", 2)
    monkeypatch.setattr(sqlite_retention, "STRIDE", 3)
    removals = await pruned(books.pruner(), limits(NOW, age(30), 0))
    assert {each.rows for each in removals} <= {1, 2}
    assert counted(removals) == {
        ("user_prompts", "rows"): 7,
        ("model_thoughts", "rows"): 7,
        ("tool_usages", "contents"): 7,
        ("interceptions", "contents"): 7,
    }


@only_sqlite
async def test_what_is_removed_is_not_left_in_the_file(books: Books) -> None:
    secret = "my secret plan"
    books.store([PromptUsage(id=made(80, 7), interception_id=made(80), prompt=secret, created_at=NOW)])
    await pruned(books.pruner(), limits(NOW, age(30), 0))
    path = sqlite_path(books.url)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert secret.encode() not in await asyncio.to_thread(path.read_bytes)


@only_postgresql
async def test_whole_weeks_go_from_postgresql(books: Books) -> None:
    """Nothing is left for VACUUM: no row of a week was removed by itself."""

    def tables() -> set[str]:
        return {name for (name,) in books.rows("SELECT relname FROM pg_class WHERE relkind = 'r'")}

    week = week_at(NOW - timedelta(days=75))
    there = {name_of(f"aibridge_{table}", week) for table in ("interceptions", "tool_usages", "user_prompts")}
    assert there <= tables()
    files = "SELECT pg_relation_filenode('{}')"
    before = books.rows(files.format(name_of("aibridge_tool_usages", week)))
    await pruned(books.pruner(), limits(NOW, age(30), 0))
    assert there <= tables()
    assert books.rows(files.format(name_of("aibridge_tool_usages", week))) != before, "another table is in its place"
    for table in ("user_prompts", "model_thoughts"):
        assert books.rows(f"SELECT pg_relation_size('{name_of(f'aibridge_{table}', week)}')") == [(0,)]
    await pruned(books.pruner(), limits(NOW, 0, age(50)))
    assert there.isdisjoint(tables())
    assert not [name for name in tables() if name.endswith("_next")]


@only_postgresql
async def test_rows_that_are_in_no_week_go_by_their_time(books: Books) -> None:
    """Hosts may bring ids of another kind."""
    old, new = (f"c0ffee00-0000-4000-8000-00000000000{number}" for number in (1, 2))
    for name, days in ((old, 60), (new, 1)):
        at = NOW - timedelta(days=days)
        books.store(
            [
                interception(name, started_at=at),
                PromptUsage(id=name, interception_id=name, prompt="When?", created_at=at),
                tool(name, "call", id=name, input="{}", created_at=at),
                end_of(name, error_message="no"),
            ]
        )
    wanted = limits(NOW, age(30), age(50))
    told = await books.pruner().expired(wanted)
    assert summed(told) == summed(await pruned(books.pruner(), wanted))
    assert books.rows("SELECT id FROM aibridge_interceptions_default") == [(new,)]
    assert books.rows("SELECT prompt FROM aibridge_user_prompts_default") == [("When?",)]
    await pruned(books.pruner(), limits(NOW, age(0.5), 0))
    assert books.rows("SELECT input FROM aibridge_tool_usages_default") == [("",)]
    assert books.rows("SELECT error_message FROM aibridge_interceptions_default") == [("",)]
    assert books.count("user_prompts_default") == 0


@only_postgresql
async def test_a_table_in_use_is_not_waited_for_by_others(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody's long question keeps the table, everybody else goes on, and pruning is given up for now."""
    monkeypatch.setattr(removing, "_ATTEMPTS", 2)
    emptied = "SELECT count(*) FROM aibridge_tool_usages WHERE input = ''"
    stopping, took = threading.Event(), list[float]()
    late = threading.Thread(
        target=writing, args=(books, lambda number: tool(made(1), "c", id=made(1, number + 50)), stopping, took)
    )
    asking = await asyncpg.connect(books.url)
    try:
        async with asking.transaction():
            await asking.fetch("SELECT * FROM aibridge_tool_usages")
            late.start()
            with pytest.raises(RecordingError, match="in use by others"):
                await pruned(books.pruner(), limits(NOW, age(30), 0))
            stopping.set()
            await asyncio.to_thread(late.join)
    finally:
        await asking.close()
    assert max(took) < 2.0
    assert books.rows(emptied) == [(0,)]
    await pruned(books.pruner(), limits(NOW, age(30), 0))
    assert books.rows(emptied) == [(7,)]


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    pruner = pruner_for(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(RecordingError, match=r"none\.db can not be pruned"):
        await pruner.expired(limits(NOW, 1, 0))
    assert not (tmp_path / "none.db").exists()
    pruner = pruner_for("postgresql://me:hunter2@127.0.0.1:1/none")
    with pytest.raises(RecordingError, match=r"127\.0\.0\.1:1/none can not be reached") as caught:
        await pruner.expired(limits(NOW, 1, 0))
    assert "hunter2" not in str(caught.value)
