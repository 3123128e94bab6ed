"""Claude Code through the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .agents import ACTOR, HINT, KEY, AgentFailedError, ClaudeCode

if TYPE_CHECKING:
    from aibridge.server.simulated_upstream import SimulatedUpstream

    from .gateway import Gateway

pytestmark = pytest.mark.clients


def test_a_prompt_and_its_answer(claude: ClaudeCode, gateway: Gateway, upstream: SimulatedUpstream) -> None:
    answer = claude.ask("Say hello.")
    assert answer.text == 'You said "Say hello.". This answer comes from the simulated upstream.'

    (interception,) = gateway.interceptions(1)
    assert interception["client"] == "Claude Code"
    assert interception["client_session_id"] == answer.session
    assert interception["initiator_id"] == ACTOR
    assert (interception["provider"], interception["provider_name"]) == ("anthropic", "anthropic")
    assert interception["model"] == claude.model
    assert interception["route"] == "/v1/messages"
    assert interception["streaming"] == 1
    assert (interception["status"], interception["http_status"]) == ("completed", 200)
    assert (interception["credential_kind"], interception["credential_hint"]) == ("byok", HINT)
    assert gateway.prompts() == ["Say hello."]

    (usage,) = gateway.rows("token_usages")
    assert usage["provider_response_id"].startswith("msg_")
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 1
    assert usage["cache_write_input_tokens"] > 1024, "the first request of a session fills the cache"
    assert usage["cache_read_input_tokens"] == 0

    (request,) = upstream.requests
    assert request.path == "/v1/messages?beta=true"
    assert request.headers["x-api-key"] == KEY
    assert "x-user-id" not in request.headers


def test_tools_that_the_client_runs(claude: ClaudeCode, gateway: Gateway) -> None:
    file = claude.work / "written.txt"
    prompt = (
        f'Write it, then look. [[call Write {{"file_path": "{file}", "content": "by the agent"}}]]'
        f' [[then]] [[call Read {{"file_path": "{file}"}}]] [[call Bash {{"command": "echo from $((1 + 1)) shells"}}]]'
    )
    answer = claude.ask(prompt)
    assert file.read_text() == "by the agent"
    assert "by the agent" in answer.text
    assert "from 2 shells" in answer.text

    first, second, third = gateway.interceptions(3)
    assert {row["client_session_id"] for row in (first, second, third)} == {answer.session}
    assert {row["status"] for row in (first, second, third)} == {"completed"}
    assert gateway.prompts() == [prompt], "the rounds that end in tool results have no prompt"
    assert gateway.tools() == [
        ("Write", {"file_path": str(file), "content": "by the agent"}),
        ("Read", {"file_path": str(file)}),
        ("Bash", {"command": "echo from $((1 + 1)) shells"}),
    ]
    calls = gateway.rows("tool_usages")
    assert [row["interception_id"] for row in calls] == [first["id"], second["id"], second["id"]]
    assert not any(row["injected"] for row in calls)

    assert first["thread_parent_id"] is None
    assert second["correlating_tool_call_id"] == calls[0]["provider_tool_call_id"]
    assert third["correlating_tool_call_id"] == calls[2]["provider_tool_call_id"]
    assert (second["thread_parent_id"], second["thread_root_id"]) == (first["id"], first["id"])
    assert (third["thread_parent_id"], third["thread_root_id"]) == (second["id"], first["id"])

    assert [row["content"] for row in gateway.rows("model_thoughts")] == [
        "The user wants me to use Write.",
        "The user wants me to use Read and Bash.",
    ]
    usages = gateway.rows("token_usages")
    assert [row["interception_id"] for row in usages] == [first["id"], second["id"], third["id"]]
    assert all(row["cache_read_input_tokens"] > 1024 for row in usages[1:])


def test_a_session_that_goes_on(claude: ClaudeCode, gateway: Gateway) -> None:
    first = claude.ask("One.")
    second = claude.ask("Two.", "--continue")
    third = claude.ask("Three.", "--resume", first.session)
    another = claude.ask("Four.")
    assert first.session == second.session == third.session != another.session

    sessions = [row["client_session_id"] for row in gateway.interceptions(4)]
    assert sessions == [first.session] * 3 + [another.session]
    assert gateway.prompts() == ["One.", "Two.", "Three.", "Four."]


def test_a_sub_agent(claude: ClaudeCode, gateway: Gateway) -> None:
    asked = '{"description": "greet", "prompt": "Say hello, child.", "subagent_type": "general-purpose"}'
    answer = claude.ask(f"Delegate. [[call Agent {asked}]]")

    rows = gateway.interceptions(3)
    assert {row["client_session_id"] for row in rows} == {answer.session}
    (child,) = [row for row in rows if "x-claude-code-agent-id" in str(row["metadata"]).lower()]
    assert [row["prompt"] for row in gateway.rows("user_prompts") if row["interception_id"] == child["id"]] == [
        "Say hello, child."
    ]
    assert len(gateway.prompts()) == 2, "the news that a sub-agent is done is nobody's prompt"


def test_who_is_signed_in_with_a_plan(claude: ClaudeCode, gateway: Gateway, upstream: SimulatedUpstream) -> None:
    token = "sk-ant-oat01-of-ada-0123456789abcdef"
    claude.sign_in_with_a_plan(token)
    assert "simulated upstream" in claude.ask("Say hello.").text

    (interception,) = gateway.interceptions(1)
    assert (interception["credential_kind"], interception["credential_hint"]) == ("byok", "sk-a...cdef")
    assert interception["metadata"]["subscription"] == "claude"
    (request,) = upstream.requests
    assert request.headers["authorization"] == f"Bearer {token}"
    assert "oauth-2025-04-20" in request.headers["anthropic-beta"]
    assert "x-api-key" not in request.headers
    assert "token-of-ada" not in str(request.headers)


def test_side_traffic(claude: ClaudeCode, gateway: Gateway, upstream: SimulatedUpstream) -> None:
    claude.environment = {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "0",
        "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    assert "Context Usage" in claude.ask("/context").text
    paths = [request.path for request in upstream.requests]
    assert "/v1/models?limit=1000" in paths
    assert "/v1/messages/count_tokens?beta=true" in paths
    assert "/api/hello" not in paths, "the gateway answers the probe itself"
    assert gateway.rows("interceptions") == [], "what is passed through is no interception"


def test_an_overloaded_provider(claude: ClaudeCode, gateway: Gateway) -> None:
    with pytest.raises(AgentFailedError, match="529"):
        claude.ask("[[fail 529]]")
    rows = gateway.interceptions(2)
    assert len(rows) == 2, "the first try, and the one retry that the client may make"
    assert {(row["status"], row["http_status"], row["error_type"]) for row in rows} == {
        ("failed", 529, "overloaded_error")
    }
    assert gateway.prompts() == ["[[fail 529]]"] * 2, "a prompt is recorded whether or not the provider answers"


@pytest.mark.parametrize("fault", ["[[error]]", "[[cut]]"])
def test_a_broken_stream_is_never_taken_for_an_answer(claude: ClaudeCode, gateway: Gateway, fault: str) -> None:
    with pytest.raises(AgentFailedError):
        claude.ask(f"Say hello. {fault}")
    rows = gateway.interceptions(2)
    assert {row["status"] for row in rows} == {"failed"}
    assert all(row["metadata"].get("partial") for row in gateway.rows("token_usages"))
