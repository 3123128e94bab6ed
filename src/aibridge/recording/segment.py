"""One file of a journal, locked for as long as its owner lives."""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from aibridge.recording.entries import CANCEL, Reading, read
from aibridge.recording.recent import MOST, Recent
from aibridge.records import Record

SUFFIX = ".journal"
DAMAGED_SUFFIX = ".damaged"
HEADER = b"aibridge-journal 1\n"
"""The first line of every file: the format's name and its version."""

_sequence = itertools.count(1)


class UnknownFormatError(Exception):
    """A file bears a journal's name, but its first line is not one that this version knows."""


class Segment:
    """A journal file that this process holds, by `flock(2)`: the kernel lets go of it when the process dies.

    One thread writes and one other may read at the same time; what a write has not finished is never read.
    """

    def __init__(self, path: Path, descriptor: int, *, size: int, offset: int) -> None:
        self.path = path
        self.size = size
        """In bytes, whole entries only in a file that this process writes."""
        self.offset = offset
        """Up to where, in bytes, the entries are stored."""
        self.synced = 0
        """Up to where, in bytes, the file is known to be on the disk."""
        self.kept = 0
        """Entries stored."""
        self.damaged = 0
        """Entries found that can not be read or stored; a file with such is kept."""
        self._descriptor = descriptor
        self._torn = False
        self._recent = Recent()

    @classmethod
    def create(cls, directory: Path) -> Segment:
        """Begin a new file, for its owner alone to read; OSError where that is impossible."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = directory / f"{time.time_ns() // 1_000_000}-{os.getpid()}-{next(_sequence)}{SUFFIX}"
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
            try:
                descriptor = os.open(path, flags, mode=0o600)
            except FileExistsError:  # the clock was set back, and the process has the number of an earlier one
                continue
            segment = cls(path, descriptor, size=0, offset=len(HEADER))
            try:
                # Between its creation and its lock the file looks abandoned: another process may have adopted it.
                if not _lock(descriptor):
                    segment.release()
                    continue
                segment.write(HEADER)
            except OSError:
                segment.discard()
                raise
            return segment

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """Take over a file whose owner is dead; None where it lives or another process was quicker.

        UnknownFormatError is raised for a file that this version can not read, OSError for one that can not be opened.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not _lock(descriptor):
            os.close(descriptor)
            return None
        return cls._opened(path, descriptor)

    @classmethod
    def view(cls, path: Path) -> Segment:
        """Open a file to read what it holds by now, whoever owns it. Raises as `adopt` does."""
        return cls._opened(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def _opened(cls, path: Path, descriptor: int) -> Segment:
        try:
            size = os.fstat(descriptor).st_size
            head = os.pread(descriptor, len(HEADER), 0)
            if not HEADER.startswith(head):
                raise UnknownFormatError(f"{path} is not a journal that this version of aibridge can read")
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, size=size, offset=len(head))

    @property
    def lag(self) -> int:
        """Bytes that are not yet stored."""
        return max(self.size - self.offset, 0)

    @property
    def removed(self) -> bool:
        """Whether someone deleted the file, so that its entries would not outlive this process."""
        return os.fstat(self._descriptor).st_nlink == 0

    def write(self, entries: bytes, records: Sequence[Record] = ()) -> None:
        """Hand whole entries to the kernel, all or none; OSError where it can not take them (disk full).

        `records` are what the entries tell; named, they need not be read back to be stored, if that is soon.
        """
        data = CANCEL + entries if self._torn else entries
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            # A kill of the process loses nothing from here on; for the loss of the machine see `syncing`.
        except OSError:
            self._cut()
            raise
        if self._torn:
            self.size = os.fstat(self._descriptor).st_size
            self._torn = False
            return
        end = self.size + written
        if records and end - self.offset <= MOST:
            self._recent.put(self.size, records, end)
        self.size = end

    def _cut(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:
            self._torn = True

    def read(self, offset: int) -> Reading:
        """Read some of the whole entries from an offset in bytes."""
        return read(self._descriptor, offset, self.size)

    def readings(self) -> Iterator[Reading]:
        """Read all whole entries that are not yet stored, some at a time, from memory where they are still there."""
        offset = self.offset
        while (reading := self._recent.take(offset) or self.read(offset)).offset > offset:
            offset = reading.offset
            yield reading

    def forget_recent(self) -> None:
        """Keep no records in memory: it may be long until they are stored."""
        self._recent.forget()

    def lend(self) -> int:
        """Another descriptor of the file, with which it can be synced while its owner goes on, or even lets it go."""
        return os.dup(self._descriptor)

    def release(self) -> None:
        """Let go of the file, for another process to adopt."""
        os.close(self._descriptor)

    def discard(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
        self.release()

    def set_aside(self) -> Path:
        """Keep the file under a name that nobody adopts, and return that name."""
        kept = self.path.with_suffix(DAMAGED_SUFFIX)
        with suppress(FileNotFoundError):
            self.path.rename(kept)
        self.release()
        return kept


def has_owner(path: Path) -> bool:
    """Whether a living process holds a file, as its writer or because it stores what it holds."""
    with path.open("rb") as file:
        try:
            # Shared, and for an instant: whoever would lock the file just now leaves it to the next attempt.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0
