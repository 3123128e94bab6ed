"""docs/mcp.md: its settings are valid, its variables set what they say, and its policy decides."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from aibridge.actor import Actor
from aibridge.mcp.policy import Gatekeeper
from aibridge.mcp.toolbox import InjectedTool
from aibridge.server import settings
from aibridge.server.loading import load
from aibridge.server.tool_servers import policy_named
from aibridge.wire.tools import OfferedTool

from .pages import blocks, page

TEXT = page("mcp.md")


def servers(file: Path, **environ: str) -> tuple[settings.MCPServer, ...]:
    examples = re.findall(r"^ *```toml\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)
    file.write_text("\n".join(textwrap.dedent(example) for example in examples))
    return load(file, environ).mcp_servers


def test_settings(tmp_path: Path) -> None:
    read = {server.name: server for server in servers(tmp_path / "aibridge.toml")}
    assert list(read) == ["deepwiki", "files", "tickets", "search", "crm"]


def test_variables(tmp_path: Path) -> None:
    exported = dict(re.findall(r"^export (\w+)=(.*)$", blocks(TEXT, "sh")[0], re.MULTILINE))
    environ = {name: value.strip("'").replace("...", "fr0m-env") for name, value in exported.items()}
    read = {server.name: server for server in servers(tmp_path / "aibridge.toml", **environ)}
    assert read["tickets"].headers["Authorization"].reveal() == "Bearer fr0m-env"
    secret = read["crm"].oauth_client_secret
    assert secret
    assert secret.reveal() == "fr0m-env"


async def test_the_policy() -> None:
    names: dict[str, Any] = {}
    exec(blocks(TEXT, "python")[0], names)
    search = InjectedTool("tickets", "", "search", OfferedTool("bmcp_tickets_search", "", b"{}"))
    gatekeeper = Gatekeeper({"bmcp_tickets_search": names["may_search"], "*": "deny"})
    assert await gatekeeper.refusal(Actor("ada", {"team": "support"}), search, {}) is None
    refusal = await gatekeeper.refusal(Actor("bob"), search, {})
    assert refusal
    assert refusal.endswith("only the support team may search tickets")


async def test_the_policy_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page has it: a file, a folder that Python looks into, and the setting that names both."""
    (named,) = re.findall(r'^policy = "(.*)"$', TEXT, re.MULTILINE)
    (tmp_path / "tool_policy.py").write_text(blocks(TEXT, "python")[1])
    monkeypatch.syspath_prepend(tmp_path)
    gatekeeper = Gatekeeper(policy_named(named))
    tree, file = (
        InjectedTool("files", "", name, OfferedTool(f"bmcp_files_{name}", "", b"{}"))
        for name in ("directory_tree", "read_text_file")
    )
    assert await gatekeeper.refusal(Actor("ada"), tree, {})
    assert await gatekeeper.refusal(Actor("ada"), file, {}) is None
