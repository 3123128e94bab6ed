"""How fast records reach PostgreSQL: through the journal at a steady rate, and as fast as the store takes them.

Run it with `python -m bench.storing`; it brings a server. With `--database URL` it uses that one, an empty database.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path

from aibridge.recording.ledger import Ledger
from aibridge.recording.postgres.connection import connect
from aibridge.recording.postgres.partitions import Partitions, first_id, week_at
from aibridge.recording.postgres.store import PostgresStore
from bench.database import cpu_of_servers, database
from bench.exchanges import Fleet

BATCH = 2500
"""Records of one transaction, about what a mebibyte of journal holds."""
TICK = 0.05
"""Seconds between two bursts of the steady load."""


async def make_weeks(url: str, weeks: int) -> None:
    """Make the partitions of so many weeks before this one: every statement has to find its way among them."""
    PostgresStore(url).close()
    connection = await connect(url)
    this_week = week_at(datetime.now(UTC))
    ids = [f"{first_id(this_week - week)[:14]}7{first_id(0)[15:]}" for week in range(1, weeks + 1)]
    await Partitions().provide(connection, ids)
    await connection.close()


def as_fast_as_it_can(url: str, seconds: float) -> None:
    """Store one batch after another."""
    exchanges = (each.records for each in Fleet(1, datetime.now(UTC)).exchanges(timedelta(milliseconds=5)))
    store = PostgresStore(url)
    stored, spent, own, servers = 0, 0.0, 0.0, cpu_of_servers()
    while spent < seconds:
        records = list(islice(chain.from_iterable(exchanges), BATCH))
        began, cpu = time.perf_counter(), time.process_time()
        store.store(records)
        spent += time.perf_counter() - began
        own += time.process_time() - cpu
        stored += len(records)
    servers = cpu_of_servers() - servers
    store.close()
    print(f"as fast as it can: {stored / spent:,.0f} records a second over {spent:.0f} s,")
    print(f"  {own / stored * 1e6:.1f} us CPU a record in the store, {servers / stored * 1e6:.1f} in PostgreSQL")


async def steady(url: str, rate: int, seconds: float) -> None:
    """Record at a rate, exchange by exchange, with the journal and the thread that stores; nothing may pile up."""
    exchanges = Fleet(2, datetime.now(UTC)).exchanges(timedelta(milliseconds=1))
    made = [next(exchanges).records for _ in range(int(rate * seconds / 4.3))]
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
        ledger = Ledger(Path(folder), PostgresStore(url))
        await ledger.start()
        began, cpu, servers = time.perf_counter(), time.process_time(), cpu_of_servers()
        recorded, lags = 0, [0]
        longest = 0.0
        for exchange in made:
            due = began + recorded / rate
            if (early := due - time.perf_counter()) > TICK:
                await asyncio.sleep(early)
            asked = time.perf_counter()
            await ledger.record_all(exchange)
            longest = max(longest, time.perf_counter() - asked)
            recorded += len(exchange)
            lags.append(ledger.lag)
        took = time.perf_counter() - began
        left = ledger.lag
        cpu, servers = time.process_time() - cpu, cpu_of_servers() - servers
        caught_up = time.perf_counter()
        await ledger.aclose(120)
        caught_up = time.perf_counter() - caught_up
    middle = max(lags[len(lags) // 4 : len(lags) // 2])
    last = max(lags[3 * len(lags) // 4 :])
    print(f"steady: {recorded / took:,.0f} records a second over {took:.0f} s, {rate:,} wanted;")
    print(
        f"  most that waited in the journal: {middle / 2**20:.1f} MiB in the second quarter, {last / 2**20:.1f} MiB in"
    )
    print(f"  the last one; {left / 2**20:.1f} MiB at the end, stored {caught_up:.1f} s later;")
    print(f"  {cpu / recorded * 1e6:.1f} us CPU a record in the gateway's process, {servers / recorded * 1e6:.1f} in")
    print(f"  PostgreSQL; the longest call of the recorder took {longest * 1e3:.1f} ms")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", metavar="URL")
    parser.add_argument("--rate", type=int, default=10_000, help="records a second of the steady load")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--weeks", type=int, default=0, help="partitions of weeks that there are already")
    options = parser.parse_args()
    with database(options.database) as url:
        asyncio.run(make_weeks(url, options.weeks))
        as_fast_as_it_can(url, options.seconds / 4)
        asyncio.run(steady(url, options.rate, options.seconds))


if __name__ == "__main__":
    main()
