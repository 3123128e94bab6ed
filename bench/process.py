"""Child processes that serve: starting and stopping them, and what they cost in CPU time and memory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import client, workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READY_LIMIT = 20.0
"""Seconds that a server may take to its first answer."""

PUT_OFF = 0.3
"""Seconds of rest after which a server has nothing left to do; the gateway gathers records for 0.2 s."""

STOP_LIMIT = 5.0
"""Seconds that a server may take to stop before it is killed."""


class NotServingError(Exception):
    """A server did not answer; the message holds the end of what it wrote."""


class Process:
    """A server on 127.0.0.1 that runs as a child process, with its own children."""

    def __init__(self, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> None:
        self.port = port
        self.log = log
        self.answered = 0
        """Exchanges on bridged routes that it completed; those who measure count them here."""
        self.started = time.monotonic()
        with log.open("wb") as out:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=dict(environment)
            )

    async def ready(self) -> float:
        """Wait for the first 200 on `/readyz`, and say how many seconds that took from the start of the process."""
        while (taken := time.monotonic() - self.started) < READY_LIMIT and self.child.poll() is None:
            try:
                connection = await client.connect(self.port)
                try:
                    await connection.exchange(workload.ready())
                    return time.monotonic() - self.started
                finally:
                    connection.close()
            except (OSError, TimeoutError, client.ExchangeError):
                await asyncio.sleep(0.005)
        said = self.log.read_text(errors="replace").strip()[-600:]
        raise NotServingError(f"{self.child.args!r} did not answer on /readyz within {taken:.1f} s; it said: {said}")

    def pin(self, cores: set[int]) -> None:
        """Let the process and its children run on these cores only."""
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)

    def give_way(self) -> None:
        """Run only when nothing else on the same core wants to, from now on."""
        for pid in self.pids():
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))

    def pids(self) -> list[int]:
        """The process and all that descend from it."""
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found = [self.child.pid]
        for pid in found:  # grows while it is walked
            found.extend(parents.get(pid, []))
        return found

    def cpu_seconds(self) -> float:
        """User and system time of the process and its living children.

        Read from each process's CPU-time clock, which is `utime + stime` of `/proc` in nanoseconds instead of
        ticks of 10 ms; its number follows from the process's (see clock_getcpuclockid(3)).
        """
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids())

    async def settled_cpu_seconds(self) -> float:
        """`cpu_seconds` once work that was put off, such as writing records, has been done."""
        before = self.cpu_seconds()
        for _ in range(50):
            await asyncio.sleep(PUT_OFF)
            now = self.cpu_seconds()
            if now - before < 0.01 * PUT_OFF:
                break
            before = now
        return now

    def resident_bytes(self) -> int:
        """Resident memory of the process and its children together."""
        kib = 0
        for pid in self.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            kib += int(status.partition("VmRSS:")[2].split(maxsplit=1)[0])
        return kib * 1024

    def stop(self) -> None:
        """End the process; as a service manager would, kindly at first."""
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
            self.child.wait()
