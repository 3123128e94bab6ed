"""A gateway whose processes are killed at random moments under load: whoever has a whole answer is recorded, once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.dialects import MESSAGES
from support.load import Load
from support.postgres import PostgreSQL
from support.process import Gateway, running
from support.provider import Provider, events
from support.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    server: PostgreSQL = await asyncio.to_thread(request.getfixturevalue, "postgresql")
    return server.new_database()


_COMPLETED = "SELECT id FROM aibridge_interceptions WHERE status = 'completed'"


async def _all_stored(gateway: Gateway, load: Load) -> str:
    """Each completed answer is recorded once, with its prompt and its tokens; none is twice. Returns the figures."""
    completed = set(load.completed)
    assert len(completed) == len(load.completed)
    await until(
        lambda: completed <= {name for (name,) in gateway.query(_COMPLETED)},
        "what was completed is stored",
        within=30,
    )
    for table in ("user_prompts", "token_usages", "tool_usages"):
        found = Counter(name for (name,) in gateway.query(f"SELECT interception_id FROM aibridge_{table}"))
        assert {each: found[each] for each in completed} == dict.fromkeys(completed, 1), table
        assert max(found.values()) == 1, table
    assert not list((gateway.folder / "journal").glob("*.damaged"))
    return f"{len(completed):,} answers completed, {load.broken:,} broken off; 0 lost, 0 recorded twice"


async def test_one_process_killed_again_and_again(
    database: str, provider: Provider, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    kills, moments = 16, random.Random(1)
    provider.says(events(*MESSAGES.events))
    with running(tmp_path, provider.url, STORAGE_URL=database) as gateway:
        async with Load(gateway) as load:
            for kill in range(kills):
                before = len(load.completed)
                await until(lambda before=before: len(load.completed) > before, "answers come")  # type: ignore[misc]
                await asyncio.sleep(moments.uniform(0, 0.3))
                gateway.kill()
                await asyncio.to_thread(gateway.start, ready=kill % 2 == 0)
        gateway.database = tmp_path / "shared.db"
        figures(f"{kills} kills of one process, {urlsplit(database).scheme}: {await _all_stored(gateway, load)}")


async def test_workers_killed_one_after_the_other(
    database: str, provider: Provider, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    kills, moments = 32, random.Random(2)
    provider.says(events(*MESSAGES.events))
    with running(tmp_path, provider.url, workers=4, STORAGE_URL=database) as gateway:
        async with Load(gateway, clients=8) as load:
            for _ in range(kills):
                before = len(load.completed)
                await until(lambda before=before: len(load.completed) > before, "answers come")  # type: ignore[misc]
                await until(gateway.workers, "there is a worker")
                os.kill(moments.choice(gateway.workers()), signal.SIGKILL)
                await asyncio.sleep(moments.uniform(0, 0.25))
        gateway.database = tmp_path / "shared.db"
        figures(f"{kills} kills among 4 workers, {urlsplit(database).scheme}: {await _all_stored(gateway, load)}")


async def test_two_gateways_on_one_database_both_killed(
    database: str, provider: Provider, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    kills, moments = 6, random.Random(3)
    provider.says(events(*MESSAGES.events))
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    with (
        running(folders[0], provider.url, STORAGE_URL=database) as one,
        running(folders[1], provider.url, STORAGE_URL=database) as other,
    ):
        async with Load(one, clients=3) as of_one, Load(other, clients=3) as of_other:
            for kill in range(kills):
                await asyncio.sleep(moments.uniform(0.1, 0.5))
                gateway = (one, other)[kill % 2]
                gateway.kill()
                await asyncio.to_thread(gateway.start)
        for gateway, load in ((one, of_one), (other, of_other)):
            gateway.database = tmp_path / "shared.db"
            figures(f"{kills} kills of two gateways, {urlsplit(database).scheme}: {await _all_stored(gateway, load)}")
