"""What clients were not shown is found by other gateways, on other machines too."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing

import pytest

from aibridge.recording.memory import memory_for
from aibridge.recording.postgres.store import PostgresStore
from support.postgres import PostgreSQL


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    """A database with its tables, as a gateway's store makes them."""
    url = postgresql.new_database()
    with closing(PostgresStore(url)):
        return url


async def test_a_turn_is_found_by_another_gateway(url: str) -> None:
    first, second = memory_for(url, lifetime=60), memory_for(url, lifetime=60)
    try:
        await first.remember("ada", ["call-1", "call-2"], b"hidden \x00 \xff")
        assert await second.recall("ada", ["call-2", "call-3"]) == {"call-2": b"hidden \x00 \xff"}
        assert await second.recall("ben", ["call-1"]) == {}
        await first.remember("ada", ["call-1"], b"another")
        assert await second.recall("ada", ["call-1"]) == {"call-1": b"another"}
    finally:
        await first.aclose()
        await second.aclose()


async def test_many_requests_at_once_share_a_few_connections(url: str, postgresql: PostgreSQL) -> None:
    writing, reading = memory_for(url, lifetime=60), memory_for(url, lifetime=60)
    try:
        await asyncio.gather(*(writing.remember("ada", [f"call-{number}"], b"%d" % number) for number in range(40)))
        found = await asyncio.gather(*(reading.recall("ada", [f"call-{number}"]) for number in range(40)))
        assert found == [{f"call-{number}": b"%d" % number} for number in range(40)]
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert postgresql.rows(query, url=url)[0][0] <= 8
    finally:
        await writing.aclose()
        await reading.aclose()


async def test_what_has_expired_is_not_found_and_goes_with_the_next_write(url: str, postgresql: PostgreSQL) -> None:
    expired, lasting = memory_for(url, lifetime=-1), memory_for(url, lifetime=60)
    try:
        await expired.remember("ada", ["call-1"], b"x")
        assert await lasting.recall("ada", ["call-1"]) == {}
        await lasting.remember("ada", ["call-2"], b"x")
        assert postgresql.rows("SELECT key FROM aibridge_remembered_turns", url=url) == [("call-2",)]
    finally:
        await expired.aclose()
        await lasting.aclose()


async def test_without_a_server_a_turn_is_remembered_by_its_own_process(caplog: pytest.LogCaptureFixture) -> None:
    server = PostgreSQL()
    url = server.url()
    server.close()
    memory = memory_for(url, lifetime=60)
    with caplog.at_level(logging.WARNING):
        await memory.remember("ada", ["call-1"], b"hidden")
        assert await memory.recall("ada", ["call-1", "call-2"]) == {"call-1": b"hidden"}
    assert "remembered by this process only" in caplog.text
    assert "hunter" not in caplog.text
    await memory.aclose()
