"""docs/metrics.md names each metric, and no other."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from aibridge.observe.metrics import MOST_VALUES, Metrics
from aibridge.server.vitals import EVERY

from .pages import code, page, rows


def test_every_metric_is_there() -> None:
    metrics = [it for it in vars(Metrics(CollectorRegistry())).values() if isinstance(it, MetricWrapperBase)]
    there = {
        (metric._name + ("_total" if metric._type == "counter" else ""), metric._type, tuple(metric._labelnames))
        for metric in metrics
    }
    told = {(code(name)[0], kind, tuple(code(labels))) for name, kind, labels, _ in rows(page("metrics.md"))}
    assert told == there


def test_how_old_the_figures_of_other_workers_are() -> None:
    assert EVERY == 1
    assert "within the last second" in page("metrics.md")


def test_how_many_values_a_label_has() -> None:
    assert f"at most {MOST_VALUES} values" in page("metrics.md")
