"""Storing records in PostgreSQL."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
import msgspec

from aibridge.recording.ends import OUTCOME, merged, with_end
from aibridge.recording.postgres.connection import STORING, Connection, UnreachableError, connect, faults_told
from aibridge.recording.postgres.loop import LoopThread
from aibridge.recording.postgres.partitions import Partitions
from aibridge.recording.postgres.schema import prepare
from aibridge.recording.postgres.sums import count
from aibridge.recording.postgres.threads import link
from aibridge.recording.rollups import Outcome
from aibridge.recording.stores import UnstorableError
from aibridge.recording.visible import with_visible
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

_CLOSING_TIMEOUT = 5.0

TABLES: dict[type[Any], str] = {
    Interception: "aibridge_interceptions",
    TokenUsage: "aibridge_token_usages",
    PromptUsage: "aibridge_user_prompts",
    ToolUsage: "aibridge_tool_usages",
    ModelThought: "aibridge_model_thoughts",
}

# A batch is small beside the tables: its rows are looked up one by one, and a plan that was made once is good for all.
_PLANNING = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}

_STAGE = "CREATE TEMPORARY TABLE staged_{table} (LIKE {table}) ON COMMIT DELETE ROWS"
_INSERT = """
INSERT INTO {table} ({columns}) SELECT {columns} FROM staged_{table} ON CONFLICT DO NOTHING RETURNING id
"""

_END = """
UPDATE aibridge_interceptions AS begun
SET ended_at = ended.ended_at, status = ended.status, http_status = ended.http_status, error_type = ended.error_type,
    error_message = ended.error_message, metadata = begun.metadata || ended.metadata
FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::jsonb[])
    AS ended (id, ended_at, status, http_status, error_type, error_message, metadata)
JOIN aibridge_interceptions AS before ON before.id = ended.id
WHERE begun.id = ended.id
RETURNING begun.id, before.status
"""
_TAKE_EARLY_ENDS = "DELETE FROM aibridge_early_ends WHERE interception_id = ANY($1::uuid[]) RETURNING record"
_KEEP_EARLY_ENDS = """
INSERT INTO aibridge_early_ends SELECT * FROM unnest($1::uuid[], $2::jsonb[]) ON CONFLICT DO NOTHING
"""


class PostgresStore:
    r"""Keeps records in a PostgreSQL database, whose schema is made where it is empty.

    Every batch is copied into staging tables of the connection, and from there into the tables, in one transaction.
    Several processes may store at once: only while they relate records to others do they wait for each other.

    Texts are kept as they are, but for NUL characters and lone surrogates, which PostgreSQL can not hold: they become
    visible escapes (`\u0000`, `\ud800`). Ids must be UUIDs.

    A server that can not be reached is no fault when this is made: `store` tries again. RecordingError is raised where
    the database refuses the user, or has a schema that this program can not work with.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._partitions = Partitions()
        self._thread = LoopThread("aibridge-postgresql")
        try:
            self._thread.run(self._connected())
        except UnreachableError as fault:
            logger.error("Records will wait in the journal: %s", fault)
        except BaseException:
            self._thread.close()
            raise

    def store(self, records: Sequence[Record], /) -> None:
        """Keep records in one transaction, and link their interceptions into threads; see `Store`."""
        self._thread.run(self._store(records))

    def close(self) -> None:
        """Close the connection."""
        self._thread.run(self._disconnect())
        self._thread.close()

    async def _store(self, records: Sequence[Record]) -> None:
        connection = await self._connected()
        try:
            with faults_told(self._url):
                try:
                    await self._write(connection, records)
                except (UnicodeEncodeError, asyncpg.DataError):
                    await self._write(connection, [with_visible(record, nul=True) for record in records])
        except UnstorableError:
            raise
        except BaseException:
            # What is wrong with the connection or its server may be over with another one.
            self._connection = None
            connection.terminate()
            raise

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        with faults_told(self._url):
            connection = await connect(self._url, settings=_PLANNING)
            try:
                await prepare(connection, self._url)
                for table in TABLES.values():
                    await connection.execute(_STAGE.format(table=table))
            except BaseException:
                connection.terminate()
                raise
        self._connection = connection
        return connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._connection.close(timeout=_CLOSING_TIMEOUT)

    async def _write(self, connection: Connection, records: Sequence[Record]) -> None:
        groups: defaultdict[type[Any], list[Any]] = defaultdict(list)
        for record in records:
            groups[type(record)].append(record)
        ends = merged(groups[InterceptionEnded])
        kinds = [kind for kind in TABLES if groups[kind]]
        await self._partitions.provide(connection, (record.id for kind in kinds for record in groups[kind]))
        async with connection.transaction():
            there = {kind: await _insert(connection, kind, groups[kind], ends) for kind in kinds}
            fresh: defaultdict[type[Any], list[Any]] = defaultdict(list)
            for kind in kinds:
                each_once = {record.id: record for record in groups[kind]}
                fresh[kind] = [record for name, record in each_once.items() if name in there[kind]]
            begun = {record.id: record for record in fresh[Interception]}
            await connection.execute("SELECT pg_advisory_xact_lock($1)", STORING)
            outcomes = await _end(connection, begun, ends)
            askers = await count(connection, fresh, outcomes)
            await link(
                connection,
                begun=[record.id for record in begun.values() if record.correlating_tool_call_id is not None],
                calls=[record.id for record in fresh[ToolUsage]],
                askers=askers,
            )


async def _insert(
    connection: Connection, kind: type[Any], records: Sequence[Any], ends: dict[str, InterceptionEnded]
) -> set[str]:
    """Insert records that are not there yet, and return the ids of these. Interceptions come with their ends."""
    table, columns = TABLES[kind], _COLUMNS[kind]
    rows: Iterable[tuple[object, ...]] = map(row_of, records)
    if kind is Interception:
        columns = (*columns, *OUTCOME)
        rows = [_begun(record, ends.get(record.id)) for record in records]
    await connection.copy_records_to_table(f"staged_{table}", records=rows, columns=columns)
    inserted = await connection.fetch(_INSERT.format(table=table, columns=", ".join(columns)))
    return {str(row[0]) for row in inserted}


async def _end(
    connection: Connection, begun: Mapping[str, Interception], ends: Mapping[str, InterceptionEnded]
) -> list[Outcome]:
    """Apply the ends that were not inserted with their beginnings; the outcomes of all.

    One whose interception is not there yet waits in a table of its own for it to arrive.
    """
    later = {name: end for name, end in ends.items() if name not in begun}
    if begun:
        for row in await connection.fetch(_TAKE_EARLY_ENDS, [*begun]):
            end = msgspec.json.decode(row[0], type=InterceptionEnded)
            if end.interception_id not in ends:
                later[end.interception_id] = end
    outcomes = [Outcome(name, None, ends[name].status) for name in begun if name in ends]
    if later:
        columns = zip(*((name, *_outcome(end), _json(end.metadata)) for name, end in later.items()), strict=True)
        before = {str(row[0]): row[1] for row in await connection.fetch(_END, *map(list, columns))}
        outcomes += [Outcome(name, status, later[name].status) for name, status in before.items()]
        early = [name for name in later if name not in before]
        if early:
            await connection.execute(_KEEP_EARLY_ENDS, early, [_json(later[name]) for name in early])
    return outcomes


def _begun(record: Interception, end: InterceptionEnded | None) -> tuple[object, ...]:
    if end is None:
        return (*row_of(record), *(None for _ in OUTCOME))
    return (*row_of(with_end(record, end)), *_outcome(end))


def _outcome(end: InterceptionEnded) -> tuple[object, ...]:
    return end.ended_at, end.status, end.http_status, end.error_type, end.error_message


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _writer(kind: type[Any]) -> Callable[[Any], tuple[object, ...]]:
    """What makes a row of a record: its fields, with metadata as JSON."""
    metadata = kind.__struct_fields__.index("metadata")

    def row(record: Any) -> tuple[object, ...]:
        fields = list(msgspec.structs.astuple(record))
        fields[metadata] = _json(fields[metadata])
        return tuple(fields)

    return row


_COLUMNS: dict[type[Any], tuple[str, ...]] = {kind: kind.__struct_fields__ for kind in TABLES}
_WRITERS = {kind: _writer(kind) for kind in TABLES}


def row_of(record: Any) -> tuple[object, ...]:
    """A record as the columns that bear the names of its fields hold it."""
    return _WRITERS[type(record)](record)
