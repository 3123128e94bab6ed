"""A PostgreSQL server that is stopped, and connections that are cut, while records come in: none is lost or twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles

import asyncpg
import pytest

from aibridge.recording.ledger import Ledger
from aibridge.recording.postgres.store import PostgresStore
from aibridge.records import Interception, InterceptionEnded, ModelThought, Record, TokenUsage, new_id
from support.postgres import PostgreSQL, rows_of

from . import samples
from .samples import end_of, files, interception, tokens


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """A server of the test's own, for it is stopped."""
    server = PostgreSQL()
    yield server
    server.close()


def exchange() -> tuple[Interception, TokenUsage, InterceptionEnded]:
    """What is recorded of an exchange: something at its beginning, and the rest at its end."""
    begun = interception(new_id())
    return begun, tokens(begun.id, id=new_id()), end_of(begun.id)


class Load:
    """Records exchanges at a steady rate, and measures how long each call of the recorder takes."""

    def __init__(self, ledger: Ledger, rate: float) -> None:
        self._ledger, self._rate = ledger, rate
        self.taken: list[str] = []
        """The ids of token usages, in their order."""
        self.took: list[float] = []
        """Seconds of each call since `measure_anew`."""

    async def run(self) -> None:
        began = time.perf_counter()
        while True:
            begun, used, end = exchange()
            batches: list[list[Record]] = [[begun], [used, end]]
            for records in batches:
                asked = time.perf_counter()
                await self._ledger.record_all(records)
                self.took.append(time.perf_counter() - asked)
            self.taken.append(used.id)
            await asyncio.sleep(max(0.0, began + len(self.taken) / self._rate - time.perf_counter()))

    def measure_anew(self) -> str:
        """What the calls took since the last time, as figures."""
        told = (
            f"{median(self.took) * 1e6:.0f} us median, {quantiles(self.took, n=100)[-1] * 1e6:.0f} us 99th percentile"
        )
        self.took = []
        return told


async def test_a_server_that_is_stopped_is_waited_for_and_requests_are_not_slowed(
    server: PostgreSQL, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """Ten minutes of an outage in a hundredth of the time, under load, with a crash at its beginning."""
    url = await asyncio.to_thread(server.new_database)
    ledger = Ledger(tmp_path / "journal", PostgresStore(url))
    await ledger.start()
    load = Load(ledger, 300)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(2)
    with_server, before = median(load.took), load.measure_anew()

    await asyncio.to_thread(server.stop, at_once=True)
    await asyncio.sleep(6)
    without_server, during = median(load.took), load.measure_anew()
    assert ledger.problem is not None
    assert "can not be reached" in ledger.problem
    assert "hunter" not in ledger.problem
    assert ledger.can_record
    waiting = ledger.lag
    await asyncio.to_thread(server.start)
    await asyncio.sleep(2)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await ledger.aclose(60)

    # In the order in which they lie in the table: nothing of it was ever changed.
    stored = [each for (each,) in rows_of(url, "SELECT id FROM aibridge_token_usages ORDER BY tableoid, ctid")]
    assert stored[: len(load.taken)] == load.taken
    assert len(stored) - len(load.taken) <= 1, "an exchange of which no end was awaited"
    ended = "SELECT count(*) FROM aibridge_interceptions WHERE status = 'completed'"
    assert rows_of(url, ended) == [(len(stored),)]
    assert files(tmp_path / "journal") == []
    assert without_server < 5 * with_server + 0.001
    figures(f"{len(load.taken):,} exchanges, {waiting:,} bytes waited; 0 lost, 0 twice, all in order")
    figures(f"a call of the recorder with the server: {before}; without it: {during}")


async def test_connections_cut_in_the_middle_of_a_copy(
    postgresql: PostgreSQL, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    url = await asyncio.to_thread(postgresql.new_database)
    ledger = Ledger(tmp_path / "journal", PostgresStore(url))
    await ledger.start()
    cut: list[int] = []
    enough = threading.Event()

    async def cut_copies() -> None:
        connection = await asyncpg.connect(url)
        query = """
            SELECT pg_terminate_backend(pid), bytes_processed FROM pg_stat_progress_copy
            WHERE datname = current_database() AND bytes_processed > 0
        """
        while len(cut) < 5 and not enough.is_set():
            cut.extend(row[1] for row in await connection.fetch(query))
        await connection.close()

    cutting = threading.Thread(target=lambda: asyncio.run(cut_copies()))
    cutting.start()
    taken: list[str] = []
    for _ in range(400):
        begun, used, end = exchange()
        thought = ModelThought(
            id=new_id(),
            interception_id=begun.id,
            provider_response_id=None,
            content="x" * 100_000,
            created_at=samples.NOON,
        )
        await ledger.record_all([begun])
        await ledger.record_all([used, thought, end])
        taken.append(thought.id)
        await asyncio.sleep(0.005)
    await asyncio.to_thread(samples.until, lambda: not ledger.lag, 60)
    enough.set()
    cutting.join()
    await ledger.aclose(60)

    assert cut, "no connection was cut within a copy"
    assert sorted(each for (each,) in rows_of(url, "SELECT id FROM aibridge_model_thoughts")) == sorted(taken)
    for table in ("interceptions", "token_usages"):
        assert rows_of(url, f"SELECT count(*) FROM aibridge_{table}") == [(400,)]
    assert rows_of(url, "SELECT sum(interceptions), sum(turns) FROM aibridge_hourly_usage") == [(400, 400)]
    figures(f"{len(cut)} connections cut after {min(cut):,} to {max(cut):,} bytes of a copy; 0 lost, 0 twice")
