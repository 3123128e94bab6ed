"""Writing what was recorded to a file, page by page; an export that was interrupted goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import msgspec

from aibridge.errors import SettingsError
from aibridge.recording.history import Exchange, History, Position, from_time, without_contents
from aibridge.server.export_formats import CSV, Format, JSONLines, Parquet, State

FormatName: TypeAlias = Literal["jsonl", "csv", "parquet"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be exported."""

    format: FormatName
    contents: bool
    since: datetime | None
    until: datetime


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an export has come: beside its output for as long as it is not whole."""

    wanted: Wanted
    exchanges: int
    position: Position
    state: State


class Export:
    """One export to a file. The file has its name once it is whole.

    `resumed` tells how many exchanges an earlier run has written. SettingsError is raised where the file is there, or
    the beginning of another export.
    """

    def __init__(self, output: Path, wanted: Wanted) -> None:
        self._output = output
        self._partial = output.with_name(f"{output.name}.partial")
        self._progress = output.with_name(f"{output.name}.progress")
        self.resumed = 0
        if output.exists():
            raise SettingsError(f"{output} is there already: remove it, or name another file with --output")
        self._earlier = self._read_progress(wanted)
        self.wanted = self._earlier.wanted if self._earlier else wanted
        if self._earlier:
            self.resumed = self._earlier.exchanges

    def run(self, history: History) -> int:
        """Write it; how many exchanges it has, with those of earlier runs."""
        wanted, earlier = self.wanted, self._earlier
        position = earlier.position if earlier else from_time(wanted.since)
        exchanges = self.resumed
        with self._format(earlier.state if earlier else None) as format_:
            for page in _pages(history, position, wanted):
                format_.write(page)
                exchanges += len(page)
                position = Position(page[-1]["started_at"], page[-1]["id"])
                state = format_.saved()
                self._write_progress(Progress(wanted=wanted, exchanges=exchanges, position=position, state=state))
            format_.finish(_about(wanted, exchanges))
        if wanted.format != "parquet":
            self._partial.rename(self._output)
        self._progress.unlink(missing_ok=True)
        return exchanges

    def _read_progress(self, wanted: Wanted) -> Progress | None:
        try:
            progress = msgspec.json.decode(self._progress.read_bytes(), type=Progress)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise SettingsError(f"{self._progress} is not from an export: name another file with --output") from error
        if (progress.wanted.format, progress.wanted.contents) != (wanted.format, wanted.contents):
            raise SettingsError(
                f"{self._partial} is the beginning of an export with another --format or other --contents: say the "
                f"same to go on with it, or remove it and {self._progress} to begin anew"
            )
        return progress

    def _write_progress(self, progress: Progress) -> None:
        written = self._progress.with_name(f"{self._progress.name}.new")
        written.write_bytes(msgspec.json.encode(progress))
        written.rename(self._progress)

    @contextmanager
    def _format(self, state: State | None) -> Iterator[Format]:
        if self.wanted.format == "parquet":
            yield Parquet(self._output, self._partial, state)
            return
        descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600)
        with open(descriptor, "r+b") as file:  # noqa: PTH123 - it is open already
            file.truncate(state["size"] if state else 0)
            file.seek(0, os.SEEK_END)
            yield _stream_format(self.wanted.format, file, state)


def write_stream(file: BinaryIO, history: History, wanted: Wanted) -> int:
    """Write an export to a stream, which can not be gone on with; how many exchanges it has."""
    if wanted.format == "parquet":
        raise SettingsError("Parquet is written to a file, not to a stream: name one with --output")
    format_ = _stream_format(wanted.format, file, None)
    exchanges = 0
    for page in _pages(history, from_time(wanted.since), wanted):
        format_.write(page)
        exchanges += len(page)
    format_.finish(_about(wanted, exchanges))
    file.flush()
    return exchanges


def _stream_format(name: FormatName, file: BinaryIO, state: State | None) -> Format:
    return JSONLines(file, state) if name == "jsonl" else CSV(file, state)


def _pages(history: History, since: Position, wanted: Wanted) -> Iterator[list[Exchange]]:
    for page in history.exchanges(since, wanted.until):
        yield page if wanted.contents else [without_contents(exchange) for exchange in page]


def _about(wanted: Wanted, exchanges: int) -> dict[str, object]:
    return {"exchanges": exchanges, "since": wanted.since, "until": wanted.until, "contents": wanted.contents}
