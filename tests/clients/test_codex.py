"""Codex through the gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .agents import ACTOR, HINT, KEY, AgentFailedError, Codex

if TYPE_CHECKING:
    from aibridge.server.simulated_upstream import SimulatedUpstream

    from .gateway import Gateway

pytestmark = pytest.mark.clients


def test_a_prompt_and_its_answer(codex: Codex, gateway: Gateway, upstream: SimulatedUpstream) -> None:
    answer = codex.ask("Say hello.")
    assert answer.text == 'You said "Say hello.". This answer comes from the simulated upstream.'

    (interception,) = gateway.interceptions(1)
    assert interception["client"] == "Codex"
    assert interception["client_session_id"] == answer.session
    assert interception["initiator_id"] == ACTOR
    assert (interception["provider"], interception["provider_name"]) == ("openai", "openai")
    assert interception["model"] == codex.model
    assert interception["route"] == "/v1/responses"
    assert interception["streaming"] == 1
    assert (interception["status"], interception["http_status"]) == ("completed", 200)
    assert (interception["credential_kind"], interception["credential_hint"]) == ("byok", HINT)
    assert gateway.prompts() == ["Say hello."]

    (usage,) = gateway.rows("token_usages")
    assert usage["provider_response_id"].startswith("resp_")
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 1

    (request,) = upstream.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "x-user-id" not in request.headers


def test_tools_that_the_client_runs(codex: Codex, gateway: Gateway) -> None:
    patch = r'"*** Begin Patch\n*** Add File: patched.txt\n+by the patch\n*** End Patch"'
    prompt = (
        f'Write both. [[call exec_command {{"cmd": "echo by the shell > written.txt"}}]] [[call apply_patch {patch}]]'
        ' [[then]] [[call exec_command {"cmd": "cat written.txt patched.txt"}]]'
    )
    answer = codex.ask(prompt)
    assert (codex.work / "written.txt").read_text() == "by the shell\n"
    assert (codex.work / "patched.txt").read_text() == "by the patch\n"
    assert "by the shell\nby the patch" in answer.text

    first, second, third = gateway.interceptions(3)
    assert {row["client_session_id"] for row in (first, second, third)} == {answer.session}
    assert {row["status"] for row in (first, second, third)} == {"completed"}
    assert gateway.prompts() == [prompt], "the rounds that end in tool results have no prompt"
    assert gateway.tools() == [
        ("exec_command", {"cmd": "echo by the shell > written.txt"}),
        ("apply_patch", "*** Begin Patch\n*** Add File: patched.txt\n+by the patch\n*** End Patch"),
        ("exec_command", {"cmd": "cat written.txt patched.txt"}),
    ]
    calls = gateway.rows("tool_usages")
    assert [row["interception_id"] for row in calls] == [first["id"], first["id"], second["id"]]
    assert not any(row["injected"] for row in calls)

    assert first["thread_parent_id"] is None
    assert second["correlating_tool_call_id"] == calls[1]["provider_tool_call_id"]
    assert third["correlating_tool_call_id"] == calls[2]["provider_tool_call_id"]
    assert (second["thread_parent_id"], second["thread_root_id"]) == (first["id"], first["id"])
    assert (third["thread_parent_id"], third["thread_root_id"]) == (second["id"], first["id"])

    assert [(row["metadata"]["source"], row["content"]) for row in gateway.rows("model_thoughts")] == [
        ("reasoning_summary", "The user wants me to use exec_command and apply_patch."),
        ("commentary", "I will use exec_command and apply_patch."),
        ("reasoning_summary", "The user wants me to use exec_command."),
        ("commentary", "I will use exec_command."),
    ]
    usages = gateway.rows("token_usages")
    assert [row["interception_id"] for row in usages] == [first["id"], second["id"], third["id"]]
    assert all(row["cache_read_input_tokens"] > 1024 for row in usages[1:])


def test_tools_that_come_in_the_input(codex: Codex, gateway: Gateway, upstream: SimulatedUpstream) -> None:
    """With its newer models Codex has a tool that takes a script, and declares it in an item of the input."""
    codex.model = "gpt-6.1-sol"
    script = 'await tools.exec_command({cmd: "echo by the script > written.txt"}); text("done")'
    answer = codex.ask(f"[[call exec {json.dumps(script)}]]")
    assert (codex.work / "written.txt").read_text() == "by the script\n"
    assert "done" in answer.text
    assert "tools" not in upstream.requests[0].json()

    first, second = gateway.interceptions(2)
    assert gateway.tools() == [("exec", script)]
    assert len(gateway.prompts()) == 1
    assert second["thread_parent_id"] == first["id"]


def test_a_session_that_goes_on(codex: Codex, gateway: Gateway) -> None:
    first = codex.ask("One.")
    second = codex.ask("Two.", "resume", "--last")
    third = codex.ask("Three.", "resume", first.session)
    another = codex.ask("Four.")
    assert first.session == second.session == third.session != another.session

    sessions = [row["client_session_id"] for row in gateway.interceptions(4)]
    assert sessions == [first.session] * 3 + [another.session]
    assert gateway.prompts() == ["One.", "Two.", "Three.", "Four."]


def test_a_sub_agent(codex: Codex, gateway: Gateway) -> None:
    codex.model = "gpt-6.1-sol"
    asked = '{"task_name": "greeting", "message": "Say hello, child."}'
    prompt = f"Delegate. [[call spawn_agent {asked}]] [[then]] [[call wait_agent {{}}]]"
    answer = codex.ask(prompt)

    rows = gateway.interceptions(4)
    assert {row["client_session_id"] for row in rows} == {answer.session}
    assert {row["status"] for row in rows} == {"completed"}  # the parent may have to wait more than once
    (child,) = [row for row in rows if "x-openai-subagent" in str(row["metadata"]).lower()]
    assert child["thread_parent_id"] == rows[0]["id"]  # the child goes on from the call that spawned it
    assert prompt in gateway.prompts()


@pytest.mark.parametrize("gateway", [{"AIBRIDGE_AUTH_MODE": "none"}], indirect=True)
def test_the_built_in_provider_falls_back_from_websocket(
    codex: Codex, gateway: Gateway, upstream: SimulatedUpstream
) -> None:
    """It tries a WebSocket first, always; its headers can not be set, so nobody says who the actor is."""
    codex.use_built_in_provider()
    answer = codex.ask("Say hello.")
    assert "Say hello." in answer.text
    (interception,) = gateway.interceptions(1)
    assert (interception["client"], interception["status"]) == ("Codex", "completed")
    assert interception["client_session_id"] == answer.session
    assert interception["initiator_id"] == "anonymous"
    assert [request.method for request in upstream.requests] == ["POST"], "the upgrade stops at the gateway"


@pytest.mark.parametrize("gateway", [{"AIBRIDGE_AUTH_MODE": "none"}], indirect=True)
def test_compressed_requests(codex: Codex, gateway: Gateway, upstream: SimulatedUpstream) -> None:
    """Logged in with ChatGPT it compresses what it sends."""
    codex.use_built_in_provider()
    codex.log_in_with_chatgpt()
    answer = codex.ask("Say hello.")
    assert "Say hello." in answer.text
    (request,) = [request for request in upstream.requests if request.method == "POST"]
    assert request.headers["content-encoding"] == "zstd"
    (interception,) = gateway.interceptions(1)
    assert (interception["client"], interception["client_session_id"]) == ("Codex", answer.session)
    assert gateway.prompts() == ["Say hello."]


def test_who_is_signed_in_with_chatgpt(codex: Codex, gateway: Gateway, upstream: SimulatedUpstream) -> None:
    codex.use_its_login()
    codex.log_in_with_chatgpt()
    assert "simulated upstream" in codex.ask("Say hello.").text

    (interception,) = gateway.interceptions(1)
    assert (interception["initiator_id"], interception["credential_kind"]) == (ACTOR, "byok")
    assert interception["metadata"]["subscription"] == "chatgpt"
    request = upstream.requests[-1]
    assert request.headers["chatgpt-account-id"] == "account-1"
    assert request.headers["authorization"].startswith("Bearer ey")
    assert "token-of-ada" not in str(request.headers)


@pytest.mark.parametrize("fault", ["[[error]]", "[[cut]]"])
def test_a_broken_stream_is_never_taken_for_an_answer(codex: Codex, gateway: Gateway, fault: str) -> None:
    with pytest.raises(AgentFailedError):
        codex.ask(f"Say hello. {fault}")
    rows = gateway.interceptions(1)
    assert {row["status"] for row in rows} == {"failed"}
    assert gateway.prompts() == [f"Say hello. {fault}"] * len(rows)


def test_an_error_of_the_provider_reaches_the_user(codex: Codex, gateway: Gateway) -> None:
    with pytest.raises(AgentFailedError, match="Failing, as asked"):
        codex.ask("[[fail 400]]")
    (interception,) = gateway.interceptions(1)
    assert (interception["status"], interception["http_status"]) == ("failed", 400)
    assert interception["error_type"] == "invalid_request_error"
