"""Bringing the journal to the disk, beside the requests that write it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Literal, TypeAlias

from aibridge.errors import RecordingError
from aibridge.recording.journal import Journal

_log = logging.getLogger("aibridge.recording")

Fsync: TypeAlias = Literal["always", "interval", "off"]
"""When the journal is brought to the disk: before a record counts as safe, soon after, or when the kernel likes.

Whichever it is, records survive the death of the process; this is about the death of the machine.
"""

INTERVAL = 0.1
"""Seconds after which what was appended is brought to the disk by default, if nobody waits for it."""

_PAUSE = 0.5
"""Seconds between two attempts where that fails."""


class Syncer:
    """A thread that brings a journal to the disk: within `interval` seconds of an append, or at once with 0.

    What was appended while it was at work shares the next call. It sleeps while nothing is appended.
    """

    def __init__(self, journal: Journal, interval: float) -> None:
        self.problem: str | None = None
        """Why the journal can not be brought to the disk just now; None while it can."""
        self._journal = journal
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aibridge-syncing", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something was appended."""
        if not self._wake.is_set():
            self._wake.set()

    async def synced(self) -> None:
        """Return once all that was appended is on the disk; RecordingError where it can not be brought there."""
        future = self._loop.create_future()
        self._waiting.append(future)
        self.wake()
        await future

    def stop(self, timeout: float) -> None:
        """Bring the rest to the disk, for little more than so many seconds, and end the thread.

        Nothing may be appended any more.
        """
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout + 2.0)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait()
            self._stopping.wait(self._interval)
            stopping = self._stopping.is_set()
            self._wake.clear()
            # Whoever waits by now has appended before; who comes later may not have.
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            self._sync()
            if waiting:
                self._loop.call_soon_threadsafe(_settle, waiting, self.problem)
            if self.problem:
                self._stopping.wait(_PAUSE)
                self._wake.set()

    def _sync(self) -> None:
        before, self.problem = self.problem, None
        try:
            self._journal.sync()
        except Exception as error:  # noqa: BLE001  # no fault of any kind ends the thread: some wait for it
            known = isinstance(error, RecordingError)
            self.problem = str(error) if known else f"the journal can not be synced ({type(error).__name__})"
            if before is None:
                _log.error("Records may not survive a crash of the machine: %s", self.problem, exc_info=not known)
        else:
            if before is not None:
                _log.info("The journal is brought to the disk again")


def _settle(waiting: Sequence[asyncio.Future[None]], problem: str | None) -> None:
    for future in waiting:
        if future.done():  # nobody waits any more
            continue
        if problem:
            future.set_exception(RecordingError(problem))
        else:
            future.set_result(None)
