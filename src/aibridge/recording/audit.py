"""The audit trail: every record as a line of JSON, appended to files in a folder as soon as it is stored.

The lines of all files are one chain (see `aibridge.recording.chain`), which every process of a machine goes on with in
its turn. A file is named after the number of its first line, so the files sort in their order.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from aibridge.errors import RecordingError
from aibridge.recording.chain import Chain
from aibridge.recording.contents import emptied
from aibridge.recording.entries import as_json
from aibridge.recording.stores import Store
from aibridge.records import Record

MAX_FILE_SIZE = 64 << 20
"""From how many bytes on a file is followed by another, by default."""

SUFFIX = ".jsonl"

_CHUNK = 64 << 10
_LOCK = "lock"
"""The file that is locked by whoever writes."""
_READ = "read"
"""The file with the reader's position."""
_LENGTH = 256
"""How long it is, whatever the position, so that it is written at once."""


class Audited:
    """A store whose records are also put in the trail once they are stored.

    Where that fails, the batch counts as not stored: it is tried again, so a record may be in the trail twice.
    """

    def __init__(self, store: Store, trail: AuditTrail) -> None:
        self._store, self._trail = store, trail

    def store(self, records: Sequence[Record], /) -> None:
        """Keep records, and put them in the trail."""
        self._store.store(records)
        self._trail.append(records)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class AuditTrail:
    """Appends to the trail in a folder, which is made where it is missing, its files for their owner alone to read.

    Contents are left out unless `contents` says otherwise. Files whose last line is older than `keep` seconds are
    removed, 0 keeping all, but never one that a reader (see `Reader`) has still to read.
    """

    def __init__(
        self, folder: Path, *, contents: bool = False, max_file_size: int = MAX_FILE_SIZE, keep: float = 0.0
    ) -> None:
        self._folder = folder
        self._contents = contents
        self._max_file_size = max_file_size
        self._keep = keep
        self._written: tuple[Path, int, Chain] | None = None
        """The file, its size and where the chain stood when this process wrote last."""

    def append(self, records: Sequence[Record]) -> None:
        """Put records in the trail, on the disk by the time that this returns; RecordingError where it can not be."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                self._append(records)
        except OSError as error:
            self._written = None
            raise RecordingError(
                f"the audit trail in {self._folder} can not be written ({error.strerror or error}): make room there "
                "and see that it is writable, or set audit.dir to another folder"
            ) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _append(self, records: Sequence[Record]) -> None:
        path, size, chain = self._end()
        lines = b"".join([chain.line(as_json(self._told(record))) for record in records])
        if path is None or size >= self._max_file_size:
            path, size = self._folder / f"{chain.seq - len(records) + 1:020}{SUFFIX}", 0
            self._drop_old()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode=0o600)
        try:
            written = 0
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._written = path, size + len(lines), chain

    def _told(self, record: Record) -> Record:
        return record if self._contents else emptied(record, "off")

    def _end(self) -> tuple[Path | None, int, Chain]:
        """The last file, its size, and where the chain stands; what a writer that died did not finish is cut off."""
        found = files(self._folder)
        if self._written and found and (found[-1], found[-1].stat().st_size) == self._written[:2]:
            path, size, chain = self._written
            return path, size, Chain(chain.seq, chain.head)
        for path in reversed(found):
            with path.open("r+b") as file:
                last, size = _last_line(file.fileno())
                file.truncate(size)
            if last is not None:
                return path, size, _chain_after(path, last)
            path.unlink()
        return None, 0, Chain()

    def _drop_old(self) -> None:
        """Remove files that are old and read. The newest stays whatever its age, for the chain goes on from it."""
        if not self._keep:
            return
        position = position_in(self._folder)
        for path in files(self._folder)[:-1]:
            unread = position is not None and path.name >= position.file
            if not unread and path.stat().st_mtime < time.time() - self._keep:
                path.unlink()


def files(folder: Path) -> list[Path]:
    """The files of a trail, in their order."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def _chain_after(path: Path, line: bytes) -> Chain:
    try:
        return Chain.after(line)
    except ValueError as error:
        raise RecordingError(
            f"{path} does not end in a line of the audit trail: move it elsewhere, and a new trail begins"
        ) from error


def _last_line(descriptor: int) -> tuple[bytes | None, int]:
    """The last whole line of a file, without its newline, and where it ends; None where there is none."""
    start, tail = os.fstat(descriptor).st_size, b""
    while start and tail.count(b"\n") < 2:
        before = max(0, start - _CHUNK)
        tail = os.pread(descriptor, start - before, before) + tail
        start = before
    end = tail.rfind(b"\n") + 1
    if not end:
        return None, 0
    return tail[tail.rfind(b"\n", 0, end - 1) + 1 : end - 1], start + end


class Position(NamedTuple):
    """Up to where the trail was read: a file's name, and an offset in bytes."""

    file: str = ""
    offset: int = 0


def position_in(folder: Path) -> Position | None:
    """Where the reader of a trail is; None where it has none."""
    try:
        return msgspec.json.decode((folder / _READ).read_bytes(), type=Position)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        return Position()


class Reader:
    """Reads the lines of a trail in their order. Where it is survives the process; one process at a time may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def alone(self) -> bool:
        """Become the one who reads, until `close`; False while another process is."""
        if self._descriptor is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / _READ, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._descriptor = descriptor
        return True

    def read(self, size: int) -> tuple[list[bytes], Position]:
        """The next lines, without their newlines: about so many bytes, at least one if there is one.

        What `settle` is told once they are taken care of comes with them.
        """
        position = position_in(self._folder) or Position()
        for path in files(self._folder):
            if path.name >= position.file:
                offset = position.offset if path.name == position.file else 0
                if lines := _whole_lines(path, offset, size):
                    return lines.split(b"\n")[:-1], Position(path.name, offset + len(lines))
        return [], position

    def settle(self, position: Position) -> None:
        """Remember up to where lines are taken care of: the next read goes on there."""
        assert self._descriptor is not None
        written = msgspec.json.encode(position).ljust(_LENGTH)
        os.pwrite(self._descriptor, written, 0)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let another process read."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _whole_lines(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        lines = file.read(size)
        if b"\n" not in lines:
            lines += file.readline()
    return lines[: lines.rfind(b"\n") + 1]
