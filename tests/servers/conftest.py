from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_INSTALLED = _ROOT / ".cache" / "servers"

SAID = "High water is at six."
"""What both servers answer to `When is high water?`."""

HOUSE_KEY = "sk-of-the-house-0123456789"
"""The key that LiteLLM's proxy takes, and no other."""

_LIMIT = 90
"""Seconds that a server may take to start; LiteLLM's takes about ten."""

_LITELLM = f"""
model_list:
  - model_name: tide-1
    litellm_params: {{ model: openai/tide-1, api_key: none, mock_response: "{SAID}" }}
general_settings:
  master_key: {HOUSE_KEY}
"""

_AIMOCK = {
    "fixtures": [
        {"match": {"userMessage": "When is high water?"}, "response": {"content": SAID}},
        {
            "match": {"userMessage": "Read the gauge."},
            "response": {"toolCalls": [{"name": "read_tides", "arguments": '{"port":"Lyme"}'}]},
        },
    ]
}


@pytest.fixture(scope="session")
def installed() -> Path:
    """The servers, installed by whichever of the parallel test processes comes first."""
    _INSTALLED.parent.mkdir(exist_ok=True)
    with (_INSTALLED.parent / "servers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([_ROOT / "scripts" / "install-servers"], check=True)
    return _INSTALLED


@pytest.fixture(scope="session")
def litellm(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of LiteLLM's proxy, which answers for a model by itself."""
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "config.yaml").write_text(_LITELLM)
    program = installed / "venv" / "bin" / "litellm"
    port = _free_port()
    with _running([program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)], folder):
        yield _once_there(f"http://127.0.0.1:{port}", "/health/liveliness", folder)


@pytest.fixture(scope="session")
def aimock(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of aimock, which speaks as several providers do."""
    folder = tmp_path_factory.mktemp("aimock")
    (folder / "fixtures.json").write_text(json.dumps(_AIMOCK))
    port = _free_port()
    program = installed / "node_modules" / ".bin" / "llmock"
    with _running([program, "--fixtures", "fixtures.json", "--host", "127.0.0.1", "--port", str(port)], folder):
        yield _once_there(f"http://127.0.0.1:{port}", "/v1/models", folder)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def _running(command: list[str | Path], folder: Path) -> Iterator[None]:
    """A program with its log in the folder; it is to ask nobody outside."""
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_COLOR": "1"}
    known = {"PATH": os.environ["PATH"], "HOME": str(folder), **quiet}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=known, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def _once_there(url: str, path: str, folder: Path) -> str:
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url + path):
                return url
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"the server did not answer:\n{(folder / 'log').read_text()}")
