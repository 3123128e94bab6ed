"""Lines that go to one file: each whole, in order, and several in one write where they may wait for one another."""

from __future__ import annotations

import asyncio
import os
from collections import deque
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
        self._waiting: deque[bytes] = deque()
        self._flushed_by = 0.0
        """When a timer writes what waits; past where there is none, or its loop ended before it."""
        self._lock = RLock()  # a signal's handler may write in the middle of a write

    def write(self, line: bytes) -> None:
        """Write a line, and what waits before it."""
        self._waiting.append(line)
        self.flush()

    def write_soon(self, line: bytes) -> None:
        """Write a line within `PATIENCE`; at once where no event loop runs that could see to it."""
        self._waiting.append(line)
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
        with self._lock:
            while self._waiting:
                with suppress(OSError):
                    os.write(self._descriptor, self._next())

    def _next(self) -> bytes:
        """As many of the lines that wait as a pipe takes in one piece, or one line that is longer."""
        lines = [self._waiting.popleft()]
        room = PIPE_BUF - len(lines[0])
        while self._waiting and (room := room - len(self._waiting[0])) >= 0:
            lines.append(self._waiting.popleft())
        return b"".join(lines)

    def _patience_ends(self) -> None:
        self._flushed_by = 0.0  # even if that is a little early: the next line needs a timer of its own
        self.flush()
