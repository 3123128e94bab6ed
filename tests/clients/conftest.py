from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aibridge.server import simulated_upstream
from aibridge.server.simulated_upstream import SimulatedUpstream

from . import gateway as gateway_process
from .agents import ClaudeCode, Codex
from .gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed() -> None:
    """The agents, installed by whichever of the parallel test processes comes first."""
    cache = _ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([_ROOT / "scripts" / "install-clients"], check=True)


@pytest.fixture
def upstream() -> SimulatedUpstream:
    """Both providers; it does what a prompt says in double square brackets."""
    return simulated_upstream.create(pause=0.001)


@pytest.fixture
def gateway(request: pytest.FixtureRequest, tmp_path: Path, upstream: SimulatedUpstream) -> Iterator[Gateway]:
    """The gateway before the upstream; a test may set more by an indirect parameter."""
    settings: dict[str, str] = getattr(request, "param", {})
    with simulated_upstream.serve(upstream) as url, gateway_process.running(tmp_path, url, settings) as gateway:
        yield gateway


@pytest.fixture
def claude(installed: None, tmp_path: Path, gateway: Gateway) -> ClaudeCode:
    return ClaudeCode(tmp_path, gateway.url)


@pytest.fixture
def codex(installed: None, tmp_path: Path, gateway: Gateway) -> Codex:
    return Codex(tmp_path, gateway.url)
