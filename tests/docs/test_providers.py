"""docs/providers.md: its configurations work as they stand, but for where the upstream is."""

from __future__ import annotations

import json
import re
import sqlite3
import tomllib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from aibridge.server.gateway import Gateway
from aibridge.server.loading import load
from aibridge.wire.bedrock import models
from support.bedrock import KEY_ID, SECRET, Bedrock, answer, is_signed, key_of, without_aws
from support.client import ask
from support.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from support.provider import Provider, events
from support.serving import serving

from .pages import blocks, code, page, rows, section

PAGE = page("providers.md")
BEDROCK = PAGE.partition("## Amazon Bedrock\n")[2].partition("\n## ")[0]
LOCAL = "vLLM, Ollama and llama.cpp"
KEYS = {
    name: f"sk-in-{name.lower().replace('_', '-')}-0123456789"
    for name in (
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "OPENROUTER_API_KEY", "VLLM_API_KEY"),
        *("LITELLM_KEY", "ANTHROPIC_KEY_A", "ANTHROPIC_KEY_B", "SECOND_HOUSE_KEY"),
    )
}
CLAUDE = {"Authorization": "Bearer sk-ant-oat01-of-ada-0123456789", "anthropic-beta": "oauth-2025-04-20"}
CHATGPT = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.of-ada.0123456789", "ChatGPT-Account-Id": "account-1"}
COPILOT = {"Authorization": "Bearer tid=of-ada;exp=0123456789", "Editor-Version": "vscode/1.120.0"}
SENT = {"Authorization": "Bearer any"}


def _bearer(variable: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[variable]}"}


_azure = {"Api-Key": KEYS["AZURE_OPENAI_API_KEY"]}


@dataclass
class Upstream:
    """How a provider of the page is asked."""

    heading: str
    name: str
    dialect: Dialect
    sent: dict[str, str]
    """By the client."""
    target: str
    """What the upstream is asked for, below its host."""
    got: dict[str, str]
    """Headers of the request that it got."""
    kind: str = "centralized"
    subscription: str | None = None


UPSTREAMS = [
    Upstream("Anthropic", "anthropic", MESSAGES, {}, "/v1/messages", {"X-Api-Key": KEYS["ANTHROPIC_API_KEY"]}),
    *(
        Upstream("OpenAI", "openai", dialect, {}, dialect.upstream_path, _bearer("OPENAI_API_KEY"))
        for dialect in (CHAT, RESPONSES)
    ),
    *(
        Upstream("Azure OpenAI", "azure", dialect, {}, f"/openai{dialect.upstream_path}", _azure)
        for dialect in (CHAT, RESPONSES)
    ),
    Upstream(
        "Azure OpenAI",
        "azure-deployment",
        CHAT,
        {},
        "/openai/deployments/gpt-5/chat/completions?api-version=2025-04-01-preview",
        _azure,
    ),
    Upstream(
        "Azure OpenAI",
        "azure",
        CHAT,
        {"Api-Key": "sk-of-ada-0123456789"},
        "/openai/v1/chat/completions",
        {"Api-Key": "sk-of-ada-0123456789"},
        "byok",
    ),
    Upstream(
        "OpenRouter",
        "openrouter",
        CHAT,
        {"X-Title": "Kilo Code"},
        "/api/v1/chat/completions",
        {"HTTP-Referer": "https://tides.example.com", "X-Title": "Tides", **_bearer("OPENROUTER_API_KEY")},
    ),
    Upstream(LOCAL, "vllm", CHAT, SENT, "/v1/chat/completions", _bearer("VLLM_API_KEY")),
    Upstream(LOCAL, "ollama", RESPONSES, SENT, "/v1/responses", {}),
    Upstream(LOCAL, "llama-cpp", CHAT, SENT, "/v1/chat/completions", {}),
    Upstream("LiteLLM's proxy", "litellm", CHAT, SENT, "/v1/chat/completions", _bearer("LITELLM_KEY")),
    Upstream("LiteLLM's proxy", "litellm-messages", MESSAGES, SENT, "/v1/messages", {"X-Api-Key": KEYS["LITELLM_KEY"]}),
    *(
        Upstream(
            "GitHub Copilot",
            "copilot",
            dialect,
            COPILOT,
            dialect.upstream_path.removeprefix("/v1"),
            COPILOT,
            "byok",
            "copilot",
        )
        for dialect in (CHAT, RESPONSES)
    ),
    Upstream("Subscriptions", "anthropic", MESSAGES, CLAUDE, "/v1/messages", CLAUDE, "byok", "claude"),
    Upstream(
        "Subscriptions", "chatgpt", RESPONSES, CHATGPT, "/backend-api/codex/responses", CHATGPT, "byok", "chatgpt"
    ),
    Upstream(
        "Routes to several providers",
        "team",
        MESSAGES,
        CLAUDE,
        "/v1/messages",
        {"X-Api-Key": KEYS["ANTHROPIC_API_KEY"]},
    ),
]


@pytest.mark.parametrize("each", UPSTREAMS, ids=lambda each: f"{each.name}-{each.dialect.name}-{each.kind}")
async def test_upstreams(each: Upstream, provider: Provider, tmp_path: Path) -> None:
    """Every configuration, but for the host: that of the page is exchanged for one on loopback."""
    toml = "\n".join(found for found in blocks(section(PAGE, each.heading), "toml") if "[[providers]]" in found)
    file = tmp_path / "aibridge.toml"
    file.write_text(f'[auth]\nmode = "none"\n{toml}')
    environ = {"AIBRIDGE_STORAGE_URL": f"sqlite:///{tmp_path}/a.db", "AIBRIDGE_STORAGE_JOURNAL_DIR": f"{tmp_path}/j"}
    for configured in load(file, {**environ, **KEYS}).providers:
        variable = f"AIBRIDGE_PROVIDERS_{configured.name.upper().replace('-', '_')}_BASE_URL"
        environ[variable] = provider.url + urlsplit(configured.base_url).path
    provider.says(events(each.dialect.stream))
    gateway = Gateway(load(file, {**environ, **KEYS}))
    _, below = each.dialect.path[1:].split("/", 1)
    below = below.removeprefix("v1/") if each.name == "copilot" else below
    model: dict[str, Any] = {"model": "fast"} if each.name == "team" else {}
    async with serving(gateway, lifespan=True) as url:
        told = await ask(
            f"{url}/{each.name}/{below}", each.dialect.request(**model), {**each.sent, "X-AIBridge-Token": "t"}
        )
    assert (told.status, told.body) == (200, each.dialect.for_client)
    assert provider.last.target == each.target
    credentials = {"authorization", "x-api-key", "api-key"}
    got = {name.lower(): value for name, value in each.got.items()}
    for name in credentials | got.keys():
        assert provider.last.header(name) == got.get(name)
    assert provider.last.header("X-AIBridge-Token") is None
    [row] = rows_of(tmp_path / "a.db")
    assert (row["credential_kind"], json.loads(row["metadata"]).get("subscription")) == (each.kind, each.subscription)


def test_each_configuration_is_tested() -> None:
    tables = [table for block in blocks(PAGE.replace(BEDROCK, ""), "toml") for table in tomllib.loads(block).items()]
    configured = {each.get("name", each["type"]) for name, each_of in tables if name == "providers" for each in each_of}
    assert configured == {each.name for each in UPSTREAMS} - {"team"} | {"second-house"}


def rows_of(database: Path) -> list[dict[str, str]]:
    """The interceptions that were recorded."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM aibridge_interceptions")]


@pytest.mark.parametrize("toml", blocks(BEDROCK, "toml"))
async def test_bedrock(toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_aws(monkeypatch, tmp_path)
    folder = tmp_path / ".aws"
    folder.mkdir()
    keys = f"aws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    (folder / "credentials").write_text(f"[default]\n{keys}[production]\n{keys}")
    file = tmp_path / "aibridge.toml"
    file.write_text(f'[auth]\nmode = "none"\n{toml}')
    environ = {"AIBRIDGE_STORAGE_URL": f"sqlite:///{tmp_path}/a.db", "AIBRIDGE_STORAGE_JOURNAL_DIR": f"{tmp_path}/j"}
    (provider,) = load(file, environ).providers
    assert provider.base_url == f"https://bedrock-runtime.{provider.region}.amazonaws.com"
    variable = f"AIBRIDGE_PROVIDERS_{provider.name.upper().replace('-', '_')}_BASE_URL"

    async with Bedrock(provider.region or "") as upstream:
        upstream.says(answer(MESSAGES.document))
        gateway = Gateway(load(file, {**environ, variable: upstream.url}))
        async with serving(gateway, lifespan=True) as url:
            told = await ask(f"{url}/{provider.name}/v1/messages", MESSAGES.request(stream=False))
    assert told.body == MESSAGES.document
    assert key_of(upstream.last) == KEY_ID
    assert is_signed(upstream.last, SECRET, provider.region or "")
    assert provider.model
    assert provider.model.replace(":", "%3A") in upstream.last.target


def test_what_is_changed_at_bedrock() -> None:
    told = {name: what for cell, what in rows(section(page("providers.md"), "What is changed")) for name in code(cell)}
    assert {name for name, what in told.items() if what.endswith("Bedrock refuses them")} == {*models.REMOVED}
    for member, beta in models.GATED.items():
        assert beta in code(told[member])
    shares = [
        int(share) for share in re.findall(r"\d+(?=, | or | percent)", told["thinking"].partition("budget of")[2])
    ]
    assert shares == [*models.EFFORT.values()]
    assert f"{models.LEAST_BUDGET:,}" in told["thinking"]
    assert code(told["anthropic_version"]) == ["bedrock-2023-05-31"]
