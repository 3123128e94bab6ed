"""Records in SQLite."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import astuple

from aibridge.errors import RecordingError
from aibridge.recording.ends import OUTCOME, merged, with_end
from aibridge.recording.rollups import Outcome, rebuilding
from aibridge.recording.schema import REVISION, VERSION_TABLE, migration
from aibridge.recording.sqlite_rows import execute_rows, utc
from aibridge.recording.sqlite_sums import CUTTING, count
from aibridge.recording.stores import UnstorableError
from aibridge.recording.threads import link
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

BUSY_TIMEOUT = 1.0
"""How long a call waits for another connection's lock, in seconds; the caller tries again after that."""

_OPENING_TIMEOUT = 10.0
_CACHE_SIZE = 16 * 1024
"""Of the pages of the database, in KiB: what is written to the indexes of millions of records finds its place there."""

VERSION = int(REVISION)
"""The version of the schema, kept in the database as its `user_version`."""

_TABLES: dict[type[Any], str] = {
    Interception: "aibridge_interceptions",
    TokenUsage: "aibridge_token_usages",
    PromptUsage: "aibridge_user_prompts",
    ToolUsage: "aibridge_tool_usages",
    ModelThought: "aibridge_model_thoughts",
}

_END = """
UPDATE aibridge_interceptions
SET ended_at = column1, status = column2, http_status = column3, error_type = column4, error_message = column5
FROM (VALUES {rows}) WHERE id = column6
"""
_END_WITH_METADATA = """
UPDATE aibridge_interceptions
SET metadata = ?, ended_at = ?, status = ?, http_status = ?, error_type = ?, error_message = ?
WHERE id = ?
"""
_METADATA = "SELECT metadata FROM aibridge_interceptions WHERE id = ?"
_STATUSES = "SELECT id, status FROM aibridge_interceptions WHERE id IN (SELECT value FROM json_each(?))"
_NO_OUTCOME = (None,) * len(OUTCOME)
_ANY_EARLY_END = "SELECT 1 FROM aibridge_early_ends LIMIT 1"
_KEEP_EARLY_END = "INSERT INTO aibridge_early_ends VALUES (?, ?) ON CONFLICT (interception_id) DO NOTHING"
_FIND_EARLY_END = "SELECT record FROM aibridge_early_ends WHERE interception_id = ?"
_FORGET_EARLY_END = "DELETE FROM aibridge_early_ends WHERE interception_id = ?"


class SQLiteStore:
    r"""Keeps records in one SQLite database in WAL mode; a missing one is made, for its owner alone to read.

    Texts are kept as they are, NUL characters included, but for lone surrogates: SQLite's UTF-8 can not hold them,
    and they become visible escapes (`\ud800`). RecordingError is raised for a database that can not be opened or was
    written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        with self._faults_told():
            self._connection = self._open()

    def store(self, records: Sequence[Record], /) -> None:
        """Keep records in one transaction, and link their interceptions into threads; see `Store`."""
        with self._faults_told():
            if self._connection is None:
                self._connection = self._open()
            try:
                _store(self._connection, records)
            except UnicodeEncodeError:
                _store(self._connection, [with_visible(record) for record in records])

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        with suppress(FileExistsError):
            self.path.touch(mode=0o600, exist_ok=False)
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            prepare(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _faults_told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DataError, sqlite3.IntegrityError, OverflowError, RecursionError) as error:
            raise UnstorableError(f"the database {self.path} refuses a record: {error}") from error
        except (sqlite3.Error, OSError) as error:
            # What is wrong with the file or its disk may be over when it is opened again.
            self.close()
            raise RecordingError(
                f"the database {self.path} can not be used ({error}): see that no other program keeps it locked, that "
                "its directory is writable and has room, or set storage.url to another one"
            ) from error


def version(db: sqlite3.Connection) -> int:
    """The version of the schema that a database has; 0 is that of an empty one."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    return int(found)


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date; several processes may do so at once."""
    give_up = time.monotonic() + _OPENING_TIMEOUT
    while True:
        try:
            found = version(db)
            if found > VERSION:
                raise RecordingError(
                    f"the database {path} was written by a newer aibridge (schema {found}, this one knows {VERSION})"
                    ": upgrade aibridge, or set storage.url to another database"
                )
            if found < VERSION:
                db.execute("PRAGMA journal_mode = WAL")
                _upgrade(db)
            # What is stored leaves the journal, so it must be on the disk by then: NORMAL would not see to that.
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA cache_size = -{_CACHE_SIZE}")
            return
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.rollback()
            # The switch to WAL answers "locked" at once, whatever the busy timeout.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def _upgrade(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    if (found := version(db)) < VERSION:  # another process may have been quicker
        for statement in _statements(script(found)):
            db.execute(statement)
    db.execute("COMMIT")


def script(found: int) -> str:
    """The SQL that brings a database of this version up to date, to be run in one transaction."""
    revision = f"{found:04}" if found else None
    steps = [migration("sqlite", revision), f"PRAGMA user_version = {VERSION};"]
    if revision:  # which the first versions noted as `user_version` alone
        steps.insert(0, f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY);")
        steps.insert(1, f"INSERT OR IGNORE INTO {VERSION_TABLE} VALUES ('{revision}');")  # noqa: S608 - a number
        steps += [f"{statement};" for statement in rebuilding(CUTTING)]
    return "\n".join(steps)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _store(db: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Keep records as if all were new; where one is there already, as after a crash, only those that are new."""
    groups: defaultdict[type[Any], list[Any]] = defaultdict(list)
    for record in records:
        groups[type(record)].append(record)
    try:
        with _transaction(db):
            _add(db, groups)
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise
        with _transaction(db):
            for record_type in _TABLES:
                groups[record_type] = _fresh(db, record_type, groups[record_type])
            _add(db, groups)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _fresh(db: sqlite3.Connection, record_type: type[Any], records: Sequence[Any]) -> list[Any]:
    """Those records that are not there yet, each once."""
    first = {record.id: record for record in reversed(records)}
    there = {name for (name,) in db.execute(_THERE[record_type], (_json([*first]),))}
    return [record for name, record in reversed(first.items()) if name not in there]


def _add(db: sqlite3.Connection, groups: Mapping[type[Any], list[Any]]) -> None:
    """Add records, by their types, that are not there yet, and what follows from them."""
    begun, calls = groups[Interception], groups[ToolUsage]
    ends = merged([*_waiting_ends(db, begun), *groups[InterceptionEnded]])
    for record_type, statement in _INSERTS.items():
        rows = partial(_begun, ends) if record_type is Interception else _ROWS[record_type]
        execute_rows(db, statement, groups[record_type], rows)
    outcomes = _end(db, ends, {each.id for each in begun})
    askers = count(db, groups, outcomes)
    link(db, begun, calls, askers)


def _end(db: sqlite3.Connection, ends: Mapping[str, InterceptionEnded], begun: Set[str]) -> list[Outcome]:
    """Apply the ends of all but those interceptions that have just `begun`, which were inserted with theirs.

    One whose interception is not there yet waits in a table of its own for it to arrive. The outcomes are those that
    may count in the sums.
    """
    later = [name for name in ends if name not in begun]
    before = dict(db.execute(_STATUSES, (_json(later),))) if later else {}
    known = [ends[name] for name in later if name in before]
    execute_rows(db, _END, [end for end in known if not end.metadata], _outcomes)
    telling_more = [end for end in known if end.metadata]
    for end, outcome in zip(telling_more, _outcomes(telling_more), strict=True):
        (found,) = db.execute(_METADATA, (end.interception_id,)).fetchone()
        metadata = _json(msgspec.json.decode(found) | end.metadata)
        db.execute(_END_WITH_METADATA, (metadata, *outcome))
    _keep_early(db, [ends[name] for name in later if name not in before])
    at_once = (end for name, end in ends.items() if end.status != "completed" and name in begun)
    return [
        *(Outcome(end.interception_id, None, end.status) for end in at_once),
        *(Outcome(end.interception_id, before[end.interception_id], end.status) for end in known),
    ]


def _waiting_ends(db: sqlite3.Connection, begun: Sequence[Interception]) -> list[InterceptionEnded]:
    """The ends that came before these beginnings; there are hardly ever any at all."""
    if not db.execute(_ANY_EARLY_END).fetchone():
        return []
    ids = [(interception.id,) for interception in begun]
    texts = [text for each in ids for (text,) in db.execute(_FIND_EARLY_END, each)]
    db.executemany(_FORGET_EARLY_END, ids)
    return [msgspec.json.decode(text, type=InterceptionEnded) for text in texts]


def _keep_early(db: sqlite3.Connection, ends: Sequence[InterceptionEnded]) -> None:
    db.executemany(_KEEP_EARLY_END, [(end.interception_id, _json(end)) for end in ends])


def _outcomes(ends: Sequence[InterceptionEnded]) -> Iterator[tuple[object, ...]]:
    """What ends say of interceptions, with the ids of these."""
    times = utc([end.ended_at for end in ends])
    for ended_at, end in zip(times, ends, strict=True):
        yield ended_at, end.status, end.http_status, end.error_type, end.error_message, end.interception_id


def _insert(record_type: type[Any], table: str) -> str:
    outcome = OUTCOME if record_type is Interception else ()
    columns = ", ".join((*record_type.__struct_fields__, *outcome))
    # With a fault all is rolled back anyhow: said to SQLite, it keeps nothing to undo each statement by itself.
    return f"INSERT OR ROLLBACK INTO {table} ({columns}) VALUES {{rows}}"  # noqa: S608 - the table is one of _TABLES


_INSERTS = {record_type: _insert(record_type, table) for record_type, table in _TABLES.items()}
_THERE = {
    record_type: f"SELECT id FROM {table} WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608 - as above
    for record_type, table in _TABLES.items()
}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _row_maker(record_type: type[Any]) -> Callable[[Sequence[Any]], Iterator[list[object]]]:
    """What makes rows of records: their fields, with those written that are no values that SQLite has."""
    fields = record_type.__struct_fields__
    metadata = fields.index("metadata")
    time = fields.index("started_at" if record_type is Interception else "created_at")
    time_of = attrgetter(fields[time])

    def rows(records: Sequence[Any]) -> Iterator[list[object]]:
        times = utc([*map(time_of, records)])
        for text, record in zip(times, records, strict=True):
            values = list(astuple(record))
            values[metadata] = _json(values[metadata]) if values[metadata] else "{}"
            values[time] = text
            yield values

    return rows


_ROWS = {record_type: _row_maker(record_type) for record_type in _TABLES}


def _begun(ends: Mapping[str, InterceptionEnded], interceptions: Sequence[Interception]) -> Iterator[list[object]]:
    """Interceptions as rows, with their ends where these are there as well."""
    found = [ends.get(each.id) for each in interceptions]
    outcomes = _outcomes([end for end in found if end])
    whole = [with_end(each, end) if end else each for each, end in zip(interceptions, found, strict=True)]
    for row, end in zip(_ROWS[Interception](whole), found, strict=True):
        row += next(outcomes)[:-1] if end else _NO_OUTCOME
        yield row
