"""Server-sent events: splitting a stream into events, reading one, writing one.

Source: the WHATWG HTML standard, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import re

MAX_EVENT = 32 << 20
"""How long one event may be, in bytes. Images come within events, so this is generous; it only bounds memory."""

_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE = re.compile(rb"\r\n|\n|\r")
CR, LF = b"\r"[0], b"\n"[0]
"""As bytes are numbers: a number is found in bytes in far fewer steps than a piece of one byte."""


class EventTooLarge(ValueError):
    """An event went on for longer than `MAX_EVENT` without an end."""


class EventSplitter:
    """Cuts a stream of bytes into events: the same ones, however the bytes arrive."""

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._begun = bytearray()
        self._searched = 0
        self._cut = False

    @property
    def between_events(self) -> bool:
        """No event is begun and not ended; after `rest`, none was cut."""
        return not self._begun and not self._cut

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are now whole, each with the blank line that ends it.

        With `rest`, every byte that was fed is there.

        Raises `EventTooLarge`.
        """
        begun = self._begun
        if not begun and data.endswith(b"\n\n") and CR not in data:
            if data.find(b"\n\n") == len(data) - 2:  # one event, as most often
                return [data]
            *events, after = data.split(b"\n\n")
            if not after:  # else the stream goes on with one more line end
                return [event + b"\n\n" for event in events]
        begun += data
        events, start = [], 0
        for end in _END.finditer(begun, self._searched):
            if end.end() == len(begun) and begun.endswith(b"\r"):
                break  # a line feed that belongs to this line end may be still to come
            events.append(bytes(begun[start : end.end()]))
            start = end.end()
        del begun[:start]
        if len(begun) > self._limit:
            raise EventTooLarge(f"a server-sent event is longer than {self._limit} bytes")
        self._searched = max(0, len(begun) - 3)  # an end may be cut in two: \r\n|\r\n
        return events

    def rest(self) -> bytes:
        """What came after the last whole event; the stream is over."""
        rest = bytes(self._begun)
        self._begun.clear()
        self._searched = 0
        self._cut = self._cut or bool(rest)
        return rest


def data_of(event: bytes) -> bytes:
    """The data of one event: its `data` fields, joined by line feeds. Empty where it has none."""
    found = []
    for line in _LINE.split(event.removeprefix(b"\xef\xbb\xbf")):
        name, _, value = line.partition(b":")
        if name == b"data":
            found.append(value.removeprefix(b" "))
    return b"\n".join(found)


def write(data: bytes, name: str | None = None) -> bytes:
    """One event; `data` must be free of line ends."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + data + b"\n\n"
