"""Sums of what was used, kept by the hour and by the day, so that nobody has to add up every record.

A store counts each record when it is stored for the first time, within the same transaction, so the sums are always
those of the records that are there, in whatever order and however often these arrive. They belong to the hour in which
their interception began; what belongs to an interception that is not there yet waits until it is.
"""

# ruff: noqa: S608 - what is put into the SQL are names of tables and columns

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias, TypeVar

from aibridge.records import Interception, Record, Status, TokenUsage, ToolUsage

FIGURES = (
    "interceptions",
    "failed",
    "cancelled",
    "turns",
    "tool_calls",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
)
"""What is summed up; `turns` are the answers that named their usage."""

Figures: TypeAlias = tuple[int, ...]
"""One number for each of `FIGURES`."""

_TOKENS = FIGURES[-4:]

MOST = (1 << 63) - 1
"""What a sum stops at, for a database's integers hold no more."""


class Whose(NamedTuple):
    """What sums are kept apart by, beside the time: the first columns of the tables, after `starts_at`."""

    initiator_id: str
    provider: str
    provider_name: str
    model: str
    client: str


class Place(NamedTuple):
    """Where something is counted: when its hour or its day begins, and whose it is."""

    starts_at: datetime
    whose: Whose


KEY = ("starts_at", *Whose._fields)

Key = TypeVar("Key", str, Place)


class Outcome(NamedTuple):
    """That an interception's status became another one; None is that of one that goes on."""

    interception_id: str
    before: Status | None
    after: Status | None


def hour_of(time: datetime) -> datetime:
    """When the hour began that a time is in, in UTC."""
    time = time.astimezone(UTC)
    return datetime(time.year, time.month, time.day, time.hour, tzinfo=UTC)


def place_of(interception: Interception) -> Place:
    """Where an interception is counted by the hour."""
    begun = interception
    whose = Whose(begun.initiator_id, begun.provider, begun.provider_name, begun.model, begun.client)
    return Place(hour_of(begun.started_at), whose)


def counted(fresh: Iterable[Record], outcomes: Iterable[Outcome]) -> list[tuple[str, Figures]]:
    """What records that are stored for the first time, and outcomes, add to the sums: each with its interception."""
    changes: list[tuple[str, Figures]] = []
    for record in fresh:
        if isinstance(record, Interception):
            changes.append((record.id, _INTERCEPTION))
        elif isinstance(record, TokenUsage):
            tokens = record.input_tokens, record.output_tokens
            cache = record.cache_read_input_tokens, record.cache_write_input_tokens
            changes.append((record.interception_id, (0, 0, 0, 1, 0, *tokens, *cache)))
        elif isinstance(record, ToolUsage):
            changes.append((record.interception_id, _TOOL_CALL))
    for name, before, after in outcomes:
        failed = (after == "failed") - (before == "failed")
        cancelled = (after == "cancelled") - (before == "cancelled")
        if failed or cancelled:
            changes.append((name, _figures(failed=failed, cancelled=cancelled)))
    return changes


def added_up(changes: Iterable[tuple[Key, Figures]]) -> dict[Key, Figures]:
    """The sums of figures, by what they are told with."""
    apart: defaultdict[Key, list[Figures]] = defaultdict(list)
    for key, figures in changes:
        apart[key].append(figures)
    return {key: tuple(min(sum(column), MOST) for column in zip(*all_of, strict=True)) for key, all_of in apart.items()}


class Additions(NamedTuple):
    """What is to be added to the sums."""

    hours: dict[Place, Figures]
    days: dict[Place, Figures]
    early: dict[str, Figures]
    """Of interceptions that are not there yet."""


def additions(changes: Sequence[tuple[str, Figures]], places: Mapping[str, Place]) -> Additions:
    """What changes come to, with the places of those interceptions that are there."""
    hours = added_up([(places[name], figures) for name, figures in changes if name in places])
    days = added_up([(Place(hour.replace(hour=0), whose), figures) for (hour, whose), figures in hours.items()])
    return Additions(hours, days, added_up([change for change in changes if change[0] not in places]))


class Cutting(NamedTuple):
    """How one kind of database cuts a time `{time}` down to the beginning of its hour or day, and adds up `{count}`."""

    hour: str
    day: str
    total: str


def rebuilding(cutting: Cutting) -> tuple[str, ...]:
    """The SQL that makes the sums anew from the records.

    Sums of days that have no records stay: the figures of such days have had their time, and these are what is left.
    """
    day_of_hour, day_of_record = (cutting.day.format(time=time) for time in ("starts_at", "started_at"))
    figures, whose = ", ".join(FIGURES), ", ".join(Whose._fields)
    key = ", ".join(KEY)
    totals = ", ".join(cutting.total.format(count=name) for name in FIGURES)
    tokens = ", ".join(_TOKENS)
    no_tokens = ", ".join(f"0 AS {name}" for name in _TOKENS)
    facts = f"""
        SELECT interception_id, 0 AS interceptions, 0 AS failed, 0 AS cancelled, 1 AS turns, 0 AS tool_calls, {tokens}
        FROM aibridge_token_usages
        UNION ALL SELECT interception_id, 0, 0, 0, 0, 1, 0, 0, 0, 0 FROM aibridge_tool_usages
    """
    return (
        f"""
        DELETE FROM aibridge_hourly_usage
        WHERE {day_of_hour} IN (SELECT DISTINCT {day_of_record} FROM aibridge_interceptions)
        """,
        "DELETE FROM aibridge_daily_usage",
        "DELETE FROM aibridge_early_figures",
        f"""
        INSERT INTO aibridge_hourly_usage ({key}, {figures})
        SELECT {cutting.hour.format(time="started_at")}, {whose}, {totals} FROM (
            SELECT
                started_at, {whose}, 1 AS interceptions,
                CASE WHEN status = 'failed' THEN 1 ELSE 0 END AS failed,
                CASE WHEN status = 'cancelled' THEN 1 ELSE 0 END AS cancelled,
                0 AS turns, 0 AS tool_calls, {no_tokens}
            FROM aibridge_interceptions
            UNION ALL
            SELECT started_at, {whose}, {figures}
            FROM ({facts}) AS fact JOIN aibridge_interceptions ON id = interception_id
        ) AS counted
        GROUP BY {cutting.hour.format(time="started_at")}, {whose}
        """,
        f"""
        INSERT INTO aibridge_daily_usage ({key}, {figures})
        SELECT {cutting.day.format(time="starts_at")}, {whose}, {totals}
        FROM aibridge_hourly_usage GROUP BY {cutting.day.format(time="starts_at")}, {whose}
        """,
        f"""
        INSERT INTO aibridge_early_figures (interception_id, {figures})
        SELECT interception_id, {totals} FROM ({facts}) AS fact
        WHERE NOT EXISTS (SELECT 1 FROM aibridge_interceptions WHERE id = interception_id)
        GROUP BY interception_id
        """,
    )


def _figures(**named: int) -> Figures:
    return tuple(named.get(name, 0) for name in FIGURES)


_INTERCEPTION, _TOOL_CALL = _figures(interceptions=1), _figures(tool_calls=1)
