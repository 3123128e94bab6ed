"""Metrics that no client can make grow without bound, through the bridge and by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aibridge.observe.metrics import OTHER, Labels, Metrics
from aibridge.observe.scrape import MULTIPROCESS_DIR, scrape
from support.client import ask
from support.dialects import Dialect
from support.provider import Provider, document
from support.recorder import ListRecorder
from support.serving import bridged


def test_values_beyond_the_cap_read_other() -> None:
    label = Labels(most=2)
    assert [label(value) for value in ("a", "b", "c", "a", "b")] == ["a", "b", OTHER, "a", "b"]


def test_a_value_that_is_too_long_reads_other() -> None:
    label = Labels()
    assert label("x" * 201) == OTHER
    assert label("x" * 200) == "x" * 200


async def test_models_that_clients_make_up_do_not_fill_the_memory(
    dialect: Dialect, provider: Provider, registry: CollectorRegistry
) -> None:
    provider.says(document(dialect.document))
    metrics = Metrics(registry, most_values=3)
    async with bridged(provider.url, ListRecorder(), metrics=metrics) as url:
        for number in range(8):
            await ask(url + dialect.path, dialect.request(stream=False, model=f"made-up-{number}"))
    models = {
        sample.labels["model"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "interceptions_total"
    }
    assert models == {"made-up-0": 1, "made-up-1": 1, "made-up-2": 1, OTHER: 5}


async def test_an_exchange_is_counted_once(dialect: Dialect, provider: Provider, registry: CollectorRegistry) -> None:
    provider.says(document(dialect.document))
    async with bridged(provider.url, ListRecorder(), metrics=Metrics(registry, namespace="tide")) as url:
        await ask(url + dialect.path, dialect.request(stream=False))
    of = {"provider": dialect.path.split("/")[1], "model": dialect.asking["model"]}
    route = {"route": dialect.path[dialect.path.index("/", 1) :]}
    who = {"initiator_id": "ada", "client": "Unknown"}
    value = registry.get_sample_value
    assert value("tide_interceptions_total", of | route | who | {"status": "completed", "method": "POST"}) == 1
    assert value("tide_interceptions_inflight", of | route) == 0
    assert value("tide_interceptions_duration_seconds_count", of) == 1
    assert value("tide_prompts_total", of | who) == 1
    assert value("tide_non_injected_tool_selections_total", of | {"name": "read_tides"}) == 1
    names = ("input", "output", "cache_read_input_tokens", "cache_write_input_tokens")
    counted = [value("tide_tokens_total", of | who | {"type": name}) or 0 for name in names]
    assert counted == [*dialect.tokens]
    assert value("tide_overhead_seconds_count", {"provider": of["provider"]}) == 1
    assert value("tide_added_first_byte_seconds_count", {"provider": of["provider"]}) == 1


def test_the_library_puts_no_prefix_before_names(registry: CollectorRegistry) -> None:
    Metrics(registry)
    assert b"# TYPE interceptions_total counter" in generate_latest(registry)


def test_one_process_scrapes_its_own(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)
    Metrics(registry).unrecorded.inc(3)
    assert b"unrecorded_total 3.0" in scrape(registry)


_WORKER = """
from prometheus_client import CollectorRegistry
from aibridge.observe.metrics import Metrics
from aibridge.observe.scrape import scrape
registry = CollectorRegistry()
metrics = Metrics(registry)
metrics.unrecorded.inc(2)
metrics.inflight.labels("p", "m", "/r").inc()
print(scrape(registry).decode())
"""


def test_a_worker_that_just_begins_to_share_its_metrics_disturbs_nobody(tmp_path: Path) -> None:
    """Its file is empty at first."""
    (tmp_path / "counter_1.db").touch()
    command = [sys.executable, "-c", _WORKER]
    environment = os.environ | {MULTIPROCESS_DIR: str(tmp_path)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "unrecorded_total 2.0" in told


def test_of_workers_the_sum_is_shown_and_the_dead_have_nothing_in_flight(tmp_path: Path) -> None:
    environment = os.environ | {MULTIPROCESS_DIR: str(tmp_path)}
    for workers in (1, 2, 3):
        command = [sys.executable, "-c", _WORKER]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert f"unrecorded_total {2.0 * workers}" in told
        assert 'interceptions_inflight{model="m",provider="p",route="/r"} 1.0' in told
