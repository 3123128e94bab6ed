"""When a request is sent once more, and after how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.upstream.retries import FIRST_DELAY, LONGEST_WAIT, MOST_DELAY, delay_after


@pytest.mark.parametrize("status", [None, 408, 409, 429, 500, 502, 503, 504, 529])
def test_trouble_that_passes_is_waited_for(status: int | None) -> None:
    assert delay_after(0, status, {}) is not None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422, 451])
def test_what_will_not_pass_is_not(status: int) -> None:
    assert delay_after(0, status, {}) is None


@pytest.mark.parametrize(
    ("told", "status", "again"), [("false", 503, False), ("true", 400, True), ("maybe", 400, False)]
)
def test_the_provider_has_the_last_word(told: str, status: int, again: bool) -> None:
    assert (delay_after(0, status, {"x-should-retry": told}) is not None) is again


@given(attempt=st.integers(0, 60))
def test_the_delay_doubles_and_varies_within_bounds(attempt: int) -> None:
    delay = delay_after(attempt, 500, {})
    most = min(FIRST_DELAY * 2**attempt, MOST_DELAY)
    assert delay is not None
    assert 0.75 * most <= delay <= most


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "-5"}, 0),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0),
        ({"retry-after": str(int(LONGEST_WAIT))}, LONGEST_WAIT),
        ({"retry-after": str(int(LONGEST_WAIT) + 1)}, None),
    ],
)
def test_what_the_provider_asks_for_is_done(headers: dict[str, str], delay: float | None) -> None:
    assert delay_after(0, 429, headers) == delay


def test_it_may_ask_by_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=20)
    delay = delay_after(0, 429, {"retry-after": format_datetime(soon, usegmt=True)})
    assert delay is not None
    assert 15 < delay <= 20


@given(told=st.text(max_size=30))
def test_whatever_it_asks_is_no_fault_here(told: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        delay = delay_after(0, 429, {name: told})
        assert delay is None or 0 <= delay <= LONGEST_WAIT
