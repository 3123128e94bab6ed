"""What the commands `aibridge journal ...` do with the files of journals."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import click

from aibridge.recording.inspection import Inspected, contents_of, inspect, journal_files
from aibridge.recording.replay import Replayed, replay
from aibridge.recording.stores import store_for
from aibridge.server.audit import audited
from aibridge.server.settings import Audit, Storage


def files(places: Sequence[Path], storage: Storage) -> list[Path]:
    """The files that are meant: those in the places that were named, else those of the settings.

    RecordingError is raised for a place that is not there.
    """
    return journal_files(places or [storage.journal_dir])


def inspected(files: Sequence[Path]) -> list[Inspected]:
    """What each file holds; one that a gateway has stored and deleted meanwhile is left out."""
    return [found for file in files if (found := inspect(file))]


def contents(files: Sequence[Path]) -> Iterator[str]:
    """The readable records of files, each as JSON text. Raises OSError and `UnknownFormatError`."""
    for file in files:
        with suppress(FileNotFoundError):  # a gateway has stored and deleted it meanwhile
            yield from contents_of(file)


def replayed(files: Sequence[Path], storage: Storage, audit: Audit) -> list[Replayed]:
    """Store what each file holds, and put it in the audit trail where there is one.

    How far it is, is shown on standard error where that is a terminal.
    """
    if not files:
        return []
    sizes = sum(map(_size, files))
    with (
        _no_collector(),
        closing(audited(store_for(storage.url), audit)) as store,
        click.progressbar(length=sizes, label="Storing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
    ):
        return [found for file in files if (found := replay(file, store, bar.update))]


def _size(file: Path) -> int:
    """In bytes; 0 for a file that has been stored and removed meanwhile."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def _no_collector() -> Iterator[None]:
    """Millions of records without a circle among them: to look for some takes a twentieth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
