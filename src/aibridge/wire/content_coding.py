"""Content codings (RFC 9110, 8.4.1): reading a body that travels compressed.

Memory is bounded, whatever is packed into it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

_PIECE = 1 << 20  # bytes that are unpacked at a time
_SLICE = 512  # packed bytes given to zstd at a time, which can not be told to stop: they hold 16 MiB at the most


class CodingError(ValueError):
    """A body is not what its Content-Encoding says, or the coding is not known."""


class ContentDecoder(Protocol):
    """Undoes one content coding, incrementally."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes hold, in pieces. Raises `CodingError`."""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._packed = zlib.decompressobj(wbits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            try:
                piece = self._packed.decompress(data, _PIECE)
            except zlib.error as error:
                raise CodingError(f"the body is not what its Content-Encoding says: {error}") from None
            if piece:
                yield piece
            data = self._packed.unconsumed_tail
            if self._packed.eof:  # gzip allows several members, one after the other (RFC 1952, 2.2)
                data = self._packed.unused_data
                self._packed = zlib.decompressobj(self._wbits)


class _Brotli:
    def __init__(self) -> None:
        import brotli

        self._packed = brotli.Decompressor()
        self._error = brotli.error

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            piece = self._packed.process(data, output_buffer_limit=_PIECE)
            while piece or not self._packed.can_accept_more_data():
                yield piece
                piece = self._packed.process(b"", output_buffer_limit=_PIECE)
        except self._error as error:
            raise CodingError(f"the body is not what its Content-Encoding says: {error}") from None


class _Zstandard:
    def __init__(self) -> None:
        import zstandard

        self._packed = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(read_across_frames=True)
        self._error = zstandard.ZstdError

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            for start in range(0, len(data), _SLICE):
                if piece := self._packed.decompress(data[start : start + _SLICE]):
                    yield piece
        except self._error as error:
            raise CodingError(f"the body is not what its Content-Encoding says: {error}") from None


class _Chain:
    """Several codings, one within the other."""

    def __init__(self, outer: ContentDecoder, inner: ContentDecoder) -> None:
        self._outer, self._inner = outer, inner

    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in self._outer.feed(data):
            yield from self._inner.feed(piece)


def decoder_for(content_encoding: str) -> ContentDecoder | None:
    """What undoes the codings that a Content-Encoding header names; None where there are none to undo.

    Raises `CodingError` for a coding that is not known (known are gzip, deflate, br and zstd), and for more than two.
    """
    if not content_encoding:
        return None
    names = [name for part in content_encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if len(names) > 2:
        raise CodingError(f"the Content-Encoding {content_encoding!r} names too many codings; two at most are read")
    decoders = [_decoder(name) for name in reversed(names)]
    return _Chain(*decoders) if len(decoders) == 2 else next(iter(decoders), None)


def _decoder(name: str) -> ContentDecoder:
    if name in ("gzip", "x-gzip"):
        return _Zlib(zlib.MAX_WBITS | 16)
    if name == "deflate":
        return _Zlib(zlib.MAX_WBITS)
    if name == "br":
        return _Brotli()
    if name == "zstd":
        return _Zstandard()
    raise CodingError(f"the Content-Encoding {name!r} is not supported; gzip, deflate, br and zstd are")


def decoded(body: bytes, content_encoding: str, limit: int) -> bytes | None:
    """A whole body, unpacked; None where that is longer than `limit` bytes. Raises `CodingError`."""
    decoder = decoder_for(content_encoding)
    if decoder is None:
        return body
    found, size = [], 0
    for piece in decoder.feed(body):
        size += len(piece)
        if size > limit:
            return None
        found.append(piece)
    return b"".join(found)
