"""A process that records as fast as it can and says what was taken, until it is killed.

Usage: python killed_writer.py JOURNAL_DIR DATABASE
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from aibridge.recording.ledger import Ledger
from aibridge.recording.sqlite import SQLiteStore
from aibridge.records import Interception, InterceptionEnded, TokenUsage


async def main(journal: str, database: str) -> None:
    ledger = Ledger(Path(journal), SQLiteStore(Path(database)))
    await ledger.start()
    for number in range(10**9):
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
            input_tokens=number,
            output_tokens=1,
            created_at=datetime.now(UTC),
        )
        await ledger.record_interception(interception)
        os.write(1, f"begun {name}\n".encode())
        await ledger.record_token_usage(tokens)
        os.write(1, f"used {tokens.id}\n".encode())
        end = InterceptionEnded(interception_id=name, ended_at=datetime.now(UTC), status="completed", http_status=200)
        await ledger.record_interception_ended(end)
        os.write(1, f"ended {name}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
