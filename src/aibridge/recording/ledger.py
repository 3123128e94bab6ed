"""The recorder of the product: a journal in front, a store behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from aibridge.errors import RecordingError
from aibridge.recording.follower import Follower
from aibridge.recording.journal import MAX_SIZE, Journal
from aibridge.recording.stores import Store
from aibridge.recording.syncing import INTERVAL, Fsync, Syncer
from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)

logger = logging.getLogger("aibridge.recording")


class Ledger:
    """A `Recorder` that keeps records in a journal at once, and in a store soon after.

    Every process has a ledger of its own; several share a directory and a database. What a process that was killed
    left in the directory, another one stores. With `required`, an interception that can not be written to the journal
    is refused; without, it goes on, waits in memory for the store, and is counted in `unrecorded`.

    `fsync` says when records are safe from the loss of the whole machine: `always` lets every method return only then,
    `interval` sees to it within `fsync_interval` seconds, without anybody waiting, `off` leaves it to the kernel.
    `max_journal_size` bounds what the directory may take up, in bytes.

    The ledger takes over the store and closes it with itself.
    """

    def __init__(
        self,
        journal_dir: Path,
        store: Store,
        *,
        required: bool = True,
        fsync: Fsync = "interval",
        fsync_interval: float = INTERVAL,
        max_journal_size: int = MAX_SIZE,
    ) -> None:
        self.unrecorded = 0
        """Records of interceptions that went on though they were not safe in the journal."""
        self._directory = journal_dir
        self._store = store
        self._required = required
        self._fsync = fsync
        self._fsync_interval = fsync_interval
        self._max_journal_size = max_journal_size
        self._journal: Journal | None = None
        self._follower: Follower | None = None
        self._syncer: Syncer | None = None
        self._closed = False

    async def start(self) -> None:
        """Open the journal, and begin to store what it and those of dead processes hold.

        It raises nothing where the journal can not be written: `can_record` and `problem` tell, and it is tried again.
        """
        self._journal = await asyncio.to_thread(Journal, self._directory, max_size=self._max_journal_size)
        self._follower = Follower(self._journal, self._store)
        self._follower.start()
        if self._fsync != "off":
            self._syncer = Syncer(self._journal, self._fsync_interval if self._fsync == "interval" else 0.0)
            self._syncer.start()

    async def aclose(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - a limit of its own, not a cancellation
        """Store what is left, for at most `timeout` seconds; what is left then, the next process stores."""
        self._closed = True
        if self._syncer is not None:
            await asyncio.to_thread(self._syncer.stop, timeout)
        if self._follower is None:
            self._store.close()
        elif not await asyncio.to_thread(self._follower.stop, timeout):
            logger.warning(
                "The store did not answer in time; records stay in the journal for the next process to store"
            )

    async def record_all(self, records: Sequence[Record], /) -> None:
        """Keep records in one write; with an interception among them, as `record_interception` does."""
        written = self._begin(records) if Interception in map(type, records) else self._append(records)
        if written and self._fsync == "always" and self._syncer is not None:
            await self._syncer.synced()

    async def record_interception(self, record: Interception, /) -> None:
        """Keep that an interception has begun; RecordingError where that is required and not possible now."""
        await self.record_all((record,))

    async def record_interception_ended(self, record: InterceptionEnded, /) -> None:
        """Keep how an interception ended; RecordingError where it is lost."""
        await self.record_all((record,))

    async def record_token_usage(self, record: TokenUsage, /) -> None:
        """Keep what a turn used; RecordingError where it is lost."""
        await self.record_all((record,))

    async def record_prompt_usage(self, record: PromptUsage, /) -> None:
        """Keep the user's prompt; RecordingError where it is lost."""
        await self.record_all((record,))

    async def record_tool_usage(self, record: ToolUsage, /) -> None:
        """Keep a tool call; RecordingError where it is lost."""
        await self.record_all((record,))

    async def record_model_thought(self, record: ModelThought, /) -> None:
        """Keep a thought; RecordingError where it is lost."""
        await self.record_all((record,))

    @property
    def can_record(self) -> bool:
        """Whether the journal takes records just now."""
        if self._journal is None or self._closed or self._journal.problem is not None:
            return False
        return self._fsync != "always" or self._syncer is None or self._syncer.problem is None

    @property
    def problem(self) -> str | None:
        """What keeps records from being written or stored, and what to do about it; None where all is well."""
        if self._journal is None or self._follower is None or self._closed:
            return "the ledger is not running"
        unsynced = self._syncer.problem if self._syncer is not None else None
        return self._journal.problem or unsynced or self._follower.problem

    @property
    def lag(self) -> int:
        """Bytes of journal entries that are not yet in the store."""
        return self._follower.lag if self._follower is not None else 0

    @property
    def dropped(self) -> int:
        """Records lost because neither the journal nor the store took them and the memory for them was full."""
        return self._journal.dropped if self._journal is not None else 0

    def _begin(self, records: Sequence[Record]) -> bool:
        try:
            if self._append(records, keep=not self._required):
                return True
        except RecordingError:
            if self._required:
                raise
        if self._required:
            raise RecordingError(self.problem or "the journal could not be written")
        self.unrecorded += len(records)
        return False

    def _append(self, records: Sequence[Record], *, keep: bool = True) -> bool:
        if self._journal is None or self._follower is None or self._closed:
            raise RecordingError("the ledger is not running")
        written = self._journal.append(*records, keep=keep)
        self._follower.wake()
        if self._syncer is not None and self._fsync != "always":  # there, it is woken by who waits for it
            self._syncer.wake()
        return written
