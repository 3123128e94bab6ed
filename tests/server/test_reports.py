"""Reading what was recorded: a week of Ada's and Ben's work, as an operator asks for it afterwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Literal
from uuid import NAMESPACE_OID, uuid5

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aibridge.recording.stores import store_for
from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)
from aibridge.server.report_sources import ReportError
from aibridge.server.reports import PROMPT_SHOWN, By, Records, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.postgres import PostgreSQL

MONDAY = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)

_numbers = count(1)


def uid(name: str) -> str:
    """The id that a test means: its own, or one that stands for a name."""
    return name if len(name) == 36 else str(uuid5(NAMESPACE_OID, name))


def new_uid() -> str:
    return uid(f"number {next(_numbers)}")


def request(
    name: str,
    at: datetime,
    *,
    user: str = "ada",
    client: str = "Claude Code",
    session: str | None = None,
    model: str = "claude-opus-4-5",
    answers: str | None = None,
) -> Interception:
    return Interception(
        id=uid(name),
        initiator_id=user,
        provider="anthropic",
        provider_name="anthropic",
        model=model,
        started_at=at,
        route="/v1/messages",
        streaming=True,
        client=client,
        client_session_id=session,
        correlating_tool_call_id=answers,
    )


def end(of: str, at: datetime, status: Literal["completed", "failed", "cancelled"] = "completed") -> InterceptionEnded:
    return InterceptionEnded(interception_id=uid(of), ended_at=at, status=status, http_status=200)


def prompt(of: str, at: datetime, text: str) -> PromptUsage:
    return PromptUsage(id=new_uid(), interception_id=uid(of), prompt=text, created_at=at)


def tokens(of: str, at: datetime, *, turn: str = "msg_1", **counts: int) -> TokenUsage:
    sums: dict[str, Any] = {"input_tokens": 0, "output_tokens": 0} | counts
    return TokenUsage(id=new_uid(), interception_id=uid(of), provider_response_id=turn, created_at=at, **sums)


def call(of: str, at: datetime, call_id: str, tool: str, arguments: str = "{}", *, turn: str = "msg_1") -> ToolUsage:
    return ToolUsage(
        id=new_uid(),
        interception_id=uid(of),
        provider_response_id=turn,
        provider_tool_call_id=call_id,
        tool=tool,
        input=arguments,
        created_at=at,
    )


def thought(of: str, at: datetime, *, turn: str = "msg_1", content: str) -> ModelThought:
    return ModelThought(
        id=new_uid(),
        interception_id=uid(of),
        provider_response_id=turn,
        content=content,
        metadata={"source": "thinking"},
        created_at=at,
    )


def a_week() -> list[Record]:
    """Ada's session of two requests on Monday; on Tuesday a thread of Ben's without a session, and a failure of his."""
    second = timedelta(seconds=1)
    return [
        request("aaaa0000-0000-7000-8000-000000000001", MONDAY, session="ada-session"),
        prompt("aaaa0000-0000-7000-8000-000000000001", MONDAY, "Fix the\n   failing test"),
        tokens(
            "aaaa0000-0000-7000-8000-000000000001",
            MONDAY + second,
            input_tokens=10,
            output_tokens=5,
            cache_read_input_tokens=90,
        ),
        call("aaaa0000-0000-7000-8000-000000000001", MONDAY + second, "toolu_1", "Bash", '{"command":"pytest"}'),
        thought("aaaa0000-0000-7000-8000-000000000001", MONDAY + second, content="I run it first."),
        end("aaaa0000-0000-7000-8000-000000000001", MONDAY + 2 * second),
        request("aaaa0000-0000-7000-8000-000000000002", MONDAY + 5 * second, session="ada-session", answers="toolu_1"),
        tokens(
            "aaaa0000-0000-7000-8000-000000000002",
            MONDAY + 6 * second,
            input_tokens=20,
            output_tokens=7,
            cache_write_input_tokens=80,
        ),
        end("aaaa0000-0000-7000-8000-000000000002", MONDAY + 7 * second),
        request("bbbb0000-0000-7000-8000-000000000001", TUESDAY, user="ben", client="LiteLLM", model="gpt-5"),
        prompt("bbbb0000-0000-7000-8000-000000000001", TUESDAY, "What is the weather?"),
        call("bbbb0000-0000-7000-8000-000000000001", TUESDAY + second, "call_1", "weather"),
        end("bbbb0000-0000-7000-8000-000000000001", TUESDAY + 2 * second),
        request(
            "bbbb0000-0000-7000-8000-000000000002",
            TUESDAY + 3 * second,
            user="ben",
            client="LiteLLM",
            model="gpt-5",
            answers="call_1",
        ),
        tokens("bbbb0000-0000-7000-8000-000000000002", TUESDAY + 4 * second, input_tokens=1000, output_tokens=1),
        end("bbbb0000-0000-7000-8000-000000000002", TUESDAY + 5 * second, "cancelled"),
        request(
            "bbcc0000-0000-7000-8000-000000000001", TUESDAY + 60 * second, user="ben", client="LiteLLM", model="gpt-5"
        ),
        end("bbcc0000-0000-7000-8000-000000000001", TUESDAY + 61 * second, "failed"),
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of each kind, without a record."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/aibridge.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


def keep(url: str, records: list[Record]) -> None:
    with closing(store_for(url)) as store:
        store.store(records)


@pytest.fixture
def database(empty: str) -> str:
    keep(empty, a_week())
    return empty


@pytest.fixture
def records(database: str) -> Iterator[Records]:
    with reading(database) as records:
        yield records


class TestSessions:
    def test_come_with_the_latest_first(self, records: Records) -> None:
        assert [session.session for session in records.sessions()] == [
            "bbcc0000-0000-7000-8000-000000000001",
            "bbbb0000-0000-7000-8000-000000000001",
            "ada-session",
        ]

    def test_add_up_what_happened_in_them(self, records: Records) -> None:
        ada = records.sessions()[-1]

        assert (ada.initiator_id, ada.client) == ("ada", "Claude Code")
        assert (ada.started_at, ada.last_at) == ("2026-03-02T09:00:00.000000+00:00", "2026-03-02T09:00:07.000000+00:00")
        assert (ada.interceptions, ada.turns, ada.prompts, ada.tool_calls) == (2, 2, 1, 1)
        assert (ada.input_tokens, ada.output_tokens) == (30, 12)
        assert (ada.cache_read_input_tokens, ada.cache_write_input_tokens) == (90, 80)
        assert ada.first_prompt == "Fix the failing test", "in one line"

    def test_without_a_session_are_the_thread_of_calls_and_answers(self, records: Records) -> None:
        failure, thread, _ = records.sessions()

        assert (thread.session, thread.interceptions, thread.first_prompt) == (
            "bbbb0000-0000-7000-8000-000000000001",
            2,
            "What is the weather?",
        )
        assert (failure.session, failure.interceptions, failure.turns, failure.first_prompt) == (
            "bbcc0000-0000-7000-8000-000000000001",
            1,
            0,
            None,
        )

    def test_can_be_those_of_one_user(self, records: Records) -> None:
        assert {session.initiator_id for session in records.sessions(user="ben")} == {"ben"}
        assert records.sessions(user="nobody") == []

    def test_can_be_the_latest_few(self, records: Records) -> None:
        assert [session.session for session in records.sessions(limit=1)] == ["bbcc0000-0000-7000-8000-000000000001"]

    def test_since_a_time_are_told_as_a_whole(self, records: Records) -> None:
        in_the_midst = MONDAY + timedelta(seconds=3)

        assert [session.session for session in records.sessions(since=TUESDAY)] == [
            "bbcc0000-0000-7000-8000-000000000001",
            "bbbb0000-0000-7000-8000-000000000001",
        ]
        assert records.sessions(since=in_the_midst)[-1].interceptions == 2

    def test_of_two_users_are_two_even_where_their_clients_name_them_alike(self, empty: str) -> None:
        keep(empty, [request(f"{user}-1", MONDAY, user=user, session="default") for user in ("ada", "ben")])

        with reading(empty) as records:
            assert sorted(session.initiator_id for session in records.sessions()) == ["ada", "ben"]

    def test_begin_with_a_short_piece_of_a_long_prompt(self, empty: str) -> None:
        keep(empty, [request("a", MONDAY), prompt("a", MONDAY, "word " * 10_000)])

        with reading(empty) as records:
            (session,) = records.sessions()
        assert session.first_prompt is not None
        assert len(session.first_prompt) == PROMPT_SHOWN
        assert session.first_prompt.endswith("…")


class TestShow:
    def test_tells_an_interception_in_order(self, records: Records) -> None:
        (shown,) = records.show("aaaa0000-0000-7000-8000-000000000002")

        assert shown.interception["thread_parent_id"] == "aaaa0000-0000-7000-8000-000000000001"
        assert shown.interception["streaming"] is True
        assert shown.interception["status"] == "completed"
        assert [fact.kind for fact in shown.facts] == ["token_usage"]

    def test_tells_a_whole_session_in_order_of_time(self, records: Records) -> None:
        first, second = records.show("ada-session")

        assert (first.interception["id"], second.interception["id"]) == (
            "aaaa0000-0000-7000-8000-000000000001",
            "aaaa0000-0000-7000-8000-000000000002",
        )
        assert [fact.kind for fact in first.facts] == ["prompt", "thought", "tool_call", "token_usage"]
        assert first.facts[0].details["prompt"] == "Fix the\n   failing test", "whole, as the user wrote it"
        assert first.facts[1].details["metadata"] == {"source": "thinking"}
        assert first.facts[2].details["input"] == '{"command":"pytest"}'
        assert first.facts[2].details["injected"] is False
        assert first.facts[3].details["cache_read_input_tokens"] == 90

    def test_tells_a_thread_by_its_first_interception(self, records: Records) -> None:
        assert [shown.interception["id"] for shown in records.show("bbbb0000-0000-7000-8000-000000000001")] == [
            "bbbb0000-0000-7000-8000-000000000001",
            "bbbb0000-0000-7000-8000-000000000002",
        ]

    def test_keeps_what_belongs_to_a_turn_together(self, empty: str) -> None:
        late, later = MONDAY + timedelta(seconds=1), MONDAY + timedelta(seconds=2)
        keep(
            empty,
            [
                request("a", MONDAY),
                tokens("a", later, turn="msg_2", input_tokens=2),
                tokens("a", late, turn="msg_1", input_tokens=1),
                thought("a", later, turn="msg_2", content="second"),
                call("a", late, "toolu_1", "search", turn="msg_1"),
                thought("a", late, turn="msg_1", content="first"),
            ],
        )

        with reading(empty) as records:
            (shown,) = records.show(uid("a"))
        told = [(fact.provider_response_id, fact.kind) for fact in shown.facts]
        assert told == [
            ("msg_1", "thought"),
            ("msg_1", "tool_call"),
            ("msg_1", "token_usage"),
            ("msg_2", "thought"),
            ("msg_2", "token_usage"),
        ]

    def test_takes_the_beginning_of_an_id(self, records: Records) -> None:
        assert [shown.interception["id"] for shown in records.show("bbc")] == ["bbcc0000-0000-7000-8000-000000000001"]
        assert len(records.show("ada")) == 2

    def test_asks_for_more_where_the_beginning_is_that_of_several(self, records: Records) -> None:
        rest = "0000-0000-7000-8000-00000000000"
        found = f"bbbb{rest}1, bbbb{rest}2, bbcc{rest}1"
        with pytest.raises(ReportError, match=f"'bb' is the beginning of more than one id; .*: {found}"):
            records.show("bb")

    @pytest.mark.parametrize("wanted", ["zzzz", "%", "*", "' OR 1=1 --"])
    def test_says_so_where_there_is_none(self, records: Records, wanted: str) -> None:
        with pytest.raises(ReportError, match="no interception or session"):
            records.show(wanted)


class TestUsage:
    def test_by_user_is_the_greatest_first(self, records: Records) -> None:
        ben, ada = records.usage("user").rows

        assert (ben.key, ben.interceptions, ben.failed, ben.cancelled) == ("ben", 3, 1, 1)
        assert (ben.input_tokens, ben.cache_hit_share) == (1000, 0.0)
        assert (ada.key, ada.interceptions, ada.input_tokens, ada.output_tokens) == ("ada", 2, 30, 12)
        assert ada.cache_hit_share == 0.45, "90 of 200 tokens of input were read from the cache"

    def test_has_a_total(self, records: Records) -> None:
        total = records.usage("user").total

        assert (total.key, total.interceptions, total.failed, total.cancelled) == (None, 5, 1, 1)
        assert (total.input_tokens, total.output_tokens, total.cache_hit_share) == (1030, 13, 0.075)

    @pytest.mark.parametrize(
        ("by", "keys"),
        [
            ("model", ["gpt-5", "claude-opus-4-5"]),
            ("client", ["LiteLLM", "Claude Code"]),
            ("day", ["2026-03-02", "2026-03-03"]),
            ("provider", ["anthropic"]),
            (
                "session",
                ["bbbb0000-0000-7000-8000-000000000001", "ada-session", "bbcc0000-0000-7000-8000-000000000001"],
            ),
        ],
    )
    def test_can_be_summed_up_otherwise(self, records: Records, by: Any, keys: list[str]) -> None:
        usage = records.usage(by)

        assert [row.key for row in usage.rows] == keys
        assert usage.total.interceptions == 5, "the same, however it is divided"

    def test_can_be_that_of_a_span_of_time(self, records: Records) -> None:
        assert [row.key for row in records.usage("user", until=TUESDAY).rows] == ["ada"]
        assert [row.key for row in records.usage("user", since=TUESDAY).rows] == ["ben"]

    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(span=st.tuples(*[st.integers(0, 3 * 86400)] * 2), by=st.sampled_from(["user", "model", "day"]))
    def test_of_a_span_is_that_of_its_records(self, records: Records, span: tuple[int, int], by: By) -> None:
        """Sessions are always summed up from the records, all else from sums by the hour and day where it can be."""
        since, until = (MONDAY - timedelta(hours=10) + timedelta(seconds=each) for each in sorted(span))
        summed, counted = (
            records.usage(by, since=since, until=until),
            records.usage("session", since=since, until=until),
        )
        assert summed.total == counted.total

    def test_of_nothing_is_nothing(self, records: Records) -> None:
        usage = records.usage("user", until=MONDAY)

        assert usage.rows == []
        assert (usage.total.interceptions, usage.total.cache_hit_share) == (0, None)

    def test_has_keys_that_scripts_can_rely_on(self, records: Records) -> None:
        (total,) = [msgspec.to_builtins(records.usage("user"))["total"]]

        assert set(total) == {
            "key",
            "interceptions",
            "failed",
            "cancelled",
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_write_input_tokens",
            "cache_hit_share",
        }


class TestTheDatabase:
    def test_can_be_read_while_it_is_written(self, database: str) -> None:
        writer = store_for(database)
        with reading(database) as records:
            before = len(records.sessions())
            writer.store([request("new", TUESDAY + timedelta(days=1))])
            assert len(records.sessions()) == before, "a report is of one moment"
        with reading(database) as records:
            assert len(records.sessions()) == before + 1
        writer.close()

    def test_is_never_written_to(self, database: str) -> None:
        with (
            pytest.raises(ReportError, match=r"readonly|read-only"),
            reading(database) as records,
        ):
            records._rows("DELETE FROM aibridge_interceptions RETURNING id", {})

    def test_that_is_missing_is_named_and_not_made(self, tmp_path: Path) -> None:
        missing = tmp_path / "nowhere.db"

        with (
            pytest.raises(ReportError, match=r"there is no database .*nowhere\.db: start `aibridge serve`"),
            reading(f"sqlite:///{missing}"),
        ):
            pass
        assert not missing.exists()

    def test_of_something_else_is_told(self, tmp_path: Path) -> None:
        other = tmp_path / "what? 100% other#.db"
        sqlite3.connect(other).execute("CREATE TABLE t (x)").connection.close()

        with (
            pytest.raises(ReportError, match="no such table: aibridge_interceptions"),
            reading(f"sqlite:///{other}") as records,
        ):
            records.sessions()

    def test_that_is_none_is_told(self, tmp_path: Path) -> None:
        text = tmp_path / "notes.txt"
        text.write_text("not a database, but long enough to be looked at as if it were one " * 20)

        with pytest.raises(ReportError, match="file is not a database"), reading(f"sqlite:///{text}") as records:
            records.sessions()
