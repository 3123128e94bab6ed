"""What `/metrics` answers: this process's metrics, or the sum over all workers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which `prometheus_client` learns where workers share their metrics, when it is first imported."""


def scrape(registry: CollectorRegistry) -> bytes:
    """The metrics in Prometheus' text format: of `registry`, or, among several workers, of all of them."""
    directory = os.environ.get(MULTIPROCESS_DIR)
    if not directory:
        return generate_latest(registry)
    workers = Workers(Path(directory))
    workers.forget_the_dead()
    summed = CollectorRegistry()
    summed.register(workers)
    return generate_latest(summed)


class Workers:
    """Collects the metrics of all workers from the folder where they share them, while they come and go."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """The sum over the workers, but for those that have only just made their file: it is empty for a moment."""
        files = [str(file) for file in self._directory.glob("*.db") if _size(file)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged

    def forget_the_dead(self) -> None:
        """What a killed worker had in flight is in flight no more."""
        for gauge in self._directory.glob("gauge_live*_*.db"):
            pid = int(gauge.stem.rpartition("_")[2])
            if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
                with suppress(FileNotFoundError):  # another worker forgets it too
                    mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]


def _size(file: Path) -> int:
    """In bytes; 0 if it is there no more."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
