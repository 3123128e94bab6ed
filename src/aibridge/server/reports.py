"""Reading what was recorded: sessions, everything about one of them, and what was used by whom.

The database is opened for reading only, beside a gateway that may be writing to it: neither waits for the other. Every
report is a struct of plain data; as JSON (`msgspec.json.encode`) its field names are the keys that scripts rely on.
Times are UTC in ISO 8601, counts of tokens are those of `aibridge.records.TokenUsage`.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from aibridge.server.report_sources import ReportError, Source, source_of
from aibridge.server.spans import Grain, Piece, divided

if TYPE_CHECKING:
    from collections.abc import Iterator

By: TypeAlias = Literal["user", "model", "client", "day", "provider", "session"]
"""What usage can be summed up by."""

PROMPT_SHOWN = 120
"""The characters of its first prompt that a session's line has."""


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


_SUMS = """
    CAST(coalesce(sum(input_tokens), 0) AS bigint) AS input_tokens,
    CAST(coalesce(sum(output_tokens), 0) AS bigint) AS output_tokens,
    CAST(coalesce(sum(cache_read_input_tokens), 0) AS bigint) AS cache_read_input_tokens,
    CAST(coalesce(sum(cache_write_input_tokens), 0) AS bigint) AS cache_write_input_tokens
"""

# The sessions of the interceptions with the latest activity; an index has these in order. An interception without a
# session stands for its thread; one that is its thread's first has no root.
_LATEST = """
SELECT session, initiator_id, count(*) AS seen, max(last_at) AS last_at
FROM (
    SELECT {session} AS session, initiator_id, coalesce(ended_at, started_at) AS last_at
    FROM aibridge_interceptions
    WHERE coalesce(ended_at, started_at) >= :since {and_of_user}
    ORDER BY coalesce(ended_at, started_at) DESC LIMIT :looked_at
) AS latest
GROUP BY session, initiator_id
ORDER BY max(last_at) DESC
"""

_SESSIONS = """
WITH
wanted AS MATERIALIZED ({chosen}),
members AS MATERIALIZED (
    SELECT session, wanted.initiator_id, interception.id, client, started_at, ended_at
    FROM wanted JOIN aibridge_interceptions AS interception
        ON {same_session} AND interception.initiator_id = wanted.initiator_id
    UNION ALL
    SELECT session, wanted.initiator_id, interception.id, client, started_at, ended_at
    FROM wanted JOIN aibridge_interceptions AS interception
        ON thread_root_id = wanted.id AND client_session_id IS NULL AND interception.initiator_id = wanted.initiator_id
    UNION ALL
    SELECT session, wanted.initiator_id, interception.id, client, started_at, ended_at
    FROM wanted JOIN aibridge_interceptions AS interception
        ON interception.id = wanted.id AND client_session_id IS NULL AND thread_root_id IS NULL
        AND interception.initiator_id = wanted.initiator_id
),
whole AS (
    SELECT
        session, initiator_id, count(*) AS interceptions,
        min(started_at) AS started_at, max(coalesce(ended_at, started_at)) AS last_at
    FROM members GROUP BY session, initiator_id
),
tokens AS (
    SELECT session, initiator_id, count(*) AS turns, {sums}
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
    whole.*,
    coalesce(turns, 0) AS turns,
    coalesce(prompts, 0) AS prompts,
    coalesce(tool_calls, 0) AS tool_calls,
    coalesce(input_tokens, 0) AS input_tokens,
    coalesce(output_tokens, 0) AS output_tokens,
    coalesce(cache_read_input_tokens, 0) AS cache_read_input_tokens,
    coalesce(cache_write_input_tokens, 0) AS cache_write_input_tokens,
    (
        SELECT client FROM members
        WHERE (session, initiator_id) = (whole.session, whole.initiator_id) ORDER BY started_at LIMIT 1
    ) AS client,
    (
        SELECT substr(prompt, 1, CAST(:characters AS integer))
        FROM members JOIN aibridge_user_prompts ON interception_id = members.id
        WHERE (session, initiator_id) = (whole.session, whole.initiator_id) ORDER BY created_at LIMIT 1
    ) AS first_prompt
FROM whole
LEFT JOIN tokens USING (session, initiator_id)
LEFT JOIN prompts USING (session, initiator_id)
LEFT JOIN tools USING (session, initiator_id)
ORDER BY whole.last_at DESC
"""

_KEYS: dict[By, str] = {
    "user": "initiator_id",
    "model": "model",
    "client": "client",
    "day": "{day}",
    "provider": "provider_name",
    "session": "{session}",
}

_COUNTS = ("interceptions", "failed", "cancelled")
_TOKENS = Tokens.__struct_fields__

_USAGE = f"""
SELECT key, {", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in (*_COUNTS, *_TOKENS))}
FROM ({{pieces}}) AS piece GROUP BY key
"""  # noqa: S608 - names of columns

_PIECES: dict[Grain, tuple[str, ...]] = {
    "days": (f"SELECT {{key}} AS key, {', '.join((*_COUNTS, *_TOKENS))} FROM aibridge_daily_usage",),  # noqa: S608
    "hours": (f"SELECT {{key}} AS key, {', '.join((*_COUNTS, *_TOKENS))} FROM aibridge_hourly_usage",),  # noqa: S608
    "records": (
        """
        SELECT
            {key} AS key, 1 AS interceptions,
            CASE WHEN status = 'failed' THEN 1 ELSE 0 END AS failed,
            CASE WHEN status = 'cancelled' THEN 1 ELSE 0 END AS cancelled,
            0 AS input_tokens, 0 AS output_tokens, 0 AS cache_read_input_tokens, 0 AS cache_write_input_tokens
        FROM aibridge_interceptions
        """,
        """
        SELECT
            key, 0 AS interceptions, 0 AS failed, 0 AS cancelled,
            input_tokens, output_tokens, cache_read_input_tokens, cache_write_input_tokens
        FROM (SELECT {key} AS key, id, started_at FROM aibridge_interceptions) AS interception
        JOIN aibridge_token_usages ON interception_id = interception.id
        """,
    ),
}
"""What is read for a piece of a span of time."""

_FACTS: dict[Literal["prompt", "thought", "tool_call", "token_usage"], str] = {
    "prompt": "aibridge_user_prompts",
    "thought": "aibridge_model_thoughts",
    "tool_call": "aibridge_tool_usages",
    "token_usage": "aibridge_token_usages",
}
"""The tables of facts, in the order in which what they hold happens within a turn."""

_BEGINNING, _END = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


class Records:
    """The records of one database. Use `reading` to open them."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def sessions(self, *, since: datetime | None = None, user: str | None = None, limit: int = 20) -> list[Session]:
        """The sessions that something happened in since then, the one with the latest activity first."""
        chosen = [(key, initiator, self._source.id_of(key)) for key, initiator in self._latest(since, user, limit)]
        if not chosen:
            return []
        values = {"chosen": msgspec.json.encode(chosen).decode(), "characters": 4 * PROMPT_SHOWN}
        rows = self._rows(_SESSIONS.replace("{sums}", _SUMS), values, few=True)
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
            WHERE id = :id OR thread_root_id = :id OR ({is_session}) ORDER BY started_at, id
            """,
            {"key": key, "id": self._source.id_of(key)},
            few=True,
        )
        facts = self._facts([interception["id"] for interception in interceptions])
        return [
            Shown(interception=_with_metadata(interception), facts=_in_order(facts[interception["id"]]))
            for interception in interceptions
        ]

    def usage(self, by: By, *, since: datetime | None = None, until: datetime | None = None) -> Usage:
        """What the interceptions that began in a span of time used; `until` itself is not part of it."""
        rows = self._usage(by, since or _BEGINNING, until or _END)
        rows.sort(key=lambda row: row["key"] if by == "day" else (-sum(row[name] for name in _TOKENS), row["key"]))
        total = {name: sum(row[name] for row in rows) for name in (*_COUNTS, *_TOKENS)}
        return Usage(by=by, rows=[_used(row) for row in rows], total=_used({"key": None, **total}))

    def _usage(self, by: By, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """The sums of a span: those of whole days and hours are there already, but not those of sessions."""
        pieces = [Piece("records", since, until)] if by == "session" else divided(since, until)
        selects = []
        values: dict[str, Any] = {}
        for number, piece in enumerate(pieces):
            values |= {f"since_{number}": piece.since, f"until_{number}": piece.until}
            time = "started_at" if piece.grain == "records" else "starts_at"
            key = _KEYS[by].replace("{day}", self._source.words["day"].format(time=time))
            within = f"WHERE {time} >= :since_{number} AND {time} < :until_{number}"
            selects += [f"{select.replace('{key}', key)} {within}" for select in _PIECES[piece.grain]]
        if not selects:
            return []
        return [
            row
            for row in self._rows(_USAGE.replace("{pieces}", " UNION ALL ".join(selects)), values)
            if row["interceptions"] or any(row[name] for name in _TOKENS)
        ]

    def _latest(self, since: datetime | None, user: str | None, limit: int) -> list[tuple[str, str]]:
        """The sessions with the latest activity, and whose they are."""
        of_user = f"AND {self._source.words['is_user']}" if user is not None else ""
        query = _LATEST.replace("{and_of_user}", of_user)
        looked_at = 16 * limit
        while True:
            values = {"since": since or _BEGINNING, "user": user, "looked_at": looked_at}
            found = self._rows(query, values, few=True)
            if len(found) >= limit or sum(row["seen"] for row in found) < looked_at:
                return [(row["session"], row["initiator_id"]) for row in found[:limit]]
            looked_at *= 8

    def _rows(self, query: str, values: dict[str, Any], *, few: bool = False) -> list[dict[str, Any]]:
        for name, word in self._source.words.items():
            query = query.replace(f"{{{name}}}", word)
        return self._source.rows(query, values, few=few)

    def _key(self, wanted: str) -> str:
        """The whole id of an interception or session that `wanted` is, or that begins so."""
        exact = self._source.id_of(wanted)
        if self._rows("SELECT id FROM aibridge_interceptions WHERE id = :id", {"id": exact}) or self._rows(
            "SELECT id FROM aibridge_interceptions WHERE {is_session} LIMIT 1", {"key": wanted}
        ):
            return wanted
        found = {
            row["key"]
            for row in self._rows(
                """
                SELECT DISTINCT client_session_id AS key FROM aibridge_interceptions
                WHERE client_session_id >= :least AND client_session_id <= :most ORDER BY 1 LIMIT 6
                """,
                {"least": wanted, "most": f"{wanted}\U0010ffff"},
            )
        }
        if ids := self._source.ids_from(wanted):
            query = "SELECT id FROM aibridge_interceptions WHERE id >= :least AND id <= :most ORDER BY id LIMIT 6"
            found |= {row["id"] for row in self._rows(query, {"least": ids[0], "most": ids[1]})}
        if not found:
            raise ReportError(f"no interception or session has an id {wanted!r} or one that begins so: see `sessions`")
        if len(found) > 1:
            some = ", ".join(sorted(found)[:5]) + (", …" if len(found) > 5 else "")
            raise ReportError(f"{wanted!r} is the beginning of more than one id; write more of it: {some}")
        return str(found.pop())

    def _facts(self, interceptions: list[str]) -> defaultdict[str, list[Fact]]:
        """What belongs to interceptions, by their ids."""
        facts: defaultdict[str, list[Fact]] = defaultdict(list)
        values = {"ids": msgspec.json.encode(interceptions).decode()}
        for kind, table in _FACTS.items():
            query = f"SELECT * FROM {table} WHERE interception_id IN ({{ids}}) ORDER BY created_at, {{kept_order}}"  # noqa: S608 - one of _FACTS
            for row in self._rows(query, values, few=True):
                interception, created_at = row.pop("interception_id"), row.pop("created_at")
                response, details = row.pop("provider_response_id"), _with_metadata(row)
                facts[interception].append(
                    Fact(kind=kind, created_at=created_at, provider_response_id=response, details=details)
                )
        return facts


@contextmanager
def reading(url: str) -> Iterator[Records]:
    """Open the records of a database, all from one moment. Raises `ReportError` where it can not be read."""
    with source_of(url) as source:
        yield Records(source)


def _in_order(facts: list[Fact]) -> list[Fact]:
    """The facts of an interception in order of time, but those of a turn together, in whatever order they were kept."""
    turns: dict[str | None, str] = {}
    for fact in facts:
        earliest = turns.get(fact.provider_response_id, fact.created_at)
        turns[fact.provider_response_id] = min(earliest, fact.created_at)
    kinds = list(_FACTS)
    return sorted(
        facts, key=lambda fact: (fact.kind != "prompt", turns[fact.provider_response_id], kinds.index(fact.kind))
    )


def _with_metadata(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its metadata decoded, and SQLite's 0 and 1 as what they mean."""
    decoded = row | {"metadata": msgspec.json.decode(row["metadata"])}
    for name in ("streaming", "injected"):
        if name in decoded:
            decoded[name] = bool(decoded[name])
    return decoded


def _used(sums: dict[str, Any]) -> Used:
    """The sums as a row, with the share that follows from them."""
    read = sums["cache_read_input_tokens"]
    every = sums["input_tokens"] + read + sums["cache_write_input_tokens"]
    return Used(**sums, cache_hit_share=round(read / every, 4) if every else None)


def _shortened(prompt: str | None) -> str | None:
    line = " ".join((prompt or "").split())
    return (line if len(line) <= PROMPT_SHOWN else f"{line[: PROMPT_SHOWN - 1]}…") or None
