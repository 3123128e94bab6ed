"""When records are safe from the loss of the machine, and that nobody waits for it who need not."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aibridge.errors import RecordingError
from aibridge.recording.entries import parse
from aibridge.recording.journal import Journal
from aibridge.recording.ledger import Ledger
from aibridge.recording.segment import HEADER
from aibridge.recording.stores import Store
from aibridge.recording.syncing import Fsync
from aibridge.records import Interception, Record

from . import samples
from .samples import interception, prompt


class AwayStore:
    """A store that takes nothing, so that everything stays in the journal."""

    def store(self, records: object, /) -> None:
        raise RecordingError("the database is away")

    def close(self) -> None:
        pass


class Disk:
    """The disk below the journal, which counts what it is asked to do, and may be slow or broken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.delay = 0.0
        self.broken = False
        self.threads: set[str] = set()
        monkeypatch.setattr("aibridge.recording.journal._sync_data", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        time.sleep(self.delay)
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def store() -> Store:
    return AwayStore()


def journal_of(ledger: Ledger) -> Journal:
    assert ledger._journal is not None
    return ledger._journal


def on_the_disk(journal: Journal) -> list[Record]:
    """What a loss of the machine would leave: of each file, only what was synced."""
    found: list[Record] = []
    for segment in journal.segments:
        records, damaged = parse(segment.path.read_bytes()[len(HEADER) : segment.synced])
        assert damaged == 0
        found += records
    return found


async def until(true: Callable[[], object]) -> None:
    await asyncio.to_thread(samples.until, true)


async def test_by_default_records_are_on_the_disk_soon_after_and_nobody_waits(
    tmp_path: Path, store: Store, disk: Disk
) -> None:
    disk.delay = 0.2
    ledger = Ledger(tmp_path, store)
    await ledger.start()
    begun = time.perf_counter()
    for number in range(100):
        await ledger.record_interception(interception(str(number)))
    assert time.perf_counter() - begun < 0.2, "as long as the disk takes for one call"
    await until(lambda: len(on_the_disk(journal_of(ledger))) == 100)
    assert disk.calls <= 3, "one for all of them, and one more where the first was too early for some"
    assert disk.threads == {"aibridge-syncing"}
    calls = disk.calls
    await asyncio.sleep(0.3)
    assert disk.calls == calls, "where nothing is appended, nothing is done"
    await ledger.aclose(0)


async def test_always_means_that_a_record_is_on_the_disk_when_it_counts_as_safe(
    tmp_path: Path, store: Store, disk: Disk
) -> None:
    disk.delay = 0.002
    ledger = Ledger(tmp_path, store, fsync="always")
    await ledger.start()

    async def converse(number: int) -> None:
        for turn in range(5):
            name = f"{number}-{turn}"
            await ledger.record_all([interception(name), prompt(name)])
            names = {each.id for each in on_the_disk(journal_of(ledger)) if isinstance(each, Interception)}
            assert name in names

    await asyncio.gather(*map(converse, range(40)))
    assert disk.calls < 60, "the 200 records shared them"
    await ledger.aclose(0)


async def test_the_event_loop_does_not_wait_for_a_slow_disk(tmp_path: Path, store: Store, disk: Disk) -> None:
    disk.delay = 0.3
    ledger = Ledger(tmp_path, store, fsync="always")
    await ledger.start()
    recording = asyncio.create_task(ledger.record_interception(interception()))
    longest = 0.0
    while not recording.done():
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - begun)
    await recording
    assert longest < 0.2, "others go on while one record waits for the disk"
    await ledger.aclose(0)


async def test_off_leaves_it_to_the_kernel(tmp_path: Path, store: Store, disk: Disk) -> None:
    ledger = Ledger(tmp_path, store, fsync="off")
    await ledger.start()
    await ledger.record_interception(interception())
    await ledger.aclose(0)
    assert disk.calls == 0


@pytest.mark.parametrize("fsync", ["always", "interval"])
async def test_a_disk_that_fails_is_told_and_what_comes_after_goes_to_another_file(
    tmp_path: Path, store: Store, disk: Disk, fsync: Fsync, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path, store, fsync=fsync)
    await ledger.start()
    disk.broken = True
    if fsync == "always":
        with pytest.raises(RecordingError, match=r"can not be brought to the disk \(Input/output error\): see to"):
            await ledger.record_interception(interception("refused"))
        assert not ledger.can_record
    else:
        await ledger.record_interception(interception("taken"))
        await until(lambda: "Input/output error" in (ledger.problem or ""))
        assert ledger.can_record, "for a kill of the process loses nothing"
    assert "may not survive a crash of the machine" in caplog.text

    disk.broken = False
    await until(lambda: ledger.problem == "the database is away")
    await ledger.record_interception(interception("after"))
    await until(
        lambda: any(isinstance(each, Interception) and each.id == "after" for each in on_the_disk(journal_of(ledger)))
    )
    assert len(journal_of(ledger).segments) > 1
    await ledger.aclose(0)


async def test_closing_brings_the_rest_to_the_disk(tmp_path: Path, store: Store, disk: Disk) -> None:
    ledger = Ledger(tmp_path, store, fsync_interval=60)
    await ledger.start()
    await ledger.record_interception(interception())
    assert disk.calls == 0
    begun = time.perf_counter()
    await ledger.aclose(0)
    assert disk.calls == 1
    assert time.perf_counter() - begun < 10
