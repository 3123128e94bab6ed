"""docs/operator.md: every setting is there, with its true default, and examples are valid."""

from __future__ import annotations

import logging
import re
import tomllib
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aibridge.observe.lines import PATIENCE
from aibridge.server import settings
from aibridge.server.gateway import Gateway
from aibridge.server.loading import load
from support.client import ask
from support.dialects import MESSAGES
from support.provider import Provider, events
from support.serving import serving

from .pages import blocks, code, page, rows, section

SECTIONS: dict[str, Any] = {
    name: kind.__args__[0] if getattr(kind, "__args__", None) else kind
    for name, kind in typing.get_type_hints(settings.Settings).items()
}
"""Every section, by its name in a file; of a list of tables, what a table is."""


def documented() -> dict[str, str]:
    """Every setting of the page, and the default that is told of it."""
    text = page("operator.md")
    tables = [section(text, heading) for heading in ("Settings", "Providers", "Routes", "MCP servers")]
    return {code(row[0])[0]: row[1] for table in tables for row in rows(table)}


def defaults() -> dict[str, Any]:
    """Every setting, and its true default."""
    return {
        f"{name}.{field.name}": field.default_factory() if callable(field.default_factory) else field.default
        for name, kind in SECTIONS.items()
        for field in msgspec.structs.fields(kind)
    }


def test_every_setting_is_there() -> None:
    assert sorted(documented()) == sorted(defaults())


@pytest.mark.parametrize("setting", documented())
def test_defaults(setting: str) -> None:
    told = code(documented()[setting])
    name, field = setting.split(".")
    if told:
        read = typing.get_type_hints(SECTIONS[name], include_extras=True)[field].__metadata__[0].read
        assert read(tomllib.loads(f"value = {told[0]}")["value"]) == defaults()[setting]
    else:
        assert defaults()[setting] in (None, msgspec.NODEFAULT)


@pytest.mark.parametrize("name", ["README.md", "operator.md"])
def test_examples_of_settings(name: str, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page(name), "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        loaded = load(file, {"ANTHROPIC_API_KEY": "sk-ant", "OPENAI_API_KEY": "sk-openai"})
        assert loaded.server.port == 8080


def test_a_variable_changes_a_provider(tmp_path: Path) -> None:
    (variable,) = re.findall(r"`(AIBRIDGE_PROVIDERS_LOCAL_\w+)`", page("operator.md"))
    file = tmp_path / "aibridge.toml"
    file.write_text(blocks(page("README.md"), "toml")[0])
    environ = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", variable: "http://127.0.0.1:1/v1"}
    *_, local = load(file, environ).providers
    assert local.base_url == "http://127.0.0.1:1/v1"


async def test_facts_in_the_log(provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    provider.says(events(MESSAGES.stream))
    gateway = Gateway(
        settings.Settings(
            auth=settings.Auth(mode="none"),
            storage=settings.Storage(url=f"sqlite:///{tmp_path}/aibridge.db", journal_dir=tmp_path / "journal"),
            providers=(settings.Provider(type="anthropic", name="anthropic", base_url=provider.url),),
        )
    )
    with caplog.at_level(logging.INFO, "aibridge.interceptions"):
        async with serving(gateway, lifespan=True) as url:
            await ask(url + MESSAGES.path, MESSAGES.request())
    (line,) = [record for record in caplog.records if record.name == "aibridge.interceptions"]
    told = code(section(page("operator.md"), "Logs").partition("`aibridge.interceptions`")[2])
    assert told == list(getattr(line, "facts"))  # noqa: B009 - it comes with `extra`


def test_how_long_a_line_waits() -> None:
    assert f"within {PATIENCE * 1000:g} ms" in section(page("operator.md"), "Logs")
