"""`aibridge demo`: a newcomer sees the gateway at work."""

from __future__ import annotations

import json
import os
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
    assert "All 11 exchanges went as they should, and are recorded." in ended.stdout
    for told in (
        "$ aibridge sessions",
        "$ aibridge show",
        "$ aibridge usage",
        "cancelled",
        "calls  Read",
    ):
        assert told in ended.stdout
    assert "sk-of-the-gateway-0123456789" not in ended.stdout


def test_tools_of_the_gateway_are_shown_from_both_sides() -> None:
    """What the client sees, what the provider gets, and what is recorded: of an injected call, one that is told again
    in a later request, and one in a turn with a call of the client's own."""
    told = run(AIBRIDGE, "demo", "--once").stdout
    injected, later, mixed, answered = re.split(r"^ ?\d+  ", told, flags=re.MULTILINE)[6:10]
    call, result = "+ assistant  calls bmcp_demo_high_water", "+ user       result: At Lyme, at 10:42 and 23:07."
    for part in (injected, later, answered):
        assert part.index(call) < part.index(result)
    assert "    calls  " not in injected, "the client has no call of its own"
    assert "is asked 2 times" in injected
    assert 'high_water {"harbour": "Lyme"}, run by the gateway' in injected
    assert later.index(result) < later.index("user       Is that early enough?")
    assert 'calls  Read {"file_path": "crew"}' in mixed
    assert "+" not in mixed
    assert re.findall(r"(\w+) \{.*\}, (.*)", mixed) == [
        ("Read", "for the client to run"),
        ("high_water", "run by the gateway"),
    ]
    assert answered.index(result) < answered.index("user       result: Ada and Grace")
    assert max(map(len, "".join([injected, later, mixed, answered]).splitlines())) <= 100


def test_it_goes_on_until_it_is_told_to_stop() -> None:
    with subprocess.Popen(
        [AIBRIDGE, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    ) as demo:
        guard = threading.Timer(LIMIT, demo.send_signal, [signal.SIGABRT])  # then it tells where it hangs
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
