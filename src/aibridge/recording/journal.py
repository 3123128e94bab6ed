"""The journal: where records are safe from the moment that they are appended."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from aibridge.errors import RecordingError
from aibridge.recording.entries import encode_all
from aibridge.recording.segment import HEADER, SUFFIX, Segment
from aibridge.records import Record

MIB = 1024 * 1024

MAX_SIZE = 4096 * MIB
"""Bytes that the journals of a directory may take by default."""

_WORTH_DELETING = MIB
"""From this size in bytes a file whose entries are all stored gives way to a new one, though there is room."""

_BLANK = b" " * 4095 + b"\n"
"""No entry, and large enough to need a block of its own: writing it tells whether there is room again."""


class Journal:
    """Appends records to files in a directory, which is made where it is missing.

    A record that was appended survives the death of the process, and that of the machine once `sync` was called. While
    the files can not be written (the disk is full), up to `backlog_size` bytes of entries wait in memory and are
    written first as soon as that works again. A new file is begun when one passes `segment_size` bytes.

    All journals of the directory together may take `max_size` bytes, more or less: then only records are taken that
    must be kept, and of these only `backlog_size` bytes more, as if the disk were full.

    Safe for use by several threads.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_size: int = 16 * MIB,
        backlog_size: int = 16 * MIB,
        max_size: int = MAX_SIZE,
    ) -> None:
        self.directory = directory
        self.dropped = 0
        """Entries lost because the backlog was full."""
        self._max_size = max_size
        self._taken_up = 0  # bytes in the directory: what was found there, and what was appended since
        self._unwritable: str | None = None
        self._segment_size = segment_size
        self._rotate_at = segment_size
        self._backlog: deque[bytes] = deque()
        self._backlog_size = backlog_size
        self._backlog_bytes = 0
        self._taken = 0
        self._retired: list[Segment] = []
        self._current: Segment | None = None
        self._sealed = False
        self._lock = Lock()
        self._open()
        self.measure()

    @property
    def problem(self) -> str | None:
        """Why the journal can not take records, and what to do about it; None while it can."""
        return self._unwritable or (self._too_large if self.is_full else None)

    @property
    def is_full(self) -> bool:
        """Whether the journals of the directory have reached the size that they may have."""
        return self._taken_up >= self._max_size

    @property
    def _too_large(self) -> str:
        return (
            f"the journals in {self.directory} have reached {self._max_size:,} bytes, since their records can not be "
            "stored: see that the database takes them, or raise storage.max_journal_size"
        )

    def append(self, *records: Record, keep: bool = True) -> bool:
        """Append records, and say whether they are safe.

        True: they are with the kernel. False: the journal is full or can not be written just now; the records wait in
        memory, or were forgotten where `keep` is false. RecordingError: they are lost, since the backlog is full,
        the journal is closed or a record has metadata that JSON can not express.
        """
        try:
            entries = encode_all(records)
        except (TypeError, ValueError, RecursionError) as error:
            raise RecordingError(f"a record holds what can not be written as JSON: {error}") from error
        with self._lock:
            if self._sealed:
                raise RecordingError("the journal is closed")
            room = self._max_size + (self._backlog_size if keep else 0) - self._taken_up
            if room > 0 and (not self._backlog or self._write_backlog()) and self._write(entries, records):
                return True
            if keep:
                self._put_off(entries)
            return False

    def _write(self, entries: bytes, records: Sequence[Record] = ()) -> bool:
        segment = self._current or self._open()
        if segment is None:
            return False
        try:
            segment.write(entries, records)
        except OSError as error:
            self._fail(error)
            return False
        self._taken_up += len(entries)
        self._unwritable = None
        if segment.size > self._rotate_at:
            self._rotate()
        return True

    def _write_backlog(self) -> bool:
        while self._backlog:
            if not self._write(self._backlog[0]):
                return False
            self._take()
        return True

    def _put_off(self, entries: bytes) -> None:
        if self._backlog_bytes + len(entries) > self._backlog_size:
            self.dropped += entries.count(b"\n")
            raise RecordingError(f"a record is lost: {self.problem}")
        self._backlog.append(entries)
        self._backlog_bytes += len(entries)

    def _take(self) -> None:
        self._backlog_bytes -= len(self._backlog.popleft())
        self._taken += 1

    def _open(self) -> Segment | None:
        try:
            self._current = Segment.create(self.directory)
        except OSError as error:
            self._fail(error)
            return None
        self._rotate_at = self._segment_size
        return self._current

    def _rotate(self) -> None:
        old, self._current = self._current, None
        if self._open():
            if old is not None:
                old.forget_recent()
                self._retired.append(old)
        elif old is not None:
            # Better a long file than none; the next attempt is due after another segment's worth.
            self._current = old
            self._rotate_at = old.size + self._segment_size
            self._unwritable = None

    def _fail(self, error: OSError) -> None:
        self._unwritable = (
            f"the journal in {self.directory} can not be written ({_cause(error)}): make room there and see that the "
            "directory is writable, or set storage.journal_dir to another one"
        )

    def sync(self) -> None:
        """Bring to the disk what was appended before; RecordingError where that fails. To be called by one thread.

        The journal can be appended to meanwhile.
        """
        due: list[tuple[Segment, int, int]] = []
        try:
            with self._lock:
                for segment in self._segments():
                    if segment.synced < segment.size:
                        due.append((segment, segment.lend(), segment.size))  # noqa: PERF401  # what is lent is given back
            for _, descriptor, _ in due:
                _sync_data(descriptor)
            if any(segment.synced == 0 for segment, _, _ in due):  # the directory names new files
                _sync_directory(self.directory)
        except OSError as error:
            # The kernel takes pages for clean that it failed to write: another attempt with the same file could
            # succeed without them. What comes from now on goes to another one.
            self.rotate()
            raise RecordingError(
                f"the journal in {self.directory} can not be brought to the disk ({_cause(error)}): see to that disk, "
                "or set storage.journal_dir to another one"
            ) from error
        finally:
            for _, descriptor, _ in due:
                os.close(descriptor)
        for segment, _, size in due:
            segment.synced = size

    def measure(self) -> None:
        """Look how much the journals of the directory take up, those of other processes included."""
        sizes: dict[str, int] = {}
        with suppress(OSError), os.scandir(self.directory) as files:
            for file in files:
                if file.name.endswith(SUFFIX):
                    with suppress(FileNotFoundError):
                        sizes[file.name] = file.stat().st_size
        with self._lock:
            # What was appended while the files were looked at may have been seen there: of its own, the journal knows.
            sizes.update({segment.path.name: segment.size for segment in self._segments()})
            self._taken_up = sum(sizes.values())

    def heal(self) -> None:
        """Try again what failed; to be called now and then, so that the journal recovers without any request."""
        self.measure()
        with self._lock:
            if self._sealed:
                return
            if self._current is not None and self._current.removed:
                self._rotate()
            if not self.is_full and self._write_backlog() and self._unwritable is not None:
                self._write(_BLANK)

    def rotate(self) -> None:
        """Begin a new file, so that the current one can be deleted once it is stored."""
        with self._lock:
            if not self._sealed:
                self._rotate()

    @property
    def segments(self) -> list[Segment]:
        """The files that this journal holds, oldest first, the current one last."""
        with self._lock:
            return self._segments()

    def _segments(self) -> list[Segment]:
        return [*self._retired, self._current] if self._current is not None else [*self._retired]

    def worth_deleting(self, segment: Segment) -> bool:
        """Whether a current file whose entries are all stored should give way to a new one."""
        return segment.size > (len(HEADER) if self.is_full else _WORTH_DELETING)

    def is_current(self, segment: Segment) -> bool:
        """Whether entries may still be added to a file."""
        return segment is self._current

    def forget(self, segment: Segment) -> None:
        """Take a file that is stored off the list; it is the caller's from now on."""
        with self._lock:
            if segment is self._current:
                self._current = None
            else:
                self._retired.remove(segment)

    @property
    def backlog_bytes(self) -> int:
        """The size of the entries that wait in memory, in bytes."""
        return self._backlog_bytes

    def unwritten(self) -> tuple[list[bytes], int]:
        """The entries that wait in memory, and a mark with which `settle` knows them."""
        with self._lock:
            return list(self._backlog), self._taken + len(self._backlog)

    def settle(self, mark: int) -> None:
        """Forget the entries in memory up to a mark: they are safe elsewhere."""
        with self._lock:
            while self._taken < mark:
                self._take()

    def seal(self) -> None:
        """Take no more records; those in memory are written if that is possible now."""
        with self._lock:
            if not self._sealed:
                self._write_backlog()
                self._sealed = True

    def close(self) -> None:
        """Seal the journal and let go of its files; whoever looks next adopts those that are left."""
        self.seal()
        for segment in self.segments:
            self.forget(segment)
            segment.release()


_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only


def _sync_directory(directory: Path) -> None:
    """Bring to the disk which files there are; and that there is the directory."""
    for each in (directory, directory.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cause(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
