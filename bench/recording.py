"""What recording costs: a record on a request's path, and a record that is replayed from a journal.

`python -m bench.recording` writes records as requests do, and tells the CPU time that this takes of the event loop for
each of them; then it writes a journal of `--size` MB and replays it into a new SQLite database.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from random import getrandbits
from typing import TYPE_CHECKING, get_args

import uvloop

from aibridge.recording.entries import encode
from aibridge.recording.ledger import Ledger
from aibridge.recording.segment import HEADER
from aibridge.recording.stores import store_for
from aibridge.recording.syncing import Fsync
from aibridge.records import Interception, InterceptionEnded, PromptUsage, Record, TokenUsage, ToolUsage, new_id
from aibridge.server import journals
from aibridge.server.settings import Audit, Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

EXCHANGES = 2000
ROUNDS = 5

_USAGE = (
    '{"input_tokens":3,"cache_creation_input_tokens":700,"cache_read_input_tokens":9000,"output_tokens":90,'
    '"service_tier":"standard","cache_creation":{"ephemeral_5m_input_tokens":700,"ephemeral_1h_input_tokens":0}}'
)
_PROMPT = "The parser loses the last line where no newline ends it. Find out why, and mend it. " * 3


def exchange() -> tuple[list[Record], list[Record]]:
    """The records of one request of a coding agent: as it begins, and as it ends."""
    now = datetime.now(UTC)
    name = new_id()
    begun: list[Record] = [
        Interception(
            id=name,
            initiator_id="ada@example.com",
            provider="anthropic",
            provider_name="anthropic",
            model="claude-sonnet-4-5",
            started_at=now,
            route="/v1/messages",
            streaming=True,
            client="Claude Code",
            client_session_id="0a1b2c3d-0000-4000-8000-00112233aabb",
            user_agent="claude-cli/2.0.31 (external, cli)",
            credential_hint="sk-a...wxyz",
            metadata={"credential_length": 108},
        ),
        PromptUsage(id=new_id(), interception_id=name, prompt=_PROMPT, created_at=now),
    ]
    ended: list[Record] = [
        TokenUsage(
            id=new_id(),
            interception_id=name,
            provider_response_id=f"msg_{name}",
            input_tokens=3,
            output_tokens=90,
            cache_read_input_tokens=9000,
            cache_write_input_tokens=700,
            metadata={"service_tier": "standard", "cache_creation.ephemeral_5m_input_tokens": 700},
            provider_usage=_USAGE,
            created_at=now,
        ),
        ToolUsage(
            id=new_id(),
            interception_id=name,
            provider_response_id=f"msg_{name}",
            provider_tool_call_id=f"toolu_{getrandbits(96):024x}",  # as random as the provider's
            tool="Read",
            input='{"file_path":"/home/ada/parser/src/lines.py","limit":200}',
            created_at=now,
        ),
        InterceptionEnded(interception_id=name, ended_at=now, status="completed", http_status=200),
    ]
    return begun, ended


async def appending(folder: Path, fsync: Fsync) -> float:
    """The µs of CPU that the event loop's thread needs for a record."""
    ledger = Ledger(folder / "journal", store_for(f"sqlite:///{folder}/aibridge.db"), fsync=fsync)
    await ledger.start()
    rounds = []
    for _ in range(ROUNDS):
        exchanges = [exchange() for _ in range(EXCHANGES)]
        gc.collect()
        before = time.thread_time()
        for begun, ended in exchanges:
            await ledger.record_all(begun)
            await ledger.record_all(ended)
        took = time.thread_time() - before
        rounds.append(took / sum(len(begun) + len(ended) for begun, ended in exchanges))
        while ledger.lag:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)
    await ledger.aclose()
    return min(rounds) * 1e6


def written(folder: Path, size: int) -> Iterator[tuple[Path, int]]:
    """Files of a journal, of so many bytes in all, each with how many records it holds."""
    while size > 0:
        path = folder / f"{size}.journal"
        records = 0
        with path.open("wb") as file:
            file.write(HEADER)
            while file.tell() < min(size, 16 << 20):
                begun, ended = exchange()
                file.write(b"".join(map(encode, begun + ended)))
                records += len(begun) + len(ended)
            size -= file.tell()
        yield path, records


def replaying(folder: Path, size: int) -> None:
    """Print how fast a journal of so many bytes is stored."""
    files = list(written(folder, size))
    gc.collect()
    expected = sum(records for _, records in files)
    began, cpu = time.perf_counter(), time.process_time()
    storage = Storage(url=f"sqlite:///{folder}/replayed.db")
    replayed = journals.replayed([path for path, _ in files], storage, Audit())
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    stored = sum(each.stored for each in replayed)
    assert stored == expected
    print(
        f"replay of {size / 1e6:,.0f} MB, {stored:,} records: {took:.1f} s, {stored / took:,.0f} records a second "
        f"({stored / cpu:,.0f} for each second of CPU)"
    )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=200, help="MB of the journal that is replayed")
    arguments = parser.parse_args()
    for fsync in get_args(Fsync):
        with tempfile.TemporaryDirectory(prefix="bench-recording-") as folder:
            cost = uvloop.run(appending(Path(folder), fsync))
        print(f"µs of the event loop's CPU for a record, storage.fsync = {fsync}: {cost:.1f}")
    with tempfile.TemporaryDirectory(prefix="bench-recording-") as folder:
        replaying(Path(folder), arguments.size * 1_000_000)


if __name__ == "__main__":
    main()
