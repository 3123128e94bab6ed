"""Lines that go to one file: each whole, in order, and several in one write where they may wait for one another."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from select import PIPE_BUF
from threading import RLock
from time import monotonic

PATIENCE = 0.05
"""Seconds that a line waits for others at most, where it may wait."""


class Lines:
    """Writes lines to a file descriptor; what can not be written is dropped.

    Threads may share it. Other processes may write to the same file, and their lines do not mix with these: unless a
    single line is longer, no write has more than what a pipe takes in one piece
    (`PIPE_BUF`: https://pubs.opengroup.org/onlinepubs/9799919799/functions/write.html).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._flushed_by = 0.0
        """When a timer writes what waits; past where there is none, or its loop ended before it."""
        self._lock = RLock()  # a signal's handler may write in the middle of a write

    def write(self, line: bytes) -> None:
        """Write a line, and what waits before it."""
        with self._lock:
            self._add(line)
            self.flush()

    def write_soon(self, line: bytes) -> None:
        """Write a line within `PATIENCE`; at once where no event loop runs that could see to it."""
        with self._lock:
            self._add(line)
            if (now := monotonic()) < self._flushed_by:
                return
            try:
                asyncio.get_running_loop().call_later(PATIENCE, self._patience_ends)
            except RuntimeError:
                self.flush()
            else:
                self._flushed_by = now + PATIENCE

    def flush(self) -> None:
        """Write what waits."""
        with self._lock, suppress(OSError):
            if self._waiting:
                waiting, self._waiting = self._waiting, bytearray()
                os.write(self._descriptor, waiting)

    def _patience_ends(self) -> None:
        with self._lock:
            self._flushed_by = 0.0  # even if that is a little early: the next line needs a timer of its own
            self.flush()

    def _add(self, line: bytes) -> None:
        if len(self._waiting) + len(line) > PIPE_BUF:
            self.flush()
        self._waiting += line
