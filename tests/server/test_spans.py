"""A span of time is read from whole days and hours, and from records only at its ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.server.spans import divided

times = st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 6), timezones=st.timezones())


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until", "pieces"),
    [
        (at(1), at(3), [("days", at(1), at(3))]),
        (at(1, 5), at(1, 7), [("hours", at(1, 5), at(1, 7))]),
        (at(1, 5, 1), at(1, 5, 2), [("records", at(1, 5, 1), at(1, 5, 2))]),
        (at(1, 5, 1), at(1, 6, 2), [("records", at(1, 5, 1), at(1, 6, 2))]),
        (
            at(1, 22, 30),
            at(3, 1, 15),
            [
                ("records", at(1, 22, 30), at(1, 23)),
                ("hours", at(1, 23), at(2)),
                ("days", at(2), at(3)),
                ("hours", at(3), at(3, 1)),
                ("records", at(3, 1), at(3, 1, 15)),
            ],
        ),
        (at(2), at(1), []),
    ],
)
def test_a_span_is_divided(since: datetime, until: datetime, pieces: list[tuple[str, datetime, datetime]]) -> None:
    assert [tuple(piece) for piece in divided(since, until)] == pieces


@given(times, times)
def test_the_pieces_are_the_whole_span(since: datetime, until: datetime) -> None:
    pieces = divided(since, until)
    if since >= until:
        assert pieces == []
        return
    assert (pieces[0].since, pieces[-1].until) == (since, until)
    assert all(one.until == other.since for one, other in pairwise(pieces))
    for piece in pieces:
        if piece.grain == "records":
            assert piece.until - piece.since < timedelta(hours=2)
        else:
            for time in (piece.since, piece.until):
                assert (time.minute, time.second, time.microsecond) == (0, 0, 0)
                assert piece.grain == "hours" or time.hour == 0
