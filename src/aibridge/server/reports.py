"""Reading what was recorded: sessions, everything about one of them, and what was used by whom.

The database is opened for reading only, beside a gateway that may be writing to it: a reader of SQLite's
write-ahead log takes no lock that a writer waits for. Every report is a struct of plain data; as JSON
(`msgspec.json.encode`) its field names are the keys that scripts rely on. Times are UTC in ISO 8601, counts of
tokens are those of `aibridge.records.TokenUsage`.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

By: TypeAlias = Literal["user", "model", "client", "day", "provider", "session"]
"""What usage can be summed up by."""

PROMPT_SHOWN = 120
"""The characters of its first prompt that a session's line has."""


class ReportError(Exception):
    """There is nothing to report from, or not the thing asked for; the message names the cause and the remedy."""


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of token counts."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int


class Session(Tokens, frozen=True, kw_only=True):
    """What one actor did in one session of a client; without a session, in one thread, or in one interception."""

    session: str
    """The client's own id of the session, else the id of the thread's first interception."""
    client: str
    initiator_id: str
    started_at: str
    last_at: str
    interceptions: int
    turns: int
    prompts: int
    tool_calls: int
    first_prompt: str | None
    """In one line, shortened to `PROMPT_SHOWN` characters."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt, thought, tool call or usage of an interception: `details` are the columns of its table."""

    kind: Literal["prompt", "thought", "tool_call", "token_usage"]
    created_at: str
    provider_response_id: str | None
    details: dict[str, Any]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An interception with all its facts in order of time; `interception` has the columns of its table."""

    interception: dict[str, Any]
    facts: list[Fact]


class Used(Tokens, frozen=True, kw_only=True):
    """What was used by one user, or with one model, …; `key` says which, and is None in the total."""

    key: str | None
    interceptions: int
    failed: int
    cancelled: int
    cache_hit_share: float | None
    """How much of all input was read from a cache, from 0 to 1; None where there was no input."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was used, the greatest use first (days: in their order), and the total."""

    by: By
    rows: list[Used]
    total: Used


# An interception without a session stands for its thread; one that is its thread's first has no root.
_SESSION = "coalesce(client_session_id, thread_root_id, id)"

_SUMS = """
    coalesce(sum(input_tokens), 0) AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(cache_read_input_tokens), 0) AS cache_read_input_tokens,
    coalesce(sum(cache_write_input_tokens), 0) AS cache_write_input_tokens
"""

_SESSIONS = f"""
WITH
interceptions AS (
    SELECT {_SESSION} AS session, initiator_id, id, client, started_at, coalesce(ended_at, started_at) AS last_at
    FROM aibridge_interceptions
    WHERE :user IS NULL OR initiator_id = :user
),
chosen AS (
    SELECT session, initiator_id, min(started_at) AS started_at, max(last_at) AS last_at, count(*) AS interceptions
    FROM interceptions GROUP BY session, initiator_id
    HAVING max(last_at) >= :since
    ORDER BY max(last_at) DESC LIMIT :limit
),
members AS MATERIALIZED (
    SELECT session, initiator_id, id, client, interceptions.started_at
    FROM interceptions JOIN chosen USING (session, initiator_id)
),
tokens AS (
    SELECT session, initiator_id, count(*) AS turns, {_SUMS}
    FROM members JOIN aibridge_token_usages ON interception_id = members.id GROUP BY session, initiator_id
),
prompts AS (
    SELECT session, initiator_id, count(*) AS prompts
    FROM members JOIN aibridge_user_prompts ON interception_id = members.id GROUP BY session, initiator_id
),
tools AS (
    SELECT session, initiator_id, count(*) AS tool_calls
    FROM members JOIN aibridge_tool_usages ON interception_id = members.id GROUP BY session, initiator_id
)
SELECT
    chosen.*,
    coalesce(turns, 0) AS turns,
    coalesce(prompts, 0) AS prompts,
    coalesce(tool_calls, 0) AS tool_calls,
    coalesce(input_tokens, 0) AS input_tokens,
    coalesce(output_tokens, 0) AS output_tokens,
    coalesce(cache_read_input_tokens, 0) AS cache_read_input_tokens,
    coalesce(cache_write_input_tokens, 0) AS cache_write_input_tokens,
    (
        SELECT client FROM members
        WHERE (session, initiator_id) = (chosen.session, chosen.initiator_id) ORDER BY started_at LIMIT 1
    ) AS client,
    (
        SELECT substr(prompt, 1, 4 * :prompt_shown)
        FROM members JOIN aibridge_user_prompts ON interception_id = members.id
        WHERE (session, initiator_id) = (chosen.session, chosen.initiator_id) ORDER BY created_at LIMIT 1
    ) AS first_prompt
FROM chosen
LEFT JOIN tokens USING (session, initiator_id)
LEFT JOIN prompts USING (session, initiator_id)
LEFT JOIN tools USING (session, initiator_id)
ORDER BY last_at DESC
"""  # noqa: S608 - every value is a parameter

_KEYS: dict[By, str] = {
    "user": "initiator_id",
    "model": "model",
    "client": "client",
    "day": "substr(started_at, 1, 10)",
    "provider": "provider_name",
    "session": _SESSION,
}

_USAGE = """
WITH
chosen AS MATERIALIZED (
    SELECT id, {key} AS key, status FROM aibridge_interceptions WHERE started_at >= :since AND started_at < :until
),
counted AS (
    SELECT
        key,
        count(*) AS interceptions,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled
    FROM chosen GROUP BY key
),
used AS (
    SELECT key, {sums} FROM chosen JOIN aibridge_token_usages ON interception_id = chosen.id GROUP BY key
)
SELECT
    counted.*,
    coalesce(input_tokens, 0) AS input_tokens,
    coalesce(output_tokens, 0) AS output_tokens,
    coalesce(cache_read_input_tokens, 0) AS cache_read_input_tokens,
    coalesce(cache_write_input_tokens, 0) AS cache_write_input_tokens
FROM counted LEFT JOIN used USING (key)
"""

_FACTS: dict[Literal["prompt", "thought", "tool_call", "token_usage"], str] = {
    "prompt": "aibridge_user_prompts",
    "thought": "aibridge_model_thoughts",
    "tool_call": "aibridge_tool_usages",
    "token_usage": "aibridge_token_usages",
}
"""The tables of facts, in the order in which what they hold happens within a turn."""

_TOKENS = Tokens.__struct_fields__

_BEGINNING, _END = "0000", "9999"  # before and after every time, as text


class Records:
    """The records of one database. Use `reading` to open them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def sessions(self, *, since: datetime | None = None, user: str | None = None, limit: int = 20) -> list[Session]:
        """The sessions that something happened in since then, the one with the latest activity first."""
        values = {
            "since": _instant(since, _BEGINNING),
            "user": user,
            "limit": limit,
            "prompt_shown": PROMPT_SHOWN,
        }
        rows = self._rows(_SESSIONS, values)
        return [msgspec.convert(row | {"first_prompt": _shortened(row["first_prompt"])}, Session) for row in rows]

    def show(self, wanted: str) -> list[Shown]:
        """Everything about an interception, or about all interceptions of a session or thread, in order of time.

        `wanted` is an interception's id, a session's id, or the beginning of one that is that of no other. The id of
        a thread's first interception means the thread. Raises `ReportError` where it means none, or more than one.
        """
        key = self._key(wanted)
        interceptions = self._rows(
            """
            SELECT * FROM aibridge_interceptions
            WHERE id = :key OR thread_root_id = :key OR client_session_id = :key ORDER BY started_at, id
            """,
            {"key": key},
        )
        return [self._shown(interception) for interception in interceptions]

    def usage(self, by: By, *, since: datetime | None = None, until: datetime | None = None) -> Usage:
        """What the interceptions that began in a span of time used; `until` itself is not part of it."""
        values = {"since": _instant(since, _BEGINNING), "until": _instant(until, _END)}
        query = _USAGE.format(key=_KEYS[by], sums=_SUMS)
        rows = self._rows(query, values)
        rows.sort(key=lambda row: row["key"] if by == "day" else (-sum(row[name] for name in _TOKENS), row["key"]))
        total = {name: sum(row[name] for row in rows) for name in ("interceptions", "failed", "cancelled", *_TOKENS)}
        return Usage(by=by, rows=[_used(row) for row in rows], total=_used({"key": None, **total}))

    def _rows(self, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        return [dict(row) for row in self._database.execute(query, values)]

    def _key(self, wanted: str) -> str:
        """The whole id of an interception or session that `wanted` is, or that begins so."""
        query = """
            SELECT id AS key FROM aibridge_interceptions WHERE id >= :least AND id <= :most
            UNION
            SELECT client_session_id FROM aibridge_interceptions
            WHERE client_session_id >= :least AND client_session_id <= :most
            ORDER BY 1 LIMIT 6
        """
        if self._rows(query, {"least": wanted, "most": wanted}):
            return wanted
        found = [row["key"] for row in self._rows(query, {"least": wanted, "most": f"{wanted}\U0010ffff"})]
        if not found:
            raise ReportError(f"no interception or session has an id {wanted!r} or one that begins so: see `sessions`")
        if len(found) > 1:
            some = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise ReportError(f"{wanted!r} is the beginning of more than one id; write more of it: {some}")
        return str(found[0])

    def _shown(self, interception: dict[str, Any]) -> Shown:
        facts = [fact for kind, table in _FACTS.items() for fact in self._facts(kind, table, interception["id"])]
        # A turn's facts stay together, whatever the order in which they were written.
        turns: dict[str | None, str] = {}
        for fact in facts:
            earliest = turns.get(fact.provider_response_id, fact.created_at)
            turns[fact.provider_response_id] = min(earliest, fact.created_at)
        kinds = list(_FACTS)
        facts.sort(key=lambda fact: (fact.kind != "prompt", turns[fact.provider_response_id], kinds.index(fact.kind)))
        return Shown(interception=_with_metadata(interception), facts=facts)

    def _facts(
        self, kind: Literal["prompt", "thought", "tool_call", "token_usage"], table: str, interception: str
    ) -> Iterator[Fact]:
        query = f"SELECT * FROM {table} WHERE interception_id = :id ORDER BY created_at, rowid"  # noqa: S608 - the table is one of _FACTS
        for row in self._rows(query, {"id": interception}):
            del row["interception_id"]
            created_at, response = row.pop("created_at"), row.pop("provider_response_id")
            details = _with_metadata(row)
            yield Fact(kind=kind, created_at=created_at, provider_response_id=response, details=details)


@contextmanager
def reading(path: Path) -> Iterator[Records]:
    """Open the records of a SQLite database, all from one moment. Raises `ReportError` where it can not be read."""
    if not path.is_file():
        raise ReportError(
            f"there is no database {path}: start `aibridge serve`, which makes it with the first record, "
            "or say with --database or --config where it is"
        )
    try:
        database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5, isolation_level=None)
    except sqlite3.Error as fault:
        raise ReportError(f"the database {path} can not be opened: {fault}") from fault
    try:
        database.row_factory = sqlite3.Row
        database.execute("BEGIN")
        yield Records(database)
    except sqlite3.Error as fault:
        raise ReportError(f"the database {path} can not be read as one of aibridge: {fault}") from fault
    finally:
        database.close()


def _with_metadata(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its metadata decoded, and SQLite's 0 and 1 as what they mean."""
    decoded = row | {"metadata": msgspec.json.decode(row["metadata"])}
    for name in ("streaming", "injected"):
        if name in decoded:
            decoded[name] = bool(decoded[name])
    return decoded


def _instant(time: datetime | None, otherwise: str) -> str:
    """A time as the database has it, so that it compares as text."""
    if time is None:
        return otherwise
    from datetime import UTC

    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _used(sums: dict[str, Any]) -> Used:
    """The sums as a row, with the share that follows from them."""
    read = sums["cache_read_input_tokens"]
    every = sums["input_tokens"] + read + sums["cache_write_input_tokens"]
    return Used(**sums, cache_hit_share=round(read / every, 4) if every else None)


def _shortened(prompt: str | None) -> str | None:
    line = " ".join((prompt or "").split())
    return (line if len(line) <= PROMPT_SHOWN else f"{line[: PROMPT_SHOWN - 1]}…") or None
