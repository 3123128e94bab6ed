"""What every dialect does with an answer that is one JSON document, and with the body of an error."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import msgspec

from aibridge.wire import json_bytes
from aibridge.wire.dialect import ProviderError, Turn

MAX_DOCUMENT = 64 << 20
"""How much of a document is kept to be read, in bytes. A longer one is relayed all the same, but not understood."""

MAX_ERROR_MESSAGE = 2000
"""How much of an error's text is kept, in characters."""

_any = msgspec.json.Decoder()


class DocumentReader:
    """Lets a document pass, and reads it once it is whole."""

    rewrites = False
    ended = False
    between_events = False

    _size = 0

    def __init__(self, status: int = 200, limit: int = MAX_DOCUMENT) -> None:
        self.turn = Turn()
        self._status = status
        self._limit = limit
        self._pieces: list[bytes] = []

    def ahead(self, data: bytes) -> int:
        """None: nobody knows which piece of a document is the last."""
        return 0

    def feed(self, data: bytes) -> bytes:
        """Keep a piece of the document; all of it is for the client."""
        self._size += len(data)
        if self._size <= self._limit:
            self._pieces.append(data)
        else:
            self._pieces.clear()
        return data

    def close(self) -> bytes:
        """Read the document."""
        text = b"".join(self._pieces)
        if self._status >= 400:
            self.turn.error = read_error(text) or ProviderError(None, f"HTTP status {self._status}")
        elif self._size > self._limit:
            self.turn.error = ProviderError("unreadable_answer", f"the answer is longer than {self._limit} bytes")
        else:
            try:
                self._read(text)
            except (msgspec.DecodeError, RecursionError) as error:
                cause = f"the answer is not a document of this dialect: {error}"
                self.turn.error = read_error(text) or ProviderError("unreadable_answer", cause[:MAX_ERROR_MESSAGE])
        return b""

    @abstractmethod
    def _read(self, text: bytes) -> None:
        """Read a whole document of success into `turn`. May raise `msgspec.DecodeError`."""


def read_error(text: bytes) -> ProviderError | None:
    """The error that a JSON text tells of, in any of the shapes that providers use; None where there is none."""
    try:
        return error_in(json_bytes.decode(_any, text))
    except (msgspec.DecodeError, RecursionError):
        return None


def error_in(value: Any) -> ProviderError | None:
    """The same, of a decoded text."""
    if not isinstance(value, dict):
        return None
    error = value.get("error") or value.get("detail") or (value if "message" in value else None)
    if isinstance(error, dict):
        kind = error.get("type") or error.get("code")
        message = error.get("message") or json_bytes.encode(error).decode()
        return ProviderError(str(kind) if kind else None, str(message)[:MAX_ERROR_MESSAGE])
    return ProviderError(None, str(error)[:MAX_ERROR_MESSAGE]) if error else None
