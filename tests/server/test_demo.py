"""`aibridge demo`: a newcomer sees the gateway at work."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

AIBRIDGE = str(Path(sys.executable).with_name("aibridge"))
LIMIT = 60
"""Seconds that a demo may take; it takes two."""


def run(*program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_everything_goes_as_it_should() -> None:
    ended = run(AIBRIDGE, "demo", "--once")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "All 8 exchanges went as they should, and are recorded." in ended.stdout
    for told in (
        "$ aibridge sessions",
        "$ aibridge show",
        "$ aibridge usage",
        "cancelled",
        "calls  Read",
        "is at 10:42",
    ):
        assert told in ended.stdout
    assert "sk-of-the-gateway-0123456789" not in ended.stdout


def test_it_goes_on_until_it_is_told_to_stop() -> None:
    with subprocess.Popen([AIBRIDGE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        guard = threading.Timer(LIMIT, demo.kill)
        guard.start()
        assert demo.stdout is not None
        told = ""
        for line in demo.stdout:
            told += line
            if "--database" in line:
                break
        [gateway] = re.findall(r"listens on (http://[\d.:]+)", told)
        [database] = re.findall(r"sqlite:///(\S+)", told)
        question = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
        request = urllib.request.Request(
            f"{gateway}/anthropic/v1/messages", json.dumps(question).encode(), {"X-User-ID": "me"}
        )
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            assert answer.status == 200
        assert Path(database).exists()
        demo.send_signal(signal.SIGTERM)
        assert demo.stderr is not None
        assert demo.stderr.read() == ""
        assert demo.wait(LIMIT) == 0
        guard.cancel()
    assert not Path(database).parent.exists()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(AIBRIDGE, "demo", "--once", "--port", str(port))
    assert ended.returncode == 2
    assert ended.stderr == f"aibridge: port {port} can not be had (Address already in use): name another with --port\n"


def test_what_goes_wrong_is_told() -> None:
    """With a provider that only ever fails."""
    program = """
from aibridge.server import simulated_upstream
from aibridge.server.demo import demo

class Failing(simulated_upstream.SimulatedUpstream):
    async def _route(self, *_):
        raise simulated_upstream.RefusedError(500, "Out of order.")

simulated_upstream.create = Failing
raise SystemExit(demo(once=True))
"""
    ended = run(sys.executable, "-c", program)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "it is recorded as failed, completed is due" in ended.stdout
    assert "the client got status 500, 200 is due" in ended.stdout
