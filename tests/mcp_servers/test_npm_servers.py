"""The reference servers from the npm registry: what people really connect."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from aibridge.mcp.config import ServerConfig
from aibridge.mcp.servers import ToolServers
from aibridge.mcp.toolbox import Outcome
from aibridge.wire.tools import ImagePart, ResourcePart, TextPart

from .conftest import ADA

Start = Callable[..., Awaitable[ToolServers]]

CACHE = Path(__file__).parents[2] / ".cache"
PROGRAMS = CACHE / "mcp-servers" / "node_modules" / ".bin"

pytestmark = pytest.mark.clients


@pytest.fixture(scope="session")
def installed() -> None:
    """The servers, installed by whichever of the parallel test processes comes first."""
    pinned = Path(__file__).with_name("package-lock.json")
    target = CACHE / "mcp-servers"
    target.mkdir(parents=True, exist_ok=True)
    with (CACHE / "mcp-servers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = target / "installed.json"
        if not done.exists() or done.read_bytes() != pinned.read_bytes():
            for file in (pinned, pinned.with_name("package.json")):
                shutil.copy(file, target)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=target, check=True)
            shutil.copy(pinned, done)


async def call(servers: ToolServers, name: str, **arguments: object) -> Outcome:
    return await servers.call(servers.catalogue().tools[name], json.dumps(arguments), ADA)


@pytest.fixture
def everything_over_http(installed: None) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "PORT": str(port)}
    process = subprocess.Popen(
        [PROGRAMS / "mcp-server-everything", "streamableHttp"], env=environment, stderr=subprocess.DEVNULL
    )
    yield f"http://127.0.0.1:{port}/mcp"
    process.kill()
    process.wait()


@pytest.fixture(params=["stdio", "streamable-http"])
def everything(request: pytest.FixtureRequest, installed: None) -> ServerConfig:
    if request.param == "stdio":
        return ServerConfig(name="all", command=[str(PROGRAMS / "mcp-server-everything"), "stdio"])
    return ServerConfig(name="all", url=request.getfixturevalue("everything_over_http"))


async def test_everything(start: Start, everything: ServerConfig) -> None:
    servers = await start(everything)
    tools = servers.catalogue().tools
    assert all(json.loads(tool.offered.input_schema)["type"] == "object" for tool in tools.values())

    echo = await call(servers, "bmcp_all_echo", message="grüße")
    assert echo.result.parts == (TextPart("Echo: grüße"),)

    total = await call(servers, "bmcp_all_get-sum", a=2, b=3)
    assert isinstance(total.result.parts[0], TextPart)
    assert "5" in total.result.parts[0].text

    image = await call(servers, "bmcp_all_get-tiny-image")
    assert [part.mime_type for part in image.result.parts if isinstance(part, ImagePart)] == ["image/png"]

    resource = await call(servers, "bmcp_all_get-resource-reference", resourceType="Text", resourceId=1)
    assert any(isinstance(part, ResourcePart) and part.text for part in resource.result.parts)

    wrong = await call(servers, "bmcp_all_get-sum", a="two")
    assert wrong.result.is_error
    assert wrong.error


async def test_a_call_of_the_everything_server_that_takes_too_long(start: Start, everything: ServerConfig) -> None:
    servers = await start(everything, call_timeout=0.5)
    outcome = await call(servers, "bmcp_all_trigger-long-running-operation", duration=60, steps=60)
    assert outcome.error == "the tool did not answer within 0.5 s"
    assert (await call(servers, "bmcp_all_echo", message="a")).error is None


async def test_files_of_one_folder_and_no_other(start: Start, installed: None, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("buy milk")
    command = [str(PROGRAMS / "mcp-server-filesystem"), str(tmp_path)]
    servers = await start(ServerConfig(name="files", command=command, tool_deny="^(write|edit|move|create)_"))
    assert "bmcp_files_read_text_file" in servers.catalogue().tools
    assert "bmcp_files_write_file" not in servers.catalogue().tools

    read = await call(servers, "bmcp_files_read_text_file", path=str(tmp_path / "notes.txt"))
    assert read.result.parts == (TextPart("buy milk"),)

    refused = await call(servers, "bmcp_files_read_text_file", path="/etc/hostname")
    assert refused.result.is_error
