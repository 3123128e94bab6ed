"""What clients were not shown of their conversations, in PostgreSQL: found by every gateway of a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from aibridge.errors import RecordingError
from aibridge.recording.memory import LIFETIME, CachedTurnMemory
from aibridge.recording.postgres.connection import connect_settings, faults_told

_CONNECTIONS = 4
_TIMEOUT = 3.0
"""How long a request waits for the database, in seconds, before it goes on without what was hidden."""

_KEEP = """
INSERT INTO aibridge_remembered_turns (initiator_id, key, hidden, expires_at)
SELECT $1, key, $3, $4 FROM unnest($2::text[]) AS remembered (key)
ON CONFLICT (md5(initiator_id), md5(key)) DO UPDATE SET hidden = excluded.hidden, expires_at = excluded.expires_at
"""
_FORGET = "DELETE FROM aibridge_remembered_turns WHERE expires_at < $1"
_FIND = """
SELECT key, hidden FROM aibridge_remembered_turns
WHERE md5(initiator_id) = md5($1) AND md5(key) IN (SELECT md5(unnest($2::text[])))
    AND initiator_id = $1 AND expires_at >= $3
"""


class PostgresTurnMemory(CachedTurnMemory):
    """Turns in the PostgreSQL database of the records, on a few connections, which are made when they are needed."""

    _faults = (RecordingError,)

    def __init__(self, url: str, *, lifetime: float = LIFETIME) -> None:
        super().__init__(lifetime=lifetime)
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def _write(self, initiator_id: str, keys: Sequence[str], hidden: bytes) -> None:
        expires_at = datetime.now(UTC) + timedelta(seconds=self._lifetime)
        with faults_told(self._url):
            async with asyncio.timeout(_TIMEOUT), (await self._connections()).acquire() as connection:
                await connection.execute(_KEEP, initiator_id, sorted(set(keys)), hidden, expires_at)

    async def _forget(self) -> None:
        with faults_told(self._url):
            async with asyncio.timeout(_TIMEOUT), (await self._connections()).acquire() as connection:
                await connection.execute(_FORGET, datetime.now(UTC))

    async def _read(self, initiator_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        with faults_told(self._url):
            async with asyncio.timeout(_TIMEOUT), (await self._connections()).acquire() as connection:
                rows = await connection.fetch(_FIND, initiator_id, list(keys), datetime.now(UTC))
        return {row["key"]: row["hidden"] for row in rows}

    async def _connections(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._url, min_size=0, max_size=_CONNECTIONS, **connect_settings(statement_timeout=_TIMEOUT)
            )
        return self._pool
