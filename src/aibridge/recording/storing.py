"""Carrying what a journal file holds into a store."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from aibridge.recording.segment import Segment
from aibridge.recording.stores import Store, UnstorableError
from aibridge.records import Record

_log = logging.getLogger("aibridge.recording")

BATCH = 1024 * 1024
"""Bytes of entries that one transaction holds, more or less: some thousands of usual ones."""


def store_some(segment: Segment, store: Store, size: int = BATCH) -> int:
    """Store about so many bytes of a file's entries, and move its offset past them; by how many bytes, 0 at its end.

    What was stored is counted in the file's `kept`, what can not be read or stored in its `damaged`. Raises what the
    store raises; then nothing has changed.
    """
    records: list[Record] = []
    offset, damaged = segment.offset, 0
    for reading in segment.readings():
        records += reading.records
        damaged += reading.damaged
        offset = reading.offset
        if offset - segment.offset >= size:
            break
    try:
        refused = keep(records, store)
    except Exception:
        segment.forget_recent()
        raise
    segment.kept += len(records) - refused
    segment.damaged += damaged + refused
    moved, segment.offset = offset - segment.offset, offset
    return moved


def keep(records: Sequence[Record], store: Store) -> int:
    """Store records, but for those that never can be; how many these were."""
    if not records:
        return 0
    try:
        store.store(records)
    except UnstorableError as error:
        if len(records) == 1:
            _log.error("A record can never be stored: %s", error)
            return 1
        middle = len(records) // 2
        return keep(records[:middle], store) + keep(records[middle:], store)
    return 0
