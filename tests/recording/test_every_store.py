"""What SQLite and PostgreSQL have in common: records in any order, again and again, and the threads that they make."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aibridge.recording.stores import UnstorableError
from aibridge.records import Record

from . import samples
from .kept import Kept
from .samples import end_of, interception, prompt, tokens, tool

patient = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

TABLES = ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts", "early_ends")


@patient
@given(st.lists(samples.records, max_size=8))
def test_any_record_can_be_stored_and_stored_again(kept: Kept, records: list[Record]) -> None:
    """Whatever its texts hold: NUL characters and lone surrogates too."""
    example = kept.another()
    example.store(records)
    before = everything(example)
    example.store(records)
    assert everything(example) == before


def everything(kept: Kept) -> list[list[str]]:
    return [sorted(map(repr, kept.rows(f"SELECT * FROM aibridge_{table}"))) for table in TABLES]


def test_an_end_waits_for_its_interception(kept: Kept) -> None:
    kept.store([end_of("i", status="cancelled", http_status=None, metadata={"retries": 1})])
    kept.store([end_of("other")])
    kept.store([interception("i", metadata={"team": "a"})])
    ((status, metadata),) = kept.rows("SELECT status, metadata FROM aibridge_interceptions")
    assert status == "cancelled"
    assert json.loads(metadata) == {"team": "a", "retries": 1}
    assert kept.rows("SELECT interception_id FROM aibridge_early_ends") == [("other",)]


@pytest.mark.parametrize("batches", [1, 2])
def test_an_end_that_was_stored_is_not_forgotten_when_the_beginning_comes_again(kept: Kept, batches: int) -> None:
    exchange: list[Record] = [interception("i"), end_of("i", metadata={"retries": 1})]
    if batches == 1:
        kept.store(exchange)
    else:
        for record in exchange:
            kept.store([record])
    kept.store(exchange[:1])
    assert kept.rows("SELECT id, status FROM aibridge_interceptions") == [("i", "completed")]


def test_a_batch_is_stored_whole_or_not_at_all(kept: Kept) -> None:
    with pytest.raises(UnstorableError, match="refuses a record"):
        kept.store([interception("i"), tokens("i", input_tokens=2**63)])
    assert kept.rows("SELECT id FROM aibridge_interceptions") == []
    kept.store([interception("i")])
    assert kept.rows("SELECT id FROM aibridge_interceptions") == [("i",)]


def test_a_record_may_be_very_large(kept: Kept) -> None:
    """An index of PostgreSQL holds less than 3 kB of a row, whatever a client chooses as the id of its session."""
    random = "".join(f"{number:x}" for number in range(20_000))
    kept.store(
        [
            interception("i", client_session_id=random, initiator_id=random, model=random),
            prompt("i", random * 100),
            tool("i", random),
            interception("answer", correlating_tool_call_id=random, initiator_id=random, second=1),
            end_of("i", error_message=random),
        ]
    )
    assert kept.rows("SELECT client_session_id FROM aibridge_interceptions WHERE status = 'completed'") == [(random,)]
    assert kept.rows("SELECT length(prompt) FROM aibridge_user_prompts") == [(len(random) * 100,)]
    parents = kept.rows("SELECT thread_parent_id FROM aibridge_interceptions WHERE thread_parent_id IS NOT NULL")
    assert parents == [("i",)]


# Threads: `first` calls a tool, `second` answers it and calls another, `third` answers that one.

CONVERSATION: list[Record] = [
    interception("first", second=0),
    tool("first", "call-1", second=1),
    interception("second", second=2, correlating_tool_call_id="call-1"),
    tool("second", "call-2", second=3),
    interception("third", second=4, correlating_tool_call_id="call-2"),
]
LINKS = [("first", None, None), ("second", "first", "first"), ("third", "second", "first")]


def test_a_thread_is_linked_in_whatever_order_its_records_arrive(kept: Kept) -> None:
    for order in itertools.permutations(CONVERSATION):
        example = kept.another()
        for record in order:
            example.store([record])
        assert example.links() == LINKS, order


def test_a_thread_is_linked_within_one_batch(kept: Kept) -> None:
    kept.store(CONVERSATION[::-1])
    assert kept.links() == LINKS


@patient
@given(st.data())
def test_links_depend_on_the_records_alone(kept: Kept, data: st.DataObject) -> None:
    """Even with few call ids that come again and again, and two initiators that use the same ones."""
    calls = st.sampled_from(["call-1", "call-2"])
    records: list[Record] = []
    for number in range(data.draw(st.integers(2, 7))):
        asked = data.draw(st.none() | calls)
        initiator = data.draw(st.sampled_from(["alice", "alice", "bob"]))
        name = f"i{number}"
        records.append(interception(name, second=number, initiator_id=initiator, correlating_tool_call_id=asked))
        records += [tool(name, data.draw(calls), second=number + 0.5) for _ in range(data.draw(st.integers(0, 2)))]

    in_order, shuffled = kept.another(), kept.another()
    in_order.store(records)
    remaining = data.draw(st.permutations(records))
    while remaining:
        size = data.draw(st.integers(1, len(remaining)))
        shuffled.store(remaining[:size])
        remaining = remaining[size:]
    assert shuffled.links() == in_order.links()


def test_the_newest_call_before_the_answer_counts(kept: Kept) -> None:
    kept.store(
        [
            interception("old", second=0),
            tool("old", "call-1", second=1),
            interception("new", second=2),
            tool("new", "call-1", second=3),
            interception("answer", second=4, correlating_tool_call_id="call-1"),
            tool("answer", "call-1", second=5),
            interception("later", second=6),
            tool("later", "call-1", second=7),
        ]
    )
    assert ("answer", "new", "new") in kept.links()


def test_another_initiators_call_is_no_parent(kept: Kept) -> None:
    kept.store(
        [
            interception("theirs", initiator_id="bob"),
            tool("theirs", "call-1"),
            interception("mine", second=1, initiator_id="alice", correlating_tool_call_id="call-1"),
        ]
    )
    assert ("mine", None, None) in kept.links()


def test_an_interception_is_never_its_own_parent(kept: Kept) -> None:
    kept.store([interception("i", correlating_tool_call_id="call-1"), tool("i", "call-1")])
    assert kept.links() == [("i", None, None)]
