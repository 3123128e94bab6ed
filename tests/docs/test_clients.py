"""docs/clients.md: its examples reach a provider through a gateway, and its routes are those of the code."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aibridge.providers import AnthropicProvider, BedrockProvider, CopilotProvider, OpenAIProvider
from aibridge.server import simulated_upstream
from aibridge.server.gateway import Gateway
from aibridge.server.reports import reading
from aibridge.server.settings import Provider, Settings, Storage
from support.serving import serving

from .pages import blocks, code, page, rows, section

GATEWAY = "http://127.0.0.1:8080"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(url=f"sqlite:///{tmp_path}/aibridge.db", journal_dir=tmp_path / "journal")


@pytest.fixture
async def gateway(storage: Storage) -> AsyncIterator[str]:
    """A gateway as the page supposes it, but on a free port and before the simulated upstream."""
    with simulated_upstream.serve() as upstream:
        providers = (
            Provider(type="anthropic", name="anthropic", base_url=upstream),
            Provider(type="openai", name="openai", base_url=f"{upstream}/v1"),
        )
        async with serving(Gateway(Settings(storage=storage, providers=providers)), lifespan=True) as url:
            yield url


@pytest.mark.parametrize("heading", ["Anthropic's SDKs", "OpenAI's SDKs"])
async def test_python(heading: str, gateway: str, storage: Storage) -> None:
    (example,) = blocks(section(page("clients.md"), heading), "python")
    variables: dict[str, object] = {}
    await asyncio.to_thread(exec, example.replace(GATEWAY, gateway), variables)
    said = variables.get("message") or variables["response"]
    assert "Hello" in str(said)
    variables["client"].close()  # type: ignore[attr-defined]


async def test_curl(gateway: str, storage: Storage) -> None:
    (example,) = blocks(section(page("clients.md"), "curl"), "sh")
    command = ["sh", "-c", example.replace(GATEWAY, gateway).replace("curl ", "curl --silent --fail ", 1)]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "event: message_stop" in ended.stdout
    async with asyncio.timeout(15):
        while True:
            with reading(storage.url) as records:
                if sessions := records.sessions():
                    break
            await asyncio.sleep(0.01)
    assert sessions[0].initiator_id == "ada@example.com"


def test_routes() -> None:
    told = {code(row[0])[0]: row[1:] for row in rows(section(page("clients.md"), "Which routes there are"))}
    types = {each.type: each for each in (AnthropicProvider, BedrockProvider, CopilotProvider, OpenAIProvider)}
    assert told.keys() == types.keys()
    for name, (bridged, passthrough) in told.items():
        assert code(bridged) == list(types[name].bridged)
        assert code(passthrough) == list(types[name].passthrough)
