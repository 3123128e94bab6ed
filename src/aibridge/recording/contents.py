"""What of a record is content, and keeping it back: where contents are not to be recorded, or not as they are.

Contents are the texts that users and models wrote, and the errors that may quote them. A record stays whatever becomes
of its contents, with a word of it in `metadata["contents"]`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal, TypeAlias

import msgspec

from aibridge.recording.recorder import RecordAll
from aibridge.records import InterceptionEnded, ModelThought, PromptUsage, Record, ToolUsage

_log = logging.getLogger("aibridge.recording")

Redactor: TypeAlias = Callable[[str], str]
"""Called in a thread with one text; returns what of it may be kept."""

Mark: TypeAlias = Literal["off", "masked", "withheld", "expired"]
"""What became of contents: they are not recorded; the redactor changed them; it failed, so they were left out; their
time is over."""

CONTENTS: dict[type[Any], tuple[str, ...]] = {
    PromptUsage: ("prompt",),
    ToolUsage: ("input", "invocation_error"),
    ModelThought: ("content",),
    InterceptionEnded: ("error_message",),
}
"""The fields that hold contents, by type of record."""

_THREADS = 4


def without_contents(record_all: RecordAll) -> RecordAll:
    """What hands records on without their contents."""

    async def record_figures(records: Sequence[Record]) -> None:
        await record_all([emptied(record, "off") for record in records])

    return record_figures


class Redaction:
    """Lets a redactor see contents before they are recorded. It fails closed: what it can not see to is left out.

    `time_limit`, in seconds, is for the records that are written together. Calls that are overdue keep their threads,
    and once all are taken by such calls, contents are left out without waiting.
    """

    def __init__(self, redactor: Redactor, *, time_limit: float = 2.0) -> None:
        self._redactor = redactor
        self._time_limit = time_limit
        self._threads = _DaemonThreads(_THREADS)
        self._overdue: list[Future[list[Record]]] = []

    def before(self, record_all: RecordAll) -> RecordAll:
        """What hands records on once their contents are redacted."""

        async def record_redacted(records: Sequence[Record]) -> None:
            if any(type(record) in CONTENTS for record in records):
                records = await self._redacted(records)
            await record_all(records)

        return record_redacted

    async def _redacted(self, records: Sequence[Record]) -> Sequence[Record]:
        self._overdue = [call for call in self._overdue if not call.done()]
        if len(self._overdue) >= _THREADS:
            return _withheld(records, "it has not come back from earlier calls")
        call = self._threads.submit(lambda: [self._seen_to(record) for record in records])
        try:
            return await asyncio.wait_for(asyncio.wrap_future(call), self._time_limit)
        except TimeoutError:
            if call.running():
                self._overdue.append(call)
            return _withheld(records, f"it took longer than {self._time_limit:g} s")

    def _seen_to(self, record: Record) -> Record:
        try:
            return _rewritten(record, self._redactor, "masked")
        except Exception as error:  # noqa: BLE001  # it is the host's code; what it says may quote the contents
            return _withheld([record], type(error).__name__)[0]


class _DaemonThreads:
    """Makes calls in threads that keep no process from ending, even if a call never does."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._started = False
        self._calls: SimpleQueue[tuple[Future[list[Record]], Callable[[], list[Record]]]] = SimpleQueue()

    def submit(self, call: Callable[[], list[Record]]) -> Future[list[Record]]:
        """Have a call made; one that is cancelled before its turn comes is not."""
        if not self._started:
            self._started = True
            for _ in range(self._number):
                Thread(target=self._work, name="aibridge-redaction", daemon=True).start()
        future: Future[list[Record]] = Future()
        self._calls.put((future, call))
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  # it is the waiting side's
                future.set_exception(error)


def _withheld(records: Sequence[Record], why: str) -> list[Record]:
    _log.error("contents are left out of %d records, for the redactor failed: %s", len(records), why)
    return [emptied(record, "withheld") for record in records]


def emptied(record: Record, mark: Mark) -> Record:
    """The record without its contents, and with a word of why."""
    return _rewritten(record, lambda _: "", mark)


def _rewritten(record: Record, rewrite: Callable[[str], str], mark: Mark) -> Record:
    changed: dict[str, str] = {}
    for name in CONTENTS.get(type(record), ()):
        text = getattr(record, name)
        if text and (new := _text(rewrite(text))) != text:
            changed[name] = new
    if not changed:
        return record
    return msgspec.structs.replace(record, **changed, metadata={**record.metadata, "contents": mark})


def _text(found: object) -> str:
    if not isinstance(found, str):
        raise TypeError("a redactor returns a text")
    return found
