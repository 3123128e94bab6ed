"""The settings that say which calls of injected tools are allowed."""

from __future__ import annotations

import pytest

from aibridge.errors import SettingsError
from aibridge.server.settings import MCPServer, Settings, Tools
from aibridge.server.tool_servers import policy_named, tool_servers


def may_call(*asked: object) -> bool:
    return True


def test_a_policy_is_a_word_or_the_name_of_a_function() -> None:
    assert policy_named("allow") == "allow"
    assert policy_named("deny") == "deny"
    assert policy_named(f"{__name__}:may_call") is may_call


@pytest.mark.parametrize("told", ["no_such_module:f", "aibridge.server.tool_servers:no_such_name"])
def test_a_policy_that_can_not_be_loaded_stops_the_start(told: str) -> None:
    servers = (MCPServer(name="tickets", url="http://127.0.0.1:9/mcp"),)
    with pytest.raises(SettingsError, match=r"^tools\.policy: .* can not be loaded"):
        tool_servers(Settings(mcp_servers=servers, tools=Tools(policy=told)))
