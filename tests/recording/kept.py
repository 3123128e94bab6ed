"""Both stores behind one face, so that what they have in common is tested once.

Tests name records as they like; here these names become the UUIDs that PostgreSQL insists on, and in what is read they
are names again. A store is used for many examples: each has ids, initiators and calls of its own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from aibridge.recording.stores import Store
from aibridge.records import Interception, InterceptionEnded, Record, ToolUsage
from support.postgres import PostgreSQL

from . import samples

_examples = itertools.count(1)


class Kept:
    """What one example stores, in a store that others use as well."""

    def __init__(self, url: str, store: Store, read: Read) -> None:
        self.url = url
        self._store = store
        self._read = read
        self.example = next(_examples)
        self._ids: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def another(self) -> Kept:
        """The same store for another example."""
        return Kept(self.url, self._store, self._read)

    def store(self, records: Iterable[Record]) -> None:
        self._store.store([self._own(record) for record in records])

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database holds: names for ids, times as text. The query says `?` for values."""
        return [tuple(self._named(value) for value in row) for row in self._read(query, values)]

    def links(self) -> list[tuple[Any, ...]]:
        """The interceptions with their threads' parents and roots, in order of time."""
        query = "SELECT id, thread_parent_id, thread_root_id FROM aibridge_interceptions WHERE initiator_id IN (?, ?)"
        return self.rows(f"{query} ORDER BY started_at", self.own("alice"), self.own("bob"))

    def own(self, text: str) -> str:
        return f"{self.example}-{text}"

    def uid(self, name: str) -> str:
        """The id of a record: for every other example one that begins with its time, as those of the gateway do."""
        if name not in self._ids:
            made = uuid5(NAMESPACE_OID, repr(self.own(name)))
            if self.example % 2:
                now = int(time.time() * 1000)
                made = UUID(int=now << 80 | 7 << 76 | made.int & ((1 << 76) - 1))
            self._ids[name] = str(made)
            self._names[str(made)] = name
        return self._ids[name]

    def _own(self, record: Record) -> Record:
        changes: dict[str, Any] = {}
        if not isinstance(record, InterceptionEnded):
            changes["id"] = self.uid(record.id)
        if not isinstance(record, Interception):
            changes["interception_id"] = self.uid(record.interception_id)
        if isinstance(record, Interception):
            changes["initiator_id"] = self.own(record.initiator_id)
            if record.correlating_tool_call_id is not None:
                changes["correlating_tool_call_id"] = self.own(record.correlating_tool_call_id)
        if isinstance(record, ToolUsage):
            changes["provider_tool_call_id"] = self.own(record.provider_tool_call_id)
        return msgspec.structs.replace(record, **changes)

    def _named(self, value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat(timespec="microseconds")
        return self._names.get(value, value) if isinstance(value, str) else value


class Read(Protocol):
    """Asks a database as another program would."""

    def __call__(self, query: str, values: Sequence[Any], /) -> list[Any]: ...


def reading_sqlite(path: Any) -> Read:
    return lambda query, values: samples.rows(path, query, *values)


def reading_postgresql(server: PostgreSQL, url: str) -> Read:
    def read(query: str, values: Sequence[Any]) -> list[Any]:
        for number in range(1, len(values) + 1):
            query = query.replace("?", f"${number}", 1)
        return server.rows(query, *values, url=url)

    return read
