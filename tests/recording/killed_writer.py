"""Processes that record as fast as they can and say what was taken, until they are killed at any moment.

Usage: python killed_writer.py JOURNAL_DIR DATABASE KILLS

Each life is a fork of this process, which has loaded everything, so that a life is short. A line on standard output
tells that a record was taken.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from aibridge.recording.ledger import Ledger
from aibridge.recording.sqlite import SQLiteStore
from aibridge.recording.syncing import Fsync
from aibridge.records import Interception, InterceptionEnded, TokenUsage

LONGEST = 0.08
"""Seconds that a writer lives at most, once it lives."""


async def write(journal: Path, database: Path, fsync: Fsync, out: int) -> None:
    """Record until the end, and say each record's id once it is taken."""
    ledger = Ledger(journal, SQLiteStore(database), fsync=fsync)
    await ledger.start()
    while True:
        name = str(uuid.uuid4())
        interception = Interception(
            id=name,
            initiator_id="alice",
            provider="openai",
            provider_name="openai",
            model="gpt-5",
            started_at=datetime.now(UTC),
            route="/v1/responses",
            streaming=True,
            client="Codex",
        )
        tokens = TokenUsage(
            id=str(uuid.uuid4()),
            interception_id=name,
            provider_response_id=None,
            input_tokens=7,
            output_tokens=1,
            created_at=datetime.now(UTC),
        )
        await ledger.record_interception(interception)
        os.write(out, f"begun {name}\n".encode())
        await ledger.record_token_usage(tokens)
        os.write(out, f"used {tokens.id}\n".encode())
        end = InterceptionEnded(interception_id=name, ended_at=datetime.now(UTC), status="completed", http_status=200)
        await ledger.record_interception_ended(end)
        os.write(out, f"ended {name}\n".encode())


def live_and_die(journal: Path, database: Path, moments: random.Random) -> bytes:
    """One life; returns what it said. Some end before they have recorded anything."""
    reading, writing = os.pipe()
    fsync: Fsync = moments.choice(["interval", "interval", "always", "off"])
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            asyncio.run(write(journal, database, fsync, writing))
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as said:  # noqa: PTH123  # it is no path
        first = said.readline() if moments.random() < 0.8 else b""
        time.sleep(moments.uniform(0, LONGEST))
        os.kill(pid, signal.SIGKILL)
        rest = said.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    return first + rest


def main(journal: str, database: str, kills: str) -> None:
    moments = random.Random(2026)
    for _ in range(int(kills)):
        said = live_and_die(Path(journal), Path(database), moments)
        sys.stdout.buffer.write(said[: said.rfind(b"\n") + 1])
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
