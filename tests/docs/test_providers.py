"""docs/providers.md: its configurations work as they stand, but for where the upstream is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aibridge.server.gateway import Gateway
from aibridge.server.loading import load
from aibridge.wire.bedrock import models
from support.bedrock import KEY_ID, SECRET, Bedrock, answer, is_signed, key_of, without_aws
from support.client import ask
from support.dialects import MESSAGES
from support.serving import serving

from .pages import blocks, code, page, rows, section

BEDROCK = page("providers.md").partition("## Amazon Bedrock\n")[2].partition("\n## ")[0]


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
