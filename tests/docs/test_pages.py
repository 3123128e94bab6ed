"""Links lead somewhere, and what is shown as TOML or JSON is that."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from aibridge.server.cli import main

from .pages import PAGES, ROOT, blocks, page


def anchors(path: Path) -> set[str]:
    """What a link can name in a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_settings_of_clients_can_be_read(path: Path) -> None:
    for block in blocks(path.read_text(), "toml"):
        assert tomllib.loads(block)
    for block in blocks(path.read_text(), "json"):
        assert json.loads(block)


def test_every_page_is_in_the_readme() -> None:
    assert set(re.findall(r"\((docs/[\w-]+\.md)\)", page("README.md"))) >= {
        f"docs/{path.name}" for path in PAGES if path.parent.name == "docs"
    }


def test_what_the_readme_names_is_there() -> None:
    told = page("README.md")
    for command in main.commands:
        assert f"aibridge {command}" in told or f"scripts/{command}" in told
    for script in re.findall(r"scripts/[\w-]+", told):
        assert (ROOT / script).exists()
