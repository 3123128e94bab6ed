"""Hidden calls and results come back into the conversation, whichever process carries the next request."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aibridge.recording.memory import SQLiteTurnMemory
from support.client import ask
from support.provider import Provider
from support.recorder import ListRecorder
from support.speech import OWN, PROMPT, SPEECHES, TIDES, Call, Part, Speech, Text
from support.tools import Tools, bridged_with, histories, turn

MIXED: list[Part] = [Text("Both."), Call("call_1", TIDES), Call("call_2", OWN), Call("call_3", TIDES)]

every_speech = pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: str(speech.dialect.name))


@pytest.fixture
async def tools() -> Tools:
    return Tools()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "aibridge.db"


async def going_on(
    speech: Speech,
    provider: Provider,
    recorder: ListRecorder,
    tools: Tools,
    memories: tuple[SQLiteTurnMemory, SQLiteTurnMemory],
    actors: tuple[str, str] = ("ada", "ada"),
) -> tuple[list[Any], list[Any]]:
    """A mixed turn through one bridge and the next request through another; its history as sent, and as it arrived."""
    provider.says(turn(speech, 1, MIXED), turn(speech, 2, [Text("Done.")]))
    asked = speech.asked(PROMPT)
    async with bridged_with(tools, provider.url, recorder, memory=memories[0], actor=actors[0]) as url:
        first = await ask(url + speech.path, speech.request(asked))
    message = speech.heard(first.body, stream=True)
    history = [*asked, *speech.returned(message), *speech.results([("call_2", "a file")])]
    async with bridged_with(tools, provider.url, recorder, memory=memories[1], actor=actors[1]) as url:
        second = await ask(url + speech.path, speech.request(history))
    assert speech.heard(second.body, stream=True).content == speech.shown([Text("Done.")])
    for memory in memories:
        await memory.aclose()
    return history, histories(speech, provider)[-1]


def whole(speech: Speech) -> list[Any]:
    """The conversation with all calls and results in their places."""
    results = [("call_1", "the tides"), ("call_3", "the tides"), ("call_2", "a file")]
    return [*speech.asked(PROMPT), *speech.said(MIXED), *speech.results(results)]


@every_speech
async def test_across_processes(
    speech: Speech, provider: Provider, recorder: ListRecorder, tools: Tools, database: Path
) -> None:
    memories = SQLiteTurnMemory(database), SQLiteTurnMemory(database)
    _, arrived = await going_on(speech, provider, recorder, tools, memories)
    assert arrived == whole(speech)


@every_speech
async def test_somebody_else_does_not_get_them(
    speech: Speech, provider: Provider, recorder: ListRecorder, tools: Tools, database: Path
) -> None:
    memory = SQLiteTurnMemory(database)
    sent, arrived = await going_on(speech, provider, recorder, tools, (memory, memory), ("ada", "eve"))
    assert arrived == sent


@every_speech
async def test_they_expire(
    speech: Speech, provider: Provider, recorder: ListRecorder, tools: Tools, database: Path
) -> None:
    memories = SQLiteTurnMemory(database, lifetime=-1), SQLiteTurnMemory(database)
    sent, arrived = await going_on(speech, provider, recorder, tools, memories)
    assert arrived == sent
    other = SQLiteTurnMemory(database)
    await other.remember("ada", ["another"], b"x")
    await other.aclose()
    with sqlite3.connect(other.path) as looking:
        assert looking.execute("SELECT key FROM aibridge_remembered_turns").fetchall() == [("another",)]
    looking.close()


@every_speech
async def test_a_database_that_is_not_to_be_had_is_done_without(
    speech: Speech, provider: Provider, recorder: ListRecorder, tools: Tools, tmp_path: Path
) -> None:
    """The same process still knows; another one leaves the conversation as it is."""
    nowhere = tmp_path / "no" / "such" / "folder.db"
    memory = SQLiteTurnMemory(nowhere)
    _, arrived = await going_on(speech, provider, recorder, tools, (memory, memory))
    assert arrived == whole(speech)
    other = SQLiteTurnMemory(nowhere), SQLiteTurnMemory(nowhere)
    sent, arrived = await going_on(speech, provider, recorder, tools, other)
    assert arrived == sent


async def test_a_database_that_comes_back_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "late"
    memory = SQLiteTurnMemory(folder / "aibridge.db")
    await memory.remember("ada", ["early"], b"1")
    folder.mkdir()
    await memory.remember("ada", ["late"], b"2")
    await memory.aclose()
    other = SQLiteTurnMemory(folder / "aibridge.db")
    assert await other.recall("ada", ["early", "late"]) == {"late": b"2"}
    await other.aclose()


async def test_who_stores_records_is_in_nobodys_way(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as storing:
        storing.execute("BEGIN EXCLUSIVE")
        memory = SQLiteTurnMemory(database)
        await memory.remember("ada", ["a", "b"], b"1")
        await memory.aclose()
    assert await SQLiteTurnMemory(database).recall("ada", ["a", "b", "c"]) == {"a": b"1", "b": b"1"}


async def test_another_process_that_writes_is_waited_for_while_others_go_on(database: Path) -> None:
    memory = SQLiteTurnMemory(database)
    await memory.remember("ada", ["first"], b"1")
    with closing(sqlite3.connect(memory.path, isolation_level=None)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        remembering = [asyncio.create_task(memory.remember("ada", [key], b"2")) for key in ("second", "third")]
        reading = await memory.recall("ada", ["first", "elsewhere"])
        assert not any(task.done() for task in remembering)
        writing.execute("COMMIT")
    await asyncio.gather(*remembering)
    await memory.aclose()
    assert reading == {"first": b"1"}
    assert await SQLiteTurnMemory(database).recall("ada", ["second", "third"]) == {"second": b"2", "third": b"2"}


async def test_the_write_ahead_log_does_not_grow_for_ever(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibridge.recording.memory._BETWEEN_CHECKPOINTS", 500_000)
    memory = SQLiteTurnMemory(database)
    for number in range(30):
        await memory.remember("ada", [f"{number}"], b"x" * 100_000)
    log = memory.path.with_name(f"{memory.path.name}-wal")
    assert log.stat().st_size < 1_000_000
    await memory.aclose()


async def test_nobody_else_may_read_them(database: Path) -> None:
    memory = SQLiteTurnMemory(database)
    await memory.remember("ada", ["a"], b"1")
    assert {file.stat().st_mode & 0o777 for file in database.parent.glob("aibridge.db-turns*")} == {0o600}
    await memory.aclose()


@pytest.fixture
def broken(database: Path) -> Path:
    SQLiteTurnMemory(database).path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    return database


async def test_a_broken_database_is_done_without(broken: Path) -> None:
    memory = SQLiteTurnMemory(broken)
    await memory.remember("ada", ["a"], b"1")
    assert await memory.recall("ada", ["a", "b"]) == {"a": b"1"}
    await memory.aclose()


async def test_what_is_kept_beside_the_database_is_bounded(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys without anything behind them weigh as well; what fell out is found in the database."""
    monkeypatch.setattr("aibridge.recording.memory.CACHE_SIZE", 20_000)
    memory = SQLiteTurnMemory(database)
    for number in range(10):
        await memory.recall("ada", [f"{number}-{more}" for more in range(50)])
        await memory.remember("ada", [f"{number}-0"], b"x" * 1000)
    assert sum(len(hidden or b"") + 200 for hidden in memory._cache.values()) < 20_000
    found = await memory.recall("ada", [f"{number}-0" for number in range(10)])
    assert len(found) == 10
    await memory.aclose()
