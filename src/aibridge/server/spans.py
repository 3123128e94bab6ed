"""Dividing a span of time into what there are sums of: whole days, whole hours, and what is left at its ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

Grain: TypeAlias = Literal["days", "hours", "records"]

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


class Piece(NamedTuple):
    """Part of a span, and the coarsest sums that it can be read from."""

    grain: Grain
    since: datetime
    until: datetime
    """Not part of it."""


def divided(since: datetime, until: datetime) -> list[Piece]:
    """The pieces of a span, in their order; none where it is empty."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    first_hour, last_hour = _begun(since, _HOUR), _floor(until, _HOUR)
    if first_hour >= last_hour:
        pieces = [Piece("records", since, until)]
    else:
        first_day, last_day = _begun(first_hour, _DAY), _floor(last_hour, _DAY)
        whole = (
            [Piece("hours", first_hour, last_hour)]
            if first_day >= last_day
            else [
                Piece("hours", first_hour, first_day),
                Piece("days", first_day, last_day),
                Piece("hours", last_day, last_hour),
            ]
        )
        pieces = [Piece("records", since, first_hour), *whole, Piece("records", last_hour, until)]
    return [piece for piece in pieces if piece.since < piece.until]


def _floor(time: datetime, span: timedelta) -> datetime:
    hour = time.replace(minute=0, second=0, microsecond=0)
    return hour.replace(hour=0) if span == _DAY else hour


def _begun(time: datetime, span: timedelta) -> datetime:
    """The first beginning of an hour or day that is not before this time."""
    floor = _floor(time, span)
    return floor if floor == time else floor + span
