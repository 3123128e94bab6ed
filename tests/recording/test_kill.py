"""Nothing that was taken is lost when a process is killed, and nothing is stored twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from aibridge.recording.ledger import Ledger
from aibridge.recording.sqlite import SQLiteStore

from .samples import files, rows

WRITER = Path(__file__).parent / "killed_writer.py"
KILLS = 160
"""With those in tests/server/test_kills.py more than 200."""


async def test_every_record_that_was_taken_survives_a_kill_and_is_stored_once(
    tmp_path: Path, figures: Callable[[str], None]
) -> None:
    journal, database = tmp_path / "journal", tmp_path / "records.db"
    command = [sys.executable, str(WRITER), str(journal), str(database), str(KILLS)]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    taken = [line.split() for line in ended.stdout.decode().splitlines()]
    assert len(taken) > 10 * KILLS
    assert files(journal), "the last one left something behind"

    ledger = Ledger(journal, SQLiteStore(database))
    await ledger.start()
    await ledger.aclose(60)

    begun = {each for (each,) in rows(database, "SELECT id FROM aibridge_interceptions")}
    done = {each for (each,) in rows(database, "SELECT id FROM aibridge_interceptions WHERE status = 'completed'")}
    used = dict(rows(database, "SELECT id, interception_id FROM aibridge_token_usages"))
    said = {kind: {name for each, name in taken if each == kind} for kind in ("begun", "used", "ended")}
    lost = (said["begun"] - begun) | (said["used"] - used.keys()) | (said["ended"] - done)
    twice = [name for name, number in Counter(used.values()).items() if number > 1]
    assert not lost
    assert not twice
    # What a writer had not come to say when it was killed: at most one record of each life.
    assert len(begun) + len(used) + len(done) - len(taken) <= KILLS
    assert [file for file in files(journal) if file.suffix == ".damaged"] == []
    assert files(journal) == []
    figures(f"{KILLS} kills, {len(taken):,} records taken, {len(lost)} lost, {len(twice)} stored twice")
