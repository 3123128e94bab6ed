"""Sums by the hour and by the day are always those of the records, however these arrive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aibridge.recording.databases import rebuild_rollups
from aibridge.recording.rollups import FIGURES, KEY
from aibridge.records import Record

from . import samples
from .kept import Kept
from .samples import end_of, interception, prompt, tokens, tool

_HOUR = timedelta(hours=1)


def sums(kept: Kept, table: str) -> list[tuple[Any, ...]]:
    key = ("interception_id",) if table == "early_figures" else KEY
    return sorted(kept.rows(f"SELECT {', '.join((*key, *FIGURES))} FROM aibridge_{table}"), key=repr)


def all_sums(kept: Kept) -> list[list[tuple[Any, ...]]]:
    return [sums(kept, table) for table in ("hourly_usage", "daily_usage", "early_figures")]


def test_an_exchange_is_counted_in_the_hour_and_the_day_of_its_beginning(kept: Kept) -> None:
    kept.store(
        [
            interception("i", started_at=samples.NOON + 0.99 * _HOUR),
            prompt("i"),
            tokens("i", cache_read_input_tokens=7, created_at=samples.NOON + 2 * _HOUR),
            tokens("i", cache_write_input_tokens=11, created_at=samples.NOON + 2 * _HOUR),
            tool("i", "call-1"),
            end_of("i", status="failed"),
            interception("j", started_at=samples.NOON + _HOUR),
            end_of("j", status="cancelled"),
        ]
    )
    whose = (kept.own("alice"), "anthropic", "anthropic-eu", "claude-sonnet-4-5", "Claude Code")
    assert sums(kept, "hourly_usage") == [
        ("2026-03-01T12:00:00.000000+00:00", *whose, 1, 1, 0, 2, 1, 6, 10, 7, 11),
        ("2026-03-01T13:00:00.000000+00:00", *whose, 1, 0, 1, 0, 0, 0, 0, 0, 0),
    ]
    assert sums(kept, "daily_usage") == [("2026-03-01T00:00:00.000000+00:00", *whose, 2, 1, 1, 2, 1, 6, 10, 7, 11)]


def test_what_is_used_before_its_interception_is_there_waits_for_it(kept: Kept) -> None:
    kept.store([tokens("i"), tool("i", "call-1")])
    kept.store([tokens("i")])
    assert sums(kept, "hourly_usage") == []
    assert sums(kept, "early_figures") == [("i", 0, 0, 0, 2, 1, 6, 10, 0, 0)]
    kept.store([interception("i")])
    assert sums(kept, "early_figures") == []
    ((*_, interceptions, _, _, turns, calls, read, written, _, _),) = sums(kept, "hourly_usage")
    assert (interceptions, turns, calls, read, written) == (1, 2, 1, 6, 10)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_storm_of_records_comes_to_the_same_as_counting_them_all(kept: Kept, data: st.DataObject) -> None:
    """Out of order, in batches of any size, some of them again and again, some never."""
    records: list[Record] = []
    for number in range(data.draw(st.integers(1, 8))):
        name = f"i{number}"
        records.append(
            interception(
                name,
                started_at=samples.NOON + data.draw(st.integers(0, 30)) * _HOUR,
                initiator_id=data.draw(st.sampled_from(["alice", "bob"])),
                model=data.draw(st.sampled_from(["one", "another"])),
            )
        )
        records += [
            tokens(name, input_tokens=data.draw(st.integers(0, 2**40))) for _ in range(data.draw(st.integers(0, 3)))
        ]
        records += [tool(name, "call-1") for _ in range(data.draw(st.integers(0, 2)))]
        if status := data.draw(st.sampled_from([None, "completed", "failed", "cancelled"])):
            records.append(end_of(name, status=status))

    example = kept.another()
    for _ in range(data.draw(st.integers(1, 6))):
        example.store(data.draw(st.lists(st.sampled_from(records), max_size=2 * len(records))))

    kept_up = all_sums(example)
    rebuild_rollups(kept.url)
    assert all_sums(example) == kept_up
