"""AWS event streams: binary frames, each with headers and a payload.

Source: https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html, "Event stream encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

MAX_FRAME = 24 << 20
"""How long one frame may be, in bytes: no AWS service sends longer ones. It bounds memory."""

MAX_HEADERS = 128 << 10
"""How much of a frame its headers may be, in bytes."""

_PRELUDE = struct.Struct(">III")  # of the whole frame and of its headers the length, and the checksum of the two
_CHECKSUM = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_LEAST = _PRELUDE.size + _CHECKSUM.size
_STRING = 7
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # of values by their type; bytes (6) and strings tell theirs


class FrameError(ValueError):
    """A stream is not one of frames, or was damaged on its way."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a stream."""

    headers: dict[str, str]
    """Those whose values are strings; no others have a meaning here."""
    payload: bytes


class FrameDecoder:
    """Cuts a stream of bytes into frames: the same ones, however the bytes arrive."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are now whole. Raises `FrameError` once those before the fault are given."""
        begun = self._begun
        begun += data
        at = 0
        try:
            while len(begun) - at >= _PRELUDE.size:
                size, size_of_headers = _prelude(begun, at)
                if len(begun) - at < size:
                    break
                frame = bytes(begun[at : at + size])
                at += size
                yield _frame(frame, size_of_headers)
        finally:
            del begun[:at]

    def close(self) -> None:
        """The stream is over. Raises `FrameError` where that is in the middle of a frame."""
        if self._begun:
            raise FrameError("it ended in the middle of a frame")


def _prelude(begun: bytearray, at: int) -> tuple[int, int]:
    """The length of a frame and of its headers."""
    size, size_of_headers, checksum = _PRELUDE.unpack_from(begun, at)
    if crc32(begun[at : at + 8]) != checksum:
        raise FrameError("the checksum of a frame's beginning is wrong")
    if size > MAX_FRAME or size_of_headers > MAX_HEADERS:
        raise FrameError(f"a frame of {size} bytes is too long")
    if size < _LEAST + size_of_headers:
        raise FrameError("a frame is shorter than what it holds")
    return size, size_of_headers


def _frame(frame: bytes, size_of_headers: int) -> Frame:
    body = frame[: -_CHECKSUM.size]
    if crc32(body) != _CHECKSUM.unpack_from(frame, len(body))[0]:
        raise FrameError("the checksum of a frame is wrong")
    end = _PRELUDE.size + size_of_headers
    return Frame(_headers(body[_PRELUDE.size : end]), body[end:])


def _headers(text: bytes) -> dict[str, str]:
    found = {}
    at = 0
    try:
        while at < len(text):
            kind_at = at + 1 + text[at]
            name, kind = text[at + 1 : kind_at], text[kind_at]
            at = kind_at + 1
            if kind in (6, _STRING):
                size = _LENGTH.unpack_from(text, at)[0]
                at += _LENGTH.size
            else:
                size = _SIZES[kind]
            value = text[at : at + size]
            if len(value) < size:
                raise FrameError("the headers of a frame are cut")
            at += size
            if kind == _STRING:
                found[name.decode()] = value.decode()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise FrameError("the headers of a frame can not be read") from error
    return found
