"""What goes wrong around a gateway under load: its clients hardly notice, and what they were answered is recorded."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.client import ask
from support.dialects import MESSAGES
from support.load import Load
from support.process import ACTOR, Gateway, running
from support.provider import Provider, events
from support.waiting import until

LOCKED = 6.0
"""Seconds for which another process locks the database: as often as the gateway tries in half a minute, about."""

_LOCKER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another process holds the lock of a database."""
    command = [sys.executable, "-c", _LOCKER, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.kill()


def readiness(gateway: Gateway) -> dict[str, Any]:
    """What `/readyz` says, whatever its status."""
    try:
        with urllib.request.urlopen(f"{gateway.url}/readyz", timeout=5) as answer:
            told: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            told = json.load(refusal)
    return told


async def all_stored(gateway: Gateway, completed: list[str]) -> None:
    """Every completed answer is in the database, once, with its tokens."""
    wanted = set(completed)
    sql = (
        "SELECT interceptions.id, count(*) FROM aibridge_interceptions AS interceptions "
        "JOIN aibridge_token_usages AS usages ON usages.interception_id = interceptions.id "
        "WHERE status = 'completed' GROUP BY 1"
    )
    await until(lambda: wanted <= {name for name, _ in gateway.query(sql)}, "all is stored", within=30)
    assert {number for _, number in gateway.query(sql)} == {1}


async def test_a_database_locked_by_another_process_slows_nobody(
    provider: Provider, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    provider.says(events(*MESSAGES.events))
    with running(tmp_path, provider.url) as gateway:
        async with Load(gateway, clients=4, pause=0.02) as load:
            await asyncio.sleep(1)  # of warming up
            began = time.monotonic()
            await asyncio.sleep(LOCKED / 2)
            with locked(gateway.database):
                since = time.monotonic()
                before = load.percentiles(began, since)
                await asyncio.sleep(LOCKED)
                during = load.percentiles(since, time.monotonic())
                told = readiness(gateway)
                assert told["status"] == "ready"
                assert "database is locked" in str(told["warnings"])
        await all_stored(gateway, load.completed)
        assert not load.refused
        assert load.broken == 0
        figures(
            f"database locked for {LOCKED:g} s: median {before[0]:.1f} ms before, {during[0]:.1f} ms during; 99th "
            f"percentile {before[1]:.1f} and {during[1]:.1f} ms; {len(load.completed):,} answers, all stored"
        )
        # Generous, since a busy machine has moods; a wait for the lock would take a second and more.
        assert during[0] < 2 * before[0] + 10
        assert during[1] < 2 * before[1] + 250


async def test_a_full_disk_refuses_what_is_new_loses_nothing_and_is_over_when_there_is_room(
    provider: Provider, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """No file of the gateway's can grow beyond some KB: neither the journal nor the database."""
    provider.says(events(*MESSAGES.events))
    with running(tmp_path, provider.url, LOG_LEVEL="error") as gateway:
        assert gateway.process
        pid = gateway.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        async with Load(gateway, clients=4) as load:
            await until(lambda: len(load.completed) > 50, "answers come")
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, before[1]))
            await until(lambda: load.refused[503] > 20, "requests are refused")
            assert gateway.status("/healthz") == 200
            assert "make room there" in str(readiness(gateway)["problems"])
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
            answered = len(load.completed)
            await until(lambda: len(load.completed) > answered + 50, "answers come again")
        await until(lambda: gateway.status("/readyz") == 200, "the gateway is ready")
        await all_stored(gateway, load.completed)
        assert load.refused.keys() == {503}
        assert load.broken == 0
        refused = load.refused[503]
        assert gateway.total("unrecorded_total") == 2 * refused, "the beginning and the prompt of each"
        running_yet = "SELECT id FROM aibridge_interceptions WHERE ended_at IS NULL"
        await until(lambda: not gateway.query(running_yet), "whatever was begun is recorded to its end")
        figures(f"disk full: {refused} requests refused with 503, {len(load.completed)} answered, all of these stored")


async def test_a_journal_at_its_bound_is_as_a_full_disk(
    provider: Provider, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    provider.says(events(*MESSAGES.events))
    prompt = [{"role": "user", "content": "x" * 900_000}]
    completed: list[str] = []
    with running(tmp_path, provider.url, STORAGE_MAX_JOURNAL_SIZE="16MiB") as gateway:
        url = gateway.url + MESSAGES.path
        with locked(gateway.database):
            while (answer := await ask(url, MESSAGES.request(messages=prompt), ACTOR)).status == 200:
                completed.append(answer.id)
            assert answer.status == 503
            assert answer.header("Retry-After")
            assert "storage.max_journal_size" in str(readiness(gateway)["problems"])
            taken = sum(file.stat().st_size for file in (tmp_path / "journal").iterdir())
        await until(lambda: gateway.status("/readyz") == 200, "the gateway is ready again")
        assert (await ask(url, MESSAGES.request(), ACTOR)).status == 200
        await all_stored(gateway, completed)
        figures(f"journal bound to 16 MiB: full at {taken / 2**20:.1f} MiB, {len(completed)} answers, all stored")
        assert 16 * 2**20 <= taken < 18 * 2**20


async def test_a_large_prompt_with_odd_characters_reads_back(provider: Provider, tmp_path: Path) -> None:
    """NUL is kept as it is; half a pair of surrogates, which is no character, becomes U+FFFD."""
    provider.says(events(*MESSAGES.events))
    text = "grüße " * 4_000_000
    asking = MESSAGES.request(messages=[{"role": "user", "content": "HERE"}])
    body = asking.replace(b"HERE", rb"\u0000 \ud800 " + text.encode())
    with running(tmp_path, provider.url, SERVER_MAX_BODY_SIZE="64MiB") as gateway:
        answer = await ask(gateway.url + MESSAGES.path, body, ACTOR)
        assert answer.status == 200
        await all_stored(gateway, [answer.id])
        ((prompt,),) = gateway.query("SELECT prompt FROM aibridge_user_prompts")
        assert prompt == "\x00 \ufffd " + text
