"""A gateway that records in PostgreSQL: how it starts, and how it does not."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from aibridge.recording.schema import migration
from support.client import ask
from support.dialects import MESSAGES
from support.postgres import PASSWORD, PostgreSQL
from support.process import ACTOR, Gateway, running
from support.provider import Provider, document
from support.waiting import until


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """A server of the test's own, for it is stopped."""
    server = PostgreSQL()
    yield server
    server.close()


def readiness(gateway: Gateway) -> str:
    """What `/readyz` says, as long as it says that the gateway is ready."""
    with urllib.request.urlopen(f"{gateway.url}/readyz", timeout=5) as answer:
        said: str = answer.read().decode()
        return said


async def test_several_workers_start_on_an_empty_database(
    provider: Provider, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    provider.says(document(MESSAGES.document))
    with running(tmp_path, provider.url, workers=3, STORAGE_URL=postgresql.new_database()) as gateway:
        for _ in range(6):
            answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(stream=False), ACTOR)
            assert (answer.status, answer.body) == (200, MESSAGES.document)
        completed = "SELECT count(*) FROM aibridge_interceptions WHERE status = 'completed'"
        await until(lambda: gateway.query(completed) == [(6,)], "all is stored")


async def test_a_gateway_starts_while_its_database_is_away(
    provider: Provider, tmp_path: Path, server: PostgreSQL
) -> None:
    url = await asyncio.to_thread(server.new_database)
    await asyncio.to_thread(server.stop)
    provider.says(document(MESSAGES.document))
    with running(tmp_path, provider.url, STORAGE_URL=url) as gateway:
        answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(stream=False), ACTOR)
        assert answer.status == 200
        await until(lambda: "can not be reached" in readiness(gateway), "the database is missed")
        warned = readiness(gateway)
        await asyncio.to_thread(server.start)
        stored = "SELECT status FROM aibridge_interceptions"
        there = "SELECT count(*) FROM pg_tables WHERE tablename = 'aibridge_interceptions'"
        await until(
            lambda: gateway.query(there) == [(1,)] and gateway.query(stored) == [("completed",)], "it is stored"
        )
        told = gateway.log.read_text() + warned
    assert "Records are stored again" in told
    assert PASSWORD not in told


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("password", "password authentication failed"),
        ("database", "does not exist"),
        ("schema", "run `aibridge db upgrade`"),
    ],
)
async def test_a_start_that_waiting_would_not_mend_ends_with_the_reason(
    fault: str, told: str, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    url = postgresql.new_database()
    if fault == "password":
        url = url.replace(PASSWORD, f"{PASSWORD}-of-yesterday")
    elif fault == "database":
        url = postgresql.url("missing")
    else:
        postgresql.run(migration("postgresql", None, "0001"), url=url)
    gateway = Gateway(tmp_path, "http://127.0.0.1:9", STORAGE_URL=url)
    with pytest.raises(AssertionError, match="the gateway ended"):
        gateway.start()
    log = gateway.log.read_text()
    assert told in log
    assert "Traceback" not in log
    assert PASSWORD not in log
