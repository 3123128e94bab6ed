"""What has had its time goes, and nothing else; and whoever writes meanwhile does not notice."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aibridge.errors import RecordingError
from aibridge.recording import sqlite_retention
from aibridge.recording.retention import Limits, Pruner, Removal, limits, pruner_for
from aibridge.recording.sqlite import SQLiteStore
from aibridge.records import ModelThought, PromptUsage, Record, least_id

from .samples import end_of, interception, rows, tokens, tool

NOW = datetime(2026, 6, 1, tzinfo=UTC)


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


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Interceptions of 5, 15, … 95 days ago."""
    path = tmp_path / "records.db"
    with closing(SQLiteStore(path)) as store:
        for days in range(5, 100, 10):
            store.store(exchange(days))
        store.store([end_of(made(95, 9)), end_of(made(5, 9))])  # their beginnings never came
    return path


@pytest.fixture
def pruner(database: Path) -> Iterator[Pruner]:
    pruner = pruner_for(f"sqlite:///{database}")
    yield pruner
    asyncio.run(pruner.aclose())


def age(days: float) -> float:
    return days * 24 * 3600


async def pruned(pruner: Pruner, limits: Limits) -> list[Removal]:
    return [removal async for removal in pruner.prune(limits)]


def summed(removals: list[Removal]) -> dict[tuple[str, str], tuple[int, int]]:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for each in removals:
        before = sums.get((each.table, each.of), (0, 0))
        sums[each.table, each.of] = (before[0] + each.rows, before[1] + each.bytes)
    return sums


def count(database: Path, table: str) -> int:
    ((found,),) = rows(database, f"SELECT count(*) FROM aibridge_{table}")
    return int(found)


async def test_contents_go_and_figures_stay(database: Path, pruner: Pruner) -> None:
    before = rows(database, "SELECT interception_id, input_tokens FROM aibridge_token_usages")
    await pruned(pruner, limits(NOW, age(30), 0))
    assert count(database, "interceptions") == 10
    assert rows(database, "SELECT interception_id, input_tokens FROM aibridge_token_usages") == before
    assert count(database, "user_prompts") == count(database, "model_thoughts") == 3
    tools = rows(database, "SELECT tool, input, invocation_error, metadata FROM aibridge_tool_usages ORDER BY id")
    assert tools == [("bash", "", "", '{"contents":"expired"}')] * 7 + [("bash", '{"at": 1}', "no", "{}")] * 3
    errors = rows(database, "SELECT status, error_message, metadata FROM aibridge_interceptions ORDER BY id")
    assert [error[:2] for error in errors] == [("failed", "")] * 7 + [("failed", "When? is no question")] * 3
    assert json.loads(errors[0][2]) == {"team": "tides", "contents": "expired"}
    assert json.loads(errors[9][2]) == {"team": "tides"}


async def test_figures_go_with_everything_that_belongs_to_them(database: Path, pruner: Pruner) -> None:
    await pruned(pruner, limits(NOW, 0, age(50)))
    for table in ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts"):
        assert count(database, table) == 5
    assert count(database, "early_ends") == 1
    assert rows(database, "SELECT DISTINCT prompt FROM aibridge_user_prompts") == [("When?",)]


@pytest.mark.parametrize("periods", [(30, 0), (0, 50), (30, 50), (50, 30)])
async def test_what_would_be_removed_is_what_is_removed(
    database: Path, pruner: Pruner, periods: tuple[int, int]
) -> None:
    wanted = limits(NOW, age(periods[0]), age(periods[1]))
    told = await pruner.expired(wanted)
    assert count(database, "interceptions") == 10, "to ask changes nothing"
    assert summed(told) == summed(await pruned(pruner, wanted))
    assert await pruner.expired(wanted) == []
    assert await pruned(pruner, wanted) == []
    assert sum(each.bytes for each in told) > 0


async def test_for_ever_means_that(database: Path, pruner: Pruner) -> None:
    nothing = limits(NOW, 0, 0)
    assert await pruner.expired(nothing) == []
    assert await pruned(pruner, nothing) == []


async def test_what_arrives_late_is_found_the_next_day(
    database: Path, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_retention, "_SHORTEST_MEMORY", 0.0)
    wanted = limits(NOW, age(30), 0)
    await pruned(pruner, wanted)
    with closing(SQLiteStore(database)) as store:
        store.store(exchange(44))
    assert {what: found for what, (found, _) in summed(await pruned(pruner, wanted)).items()} == {
        ("user_prompts", "rows"): 1,
        ("model_thoughts", "rows"): 1,
        ("tool_usages", "contents"): 1,
        ("interceptions", "contents"): 1,
    }


async def test_what_is_removed_is_not_left_in_the_file(database: Path, pruner: Pruner) -> None:
    with closing(SQLiteStore(database)) as store:
        store.store([PromptUsage(id=made(80, 7), interception_id=made(80), prompt="my secret plan", created_at=NOW)])
    await pruned(pruner, limits(NOW, age(30), 0))
    with closing(sqlite3.connect(database)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"my secret plan" not in await asyncio.to_thread(database.read_bytes)


async def test_a_writer_is_not_held_up(database: Path, pruner: Pruner) -> None:
    with closing(SQLiteStore(database)) as store:
        for number in range(10, 40):
            store.store(
                [
                    PromptUsage(
                        id=made(60, number * 1000 + each), interception_id=made(60), prompt="x" * 2000, created_at=NOW
                    )
                    for each in range(500)
                ]
            )
    slowest, stored, stopping = 0.0, 0, threading.Event()

    def write() -> None:
        nonlocal slowest, stored
        with closing(SQLiteStore(database)) as store:
            while not stopping.is_set():
                begun = time.perf_counter()
                store.store([interception()])
                slowest = max(slowest, time.perf_counter() - begun)
                stored += 1

    writing = asyncio.create_task(asyncio.to_thread(write))
    steps = []
    async for removal in pruner.prune(limits(NOW, age(30), 0)):
        steps.append(removal.rows)
        await asyncio.sleep(0.002)
    stopping.set()
    await writing
    assert sum(steps) >= 15_000
    assert max(steps) <= sqlite_retention.BATCH
    assert stored > 10
    assert slowest < 1.0, "a writer gives up after a second"


async def test_one_at_a_time(database: Path, pruner: Pruner) -> None:
    other = pruner_for(f"sqlite:///{database}")
    async with pruner.alone() as first, other.alone() as second:
        assert (first, second) == (True, False)
    async with other.alone() as second:
        assert second


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    pruner = pruner_for(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(RecordingError, match=r"none\.db can not be pruned"):
        await pruner.expired(limits(NOW, 1, 0))
    assert not (tmp_path / "none.db").exists()
