"""The audit trail: one chain for all processes of a machine, whatever happens to them, read once by somebody."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aibridge.errors import RecordingError
from aibridge.recording.audit import Audited, AuditTrail, Position, Reader, files, position_in
from aibridge.recording.chain import verify
from aibridge.recording.sqlite import SQLiteStore
from aibridge.records import Record

from .samples import end_of, interception, prompt, rows, tokens, until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in files(folder) for line in path.read_text().splitlines()]


def problems(folder: Path) -> list[str]:
    (verdict,) = verify(files(folder))
    return verdict.problems


def test_every_record_is_a_line(folder: Path) -> None:
    trail = AuditTrail(folder)
    trail.append([interception("i"), prompt("i", "a secret")])
    trail.append([end_of("i", error_message="no \ud800")])
    told = lines(folder)
    assert [(each["seq"], each["type"]) for each in told] == [
        (1, "interception"),
        (2, "prompt_usage"),
        (3, "interception_ended"),
    ]
    assert (told[1]["prompt"], told[1]["metadata"]) == ("", {"contents": "off"}), "contents are left out by default"
    assert problems(folder) == []
    assert {path.stat().st_mode & 0o777 for path in files(folder)} == {0o600}
    AuditTrail(folder, contents=True).append([prompt("i", "a secret"), end_of("i", error_message="no \ud800")])
    assert [each.get("prompt") or each["error_message"] for each in lines(folder)[3:]] == ["a secret", "no \ud800"]


def test_files_are_rotated_and_old_ones_removed(folder: Path) -> None:
    trail = AuditTrail(folder, max_file_size=500, keep=3600)
    for _ in range(6):
        trail.append([tokens("i"), tokens("i")])
    assert [int(path.stem) for path in files(folder)] == [1, 3, 5, 7, 9, 11]
    assert problems(folder) == []
    for path in files(folder)[:3]:
        os.utime(path, (0, 0))
    trail.append([tokens("i")])
    assert [int(path.stem) for path in files(folder)] == [7, 9, 11, 13]
    assert problems(folder) == [], "the rest is whole in itself"


def test_what_is_not_read_yet_is_not_removed(folder: Path) -> None:
    trail, reader = AuditTrail(folder, max_file_size=500, keep=3600), Reader(folder)
    assert reader.alone()
    for _ in range(4):
        trail.append([tokens("i"), tokens("i")])
    reader.settle(Position(files(folder)[1].name, 10))
    for path in files(folder):
        os.utime(path, (0, 0))
    trail.append([tokens("i")])
    assert [int(path.stem) for path in files(folder)] == [3, 5, 7, 9]
    reader.close()


@pytest.mark.parametrize("cut", [1, 30, 10_000])
def test_a_torn_line_is_cut_off_and_the_chain_goes_on(folder: Path, cut: int) -> None:
    AuditTrail(folder).append([tokens("i") for _ in range(3)])
    (path,) = files(folder)
    path.write_bytes(path.read_bytes() + b'{"seq":4,"prev":"' + b"x" * cut)
    AuditTrail(folder).append([tokens("i")])
    assert [each["seq"] for each in lines(folder)] == [1, 2, 3, 4]
    assert problems(folder) == []


def test_a_file_that_was_begun_in_vain_is_no_hindrance(folder: Path) -> None:
    AuditTrail(folder).append([tokens("i") for _ in range(3)])
    (folder / f"{4:020}.jsonl").write_bytes(b'{"se')
    AuditTrail(folder).append([tokens("i")])
    assert [each["seq"] for each in lines(folder)] == [1, 2, 3, 4]


def test_what_is_no_trail_is_not_written_to(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{1:020}.jsonl").write_bytes(b'{"something": "else"}\n')
    with pytest.raises(RecordingError, match="does not end in a line of the audit trail: move it elsewhere"):
        AuditTrail(folder).append([tokens("i")])


def write(folder: Path, count: int) -> None:
    trail = AuditTrail(folder, max_file_size=20_000)
    for _ in range(count):
        trail.append([tokens("i"), tokens("i")])


def test_several_processes_write_one_chain_and_may_be_killed(folder: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    killed = spawn.Process(target=write, args=(folder, 1_000_000))
    others = [spawn.Process(target=write, args=(folder, 100)) for _ in range(2)]
    for each in (killed, *others):
        each.start()
    until(lambda: len(files(folder)) > 2)
    assert killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    for each in (killed, *others):
        each.join()
    write(folder, 1)
    assert problems(folder) == []
    told = lines(folder)
    assert [each["seq"] for each in told] == list(range(1, len(told) + 1))
    assert len(told) > 400


class StoreOutOfOrder:
    """A store that fails until it is mended."""

    def __init__(self, path: Path) -> None:
        self.store_ = SQLiteStore(path)
        self.broken = True

    def store(self, records: Sequence[Record], /) -> None:
        if self.broken:
            raise OSError("gone")
        self.store_.store(records)

    def close(self) -> None:
        self.store_.close()


def test_what_is_in_the_trail_is_stored_and_what_is_stored_comes_into_it(folder: Path, tmp_path: Path) -> None:
    database = tmp_path / "records.db"
    store = StoreOutOfOrder(database)
    with closing(Audited(store, AuditTrail(folder))) as audited:
        with pytest.raises(OSError, match="gone"):
            audited.store([interception("i")])
        assert files(folder) == []
        store.broken = False
        folder.write_text("a file where the folder should be")
        with pytest.raises(RecordingError, match=r"audit trail in .* make room there"):
            audited.store([interception("i")])
        folder.unlink()
        audited.store([interception("i")])
    assert rows(database, "SELECT id FROM aibridge_interceptions") == [("i",)]
    assert [each["id"] for each in lines(folder)] == ["i"]


def test_a_reader_goes_on_where_it_was(folder: Path) -> None:
    trail, reader = AuditTrail(folder, max_file_size=1000), Reader(folder)
    assert position_in(folder) is None
    assert reader.alone()
    assert reader.alone(), "it is the one already"
    assert not Reader(folder).alone()
    assert reader.read(1) == ([], Position())
    for _ in range(5):
        trail.append([tokens("i"), tokens("i")])
    seen: list[int] = []
    while True:
        got, position = reader.read(300)
        if not got:
            break
        seen += [json.loads(line)["seq"] for line in got]
        again, _ = reader.read(300)
        assert again == got, "until it is settled, it is read again"
        reader.settle(position)
        if len(seen) in (2, 3):
            reader.close()
            reader = Reader(folder)
            assert reader.alone()
    assert seen == list(range(1, 11))
    with (folder / files(folder)[-1]).open("ab") as torn:
        torn.write(b'{"seq":11')
    assert reader.read(300)[0] == [], "what is not finished is not read"
    reader.close()


def test_appending_is_quick(folder: Path) -> None:
    trail = AuditTrail(folder)
    batch = [tokens("i") for _ in range(1000)]
    began = time.process_time()
    for _ in range(10):
        trail.append(batch)
    assert (time.process_time() - began) / 10_000 < 0.0005
