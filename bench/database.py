"""A PostgreSQL server to measure with: the one that the tests use, unless a database is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """The URL of an empty database, on a server of its own that syncs to the disk as one in production does."""
    if url is not None:
        yield url
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.postgres import PostgreSQL

    server = PostgreSQL("--fsync=on", "--shared_buffers=1GB", "--max_wal_size=8GB")
    try:
        yield server.new_database()
    finally:
        server.close()


def cpu_of_servers() -> float:
    """Seconds of CPU that PostgreSQL's processes on this machine have used so far, those that ended left out."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            _, _, told = stat.read_text().partition(" (postgres) ")
            ticks += sum(map(int, told.split()[11:13]))  # utime and stime, see proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")
