"""What was recorded, against the provider's own report: equal, drifting, and what is nobody's drift."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from openai.types.admin.organization import UsageCompletionsResponse

from aibridge.recording.stores import store_for
from aibridge.records import Interception, Record, TokenUsage
from aibridge.server.cli import main
from support.postgres import PostgreSQL

FIRST = datetime(2026, 3, 2, tzinfo=UTC)


def uid(number: int) -> str:
    return f"019caaaa-0000-7000-8000-{number:012x}"


def exchange(
    number: int,
    at: datetime,
    model: str,
    counts: tuple[int, int, int, int],
    *,
    provider: str = "anthropic",
    name: str = "anthropic",
    own_key: bool = False,
) -> list[Record]:
    interception = Interception(
        id=uid(number),
        initiator_id="ada",
        provider=provider,
        provider_name=name,
        model=model,
        started_at=at,
        route="/v1/messages",
        streaming=True,
        client="Claude Code",
        credential_kind="byok" if own_key else "centralized",
    )
    usage = TokenUsage(
        id=uid(number + 1000),
        interception_id=interception.id,
        provider_response_id="msg_1",
        input_tokens=counts[0],
        output_tokens=counts[1],
        cache_read_input_tokens=counts[2],
        cache_write_input_tokens=counts[3],
        created_at=at + timedelta(minutes=30),
    )
    return [interception, usage]


def two_days() -> list[Record]:
    """On Monday two requests, one by an alias; on Tuesday another, begun on Monday night; and others' usage."""
    hour = timedelta(hours=1)
    return [
        *exchange(1, FIRST + hour, "claude-sonnet-4-5", (10, 20, 300, 40)),
        *exchange(2, FIRST + 2 * hour, "claude-sonnet-4-5-20250929", (1, 2, 3, 4)),
        *exchange(3, FIRST + 23.75 * hour, "claude-sonnet-4-5", (5, 5, 0, 0), name="anthropic-eu"),
        *exchange(4, FIRST + hour, "claude-sonnet-4-5", (7000, 7000, 7000, 7000), own_key=True),
        *exchange(5, FIRST - 2 * hour, "claude-sonnet-4-5", (9000, 9000, 9000, 9000)),
        *exchange(6, FIRST + hour, "gpt-5", (700, 50, 300, 0), provider="openai", name="openai"),
        *exchange(7, FIRST + hour, "gpt-5-2025-08-07", (1, 1, 0, 0), provider="openai", name="openai"),
    ]


def anthropic(*days: list[dict[str, Any]]) -> dict[str, Any]:
    """A page as the usage report's endpoint answers it."""
    return {
        "data": [
            {
                "starting_at": f"{FIRST + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}",
                "ending_at": f"{FIRST + timedelta(days=day + 1):%Y-%m-%dT%H:%M:%SZ}",
                "results": results,
            }
            for day, results in enumerate(days)
        ],
        "has_more": False,
        "next_page": None,
    }


def anthropic_result(
    counts: tuple[int, int, int, int], model: str | None = "claude-sonnet-4-5-20250929"
) -> dict[str, Any]:
    return {
        "uncached_input_tokens": counts[0],
        "output_tokens": counts[1],
        "cache_read_input_tokens": counts[2],
        "cache_creation": {
            "ephemeral_1h_input_tokens": counts[3] // 2,
            "ephemeral_5m_input_tokens": -(-counts[3] // 2),
        },
        "server_tool_use": {"web_search_requests": 0},
        "api_key_id": None,
        "workspace_id": None,
        "service_tier": None,
        "context_window": None,
        "model": model,
    }


def openai(counts: tuple[int, int, int, int], model: str | None = "gpt-5-2025-08-07") -> dict[str, Any]:
    """A page as the usage endpoint answers it; the SDK's own type agrees that it is one."""
    page = {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": int(FIRST.timestamp()),
                "end_time": int((FIRST + timedelta(days=1)).timestamp()),
                "results": [
                    {
                        "object": "organization.usage.completions.result",
                        "input_tokens": counts[0] + counts[2] + counts[3],
                        "input_cached_tokens": counts[2],
                        "input_cache_write_tokens": counts[3],
                        "output_tokens": counts[1],
                        "num_model_requests": 2,
                        "model": model,
                    }
                ],
            }
        ],
        "has_more": False,
        "next_page": None,
    }
    UsageCompletionsResponse.model_validate(page, strict=True)
    return page


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/records.db"
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        url = server.new_database()
    with closing(store_for(url)) as store:
        store.store(two_days())
    return url


only_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def reconcile(url: str, tmp_path: Path) -> Callable[..., Result]:
    def run(provider: str, *pages: Any, options: tuple[str, ...] = ()) -> Result:
        arguments = ["reconcile", "--provider", provider, *options]
        for number, page in enumerate(pages):
            file = tmp_path / f"{number}.json"
            file.write_text(page if isinstance(page, str) else json.dumps(page))
            arguments += ["--file", str(file)]
        return CliRunner().invoke(main, arguments, env={"AIBRIDGE_STORAGE_URL": url}, catch_exceptions=False)

    return run


MONDAY, TUESDAY = (11, 22, 303, 44), (5, 5, 0, 0)


def test_both_sides_agree(reconcile: Callable[..., Result]) -> None:
    told = reconcile("anthropic", anthropic([anthropic_result(MONDAY)], [anthropic_result(TUESDAY)]))
    assert told.exit_code == 0, told.output
    heading, *lines, last = told.output.splitlines()
    assert heading.split() == ["day", "model", "tokens", "recorded", "anthropic", "drift", "%"]
    assert lines[0].split() == ["2026-03-02", "claude-sonnet-4-5", "input", "11", "11", "0", "0.00"]
    assert lines[-1].split() == ["2026-03-03", "claude-sonnet-4-5", "output", "5", "5", "0", "0.00"]
    assert last == "2026-03-02 00:00 to 2026-03-04 00:00 UTC: 0 of 6 counts drift by more than 0 %."
    assert reconcile("openai", openai((701, 51, 300, 0))).exit_code == 0


def test_drift_is_told_and_ends_with_1(reconcile: Callable[..., Result]) -> None:
    page = anthropic([anthropic_result((10, 22, 303, 50))])
    told = reconcile("anthropic", page, options=("--json",))
    assert told.exit_code == 1
    found = json.loads(told.output)
    assert (found["beyond"], len(found["rows"])) == (2, 4)
    assert found["rows"][0] == {
        "day": "2026-03-02",
        "model": "claude-sonnet-4-5",
        "count": "input_tokens",
        "ours": 11,
        "theirs": 10,
        "drift": 1,
        "share": 10.0,
    }
    assert (found["rows"][3]["count"], found["rows"][3]["drift"]) == ("cache_write_input_tokens", -6)
    assert reconcile("anthropic", page, options=("--tolerance", "11%")).exit_code == 1
    assert reconcile("anthropic", page, options=("--tolerance", "12")).exit_code == 0


def test_what_only_one_side_has_is_drift(reconcile: Callable[..., Result]) -> None:
    told = reconcile("anthropic", anthropic([anthropic_result((1, 0, 0, 0), "claude-opus-4-5")]), options=("--json",))
    rows = {(row["model"], row["count"]): row for row in json.loads(told.output)["rows"]}
    assert (rows["claude-opus-4-5", "input_tokens"]["ours"], told.exit_code) == (0, 1)
    assert rows["claude-sonnet-4-5", "input_tokens"]["share"] == 100.0


def test_whose_usage_is_compared(reconcile: Callable[..., Result]) -> None:
    with_others = (7011, 7022, 7303, 7044)
    assert reconcile("anthropic", anthropic([anthropic_result(with_others)]), options=("--byok",)).exit_code == 0
    eu = anthropic([], [anthropic_result(TUESDAY)])
    assert reconcile("anthropic", eu, options=("--name", "anthropic-eu")).exit_code == 0
    assert reconcile("anthropic", eu).exit_code == 1


@only_sqlite
def test_a_report_may_come_in_pages(reconcile: Callable[..., Result]) -> None:
    first, second = anthropic([anthropic_result(MONDAY)]), anthropic([], [anthropic_result(TUESDAY)])
    second["data"] = second["data"][1:]
    assert reconcile("anthropic", first, second).exit_code == 0
    assert reconcile("anthropic", [first, second]).exit_code == 0
    assert reconcile("anthropic", f"{json.dumps(first)}\n{json.dumps(second)}\n").exit_code == 0


@only_sqlite
@pytest.mark.parametrize(
    ("provider", "page", "said"),
    [
        ("anthropic", anthropic([anthropic_result(MONDAY, None)]), "which models were used: ask for it with bucket"),
        ("openai", openai(MONDAY, None), "which models were used: ask for it with bucket_width=1d and group_by=model"),
        ("openai", anthropic([anthropic_result(MONDAY)]), "is not a usage report of openai (KeyError: 'start_time')"),
        ("anthropic", "no JSON", "is not a usage report of anthropic"),
        ("anthropic", anthropic(), "covers no day"),
        (
            "anthropic",
            {"data": [{"starting_at": "2026-03-02T01:00:00Z", "ending_at": "2026-03-02T02:00:00Z", "results": []}]},
            "is not a report by day (2026-03-02T01:00 UTC on)",
        ),
    ],
)
def test_what_is_no_such_report_is_refused(
    provider: str, page: Any, said: str, reconcile: Callable[..., Result]
) -> None:
    refused = reconcile(provider, page)
    assert refused.exit_code == 2
    assert said in refused.stderr


@only_sqlite
def test_a_file_that_is_not_there_is_named(url: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.json")
    refused = CliRunner().invoke(main, ["reconcile", "--provider", "openai", "--file", missing])
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"aibridge: {missing} can not be read: No such file or directory\n",
    )


@only_sqlite
def test_usage_of_no_model_at_all_is_none(reconcile: Callable[..., Result]) -> None:
    """Anthropic tells of code execution without a model, and without tokens."""
    page = anthropic([anthropic_result(MONDAY), anthropic_result((0, 0, 0, 0), None)])
    assert reconcile("anthropic", page).exit_code == 0
    assert reconcile("anthropic", page, options=("--tolerance", "much")).exit_code == 2
