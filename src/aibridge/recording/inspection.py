"""What the files of a journal hold, told without changing anything: safe beside a gateway that uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from aibridge.errors import RecordingError
from aibridge.recording.entries import json_of
from aibridge.recording.segment import DAMAGED_SUFFIX, SUFFIX, Segment, UnknownFormatError, has_owner
from aibridge.records import Interception, InterceptionEnded, Record


class Inspected(msgspec.Struct, kw_only=True):
    """What one file holds."""

    file: str
    size: int
    """In bytes."""
    owned: bool
    """A living process writes the file, or stores what it holds."""
    entries: dict[str, int] = {}
    """Whole entries, by their kind."""
    first: datetime | None = None
    """The earliest time that an entry names."""
    last: datetime | None = None
    damaged: int = 0
    """Lines that hold no readable entry."""
    unfinished: int = 0
    """Bytes at the end of an entry that was not finished; its owner may be about to."""
    problem: str | None = None
    """Why nothing of the file can be read."""

    @property
    def is_whole(self) -> bool:
        """Nothing is damaged or missing, as far as that shows."""
        return not (self.problem or self.damaged or (self.unfinished and not self.owned))


def journal_files(places: Iterable[Path]) -> list[Path]:
    """The files among some files and folders: of a folder its journals, and those that were set aside as damaged.

    RecordingError is raised for a place that is not there.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(each for each in place.iterdir() if each.suffix in {SUFFIX, DAMAGED_SUFFIX})
        elif place.exists():
            found.append(place)
        else:
            raise RecordingError(f"there is no file or folder {place}")
    return found


def inspect(path: Path) -> Inspected | None:
    """Read a whole file; None where it is gone by now, for a gateway deletes what it has stored."""
    try:
        owned = has_owner(path)
        segment = Segment.view(path)
    except FileNotFoundError:
        return None
    except (OSError, UnknownFormatError) as error:
        size = path.stat().st_size if path.is_file() else 0
        return Inspected(file=str(path), size=size, owned=False, problem=str(error))
    found = Inspected(file=str(path), size=segment.size, owned=owned)
    entries: Counter[str] = Counter()
    end = segment.offset
    for reading in segment.readings():
        entries.update(map(_kind, reading.records))
        for time in map(_time, reading.records):
            found.first = min(found.first or time, time)
            found.last = max(found.last or time, time)
        found.damaged += reading.damaged
        end = reading.offset
    segment.release()
    found.entries = dict(entries)
    found.unfinished = segment.size - end
    return found


def contents_of(path: Path) -> Iterator[str]:
    """The readable records of a file, as JSON texts. Raises as `Segment.view` does."""
    segment = Segment.view(path)
    try:
        for reading in segment.readings():
            yield from map(json_of, reading.records)
    finally:
        segment.release()


def _kind(record: Record) -> str:
    return str(record.__struct_config__.tag)


def _time(record: Record) -> datetime:
    if isinstance(record, Interception):
        return record.started_at
    return record.ended_at if isinstance(record, InterceptionEnded) else record.created_at
