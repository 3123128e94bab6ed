"""What every dialect does with an answer that is a stream of server-sent events."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Generic, TypeVar

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.dialect import Turn

E = TypeVar("E")


class StreamReader(Generic[E]):
    """Lets a stream pass, and reads each event once it is whole.

    A subclass names the decoder for the data of its events. Data that is no such event is left alone: the client gets
    it as it came, and it changes nothing here.
    """

    rewrites = False
    end_marks: ClassVar[tuple[bytes, ...]]
    """An event that ends the stream holds one of these."""

    def __init__(self, decoder: msgspec.json.Decoder[E]) -> None:
        self.turn = Turn()
        self.ended = False
        self._splitter = sse.EventSplitter()
        self._decoder = decoder

    @property
    def between_events(self) -> bool:
        """The client has whole events only."""
        return self._splitter.between_events

    def ahead(self, data: bytes) -> int:
        """Where the last event begins that may end the stream; all of the bytes where there is none."""
        if not self._splitter.between_events:
            return 0
        ahead = len(data)
        for mark in self.end_marks:
            if 0 <= (at := data.find(mark)) < ahead:
                before = data.rfind(b"\n\n", 0, at)
                ahead = before + 2 if before >= 0 else 0
        return ahead

    def feed(self, data: bytes) -> bytes:
        """Read what came; all of it is for the client, at once."""
        for event in self._splitter.feed(data):
            self._take(event)
        return data

    def close(self) -> bytes:
        """Read an event that nothing ended (some servers leave out the last blank line)."""
        if rest := self._splitter.rest():
            self._take(rest)
        self._finish()
        return b""

    def _take(self, event: bytes) -> None:
        if self.ended:
            return
        # Nearly every event holds one `data` field, and last: then what follows its name is JSON, line ends included.
        at = event.find(b"data:")
        begins = at == 0 or (at > 0 and event[at - 1] == sse.LF)
        try:
            told = self._decoder.decode(event[at + 5 :] if begins else b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            data = sse.data_of(event)
            try:
                told = json_bytes.decode(self._decoder, data)
            except (msgspec.DecodeError, RecursionError):
                self._read_other(data)
                return
        try:
            self._read(told)
        except (msgspec.DecodeError, RecursionError):
            pass  # a part of it is not what it should be

    @abstractmethod
    def _read(self, event: E) -> None:
        """Read one event into `turn`. May raise `msgspec.DecodeError`."""

    def _read_other(self, data: bytes) -> None:
        """Look at the data of an event that could not be decoded; empty for a comment."""

    def _finish(self) -> None:
        """The stream is over: settle what is still open."""


def end_event(reader: object) -> bytes:
    """What must go before an event of the gateway's own: the end of one that was cut in the middle."""
    return b"" if getattr(reader, "between_events", True) else b"\n\n"
