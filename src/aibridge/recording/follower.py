"""Carrying records from the journal to the store, in the background."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from aibridge.errors import RecordingError
from aibridge.recording.entries import parse
from aibridge.recording.journal import Journal
from aibridge.recording.segment import SUFFIX, Segment, UnknownFormatError
from aibridge.recording.stores import Store
from aibridge.recording.storing import BATCH, keep, store_some

logger = logging.getLogger("aibridge.recording")

_GATHER = 0.2
"""How long records are let come in, in seconds, so that they are stored in batches: each batch costs much by itself."""
_LOOK = 3.0
"""Seconds between two looks for the journals of dead processes."""
_TICK = 0.5
"""Seconds between two attempts to write a journal that could not be written."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts to store what could not be stored."""
_ADOPTED_AT_ONCE = 8


class Follower:
    """A thread that stores what a journal holds, and what the journals of dead processes in its directory hold.

    Whatever the store's fault, it tries again for ever; meanwhile the entries stay in their files. A file whose
    entries are stored is deleted; one with entries that nobody can read or store is kept beside, as `.damaged`.
    """

    def __init__(self, journal: Journal, store: Store) -> None:
        self.problem: str | None = None
        """Why records can not be stored just now; None while they can."""
        self._journal = journal
        self._store = store
        self._adopted: list[Segment] = []
        self._left_alone: set[Path] = set()
        self._told: str | None = None
        self._next_look = 0.0
        self._next_tick = 0.0
        self._give_up_at = float("inf")
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aibridge-recording", daemon=True)

    @property
    def lag(self) -> int:
        """Bytes of entries that are known and not yet stored."""
        segments = [*self._journal.segments, *self._adopted]
        return sum(segment.lag for segment in segments) + self._journal.backlog_bytes

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something was appended."""
        if not self._wake.is_set():
            self._wake.set()

    def stop(self, timeout: float) -> bool:
        """Store what is left, for at most so many seconds, and end the thread; False where it hangs in the store.

        The journal takes no more records from now on, and is closed with the store at the end.
        """
        self._journal.seal()
        self._give_up_at = time.monotonic() + timeout
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout + 2.0)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while True:
            stopping = self._stopping.is_set()
            self._wake.clear()
            moved = self._go_round(look=stopping)
            pause = 0.0 if self.problem is None else min(max(2 * pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            if stopping and (time.monotonic() >= self._give_up_at or not (moved or pause or self.lag)):
                break
            if pause:
                if stopping:
                    time.sleep(_SHORTEST_PAUSE)
                else:
                    self._stopping.wait(pause)
            elif self.lag < BATCH:
                if not moved:
                    self._wake.wait(_TICK)
                self._stopping.wait(_GATHER)
        self._finish()

    def _keep_house(self, *, look: bool) -> None:
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._journal.heal()
        if look or now >= self._next_look:
            self._next_look = now + _LOOK
            self._adopt_abandoned()
        problem = self._journal.problem
        if (problem is None) != (self._told is None):
            self._told = problem
            if problem is None:
                logger.info("The journal can be written again")
            else:
                logger.error("Records wait in memory, or are refused: %s", problem)

    def _adopt_abandoned(self) -> None:
        held = {segment.path for segment in (*self._journal.segments, *self._adopted)}
        for path in sorted(self._journal.directory.glob(f"*{SUFFIX}")):
            if len(self._adopted) >= _ADOPTED_AT_ONCE:
                self._next_look = 0.0
                break
            if path in held:
                continue
            try:
                segment = Segment.adopt(path)
            except (OSError, UnknownFormatError) as error:
                if path not in self._left_alone:
                    self._left_alone.add(path)
                    logger.warning("A journal is left alone: %s", error)
                continue
            if segment is not None:
                self._adopted.append(segment)
                logger.info("Storing %d bytes that an ended process left in %s", segment.lag, path)

    def _go_round(self, *, look: bool) -> bool:
        """Store a batch of every file; whether there was anything to store. No fault of any kind ends the thread."""
        try:
            self._keep_house(look=look)
            moved = self._store_all()
        except Exception as error:
            problem = str(error) if isinstance(error, RecordingError) else f"the store failed ({type(error).__name__})"
            if self.problem is None:
                logger.error("Records wait in the journal: %s", problem, exc_info=not isinstance(error, RecordingError))
            self.problem = problem
            return False
        if self.problem is not None:
            self.problem = None
            logger.info("Records are stored again")
        return moved

    def _store_all(self) -> bool:
        moved = self._store_backlog()
        for segment in self._journal.segments:
            moved |= store_some(segment, self._store) > 0
            if not segment.lag:
                if not self._journal.is_current(segment):
                    self._journal.forget(segment)
                    self._dispose(segment)
                elif self._journal.worth_deleting(segment):
                    self._journal.rotate()
        for segment in list(self._adopted):
            if not store_some(segment, self._store):
                if segment.lag:
                    logger.warning("%s ends in %d bytes of an entry that was never finished", segment.path, segment.lag)
                self._adopted.remove(segment)
                self._dispose(segment)
            moved = True
        return moved

    def _store_backlog(self) -> bool:
        """Store what waits in memory because the journal can not be written."""
        entries, mark = self._journal.unwritten()
        if not entries:
            return False
        records, _ = parse(b"".join(entries))
        keep(records, self._store)
        self._journal.settle(mark)
        return True

    def _dispose(self, segment: Segment) -> None:
        if segment.damaged:
            kept = segment.set_aside()
            logger.error("%d entries could not be read or stored; their file is kept as %s", segment.damaged, kept)
        else:
            segment.discard()

    def _finish(self) -> None:
        for segment in self._journal.segments:
            if not segment.lag:
                self._journal.forget(segment)
                self._dispose(segment)
        if lost := self._journal.unwritten()[0]:
            logger.error("%d entries are lost: %s", len(lost), self._journal.problem)
        if left := self.lag - self._journal.backlog_bytes:
            logger.warning("%d bytes of records stay in the journal, for the next process to store", left)
        self._journal.close()
        while self._adopted:
            self._adopted.pop().release()
        self._store.close()
