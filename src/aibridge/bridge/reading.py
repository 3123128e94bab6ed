"""Reading an answer on its way, through the coding in which it travels."""

from __future__ import annotations

from aibridge.errors import Fault, Kind
from aibridge.wire.content_coding import CodingError, ContentDecoder, decoder_for
from aibridge.wire.dialect import ProviderError, Reader
from aibridge.wire.sse import EventTooLarge

MOST_UNPACKED = 64 << 20
"""Bytes that one piece off the wire may unpack to; what holds more is no honest answer."""


class Reading:
    """A reader behind a Content-Encoding.

    An answer is relayed packed, as it came, unless the reader keeps something from the client: then it is relayed
    unpacked (`unpacks`). One that can not be unpacked is relayed too, but not understood.
    """

    def __init__(self, reader: Reader, content_encoding: str) -> None:
        self.reader = reader
        self._decoder: ContentDecoder | None = None
        self._reads = True
        try:
            self._decoder = decoder_for(content_encoding)
        except CodingError as error:
            self._give_up(error)
        self.packed = self._decoder is not None or not self._reads

    @property
    def unpacks(self) -> bool:
        """The client gets the answer without its coding."""
        return self._decoder is not None and self.reader.rewrites

    @property
    def takes_insertions(self) -> bool:
        """Events of the gateway's own can be put between those of the answer."""
        return not self.packed or self.unpacks

    def ahead(self, data: bytes) -> int:
        """How many bytes of the next piece the client may have before it is read."""
        return 0 if self.packed or self.reader.rewrites else self.reader.ahead(data)

    def feed(self, data: bytes) -> bytes:
        """Read a piece of the answer; what of it is for the client. Raises `Fault` where the answer can not go on."""
        try:
            if not self.packed:
                return self.reader.feed(data)
            passed = self._unpack(data) if self._reads else []
        except EventTooLarge as error:
            raise Fault(Kind.UPSTREAM_FAULT, f"the answer can not be relayed: {error}") from error
        return b"".join(passed) if self.unpacks else data

    def _unpack(self, data: bytes) -> list[bytes]:
        assert self._decoder is not None
        passed, size = [], 0
        try:
            for piece in self._decoder.feed(data):
                size += len(piece)
                if size > MOST_UNPACKED:
                    raise CodingError(f"a piece of the answer unpacks to more than {MOST_UNPACKED} bytes")
                passed.append(self.reader.feed(piece) if self.reader.rewrites else self._look(piece))
        except CodingError as error:
            if self.reader.rewrites:
                raise Fault(Kind.UPSTREAM_FAULT, f"the answer can not be relayed: {error}") from error
            self._give_up(error)
        return passed

    def _look(self, piece: bytes) -> bytes:
        self.reader.feed(piece)
        return b""

    def _give_up(self, error: CodingError) -> None:
        self._reads = False
        self.reader.turn.error = ProviderError("unreadable_answer", str(error))

    def close(self) -> bytes:
        """The answer has ended; the last bytes for the client."""
        return self.reader.close() if self._reads else b""
