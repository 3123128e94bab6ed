"""Records that were written to a file a moment ago, so that whoever stores them need not read them back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from aibridge.recording.entries import Reading
from aibridge.records import Record

MOST = 4 << 20
"""How many bytes of a file may wait to be stored for what comes to be remembered as well: a second's, at full speed."""

_CHUNK = 64 * 1024


class Recent:
    """Records by their places in one file, put by the thread that writes it and taken by the one that reads it.

    The file is the truth and has all of them: what is not here, or was taken in vain, is read from there.
    """

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, Sequence[Record], int]] = deque()

    def put(self, start: int, records: Sequence[Record], end: int) -> None:
        """Remember the records whose entries lie between two offsets in bytes."""
        self._pieces.append((start, records, end))

    def take(self, offset: int) -> Reading | None:
        """The records that follow on an offset, about 64 KiB of entries; None where these are not remembered."""
        pieces = self._pieces
        records: list[Record] = []
        end = offset
        while pieces and pieces[0][0] <= end < offset + _CHUNK:
            start, piece, its_end = pieces.popleft()
            if start == end:
                records += piece
                end = its_end
            # else it was read from the file
        return Reading(records, end, 0) if records else None

    def forget(self) -> None:
        """Remember nothing of what was put so far."""
        self._pieces = deque()  # in place of the one that may just be taken from
