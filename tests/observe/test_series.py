"""Counts that are handed over when somebody looks: none is lost, and none is told twice."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aibridge.observe import metrics as there
from aibridge.observe.histogram import Histogram
from aibridge.observe.metrics import Metrics
from aibridge.observe.series import Series
from aibridge.wire.dialect import Usage

AT = {"provider": "anthropic", "model": "m"}
ROUTE = {"route": "/v1/messages"}
WHO = {"initiator_id": "ada", "client": "Unknown"}


def series_of(metrics: Metrics, provider: str = "anthropic", initiator: str = "ada") -> Series:
    return metrics.series(provider, "m", "/v1/messages", "POST", initiator, "Unknown")


def carry(series: Series) -> None:
    """Count what an exchange is."""
    series.begun(prompted=True)
    series.answered(0.0004)
    series.used(Usage(input=3, output=5))
    series.ended("completed", 1.5, 0.0007, begun=series)


def test_whoever_looks_sees_what_was_counted_until_then(registry: CollectorRegistry) -> None:
    series = series_of(Metrics(registry))
    value = registry.get_sample_value
    for number in (1, 2):
        series.begun(prompted=False)
        assert value("interceptions_inflight", AT | ROUTE) == 1
        series.used(Usage(input=3))
        series.used(Usage(input=4, extra={"reasoning_tokens": 2}))
        assert value("tokens_total", AT | WHO | {"type": "input"}) == 7 * number
        assert value("tokens_total", AT | WHO | {"type": "reasoning_tokens"}) == 2 * number
        series.ended("completed", 0.1, 0.1, begun=series)
        assert value("interceptions_inflight", AT | ROUTE) == 0
        assert value("interceptions_duration_seconds_sum", AT) == pytest.approx(0.1 * number)
    assert value("tokens_total", AT | WHO | {"type": "output"}) is None
    assert value("prompts_total", AT | WHO) is None


@pytest.mark.parametrize("made", [CollectorRegistry, lambda: CollectorRegistry(auto_describe=True)])
def test_a_look_at_single_metrics_sees_that_too(made: Callable[[], CollectorRegistry]) -> None:
    registry = made()
    carry(series_of(Metrics(registry)))
    shown = generate_latest(registry.restricted_registry(["prompts_total"])).decode()
    assert 'prompts_total{client="Unknown",initiator_id="ada",model="m",provider="anthropic"} 1.0' in shown
    assert "tokens" not in shown


def test_an_interception_that_left_its_provider_is_in_flight_nowhere(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    first, second = series_of(metrics), series_of(metrics, "second-house")
    first.begun(prompted=False)
    metrics.settle()
    second.ended("completed", 1, 1, begun=first)
    value = registry.get_sample_value
    assert value("interceptions_inflight", AT | ROUTE) == 0
    assert value("interceptions_inflight", AT | ROUTE | {"provider": "second-house"}) == 0
    ended = AT | ROUTE | WHO | {"provider": "second-house", "method": "POST", "status": "completed"}
    assert value("interceptions_total", ended) == 1


@pytest.mark.parametrize("claim", [-1, True, 1.5, "7", None, 10**400])
def test_what_a_provider_can_not_mean_is_no_count(claim: object, registry: CollectorRegistry) -> None:
    series_of(Metrics(registry)).used(Usage(input=1, extra={"odd_tokens": claim}))
    assert registry.get_sample_value("tokens_total", AT | WHO | {"type": "input"}) == 1
    assert registry.get_sample_value("tokens_total", AT | WHO | {"type": "odd_tokens"}) is None


def test_a_histogram_is_what_it_would_be_by_single_observations(registry: CollectorRegistry) -> None:
    bounds = (0.5, 2, 5)
    one_by_one = prometheus_client.Histogram("one", "One by one.", buckets=bounds, registry=registry)
    together = Histogram("many", "Many at once.", buckets=bounds, registry=registry)
    for values in ((0, 0.5, 0.500001, 2, 4), (), (5, 7, 1e9, 2)):
        for value in values:
            one_by_one.observe(value)
        together.observe_all(values)
    shown = [
        [(sample.name.partition("_")[2], sample.labels, sample.value) for sample in family.samples[:-1]]
        for metric in (one_by_one, together)
        for family in metric.collect()
    ]
    assert len(shown[0]) == len(bounds) + 3
    assert shown[0] == shown[1]


def test_series_that_are_kept_no_longer_have_lost_nothing(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(there, "MOST_SERIES", 2)
    metrics = Metrics(registry)
    early = series_of(metrics, initiator="0")
    early.begun(prompted=True)
    for number in range(1, 7):
        carry(series_of(metrics, initiator=str(number)))
    early.ended("completed", 1, 1, begun=early)
    prompts = [registry.get_sample_value("prompts_total", AT | WHO | {"initiator_id": str(n)}) for n in range(7)]
    assert prompts == [1] * 7
    assert registry.get_sample_value("interceptions_inflight", AT | ROUTE) == 0
    assert registry.get_sample_value("interceptions_duration_seconds_count", AT) == 7


def test_threads_that_look_take_nothing_from_one_that_counts(registry: CollectorRegistry) -> None:
    series, done = series_of(Metrics(registry)), Event()

    def look() -> None:
        while not done.is_set():
            generate_latest(registry)

    looking = [Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    for _ in range(3000):
        carry(series)
    done.set()
    for thread in looking:
        thread.join()
    value = registry.get_sample_value
    assert value("prompts_total", AT | WHO) == 3000
    assert value("tokens_total", AT | WHO | {"type": "output"}) == 15_000
    assert value("interceptions_inflight", AT | ROUTE) == 0
    assert value("overhead_seconds_count", {"provider": "anthropic"}) == 3000
