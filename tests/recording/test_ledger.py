"""From the recorder's methods to the database, through whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path

import pytest

from aibridge.errors import RecordingError
from aibridge.recording.journal import Journal
from aibridge.recording.ledger import Ledger
from aibridge.recording.recorder import Recorder
from aibridge.recording.replay import replay
from aibridge.recording.sqlite import SQLiteStore
from aibridge.records import ModelThought, Record

from . import samples
from .samples import end_of, files, interception, prompt, rows, tokens, tool


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


@asynccontextmanager
async def running(ledger: Ledger) -> AsyncIterator[Ledger]:
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.aclose()


def taken_up(directory: Path) -> int:
    """The size of all files, of which one may be deleted just now."""
    size = 0
    for file in files(directory):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


async def until(true: Callable[[], object]) -> None:
    await asyncio.to_thread(samples.until, true)


def stored(database: Path) -> list[str]:
    return sorted(name for (name,) in rows(database, "SELECT id FROM aibridge_interceptions"))


class StoreOutOfOrder:
    """A store that fails until it is mended."""

    def __init__(self, database: Path, fault: Exception) -> None:
        self._store = SQLiteStore(database)
        self.fault: Exception | None = fault
        self.calls = 0

    def store(self, records: Sequence[Record], /) -> None:
        self.calls += 1
        if self.fault is not None:
            raise self.fault
        self._store.store(records)

    def close(self) -> None:
        self._store.close()


async def test_every_method_leads_to_the_database(directory: Path, database: Path) -> None:
    ledger = Ledger(directory, SQLiteStore(database))
    assert isinstance(ledger, Recorder)
    async with running(ledger):
        assert ledger.can_record
        assert ledger.problem is None
        await ledger.record_interception(interception("i"))
        await ledger.record_prompt_usage(prompt("i"))
        await ledger.record_token_usage(tokens("i"))
        await ledger.record_tool_usage(tool("i", "call-1"))
        thought = ModelThought(
            id="m", interception_id="i", provider_response_id=None, content="Hm.", created_at=samples.NOON
        )
        await ledger.record_model_thought(thought)
        await ledger.record_interception_ended(end_of("i"))
        await until(lambda: rows(database, "SELECT status FROM aibridge_interceptions") == [("completed",)])
        for table in ("token_usages", "user_prompts", "tool_usages", "model_thoughts"):
            assert len(rows(database, f"SELECT * FROM aibridge_{table}")) == 1
        assert ledger.lag == 0
    assert files(directory) == [], "what is stored needs no journal"


async def test_closing_stores_what_is_left(directory: Path, database: Path) -> None:
    async with running(Ledger(directory, SQLiteStore(database))) as ledger:
        for number in range(3000):
            await ledger.record_interception(interception(f"{number:04}"))
    assert len(stored(database)) == 3000
    assert not ledger.can_record
    with pytest.raises(RecordingError, match="not running"):
        await ledger.record_interception(interception())
    await ledger.aclose()


async def test_a_ledger_that_was_not_started_takes_nothing(directory: Path, database: Path) -> None:
    ledger = Ledger(directory, SQLiteStore(database))
    assert not ledger.can_record
    with pytest.raises(RecordingError, match="not running"):
        await ledger.record_interception_ended(end_of("i"))
    await ledger.aclose()


@pytest.mark.parametrize("cut", [None, 1, 60])
async def test_what_a_dead_process_left_is_stored(directory: Path, database: Path, cut: int | None) -> None:
    dead = Journal(directory)
    dead.append(interception("whole"))
    dead.append(interception("torn"))
    dead.close()
    (file,) = files(directory)
    if cut is not None:
        file.write_bytes(file.read_bytes()[:-cut])

    async with running(Ledger(directory, SQLiteStore(database))):
        await until(lambda: "whole" in stored(database) and not file.exists())
    assert stored(database) == (["torn", "whole"] if cut is None else ["whole"])
    assert files(directory) == []


async def test_closing_at_once_stores_what_a_dead_process_left(directory: Path, database: Path) -> None:
    dead = Journal(directory)
    dead.append(interception("i"))
    dead.close()
    async with running(Ledger(directory, SQLiteStore(database))):
        pass
    assert stored(database) == ["i"]


async def test_a_process_that_dies_meanwhile_is_noticed(
    directory: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge.recording.follower._LOOK", 0.05)
    neighbour = Journal(directory)
    neighbour.append(interception("i"))
    async with running(Ledger(directory, SQLiteStore(database))) as ledger:
        await ledger.record_interception(interception("own"))
        await until(lambda: stored(database) == ["own"])
        neighbour.close()
        await until(lambda: stored(database) == ["i", "own"])


async def test_a_file_with_damage_is_kept_and_the_rest_of_it_stored(
    directory: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = Journal(directory)
    for name in ("a", "b", "c"):
        dead.append(interception(name))
    dead.close()
    (file,) = files(directory)
    file.write_bytes(file.read_bytes().replace(b'"id":"b"', b'"id":"x"'))

    async with running(Ledger(directory, SQLiteStore(database))):
        await until(lambda: stored(database) == ["a", "c"])
    assert files(directory) == [file.with_suffix(".damaged")]
    assert "1 entries could not be read or stored" in caplog.text


async def test_a_record_that_can_never_be_stored_holds_up_no_other(directory: Path, database: Path) -> None:
    async with running(Ledger(directory, SQLiteStore(database))) as ledger:
        await ledger.record_interception(interception("before"))
        await ledger.record_token_usage(tokens("before", input_tokens=2**70))
        await ledger.record_interception(interception("after"))
    assert stored(database) == ["after", "before"]
    (kept,) = files(directory)
    assert kept.suffix == ".damaged"


async def test_a_journal_of_another_version_is_left_alone(tmp_path: Path, database: Path) -> None:
    directory = tmp_path
    file = directory / "1-1-1.journal"
    file.write_bytes(b"aibridge-journal 9\nwhatever\n")
    async with running(Ledger(directory, SQLiteStore(database))) as ledger:
        await ledger.record_interception(interception("i"))
    assert stored(database) == ["i"]
    assert file in files(directory)


async def test_the_journal_does_not_grow_for_ever(
    directory: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge.recording.journal._WORTH_DELETING", 10_000)
    async with running(Ledger(directory, SQLiteStore(database))) as ledger:
        for _ in range(5):
            for _ in range(40):
                await ledger.record_prompt_usage(prompt("i", "x" * 500))
            await until(lambda: ledger.lag == 0)
        await until(lambda: taken_up(directory) < 10_000)
    assert len(rows(database, "SELECT id FROM aibridge_user_prompts")) == 200


async def test_a_locked_database_delays_nobody(
    directory: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Ledger(directory, SQLiteStore(database))) as ledger:
        with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            await ledger.record_interception(interception("0"))
            slowest = 0.0
            for number in range(1, 500):
                begun = time.perf_counter()
                await ledger.record_interception(interception(str(number)))
                slowest = max(slowest, time.perf_counter() - begun)
            await until(lambda: ledger.problem is not None)
            assert "database is locked" in (ledger.problem or "")
            assert ledger.can_record
            assert ledger.lag > 0
            assert slowest < 0.5, "an append waits for no lock of the database, which has a second's timeout"
            other.execute("ROLLBACK")
        await until(lambda: len(stored(database)) == 500)
        await until(lambda: ledger.problem is None)
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1, "once for each change"


@pytest.mark.parametrize("fault", [RecordingError("the disk is full"), OSError("gone"), RuntimeError("secret")])
async def test_whatever_the_stores_fault_it_is_tried_again(
    directory: Path, database: Path, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = StoreOutOfOrder(database, fault)
    async with running(Ledger(directory, store)) as ledger:
        await ledger.record_interception(interception("i"))
        await until(lambda: store.calls >= 2)
        assert ledger.problem is not None
        assert "secret" not in ledger.problem
        store.fault = None
        await until(lambda: stored(database) == ["i"])


async def test_what_can_not_be_stored_before_closing_waits_for_the_next_process(
    directory: Path, database: Path
) -> None:
    ledger = Ledger(directory, StoreOutOfOrder(database, OSError("gone")))
    await ledger.start()
    await ledger.record_interception(interception("i"))
    await ledger.aclose(timeout=0.2)
    assert stored(database) == []

    async with running(Ledger(directory, SQLiteStore(database))):
        await until(lambda: stored(database) == ["i"])


async def test_two_ledgers_share_a_directory_and_a_database(directory: Path, database: Path) -> None:
    async with (
        running(Ledger(directory, SQLiteStore(database))) as one,
        running(Ledger(directory, SQLiteStore(database))) as other,
    ):
        for number in range(500):
            await one.record_interception(interception(f"one-{number:03}"))
            await other.record_interception(interception(f"other-{number:03}"))
            await one.record_interception_ended(end_of(f"one-{number:03}"))
            await other.record_interception_ended(end_of(f"other-{number:03}"))
            if number % 50 == 0:
                await asyncio.sleep(0.01)
    assert len(stored(database)) == 1000
    assert rows(database, "SELECT count(*) FROM aibridge_interceptions WHERE status = 'completed'") == [(1000,)]
    assert files(directory) == []


@pytest.fixture
def blocked(directory: Path) -> Path:
    """A place where no journal can be made, until it is deleted."""
    directory.write_text("in the way")
    return directory


def clear(blocked: Path) -> None:
    blocked.unlink()


async def test_an_interception_that_can_not_be_written_is_refused_until_it_can(
    blocked: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Ledger(blocked, SQLiteStore(database))) as ledger:
        assert not ledger.can_record
        assert "make room there and see that the directory is writable" in (ledger.problem or "")
        with pytest.raises(RecordingError, match="can not be written"):
            await ledger.record_interception(interception("refused"))
        await until(lambda: "can not be written" in caplog.text)
        clear(blocked)
        await ledger.record_interception(interception("taken"))
        await until(lambda: ledger.can_record)
        await until(lambda: stored(database) == ["taken"])
    assert ledger.unrecorded == 0


async def test_readiness_comes_back_without_a_request(blocked: Path, database: Path) -> None:
    async with running(Ledger(blocked, SQLiteStore(database))) as ledger:
        assert not ledger.can_record
        clear(blocked)
        await until(lambda: ledger.can_record)


async def test_where_recording_is_not_required_the_store_takes_what_the_journal_can_not(
    blocked: Path, database: Path
) -> None:
    async with running(Ledger(blocked, SQLiteStore(database), required=False)) as ledger:
        await ledger.record_interception(interception("i"))
        await ledger.record_interception_ended(end_of("i"))
        await until(lambda: rows(database, "SELECT status FROM aibridge_interceptions") == [("completed",)])
        await until(lambda: ledger.lag == 0)
        assert ledger.unrecorded == 1
        assert not ledger.can_record


async def test_a_record_is_lost_only_when_nothing_can_take_it(
    blocked: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge.recording.ledger.Journal", partial(Journal, backlog_size=2000))
    ledger = Ledger(blocked, StoreOutOfOrder(database, OSError("gone")), required=False)
    await ledger.start()
    await ledger.record_prompt_usage(prompt("i", "x" * 1500))
    with pytest.raises(RecordingError, match="a record is lost"):
        await ledger.record_prompt_usage(prompt("i", "x" * 1500))
    await ledger.record_interception(interception(metadata={"long": "x" * 1500}))
    assert ledger.dropped == 2
    assert ledger.unrecorded == 1
    await ledger.aclose(timeout=0)


async def test_a_journal_that_has_reached_its_bound_is_as_a_full_disk(directory: Path, database: Path) -> None:
    store = StoreOutOfOrder(database, RecordingError("the database is away"))
    async with running(Ledger(directory, store, max_journal_size=100_000)) as ledger:
        await ledger.record_interception(interception("running"))
        begun = 1
        with pytest.raises(RecordingError, match="have reached 100,000 bytes") as refusal:  # noqa: PT012
            while True:
                await ledger.record_interception(interception(f"{begun:04}"))
                begun += 1
        assert "storage.max_journal_size" in str(refusal.value)
        assert not ledger.can_record
        assert taken_up(directory) < 101_000

        # What is under way is recorded to its end, beyond the bound.
        await ledger.record_token_usage(tokens("running"))
        await ledger.record_interception_ended(end_of("running"))
        assert taken_up(directory) > 100_000

        store.fault = None
        await until(lambda: ledger.can_record)
        await ledger.record_interception(interception("after"))
        await until(lambda: len(stored(database)) == begun + 1)
    assert rows(database, "SELECT status FROM aibridge_interceptions WHERE id = 'running'") == [("completed",)]
    assert files(directory) == []


async def test_the_bound_is_for_all_journals_of_a_folder(directory: Path, database: Path) -> None:
    neighbour = Journal(directory)
    neighbour.append(prompt("i", "x" * 100_000))
    async with running(Ledger(directory, SQLiteStore(database), max_journal_size=100_000)) as ledger:
        assert not ledger.can_record
        with pytest.raises(RecordingError, match="have reached"):
            await ledger.record_interception(interception("refused"))
        neighbour.close()  # whose records are stored then
        await until(lambda: ledger.can_record)
        await ledger.record_interception(interception("taken"))
    assert stored(database) == ["taken"]


async def test_where_recording_is_not_required_a_full_journal_takes_a_reserve_then_memory(
    directory: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge.recording.ledger.Journal", partial(Journal, backlog_size=10_000))
    store = StoreOutOfOrder(database, RecordingError("the database is away"))
    async with running(Ledger(directory, store, required=False, max_journal_size=100_000)) as ledger:
        begun = 0
        while not ledger.dropped:
            await ledger.record_interception(interception(f"{begun:04}"))
            begun += 1
        assert not ledger.can_record
        waiting = ledger.unrecorded - ledger.dropped
        assert waiting > 10
        assert taken_up(directory) < 111_000
        store.fault = None
        await until(lambda: ledger.lag == 0)
        await until(lambda: ledger.can_record)
    assert len(stored(database)) == begun - 1


async def test_a_clock_that_is_set_back_costs_no_record(
    directory: Path, database: Path, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]
) -> None:
    """Files are named by the time; here each new one would have the name of one that is there already."""
    monkeypatch.setattr("aibridge.recording.ledger.Journal", partial(Journal, segment_size=2000))
    clock = itertools.cycle([9_000_000_000_000, 8_000_000_000_000, 7_000_000_000_000])
    monkeypatch.setattr("aibridge.recording.segment.time.time_ns", lambda: next(clock))
    dead = Journal(directory, segment_size=2000)
    for number in range(30):
        dead.append(interception(f"dead-{number:02}", second=-number))
    dead.close()
    monkeypatch.setattr("aibridge.recording.segment._sequence", itertools.count(1))  # a process of the same number
    async with running(Ledger(directory, SQLiteStore(database))) as ledger:
        for number in range(300):
            await ledger.record_interception(interception(f"{number:03}", second=-60 * number))
            await ledger.record_interception_ended(end_of(f"{number:03}", second=-60 * number - 30))
        assert ledger.problem is None
    assert len(stored(database)) == 330
    assert rows(database, "SELECT count(*) FROM aibridge_interceptions WHERE status = 'completed'") == [(300,)]
    assert files(directory) == []
    figures("clock set back before every record: 330 interceptions recorded, 330 stored")


async def test_a_record_that_the_database_finds_too_large_is_kept_and_can_be_stored_by_another(
    directory: Path, database: Path
) -> None:
    """SQLite takes texts of up to a GB; this one is told to take less."""
    store = SQLiteStore(database)
    assert store._connection is not None
    store._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
    large = prompt("i", "ü\x00" * 2_000_000)
    async with running(Ledger(directory, store)) as ledger:
        await ledger.record_all([interception("i"), large])
        await ledger.record_interception_ended(end_of("i"))
    assert stored(database) == ["i"]
    assert rows(database, "SELECT prompt FROM aibridge_user_prompts") == []

    (kept,) = files(directory)
    assert kept.suffix == ".damaged"
    with closing(SQLiteStore(database)) as other:
        found = replay(kept, other, lambda _: None)
    assert found is not None
    assert (found.stored, found.damaged) == (3, 0)
    assert rows(database, "SELECT prompt FROM aibridge_user_prompts") == [(large.prompt,)]
