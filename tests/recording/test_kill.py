"""Nothing that was taken is lost when a process is killed, and nothing is stored twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

from aibridge.recording.ledger import Ledger
from aibridge.recording.sqlite import SQLiteStore

from .samples import files, rows

WRITER = Path(__file__).parent / "killed_writer.py"


def killed_after(delay: float, journal: Path, database: Path) -> list[str]:
    """Let a process record until it is killed; return what it said was taken."""
    with subprocess.Popen([sys.executable, WRITER, journal, database], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()]
        threading.Timer(delay, process.kill).start()
        said += process.stdout
    assert process.returncode == -9
    return [line.decode().strip() for line in said if line.endswith(b"\n")]


async def test_every_record_that_was_taken_survives_a_kill_and_is_stored_once(tmp_path: Path) -> None:
    journal, database = tmp_path / "journal", tmp_path / "records.db"
    moments = random.Random(2026)
    taken: list[str] = []
    for _ in range(5):
        taken += killed_after(moments.uniform(0, 0.3), journal, database)
    assert len(taken) > 1000
    assert files(journal), "the last one left something behind"

    ledger = Ledger(journal, SQLiteStore(database))
    await ledger.start()
    await ledger.aclose(60)

    begun = [each for (each,) in rows(database, "SELECT id FROM aibridge_interceptions")]
    ended = {each for (each,) in rows(database, "SELECT id FROM aibridge_interceptions WHERE status = 'completed'")}
    used = [each for (each,) in rows(database, "SELECT id FROM aibridge_token_usages")]
    assert {line.split()[1] for line in taken if line.startswith("begun")} <= set(begun)
    assert {line.split()[1] for line in taken if line.startswith("used")} <= set(used)
    assert {line.split()[1] for line in taken if line.startswith("ended")} <= ended
    assert len(begun) == len(set(begun))
    assert len(used) == len(set(used))
    # What a writer had not come to say when it was killed: at most one record of each life.
    assert len(begun) + len(used) + len(ended) - len(taken) <= 5
    assert files(journal) == []
