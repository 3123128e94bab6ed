"""The gateway as its operators run it: `aibridge serve` with a file of settings, a database and a journal."""

from __future__ import annotations

import json
import os
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
from pathlib import Path
from typing import Any

from support.postgres import rows_of
from support.waiting import LIMIT

KEY = "sk-of-the-operator-0123456789"
"""The gateway's own credential at every provider."""

ACTOR = {"X-User-ID": "ada"}
"""The header of a client that the gateway believes in."""

_SETTINGS = """
[server]
port = {port}
workers = {workers}
shutdown_grace = "{grace}"
max_body_size = "1MiB"

[storage]
url = "sqlite:///{folder}/aibridge.db"
journal_dir = "{folder}/journal"

[log]
format = "json"

[[providers]]
type = "anthropic"
name = "anthropic"
base_url = "{upstream}"
api_key_env = "KEY_OF_THE_OPERATOR"
max_retries = 0

[[providers]]
type = "openai"
name = "openai"
base_url = "{upstream}/v1"
api_key_env = "KEY_OF_THE_OPERATOR"
max_retries = 0
"""


class Gateway:
    """A gateway with its files in a folder. It may be stopped and started again, and keeps its port."""

    def __init__(self, folder: Path, upstream: str, *, workers: int = 1, grace: str = "5s", **settings: str) -> None:
        """`settings` are variables of the environment, without `AIBRIDGE_`."""
        self.folder = folder
        self.log = folder / "aibridge.log"
        self.database = folder / "aibridge.db"
        self._postgresql = url if (url := settings.get("STORAGE_URL", "")).startswith("postgresql:") else None
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._config = folder / "aibridge.toml"
        told = {"port": port, "workers": workers, "grace": grace, "folder": folder, "upstream": upstream}
        self._config.write_text(_SETTINGS.format(**told))
        self._environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment["KEY_OF_THE_OPERATOR"] = KEY
        self._environment.update((f"AIBRIDGE_{name}", value) for name, value in settings.items())
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> None:
        """Start it, and return once it answers (with `ready`: that it is)."""
        program = Path(sys.executable).parent / "aibridge"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [program, "serve", "--config", self._config],
                env=self._environment,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        path = "/readyz" if ready else "/healthz"
        deadline = time.monotonic() + LIMIT
        while self.status(path) != 200:
            assert self.process.poll() is None, f"the gateway ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the gateway did not become ready:\n{self.log.read_text()}"
            time.sleep(0.02)

    def status(self, path: str) -> int | None:
        """The status with which it answers; None where it does not."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=1) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that the operator started."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None
        return self.process.wait(LIMIT)

    def stop(self) -> int:
        """Tell it to stop; its exit status."""
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it and its workers at once, as the kernel does when memory is short."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in _command(pid)]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table, without `aibridge_` before its name; JSON columns decoded."""
        found = self.query(f"SELECT * FROM aibridge_{table} ORDER BY rowid")
        return [{**dict(row), "metadata": json.loads(row["metadata"])} for row in found]

    def query(self, sql: str) -> list[Any]:
        """What another program finds in the database: rows of SQLite, and of PostgreSQL tuples."""
        if self._postgresql:
            return rows_of(self._postgresql, sql)
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return database.execute(sql).fetchall()

    def ended(self) -> list[dict[str, Any]]:
        """The interceptions that have ended."""
        return [row for row in self.rows("interceptions") if row["ended_at"]]

    def metrics(self) -> dict[str, float]:
        """Each series and its value."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        told = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {series: float(value) for series, _, value in told}

    def total(self, name: str, **labels: str) -> float:
        """The sum over the series of a metric that carry these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for series, value in self.metrics().items()
            if series.partition("{")[0] == f"aibridge_{name}" and all(each in series for each in wanted)
        )


def _command(pid: str) -> bytes:
    """The command line of a process; nothing if it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@contextmanager
def running(
    folder: Path, upstream: str, *, ready: bool = True, tracebacks: bool = False, **settings: Any
) -> Iterator[Gateway]:
    """A gateway that runs; at the end it is told to stop, if it still runs.

    Unless `tracebacks` may be there (uvicorn logs what it cancels with one), none must be in its log.
    """
    gateway = Gateway(folder, upstream, **settings)
    try:
        gateway.start(ready=ready)
        yield gateway
    finally:
        if gateway.process and gateway.process.poll() is None:
            try:
                gateway.stop()
            finally:
                if gateway.process.poll() is None:
                    gateway.kill()
    log = gateway.log.read_text()
    assert tracebacks or "Traceback" not in log, log
