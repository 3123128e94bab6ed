"""Requests of the clients that are known, as they introduce themselves, and what they are taken for."""

from __future__ import annotations

import pytest

from aibridge.clients import UNKNOWN, Client, identify
from aibridge.wire.dialect import SessionHints

NO_HINTS = SessionHints()
CLAUDE = "claude-cli/2.1.330 (external, cli)"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"user-agent": CLAUDE, "x-claude-code-session-id": "s"}, "Claude Code"),
        ({"user-agent": "claude-cli/0.24.4 (external, cli)"}, "Qwen Code"),
        ({"user-agent": "QwenCode/0.24.4 (linux; x64)"}, "Qwen Code"),
        ({"user-agent": "claude-cli/2.1.330"}, "Claude Code"),
        ({"user-agent": "codex_exec/0.169.0 (Debian) xterm"}, "Codex"),
        ({"user-agent": "codex-tui/0.169.0"}, "Codex"),
        ({"user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4"}, "OpenCode"),
        ({"user-agent": "opencode/7.7.7", "originator": "opencode", "x-title": "Kilo Code"}, "Kilo Code"),
        ({"user-agent": "Kilo-Code/7.7.7"}, "Kilo Code"),
        ({"user-agent": "kilo/latest/7.7.7/cli"}, "Kilo Code"),
        ({"user-agent": "node", "originator": "kilo-code"}, "Kilo Code"),
        ({"user-agent": "RooCode", "originator": "roo-code"}, "Roo Code"),
        ({"user-agent": "roo-code/3.1"}, "Roo Code"),
        ({"user-agent": "Zed/0.200.1"}, "Zed"),
        ({"user-agent": "GitHubCopilotChat/0.40"}, "GitHub Copilot (VS Code)"),
        ({"user-agent": "copilot/1.0.102"}, "GitHub Copilot (CLI)"),
        ({"user-agent": "Charm Crush/0.96"}, "Charm Crush"),
        ({"user-agent": "mux/0.9"}, "Mux"),
        ({"user-agent": "coder-agents/1"}, "Coder Agents"),
        ({"user-agent": "GeminiCLI-tui/0.61.0/gemini (linux)"}, "Gemini CLI"),
        ({"user-agent": "litellm/1.106.2"}, "LiteLLM"),
        ({"user-agent": "Agents/Python 0.24.0"}, "OpenAI Agents SDK"),
        ({"user-agent": "node", "x-cursor-client-version": "2.0"}, "Cursor"),
        ({"user-agent": "OpenAI/JS 5.20.1", "x-cursor-client-version": "2.0"}, "Cursor"),
        ({"user-agent": "Anthropic/Python 2.12.0"}, "Anthropic SDK"),
        ({"user-agent": "AsyncAnthropic/Python 2.12.0"}, "Anthropic SDK"),
        ({"user-agent": "OpenAI/JS 5.20.1"}, "OpenAI SDK"),
        ({"user-agent": "AsyncOpenAI/Python 3.54.0"}, "OpenAI SDK"),
        ({"user-agent": "ai-sdk/anthropic/3"}, "AI SDK"),
        ({"user-agent": "curl/8.5"}, UNKNOWN),
        ({"user-agent": "my-claude/1"}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_a_client_is_known_by_its_headers(headers: dict[str, str], name: str) -> None:
    assert identify(headers, NO_HINTS).name == name


def test_claude_code_is_known_by_its_body_too() -> None:
    assert identify({"user-agent": "claude-cli/0.9"}, SessionHints(user_id="user_1")).name == "Claude Code"


def session(headers: dict[str, str], hints: SessionHints = NO_HINTS) -> str | None:
    return identify(headers, hints).session_id


@pytest.mark.parametrize(
    ("user_id", "found"),
    [
        ('{"device_id":"d","account_uuid":"","session_id":"s-1"}', "s-1"),
        ("user_0a1b_account__session_s-2", "s-2"),
        ("user_0a1b", None),
        ('{"session_id":5}', None),
        ('{"session_id"', None),
        ('{"session_id":"  "}', None),
        ('{"a":' + "[" * 100_000, None),
        ("", None),
    ],
)
def test_the_session_of_claude_code_is_in_a_header_or_in_its_user_id(user_id: str, found: str | None) -> None:
    hints = SessionHints(user_id=user_id, prompt_cache_key="no session of Claude Code")
    assert session({"user-agent": CLAUDE}, hints) == found
    assert session({"user-agent": CLAUDE, "x-claude-code-session-id": " s-0 "}, hints) == "s-0"
    assert session({"user-agent": CLAUDE, "x-claude-code-session-id": " "}, hints) == found


def test_the_session_of_codex_is_looked_for_in_the_order_of_its_versions() -> None:
    headers = {
        "user-agent": "codex_exec/0.169.0",
        "session-id": "1",
        "session_id": "2",
        "x-codex-turn-metadata": '{"session_id":"3","turn_id":"t"}',
    }
    hints = SessionHints(client_session_id="4", prompt_cache_key="5")
    for expected, header in enumerate(["session-id", "session_id", "x-codex-turn-metadata"], start=1):
        assert session(headers, hints) == str(expected)
        del headers[header]
    assert session(headers, hints) == "4"
    assert session(headers, SessionHints(prompt_cache_key="5")) == "5"
    assert session(headers) is None


@pytest.mark.parametrize(
    ("agent", "header"),
    [
        ("opencode/1", "x-session-id"),
        ("opencode/1", "x-session-affinity"),
        ("kilo-code/1", "x-session-id"),
        ("kilo-code/1", "x-session-affinity"),
        ("kilo-code/1", "x-kilocode-taskid"),
        ("githubcopilotchat/1", "x-interaction-id"),
        ("copilot/1", "x-client-session-id"),
        ("mux/1", "x-mux-workspace-id"),
        ("coder-agents/1", "x-coder-chat-id"),
    ],
)
def test_the_session_of_other_clients_is_in_a_header_of_their_own(agent: str, header: str) -> None:
    assert session({"user-agent": agent, header: "s-1"}) == "s-1"
    assert session({"user-agent": "curl/8", header: "s-1"}) is None


def test_the_session_of_any_other_client_is_its_cache_key() -> None:
    hints = SessionHints(prompt_cache_key=" qwen-code:s-1 ", client_session_id="of Codex", user_id="no")
    assert session({"user-agent": "QwenCode/0.24.4"}, hints) == "qwen-code:s-1"
    assert session({"user-agent": "OpenAI/JS 5.20.1"}, hints) == "qwen-code:s-1"
    assert session({}, SessionHints(prompt_cache_key="")) is None


def test_a_sub_agent_keeps_the_session_of_its_parent_and_is_marked() -> None:
    headers = {"user-agent": "opencode/1", "x-session-id": "child", "x-parent-session-id": "parent"}
    assert identify(headers, NO_HINTS) == Client("OpenCode", "parent", {"x-parent-session-id": "parent"})

    headers = {"user-agent": CLAUDE, "x-claude-code-session-id": "s-1", "x-claude-code-agent-id": "a-1"}
    assert identify(headers, NO_HINTS) == Client("Claude Code", "s-1", {"x-claude-code-agent-id": "a-1"})

    headers = {
        "user-agent": "codex-tui/0.169.0",
        "session-id": "s-1",
        "x-codex-parent-thread-id": "t-1",
        "x-openai-subagent": "collab_spawn",
    }
    marks = {"x-codex-parent-thread-id": "t-1", "x-openai-subagent": "collab_spawn"}
    assert identify(headers, NO_HINTS) == Client("Codex", "s-1", marks)
