"""Comparing what was recorded with what a provider itself says was used, by day and model.

Sources of the reports' formats:
Anthropic, `GET /v1/organizations/usage_report/messages`, and `GET /v1/organizations/analytics/usage`, which follows it:
https://platform.claude.com/docs/en/api/admin-api/usage-cost/get-messages-usage-report;
OpenAI, `GET /v1/organization/usage/completions`: https://platform.openai.com/docs/api-reference/usage/completions,
and `openai.types.admin.organization.UsageCompletionsResponse`.
All come in pages of buckets of time, whose results are to be grouped by model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from aibridge.server.report_sources import ReportError, Source

ProviderType: TypeAlias = Literal["anthropic", "openai"]

COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
"""What is compared, as `aibridge.records.TokenUsage` counts it."""

_REMEDIES = {
    "anthropic": "ask for it with bucket_width=1d and group_by[]=model",
    "openai": "ask for it with bucket_width=1d and group_by=model",
}
_LONGEST_EXCHANGE = timedelta(days=1)

# A provider reports the version that an alias stood for: `-20250929`, `-2024-08-06`; `-latest` is such an alias.
_VERSION = re.compile(r"-(?:[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}|latest)$")


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One count of a model on a day, from both sides."""

    day: str
    model: str
    """Without the date of its version."""
    count: str
    ours: int
    theirs: int
    drift: int
    """By how much ours is more."""
    share: float
    """Of theirs, in percent and without its sign; 100 where only ours is there."""


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared; `rows` are those with anything on either side."""

    provider: ProviderType
    since: datetime
    until: datetime
    tolerance: float
    rows: list[Drift]
    beyond: int
    """How many rows drift by more than the tolerance."""


Sums: TypeAlias = dict[tuple[str, str], list[int]]
"""`COUNTS`, by day and model."""


class Report(NamedTuple):
    """What a provider says."""

    sums: Sums
    days: frozenset[str]
    """The days that it covers, whether anything was used or not."""
    since: datetime
    until: datetime


def reconcile(
    source: Source,
    provider: ProviderType,
    report: Report,
    *,
    tolerance: float,
    byok: bool = False,
    provider_name: str | None = None,
) -> Reconciliation:
    """Compare, for the days of a report. `tolerance` is in percent.

    With `byok`, exchanges with clients' own keys count too; without, only those with the gateway's, for no report of
    one organization tells of others' keys. `provider_name` chooses among several providers of the type.
    """
    ours = _recorded(source, provider, report, byok=byok, provider_name=provider_name)
    rows = [
        _drift(day, model, count, mine, other)
        for day, model in sorted(ours.keys() | report.sums.keys())
        for count, mine, other in zip(
            COUNTS, ours.get((day, model), _NOTHING), report.sums.get((day, model), _NOTHING), strict=True
        )
        if mine or other
    ]
    return Reconciliation(
        provider=provider,
        since=report.since,
        until=report.until,
        tolerance=tolerance,
        rows=rows,
        beyond=sum(row.share > tolerance for row in rows),
    )


_NOTHING = [0] * len(COUNTS)


def _drift(day: str, model: str, count: str, ours: int, theirs: int) -> Drift:
    drift = ours - theirs
    share = abs(drift) / theirs * 100 if theirs else 100.0
    return Drift(day=day, model=model, count=count, ours=ours, theirs=theirs, drift=drift, share=round(share, 4))


def _recorded(source: Source, provider: str, report: Report, *, byok: bool, provider_name: str | None) -> Sums:
    """What was recorded of the span of time, by the time of each turn's end."""
    day = source.words["day"].format(time="created_at")
    sums = ", ".join(f"CAST(sum({count}) AS bigint) AS {count}" for count in COUNTS)
    conditions = "" if byok else "AND credential_kind = 'centralized'"
    conditions += "" if provider_name is None else " AND provider_name = :provider_name"
    query = f"""
        SELECT {day} AS day, model, {sums}
        FROM aibridge_interceptions AS interception
        JOIN aibridge_token_usages AS used ON used.interception_id = interception.id
        WHERE started_at >= :begun AND started_at < :until AND created_at >= :since AND created_at < :until
            AND provider = :provider {conditions}
        GROUP BY {day}, model
    """  # noqa: S608 - all that comes from elsewhere is a value
    values = {"begun": report.since - _LONGEST_EXCHANGE, "since": report.since, "until": report.until}
    named = {"provider_name": provider_name} if provider_name is not None else {}
    found: Sums = defaultdict(lambda: [0] * len(COUNTS))
    for row in source.rows(query, {**values, "provider": provider, **named}):
        if row["day"] in report.days:
            _add(found[row["day"], model_of(row["model"])], [row[count] for count in COUNTS])
    return dict(found)


def model_of(name: str) -> str:
    """A model's name without the date of its version."""
    return _VERSION.sub("", name)


def _add(sums: list[int], counts: Iterable[int]) -> None:
    sums[:] = [one + other for one, other in zip(sums, counts, strict=True)]


def read_report(provider: ProviderType, files: Iterable[Path]) -> Report:
    """A report from files, each with a page, a list of pages, or a page a line. Raises `ReportError`."""
    sums: Sums = defaultdict(lambda: [0] * len(COUNTS))
    spans: list[tuple[datetime, datetime]] = []
    for path in files:
        try:
            for page in _pages(path):
                for bucket in page["data"]:
                    since, until = _SPANS[provider](bucket)
                    _check_day(path, provider, since, until)
                    spans.append((since, until))
                    for result in bucket["results"]:
                        counts = _READ[provider](result)
                        if result.get("model"):
                            _add(sums[f"{since:%Y-%m-%d}", model_of(result["model"])], counts)
                        elif any(counts):
                            raise ReportError(f"{path} does not say which models were used: {_REMEDIES[provider]}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReportError(
                f"{path} is not a usage report of {provider} ({type(error).__name__}: {error}); it is what "
                f"{_ENDPOINTS[provider]} answers"
            ) from error
    if not spans:
        raise ReportError("the report covers no day")
    days = frozenset(f"{since:%Y-%m-%d}" for since, _ in spans)
    return Report(dict(sums), days, min(since for since, _ in spans), max(until for _, until in spans))


_ENDPOINTS = {
    "anthropic": "GET /v1/organizations/usage_report/messages",
    "openai": "GET /v1/organization/usage/completions",
}


def _pages(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path} can not be read: {error.strerror}") from error
    try:
        whole = msgspec.json.decode(content)
    except msgspec.DecodeError:
        whole = [msgspec.json.decode(line) for line in content.splitlines() if line.strip()]
    yield from whole if isinstance(whole, list) else [whole]


def _check_day(path: Path, provider: ProviderType, since: datetime, until: datetime) -> None:
    midnight = since.replace(hour=0, minute=0, second=0, microsecond=0)
    if since != midnight or until - since > timedelta(days=1):
        raise ReportError(f"{path} is not a report by day ({since:%Y-%m-%dT%H:%M} UTC on): {_REMEDIES[provider]}")


def _anthropic_span(bucket: dict[str, Any]) -> tuple[datetime, datetime]:
    since, until = (datetime.fromisoformat(bucket[name]).astimezone(UTC) for name in ("starting_at", "ending_at"))
    return since, until


def _openai_span(bucket: dict[str, Any]) -> tuple[datetime, datetime]:
    since, until = (datetime.fromtimestamp(bucket[name], UTC) for name in ("start_time", "end_time"))
    return since, until


_SPANS: dict[str, Callable[[dict[str, Any]], tuple[datetime, datetime]]] = {
    "anthropic": _anthropic_span,
    "openai": _openai_span,
}


def _anthropic_counts(result: dict[str, Any]) -> list[int]:
    written = sum((result.get("cache_creation") or {}).values())
    return [result["uncached_input_tokens"], result["output_tokens"], result["cache_read_input_tokens"], written]


def _openai_counts(result: dict[str, Any]) -> list[int]:
    """Their input includes what was read from the cache and what was written to it."""
    read, written = result.get("input_cached_tokens") or 0, result.get("input_cache_write_tokens") or 0
    return [result["input_tokens"] - read - written, result["output_tokens"], read, written]


_READ: dict[str, Callable[[dict[str, Any]], list[int]]] = {
    "anthropic": _anthropic_counts,
    "openai": _openai_counts,
}
