"""How long lists and sums take with many interceptions in PostgreSQL: from the sums by hour and day, and without them.

Run it with `python -m bench.reading`; it brings a server, and fills it first, which takes minutes. With
`--database URL` it uses that database, and fills it where it is empty.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from aibridge.recording.postgres.connection import connect
from aibridge.recording.postgres.partitions import Partitions
from aibridge.recording.postgres.store import TABLES, PostgresStore, row_of
from aibridge.recording.postgres.sums import rebuild
from aibridge.records import Interception, InterceptionEnded
from aibridge.server.report_sources import source_of
from aibridge.server.reports import reading
from aibridge.server.spans import Piece
from bench.database import database
from bench.exchanges import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from aibridge.server.reports import Records

WEEKS = 13
BATCH = 20_000
TIMES = 7
"""How often each question is asked; the median counts."""


async def fill(url: str, interceptions: int) -> None:
    """Copy so many interceptions of the past quarter of a year into the tables, with all that belongs to them.

    They are as the store would have made them, linked and ended, but in a tenth of the time; sums are made at the end.
    """
    began_at = datetime.now(UTC) - timedelta(weeks=WEEKS)
    exchanges = Fleet(3, began_at).exchanges(timedelta(weeks=WEEKS) / interceptions)
    partitions = Partitions()
    connection = await connect(url)
    began, copied = time.perf_counter(), 0
    while copied < interceptions:
        batch = list(islice(exchanges, min(BATCH, interceptions - copied)))
        tables: defaultdict[type[Any], list[Any]] = defaultdict(list)
        for exchange in batch:
            *records, end = exchange.records
            for record in records:
                tables[type(record)].append(record)
            assert isinstance(end, InterceptionEnded)
            tables[InterceptionEnded].append((end, exchange))
        await partitions.provide(connection, [record.id for record in tables[Interception]])
        ends = tables.pop(InterceptionEnded)
        for kind, records in tables.items():
            rows: list[tuple[object, ...]] = [row_of(record) for record in records]
            columns = kind.__struct_fields__
            if kind is Interception:
                columns = (*columns, "ended_at", "status", "http_status", "thread_parent_id", "thread_root_id")
                rows = [
                    (
                        *row,
                        end.ended_at,
                        end.status,
                        end.http_status,
                        exchange.thread_parent_id,
                        exchange.thread_root_id,
                    )
                    for row, (end, exchange) in zip(rows, ends, strict=True)
                ]
            await connection.copy_records_to_table(TABLES[kind], records=rows, columns=columns)
        copied += len(batch)
    async with connection.transaction():
        await rebuild(connection)
    await connection.execute("VACUUM ANALYZE", timeout=3600)
    await connection.close()
    print(f"{interceptions:,} interceptions made in {time.perf_counter() - began:.0f} s", flush=True)


def ask(question: Callable[[], object], *, times: int = TIMES) -> float:
    """How long it takes to answer, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        question()
        took.append((time.perf_counter() - began) * 1e3)
    return median(took)


def from_the_records(since: datetime, until: datetime) -> list[Piece]:
    """A span as if there were no sums."""
    return [Piece("records", since, until)]


_SESSIONS_FROM_ALL = """
SELECT {session} AS session, initiator_id, max(coalesce(ended_at, started_at)) AS last_at
FROM aibridge_interceptions GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20
"""
"""What a list of sessions would ask that looks at all interceptions."""


def measure(url: str) -> None:
    """Ask what people ask, and print how long it takes."""
    month = datetime.now(UTC) - timedelta(days=30, hours=2, minutes=20)
    with source_of(url) as source, reading(url) as records:
        (someone, *_) = records.sessions()
        questions: dict[str, Callable[[Records], object]] = {
            "usage by user, all time": lambda records: records.usage("user"),
            "usage by model, all time": lambda records: records.usage("model"),
            "usage by day, all time": lambda records: records.usage("day"),
            "usage by client, the last 30 days": lambda records: records.usage("client", since=month),
        }
        print(f"{'':40}{'from the records, ms':>22}{'with sums, ms':>16}")
        for name, question in questions.items():
            with patch("aibridge.server.reports.divided", from_the_records):
                before = ask(partial(question, records), times=1)
            after = ask(partial(question, records))
            print(f"{name:40}{before:>22,.0f}{after:>16,.0f}", flush=True)
        query = _SESSIONS_FROM_ALL.replace("{session}", source.words["session"])
        before = ask(lambda: source.rows(query, {}), times=1)
        print(f"{'the 20 latest sessions':40}{before:>22,.0f}{ask(records.sessions):>16,.0f}")
        after = ask(lambda: records.sessions(user=someone.initiator_id))
        print(f"{'the 20 latest sessions of a user':40}{'':>22}{after:>16,.0f}")
        after = ask(lambda: records.show(someone.session))
        print(f"{f'all of a session of {someone.interceptions}':40}{'':>22}{after:>16,.0f}")


def main() -> None:
    """Fill and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", metavar="URL")
    parser.add_argument("--interceptions", type=int, default=2_000_000)
    options = parser.parse_args()
    with database(options.database) as url:
        PostgresStore(url).close()
        with reading(url) as records:
            empty = not records.sessions(limit=1)
        if empty:
            asyncio.run(fill(url, options.interceptions))
        measure(url)


if __name__ == "__main__":
    main()
