"""A gateway whose settings say how long records are kept removes the others, beside its other work."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aibridge.recording.sqlite import SQLiteStore
from aibridge.records import Interception, PromptUsage, least_id
from aibridge.server.gateway import Gateway
from aibridge.server.settings import Retention, Settings, Storage
from support.serving import serving
from support.waiting import until


def keep(database: Path, days_ago: float) -> None:
    time = datetime.now(UTC) - timedelta(days=days_ago)
    interception = Interception(
        id=least_id(time),
        initiator_id="ada",
        provider="anthropic",
        provider_name="anthropic",
        model="claude-sonnet-4-5",
        started_at=time,
        route="/v1/messages",
        streaming=True,
        client="Claude Code",
    )
    with closing(SQLiteStore(database)) as store:
        prompt = PromptUsage(id=least_id(time), interception_id=interception.id, prompt="When?", created_at=time)
        store.store([interception, prompt])


def counts(database: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(database)) as records:
        (interceptions,) = records.execute("SELECT count(*) FROM aibridge_interceptions").fetchone()
        (prompts,) = records.execute("SELECT count(*) FROM aibridge_user_prompts").fetchone()
    return interceptions, prompts


def settings(tmp_path: Path, retention: Retention) -> Settings:
    storage = Storage(url=f"sqlite:///{tmp_path}/aibridge.db", journal_dir=tmp_path / "journal")
    return Settings(storage=storage, retention=retention)


async def test_what_has_had_its_time_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge.server.retention.EVERY", 0.05)
    database = tmp_path / "aibridge.db"
    for days in (1, 45, 500):
        keep(database, days)
    day = 24 * 3600.0
    gateway = Gateway(settings(tmp_path, Retention(contents=30 * day, figures=400 * day)))
    with caplog.at_level(logging.INFO, "aibridge.server"):
        async with serving(gateway, lifespan=True):
            await until(lambda: counts(database) == (2, 1), "what is old is gone")
            await until(lambda: "3 rows had their time" in caplog.text, "it is told")
            keep(database, 450)
            await until(lambda: counts(database) == (2, 1), "it goes on")


async def test_nothing_goes_by_default(tmp_path: Path) -> None:
    keep(tmp_path / "aibridge.db", 10_000)
    async with serving(Gateway(settings(tmp_path, Retention())), lifespan=True):
        assert {task.get_coro().__qualname__ for task in asyncio.all_tasks()}.isdisjoint({"Retention.run"})  # type: ignore[union-attr]
    assert counts(tmp_path / "aibridge.db") == (1, 1)
