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
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aibridge.records import Interception, Status, TokenUsage, ToolUsage

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
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    return _hour(time.year, time.month, time.day, time.hour)


# Nearly all that is stored at a time is of one hour and of few places: these are made once, and found by identity.


@lru_cache(maxsize=64)
def _hour(year: int, month: int, day: int, hour: int) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


@lru_cache(maxsize=256)
def _place(hour: datetime, whose: tuple[str, ...]) -> Place:
    return Place(hour, Whose(*whose))


_whose = attrgetter(*Whose._fields)


def place_of(interception: Interception) -> Place:
    """Where an interception is counted by the hour."""
    return _place(hour_of(interception.started_at), _whose(interception))


def added_up(apart: Mapping[Key, Iterable[Figures]]) -> dict[Key, Figures]:
    """The sums of figures, by what they are told with."""
    return {key: tuple(min(sum(column), MOST) for column in zip(*all_of, strict=True)) for key, all_of in apart.items()}


class Additions(NamedTuple):
    """What is to be added to the sums."""

    hours: dict[Place, Figures]
    days: dict[Place, Figures]
    early: dict[str, Figures]
    """Of interceptions that are not there yet."""


class Tally:
    """What records that are stored for the first time, by their types, and outcomes add to the sums.

    A store tells what waited for the interceptions that have `begun`, and the places of those that were there before.
    """

    def __init__(self, fresh: Mapping[type[Any], Sequence[Any]], outcomes: Iterable[Outcome]) -> None:
        begun: Sequence[Interception] = fresh[Interception]
        usages: Sequence[TokenUsage] = fresh[TokenUsage]
        calls: Sequence[ToolUsage] = fresh[ToolUsage]
        self._places = {each.id: place_of(each) for each in begun}
        self.begun = [*self._places]
        self.askers: list[str] = []
        """The interceptions of the batch whose tool usages were there before them."""
        self._changes = [(each, _INTERCEPTION) for each in self.begun]
        self._changes += [(each.interception_id, _of_tokens(each)) for each in usages]
        self._changes += [(each.interception_id, _TOOL_CALL) for each in calls]
        for name, before, after in outcomes:
            failed = (after == "failed") - (before == "failed")
            cancelled = (after == "cancelled") - (before == "cancelled")
            if failed or cancelled:
                self._changes.append((name, _figures(failed=failed, cancelled=cancelled)))

    def waited(self, interception_id: str, figures: Figures) -> None:
        """Add what waited for an interception that has begun."""
        self._changes.append((interception_id, figures))
        if figures[FIGURES.index("tool_calls")]:
            self.askers.append(interception_id)

    @property
    def elsewhere(self) -> list[str]:
        """The interceptions that are counted for and not among those that have begun."""
        return [*{name for name, _ in self._changes if name not in self._places}]

    def place(self, interception_id: str, started_at: datetime, whose: Iterable[str]) -> None:
        """Say where one of those is counted; what is of those that are nowhere has to wait for them."""
        self._places[interception_id] = Place(hour_of(started_at), Whose(*whose))

    def additions(self) -> Additions:
        """What it all comes to."""
        of_hours: defaultdict[Place, list[Figures]] = defaultdict(list)
        of_days: defaultdict[Place, list[Figures]] = defaultdict(list)
        early: defaultdict[str, list[Figures]] = defaultdict(list)
        for name, figures in self._changes:
            if place := self._places.get(name):
                of_hours[place].append(figures)
            else:
                early[name].append(figures)
        hours = added_up(of_hours)
        for (hour, whose), figures in hours.items():
            of_days[Place(hour.replace(hour=0), whose)].append(figures)
        return Additions(hours, added_up(of_days), added_up(early))


def _of_tokens(usage: TokenUsage) -> Figures:
    tokens = usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens
    return (0, 0, 0, 1, 0, *tokens)


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
