"""docs/library.md: its examples, run as they stand but for the providers' addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aibridge import Recorder
from aibridge.recording.ledger import Ledger
from aibridge.server import simulated_upstream
from support.client import ask
from support.serving import serving

from .pages import blocks, page, section

PAGE = page("library.md")
QUESTION = {"model": "claude-sonnet-5-5", "max_tokens": 500, "messages": [{"role": "user", "content": "Hello"}]}

urlpatterns: list[Any] = []  # for Django


@pytest.fixture
def upstream() -> Iterator[str]:
    with simulated_upstream.serve() as url:
        yield url


@pytest.fixture
def names(upstream: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the first three examples define: `providers`, `Printer` and `Authenticated`."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-host")
    names: dict[str, Any] = {}
    for heading in ("The bridge in a service of your own", "A recorder", "The actor"):
        run(PAGE, heading, names, upstream)
    return names


def run(text: str, heading: str, names: dict[str, Any], upstream: str) -> None:
    """Run the examples under a heading."""
    examples = blocks(section(text, heading), "python")
    assert examples
    for example in examples:
        exec(example.replace("https://api.anthropic.com", upstream), names)


@pytest.mark.parametrize("host", ["Starlette", "FastAPI", "Django"])
async def test_hosts(host: str, names: dict[str, Any], upstream: str, capsys: pytest.CaptureFixture[str]) -> None:
    if host == "Django":
        from django.conf import settings

        if not settings.configured:
            settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="of a test", ALLOWED_HOSTS=["127.0.0.1"])
    run(PAGE, host, names, upstream)
    app = names["application" if host == "Django" else "app"]
    async with serving(app, lifespan=True) as url:
        question = json.dumps(QUESTION).encode()
        answer = await ask(f"{url}/ai/anthropic/v1/messages", question, {"X-Token": "token-of-ada"})
        assert answer.status == 200
        assert b"Hello" in answer.body
        assert (await ask(f"{url}/ai/anthropic/v1/messages", question)).status == 401
        assert (await ask(f"{url}/elsewhere", method="GET")).status == 404
    printed = capsys.readouterr().out
    assert "ada asks claude-sonnet-5-5\n" in printed
    assert f"{answer.id} completed\n" in printed


async def test_the_gateways_own_recorder(names: dict[str, Any], tmp_path: Path) -> None:
    ledger: Ledger = names["ledger"](tmp_path)
    recorder: Recorder = ledger
    assert isinstance(recorder, Recorder)
    await ledger.start()
    await ledger.aclose()
    assert (tmp_path / "aibridge.db").exists()


async def test_a_provider_type(names: dict[str, Any], upstream: str) -> None:
    run(PAGE, "A provider type of your own", names, upstream)
    provider = names["HouseModels"]("https://models.house.example", api_key="of-the-house")
    assert provider.name == "house"
    assert provider.upstream_url("/v1/chat/completions") == "https://models.house.example/v1/chat/completions"
    assert provider.credential({"authorization": "Bearer of-a-client"}).header == ("X-House-Key", "of-the-house")


def test_limits_and_metrics(names: dict[str, Any], upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import prometheus_client

    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
    run(PAGE, "Limits and metrics", names, upstream)
    assert b"aibridge_interceptions" in prometheus_client.generate_latest(prometheus_client.REGISTRY)
