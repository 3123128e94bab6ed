"""The journal: where records are safe from the moment that they are appended."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from threading import Lock

from aibridge.errors import RecordingError
from aibridge.recording.entries import encode
from aibridge.recording.segment import Segment
from aibridge.records import Record

MIB = 1024 * 1024

_BLANK = b" " * 4095 + b"\n"
"""No entry, and large enough to need a block of its own: writing it tells whether there is room again."""


class Journal:
    """Appends records to files in a directory, which is made where it is missing.

    A record that was appended survives the death of the process. While the files can not be written (the disk is
    full), up to `backlog_size` bytes of entries wait in memory and are written first as soon as that works again.
    A new file is begun when one passes `segment_size` bytes. Safe for use by several threads.
    """

    def __init__(self, directory: Path, *, segment_size: int = 16 * MIB, backlog_size: int = 16 * MIB) -> None:
        self.directory = directory
        self.dropped = 0
        """Entries lost because the backlog was full."""
        self.problem: str | None = None
        """Why the journal can not be written, and what to do about it; None while it can."""
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

    def append(self, *records: Record, keep: bool = True) -> bool:
        """Append records, and say whether they are safe.

        True: they are with the kernel. False: the journal can not be written just now; the records wait in memory,
        or were forgotten where `keep` is false. RecordingError: they are lost, since the backlog is full, the
        journal is closed or a record has metadata that JSON can not express.
        """
        try:
            entries = b"".join([encode(record) for record in records])
        except (TypeError, ValueError, RecursionError) as error:
            raise RecordingError(f"a record holds what can not be written as JSON: {error}") from error
        with self._lock:
            if self._sealed:
                raise RecordingError("the journal is closed")
            if self._write_backlog() and self._write(entries):
                return True
            if keep:
                self._put_off(entries)
            return False

    def _write(self, entries: bytes) -> bool:
        if self._current is None and not self._open():
            return False
        assert self._current is not None
        try:
            self._current.write(entries)
        except OSError as error:
            self._fail(error)
            return False
        self.problem = None
        if self._current.size > self._rotate_at:
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

    def _open(self) -> bool:
        try:
            self._current = Segment.create(self.directory)
        except OSError as error:
            self._fail(error)
            return False
        self._rotate_at = self._segment_size
        return True

    def _rotate(self) -> None:
        old, self._current = self._current, None
        if self._open():
            if old is not None:
                self._retired.append(old)
        elif old is not None:
            # Better a long file than none; the next attempt is due after another segment's worth.
            self._current = old
            self._rotate_at = old.size + self._segment_size
            self.problem = None

    def _fail(self, error: OSError) -> None:
        cause = os.strerror(error.errno) if error.errno else str(error)
        self.problem = (
            f"the journal in {self.directory} can not be written ({cause}): make room there and see that the "
            "directory is writable, or set storage.journal_dir to another one"
        )

    def heal(self) -> None:
        """Try again what failed; to be called now and then, so that the journal recovers without any request."""
        with self._lock:
            if self._sealed:
                return
            if self._current is not None and self._current.removed:
                self._rotate()
            if self._write_backlog() and self.problem is not None:
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
            return [*self._retired, self._current] if self._current is not None else [*self._retired]

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
