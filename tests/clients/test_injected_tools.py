"""Coding agents whose gateway has tools of its own: they work beside the agents' own, which know nothing of them."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aibridge.server import simulated_upstream

from . import gateway as gateway_process

if TYPE_CHECKING:
    from aibridge.server.simulated_upstream import SimulatedUpstream

    from .agents import Agent, ClaudeCode, Codex
    from .gateway import Gateway, Row

pytestmark = pytest.mark.clients

ECHO = "bmcp_sdk_echo"
ARGUMENTS = '{"text":  "high water"}'
"""Spaced as no JSON library would."""

_SERVER = Path(__file__).parents[1] / "mcp_servers" / "sdk_server.py"
_SETTINGS = f"""
[[mcp_servers]]
name = "sdk"
command = [{json.dumps(sys.executable)}, {json.dumps(str(_SERVER))}, "stdio"]
tool_allow = "^echo$"
"""


@pytest.fixture
def gateway(tmp_path: Path, upstream: SimulatedUpstream) -> Iterator[Gateway]:
    """The gateway with an MCP server, once that server's tool is there."""
    with (
        simulated_upstream.serve(upstream) as url,
        gateway_process.running(tmp_path, url, {}, _SETTINGS) as gateway,
    ):
        deadline = time.monotonic() + 20
        while 'aibridge_mcp_server_connected{server="sdk"} 1.0' not in _metrics(gateway):
            assert time.monotonic() < deadline, "the MCP server did not come up"
            time.sleep(0.05)
        yield gateway


def _metrics(gateway: Gateway) -> str:
    with urllib.request.urlopen(f"{gateway.url}/metrics") as answer:
        told: bytes = answer.read()
    return told.decode()


def test_claude_code_calls_a_tool_of_its_own_and_one_of_the_gateway_in_one_turn(
    claude: ClaudeCode, gateway: Gateway, upstream: SimulatedUpstream
) -> None:
    file = claude.work / "tides.txt"
    file.write_text("six and noon")
    prompt = f'Both. [[call {ECHO} {ARGUMENTS}]] [[call Read {{"file_path": "{file}"}}]]'
    answer = claude.ask(prompt)
    assert "high water" in answer.text
    assert "six and noon" in answer.text

    first, second = gateway.interceptions(2)
    _check_records(gateway, first, own="Read")
    assert second["thread_parent_id"] == first["id"]
    assert len(upstream.requests) == 2
    calls, results = _told_in_messages(upstream)
    assert [name for name, _ in calls] == [ECHO, "Read"]
    assert [call for call, _ in results] == [call for _, call in calls]
    assert "high water" in results[0][1]
    assert "six and noon" in results[1][1]
    _check_unseen(claude)

    again = claude.ask("And now?", "--resume", answer.session)
    assert again.session == answer.session
    assert _told_in_messages(upstream) == (calls, results), "the conversation goes on with all that was in it"
    _check_unseen(claude)


def test_claude_code_gets_one_message_where_the_gateway_ran_a_tool(
    claude: ClaudeCode, gateway: Gateway, upstream: SimulatedUpstream
) -> None:
    answer = claude.ask(f"[[call {ECHO} {ARGUMENTS}]] [[then]] [[call {ECHO} {ARGUMENTS}]]")
    assert "high water" in answer.text
    _check_one_interception(gateway, upstream)
    _check_unseen(claude)

    claude.ask("And now?", "--resume", answer.session)
    calls, results = _told_in_messages(upstream)
    assert [name for name, _ in calls] == [ECHO, ECHO]
    assert [call for call, _ in results] == [call for _, call in calls]


def test_codex_calls_a_tool_of_its_own_and_one_of_the_gateway_in_one_turn(
    codex: Codex, gateway: Gateway, upstream: SimulatedUpstream
) -> None:
    prompt = f'Both. [[call {ECHO} {ARGUMENTS}]] [[call exec_command {{"cmd": "echo six and noon"}}]]'
    answer = codex.ask(prompt)
    assert "high water" in answer.text
    assert "six and noon" in answer.text

    first, second = gateway.interceptions(2)
    _check_records(gateway, first, own="exec_command")
    assert second["thread_parent_id"] == first["id"]
    assert len(upstream.requests) == 2
    calls, results = _told_in_responses(upstream)
    assert [name for name, _ in calls] == [ECHO, "exec_command"]
    assert [call for call, _ in results] == [call for _, call in calls]
    assert "high water" in results[0][1]
    assert "six and noon" in results[1][1]
    _check_unseen(codex)

    codex.ask("And now?", "resume", answer.session)
    assert _told_in_responses(upstream) == (calls, results), "the conversation goes on with all that was in it"
    _check_unseen(codex)


def test_codex_gets_one_response_where_the_gateway_ran_a_tool(
    codex: Codex, gateway: Gateway, upstream: SimulatedUpstream
) -> None:
    answer = codex.ask(f"[[call {ECHO} {ARGUMENTS}]] [[then]] [[call {ECHO} {ARGUMENTS}]]")
    assert "high water" in answer.text
    _check_one_interception(gateway, upstream)
    _check_unseen(codex)

    codex.ask("And now?", "resume", answer.session)
    calls, results = _told_in_responses(upstream)
    assert [name for name, _ in calls] == [ECHO, ECHO]
    assert [call for call, _ in results] == [call for _, call in calls]


def _check_records(gateway: Gateway, interception: Row, own: str) -> None:
    """Both calls of the turn are recorded: one as the client's, one as the gateway's."""
    rows = {row["tool"]: row for row in gateway.rows("tool_usages")}
    assert rows.keys() == {own, "echo"}
    assert {row["interception_id"] for row in rows.values()} == {interception["id"]}
    assert (rows[own]["injected"], rows[own]["server_url"]) == (0, None)
    _check_echo(rows["echo"])


def _check_echo(row: Row) -> None:
    assert (row["tool"], row["injected"], row["server_url"]) == ("echo", 1, f"stdio:{sys.executable}")
    assert json.loads(row["input"]) == json.loads(ARGUMENTS)
    assert row["invocation_error"] is None
    assert row["metadata"]["duration_ms"] > 0


def _check_one_interception(gateway: Gateway, upstream: SimulatedUpstream) -> None:
    """Three turns are one interception."""
    (interception,) = gateway.interceptions(1)
    assert interception["status"] == "completed"
    assert len(upstream.requests) == len(gateway.rows("token_usages")) == 3
    rows = gateway.rows("tool_usages")
    assert len(rows) == 2
    for row in rows:
        _check_echo(row)


def _check_unseen(agent: Agent) -> None:
    """What the agent wrote down of its sessions holds no call of the gateway's tool."""
    sessions = [path.read_text() for path in agent.home.rglob("*.jsonl")]
    assert any("And now?" in session or "Both." in session or ECHO in session for session in sessions)
    for session in sessions:
        assert f'"name":"{ECHO}"' not in session.replace('": "', '":"')


def _told_in_messages(upstream: SimulatedUpstream) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Names and ids of the calls in the last request that went upstream, and ids and texts of their results."""
    messages = upstream.requests[-1].json()["messages"]
    blocks = [block for message in messages for block in message["content"] if isinstance(block, dict)]
    calls = [(block["name"], block["id"]) for block in blocks if block["type"] == "tool_use"]
    results = [(block["tool_use_id"], _text(block["content"])) for block in blocks if block["type"] == "tool_result"]
    return calls, results


def _told_in_responses(upstream: SimulatedUpstream) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    items = upstream.requests[-1].json()["input"]
    calls = [(item["name"], item["call_id"]) for item in items if item["type"] == "function_call"]
    results = [(item["call_id"], _text(item["output"])) for item in items if item["type"] == "function_call_output"]
    return calls, results


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)
