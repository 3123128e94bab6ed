"""The gateway as its operators run it, and what it recorded."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_LIMIT = 20
"""Seconds that anything here may take."""

_SETTINGS = """
[server]
port = {port}

[storage]
url = "sqlite:///{folder}/aibridge.db"
journal_dir = "{folder}/journal"

[[providers]]
type = "anthropic"
name = "anthropic"
base_url = "{upstream}"
api_key = "sk-of-the-gateway"
max_retries = 0

[[providers]]
type = "openai"
name = "openai"
base_url = "{upstream}/v1"
api_key = "sk-of-the-gateway"
max_retries = 0
"""


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    database: Path

    def rows(self, table: str) -> list[Row]:
        """The rows of a table, oldest first; its JSON columns decoded."""
        time_of = "started_at" if table == "interceptions" else "created_at"
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(f"SELECT * FROM aibridge_{table} ORDER BY {time_of}, rowid").fetchall()
        return [{**dict(row), "metadata": json.loads(row["metadata"] or "{}")} for row in found]

    def interceptions(self, count: int) -> list[Row]:
        """The interceptions, once there are so many and all of them have ended."""
        deadline = time.monotonic() + _LIMIT
        while len(ended := [row for row in self.rows("interceptions") if row["ended_at"]]) < count:
            assert time.monotonic() < deadline, f"{count} ended interceptions due, found {ended}"
            time.sleep(0.02)
        return self.rows("interceptions")

    def tools(self) -> list[tuple[str, Any]]:
        """The tools that the model called, with their arguments decoded where they are JSON."""
        return [(row["tool"], _decoded(row["input"])) for row in self.rows("tool_usages")]

    def prompts(self) -> list[str]:
        """The users' prompts."""
        return [row["prompt"] for row in self.rows("user_prompts")]


@contextmanager
def running(folder: Path, upstream: str, environment: dict[str, str], more: str = "") -> Iterator[Gateway]:
    """`aibridge serve` with its files in the folder, ready; told to stop at the end, and seen to stop well.

    `environment` holds settings beside those of the file, and `more` is added to the file.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = folder / "aibridge.toml"
    settings.write_text(_SETTINGS.format(port=port, folder=folder, upstream=upstream) + more)
    program = Path(sys.executable).parent / "aibridge"
    log = folder / "aibridge.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "serve", "--config", settings], env=environment, stdout=output, stderr=output
        )
    gateway = Gateway(f"http://127.0.0.1:{port}", folder / "aibridge.db")
    try:
        _wait_until_ready(gateway.url, process, log)
        yield gateway
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_LIMIT)
    assert process.returncode in (0, -signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise AssertionError(f"the gateway did not become ready:\n{log.read_text()}")


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
