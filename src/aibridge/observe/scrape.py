"""What `/metrics` answers: this process's metrics, or the sum over all workers."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which `prometheus_client` learns where workers share their metrics, when it is first imported."""


def scrape(registry: CollectorRegistry) -> bytes:
    """The metrics in Prometheus' text format: of `registry`, or, among several workers, of all of them."""
    directory = os.environ.get(MULTIPROCESS_DIR)
    if not directory:
        return generate_latest(registry)
    _forget_the_dead(Path(directory))
    summed = CollectorRegistry()
    MultiProcessCollector(summed, directory)  # type: ignore[no-untyped-call]
    return generate_latest(summed)


def _forget_the_dead(directory: Path) -> None:
    """What a killed worker had in flight is in flight no more."""
    for gauge in directory.glob("gauge_live*_*.db"):
        pid = int(gauge.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
