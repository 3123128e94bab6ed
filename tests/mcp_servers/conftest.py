from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aibridge.actor import Actor
from aibridge.mcp.config import ServerConfig, Timing
from aibridge.mcp.servers import ToolServers

from . import legacy_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from .legacy_server import LegacyServer

SDK_SERVER = str(Path(__file__).with_name("sdk_server.py"))
ADA = Actor("ada")

QUICK = Timing(connect=20.0, list=2.0, first_retry=0.05, longest_retry=0.2, stable=0.2)
"""Patience that suits a test."""


@pytest.fixture(scope="session")
def sdk_server() -> Iterator[str]:
    """The base URL of a server that is written with the SDK, and lives as long as the tests."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SDK_SERVER, "http", str(port)])
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, "the server did not start"
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def legacy() -> AsyncIterator[LegacyServer]:
    """A server of an older protocol version that misbehaves as a test wants."""
    async with legacy_server.running() as server:
        yield server


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[ToolServers]]]:
    """Starts a toolbox of servers, and closes it after the test."""
    started: list[ToolServers] = []

    async def start(*configs: ServerConfig, wait: bool = True, **options: object) -> ToolServers:
        servers = ToolServers(configs, **{"timing": QUICK, **options})  # type: ignore[arg-type]
        started.append(servers)
        await servers.start()
        if wait:
            await until(lambda: all(state.connected for state in servers.states))
        return servers

    yield start
    for servers in started:
        await servers.aclose()


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # anything may be the condition
            await asyncio.sleep(0.01)
