"""Server-sent events in the answer of an MCP server."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from aibridge.mcp.http import Answer
from aibridge.wire.sse import EventSplitter, data_of

_FIELD = re.compile(rb"^(event|id|retry): ?([^\r\n]*)", re.MULTILINE)
_LONGEST_RETRY = 9
"""Digits."""
_SHORTEST_WAIT = 0.01
"""Seconds, whatever a server says."""


@dataclass(slots=True)
class Place:
    """How far a stream was read, and when it may be asked for the rest."""

    id: str = ""
    """Of the last event that had one."""
    retry: float = 1.0
    """Seconds to wait before; what the server said last."""


class Events:
    """The events of one answer, in order. `limit` is what an event may have, in bytes; `place` is kept up to date."""

    def __init__(self, answer: Answer, limit: int, place: Place) -> None:
        self._answer = answer
        self._splitter = EventSplitter(limit)
        self._place = place
        self._come: deque[bytes] = deque()
        self._ended = False

    async def next(self) -> tuple[str, bytes] | None:
        """Name and data of the next event; None at the end.

        Raises `EventTooLarge`, and `aiohttp.ClientError` where the stream breaks off.
        """
        while not self._come:
            if self._ended:
                return None
            if piece := await self._answer.piece():
                self._come.extend(self._splitter.feed(piece))
            else:
                self._ended = True
                if rest := self._splitter.rest():
                    self._come.append(rest)
        event = self._come.popleft()
        fields = dict(_FIELD.findall(event))
        if (place := fields.get(b"id")) and b"\0" not in place:
            self._place.id = place.decode(errors="replace")
        if (retry := fields.get(b"retry", b"")).isdigit():
            self._place.retry = max(int(retry[:_LONGEST_RETRY]) / 1000, _SHORTEST_WAIT)
        return fields.get(b"event", b"message").decode(errors="replace"), data_of(event)
