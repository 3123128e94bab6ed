"""What is appended to a journal is in its files, whatever happens to the process or its disk."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aibridge.errors import RecordingError
from aibridge.recording.entries import encode
from aibridge.recording.journal import Journal
from aibridge.recording.segment import HEADER, Segment, UnknownFormatError
from aibridge.records import PromptUsage, Record

from . import samples


def held(segment: Segment) -> list[Record]:
    """The records in a file, past its header."""
    records: list[Record] = []
    offset = len(HEADER)
    while (reading := segment.read(offset)).offset > offset:
        records += reading.records
        offset = reading.offset
    assert offset == segment.size
    return records


def all_held(journal: Journal) -> list[Record]:
    return [record for segment in journal.segments for record in held(segment)]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A disk that is full: no file can grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_file_describes_itself_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    journal = Journal(directory)
    record = samples.prompt("i")
    assert journal.append(record)

    (file,) = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    header, entry = file.read_bytes().splitlines()
    assert header == b"aibridge-journal 1"
    assert b'"type":"prompt_usage"' in entry
    journal.close()


def test_a_file_is_adopted_only_once_its_owner_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    record = samples.prompt("i")
    journal.append(record)
    (file,) = tmp_path.iterdir()
    assert Segment.adopt(file) is None

    journal.close()
    adopted = Segment.adopt(file)
    assert adopted is not None
    assert held(adopted) == [record]
    assert Segment.adopt(file) is None, "somebody has adopted it already"

    adopted.discard()
    assert Segment.adopt(file) is None
    assert not file.exists()


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "1-1-1.journal"
    file.write_bytes(b"aibridge-journal 2\nwhatever\n")
    with pytest.raises(UnknownFormatError, match="not a journal that this version"):
        Segment.adopt(file)
    assert file.exists()


@pytest.mark.parametrize("length", range(len(HEADER)))
def test_a_file_whose_owner_died_while_beginning_it_is_empty(tmp_path: Path, length: int) -> None:
    file = tmp_path / "1-1-1.journal"
    file.write_bytes(HEADER[:length])
    segment = Segment.adopt(file)
    assert segment is not None
    assert segment.lag == 0
    segment.release()


def test_a_new_file_is_begun_when_one_is_long_enough(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_size=2000)
    records = [samples.prompt("i", "x" * 300) for _ in range(50)]
    for record in records:
        journal.append(record)
    assert len(journal.segments) > 5
    assert all_held(journal) == records
    journal.close()


def test_a_directory_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    journal = Journal(directory)
    journal.append(samples.prompt("i"))
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()

    journal.heal()
    journal.append(samples.prompt("i"))
    (file,) = directory.iterdir()
    assert len(file.read_bytes().splitlines()) == 2
    assert len(all_held(journal)) == 2
    journal.close()


def test_several_records_are_appended_all_or_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    size = journal.segments[0].size
    with no_file_above(size + 1000):
        assert not journal.append(*[samples.prompt("i", "x" * 100) for _ in range(9)], keep=False)
    assert journal.segments[0].path.stat().st_size == size
    journal.close()


def test_a_full_disk_loses_nothing_while_memory_lasts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, backlog_size=20_000)
    records = [samples.prompt("i", "x" * 500) for _ in range(60)]
    with no_file_above(10_000):
        safe = 0
        while journal.append(records[safe]):
            safe += 1
        assert "File too large" in (journal.problem or "")
        assert "make room" in (journal.problem or "")
        assert journal.segments[0].path.read_bytes().endswith(b"\n"), "the torn entry is cut off again"

        waiting = safe + 1
        while journal.backlog_bytes + len(encode(records[waiting])) <= 20_000:
            assert not journal.append(records[waiting])
            waiting += 1
        with pytest.raises(RecordingError, match=r"a record is lost: the journal in .* can not be written"):
            journal.append(records[waiting])
        assert journal.dropped == 1
        assert all_held(journal) == records[:safe]

    last = samples.prompt("i", "after")
    assert journal.append(last)
    assert journal.problem is None
    assert journal.backlog_bytes == 0
    assert all_held(journal) == [*records[:waiting], last]
    journal.close()


def test_what_is_appended_while_the_folder_is_measured_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the thread that answers requests; counted twice, the journal would refuse records though it has room."""
    journal = Journal(tmp_path, max_size=1500)
    look = os.scandir

    def append_and_look(folder: Path) -> object:
        assert journal.append(samples.prompt("i", "x" * 800))
        return look(folder)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", append_and_look)
        journal.measure()
    assert not journal.is_full
    assert journal.append(samples.prompt("i", "x" * 800), keep=False)
    assert not journal.append(samples.prompt("i"), keep=False), "now it is full"
    journal.close()


def test_a_refused_record_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with no_file_above(0):
        assert not journal.append(samples.interception(), keep=False)
        journal.heal()
        assert "can not be written" in str(journal.problem)
    journal.heal()
    assert str(journal.problem) == "None", "it recovers without any request"
    assert all_held(journal) == []
    journal.close()


def test_a_torn_entry_that_can_not_be_cut_off_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, length: int) -> None:
        raise OSError("no")

    journal = Journal(tmp_path)
    first, second, third = (samples.prompt("i", name * 500) for name in "abc")
    journal.append(first)
    with monkeypatch.context() as patched, no_file_above(1000):
        patched.setattr(os, "ftruncate", refuse)
        assert not journal.append(second)
    assert journal.append(third)
    assert all_held(journal) == [first, second, third]
    assert journal.segments[0].read(len(HEADER)).damaged == 0
    journal.close()


def test_a_journal_that_can_not_be_begun_says_why_and_begins_later(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    directory.write_text("a file stands where the directory should be")
    journal = Journal(directory)
    assert "File exists" in (journal.problem or "")
    assert not journal.append(samples.prompt("i"))

    directory.unlink()
    journal.heal()
    assert journal.problem is None
    assert len(all_held(journal)) == 1
    journal.close()


def test_metadata_that_json_can_not_express_is_refused_by_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(RecordingError, match="can not be written as JSON"):
        journal.append(samples.interception(metadata={"odd": object()}))
    journal.close()


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.close()
    with pytest.raises(RecordingError, match="closed"):
        journal.append(PromptUsage(id="p", interception_id="i", prompt="", created_at=samples.NOON))
