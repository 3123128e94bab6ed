"""Storing what a journal file holds that no gateway will store: one set aside, or brought from another machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from aibridge.errors import RecordingError
from aibridge.recording.segment import Segment, UnknownFormatError
from aibridge.recording.stores import Store
from aibridge.recording.storing import BATCH, store_some

_PATIENCE = 60.0
"""How long a store may be out of order, in seconds."""
_PAUSE = 0.2
_BATCH = 16 * BATCH
"""Bytes of entries in one transaction; whoever else stores something waits for a fraction of a second."""


class Replayed(msgspec.Struct, kw_only=True):
    """What became of one file."""

    file: str
    stored: int = 0
    """Entries that are in the store now, whether or not they were before."""
    damaged: int = 0
    """Entries that could not be read or stored."""
    unfinished: int = 0
    """Bytes at the end of an entry that was not finished."""
    owned: bool = False
    """A living process has the file, and will store what it holds; it was left to it."""
    problem: str | None = None
    """Why nothing of the file can be read."""


def replay(path: Path, store: Store, progress: Callable[[int], None]) -> Replayed | None:
    """Store what a file holds, and leave it as it is; None where it is gone. `progress` is told of bytes.

    While it is read no gateway touches the file. RecordingError is raised where the store is out of order for longer
    than a minute.
    """
    try:
        segment = Segment.adopt(path)
    except (OSError, UnknownFormatError) as error:
        return Replayed(file=str(path), problem=str(error))
    if segment is None:
        return Replayed(file=str(path), owned=True) if path.exists() else None
    try:
        while moved := _insist(segment, store):
            progress(moved)
    finally:
        segment.release()
    return Replayed(file=str(path), stored=segment.kept, damaged=segment.damaged, unfinished=segment.lag)


def _insist(segment: Segment, store: Store) -> int:
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return store_some(segment, store, _BATCH)
        except RecordingError:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE)
