"""Records that are still in memory are stored without being read, and come to the same as those in the file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.recording.audit import Audited, AuditTrail
from aibridge.recording.journal import Journal
from aibridge.recording.postgres.store import row_of
from aibridge.recording.recent import MOST
from aibridge.recording.segment import Segment
from aibridge.recording.sqlite import SQLiteStore
from aibridge.recording.storing import store_some
from aibridge.recording.visible import with_visible
from aibridge.records import InterceptionEnded, Record

from . import samples
from .samples import files, interception, prompt, rows
from .test_journal import no_file_above

TABLES = ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts", "early_ends")

_odd = st.dictionaries(
    samples.texts,
    st.integers() | st.floats() | st.binary(max_size=5) | st.tuples(samples.times, st.just((1, {"a": ()}))),
    max_size=2,
)


@st.composite
def _records(draw: st.DrawFn) -> Record:
    """Any record; at times with metadata of a host application that knows more types than JSON."""
    record = draw(samples.records)
    if draw(st.booleans()):
        return msgspec.structs.replace(record, metadata=record.metadata | draw(_odd))
    return record


class Told:
    """A store that lists what it is told to keep, and fails as often as it is asked to."""

    def __init__(self, faults: int = 0) -> None:
        self.records: list[Record] = []
        self.faults = faults

    def store(self, records: Sequence[Record], /) -> None:
        if self.faults:
            self.faults -= 1
            raise OSError("the database is away")
        self.records += records

    def close(self) -> None:
        pass


def from_memory(journal: Journal) -> Segment:
    """The file of a journal, in which nothing can be read any more."""
    (segment,) = journal.segments
    segment.path.write_bytes(b"-" * segment.size)
    return segment


def stored(segment: Segment, folder: Path) -> tuple[object, ...]:
    """What a database and an audit trail hold, once all of a file is stored."""
    folder.mkdir()
    trail = AuditTrail(folder / "audit", contents=True)
    with closing(SQLiteStore(folder / "records.db")) as database:
        while store_some(segment, Audited(database, trail)):
            pass
    tables = [rows(folder / "records.db", f"SELECT * FROM aibridge_{table}") for table in TABLES]
    lines = [json.loads(line) for file in (folder / "audit").glob("*.jsonl") for line in file.read_bytes().splitlines()]
    return (*tables, *({**line, "prev": None} for line in lines), segment.kept, segment.damaged)


@settings(deadline=None)
@given(st.lists(st.lists(_records(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_is_stored_from_memory_is_what_is_stored_from_the_file(appended: list[list[Record]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(folder / "journal")
        for records in appended:
            journal.append(*records)
        (file,) = files(folder / "journal")
        copy = folder / "copy.journal"
        copy.write_bytes(file.read_bytes())
        adopted = Segment.adopt(copy)
        assert adopted is not None
        assert stored(from_memory(journal), folder / "memory") == stored(adopted, folder / "file")
        adopted.release()
        journal.close()


@given(_records())
def test_postgresql_is_told_the_same_from_memory_and_from_the_file(record: Record) -> None:
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        journal.append(record)
        (segment,) = journal.segments
        (read,) = segment.read(segment.offset).records
        journal.close()
    told, told_from_file = with_visible(record, nul=True), with_visible(read, nul=True)
    if isinstance(told, InterceptionEnded):
        assert msgspec.json.encode(told) == msgspec.json.encode(told_from_file)
    else:
        assert row_of(told) == row_of(told_from_file)


def test_what_is_in_memory_is_not_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    records: list[Record] = [interception("a"), prompt("a"), interception("b")]
    journal.append(*records[:2])
    journal.append(records[2])
    store = Told()
    store_some(from_memory(journal), store)
    assert store.records == records
    journal.close()


def test_what_was_taken_from_memory_in_vain_is_read_from_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    records: list[Record] = [interception("a"), prompt("a"), interception("b")]
    journal.append(*records[:2])
    (segment,) = journal.segments
    store = Told(faults=1)
    with pytest.raises(OSError, match="away"):
        store_some(segment, store)
    journal.append(records[2])
    store_some(segment, store)
    assert store.records == records
    journal.close()


@pytest.mark.parametrize("why", ["much waits to be stored", "another file was begun", "the database is away"])
def test_memory_is_bounded(tmp_path: Path, why: str) -> None:
    journal = Journal(tmp_path)
    journal.append(interception("small"))
    if why == "another file was begun":
        journal.rotate()
    elif why == "the database is away":
        for _ in range(2):
            journal.append(prompt("small", "x" * (MOST // 3)))
        with pytest.raises(OSError, match="away"):
            store_some(journal.segments[0], Told(faults=1))
    else:
        for _ in range(4):
            journal.append(prompt("small", "x" * (MOST // 3)))
    segment = journal.segments[0]
    offset, remembered = segment.offset, 0
    while reading := segment._recent.take(offset):
        offset, remembered = reading.offset, remembered + len(reading.records)
    assert remembered == (3 if why == "much waits to be stored" else 0)
    journal.close()


_actions = st.lists(st.sampled_from(["append", "append", "store", "fail", "rotate", "fill the disk", "large"]))


@given(_actions)
def test_everything_is_stored_once_whatever_comes_between(actions: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        store = Told()
        appended: list[Record] = []

        def store_all() -> None:
            for segment in journal.segments:
                store_some(segment, store)

        for action in actions:
            if action in {"append", "large"}:
                records: list[Record] = [interception(), prompt("i", "x" * (MOST // 2 if action == "large" else 1))]
                assert journal.append(*records)
                appended += records
            elif action == "store":
                store_all()
            elif action == "fail":
                store.faults = 1
                with suppress(OSError):
                    store_all()
                store.faults = 0
            elif action == "rotate":
                journal.rotate()
            else:
                tear(journal)
        while any(segment.lag for segment in journal.segments):
            store_all()
        assert sorted(map(repr, store.records)) == sorted(map(repr, appended))
        assert not any(segment.damaged for segment in journal.segments)
        journal.close()


def tear(journal: Journal) -> None:
    """A record is refused, of which a part stays in the file."""

    def refuse(descriptor: int, length: int) -> None:
        raise OSError("no")

    size = journal.segments[-1].path.stat().st_size
    with pytest.MonkeyPatch.context() as patched, no_file_above(size + 50):
        patched.setattr(os, "ftruncate", refuse)
        assert not journal.append(interception(), keep=False)
