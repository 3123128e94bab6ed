"""What goes upstream: the client's own bytes, with the tools on the side that keeps its prompt cache valid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibridge.wire.merged.merge import Answered
from aibridge.wire.tools import ImagePart, OfferedTool, ResourcePart, TextPart, ToolResult
from support.speech import HARBOURS, OWN, PROMPT, SPEECHES, TIDES, Call, Speech

from .conversing import OFFERS, SCHEMA, merge_of, read_turn
from .test_one_message import every_speech

BY_NAME = {speech.dialect.name: speech for speech in SPEECHES}
MESSAGES_SPEECH, CHAT_SPEECH, RESPONSES_SPEECH = SPEECHES

OWN_TOOL = {
    "messages": b'{"name":"read_file","cache_control": {"type":"ephemeral"}, "x": 1e0}',
    "chat_completions": b'{"type":"function","function":{"name":"read_file"}, "x": 1e0}',
    "responses": b'{"type":"function","name":"read_file", "x": 1e0}',
}
"""Spaced and written as no JSON library would."""


def names_in(body: bytes) -> list[str]:
    """The names of the tools in a request, in order."""
    return [tool.get("name") or tool["function"]["name"] for tool in json.loads(body).get("tools", [])]


@every_speech
def test_only_the_tools_change(speech: Speech) -> None:
    own = OWN_TOOL[speech.dialect.name]
    before, after = (
        b'{"model": "m",  "tools" : [',
        b'], "%b":[{"role":"user","content":"\\u00e9 \xc3\xa9"} ] }' % (speech.history.encode()),
    )
    body = merge_of(speech, before + own + after).body
    assert body.startswith(before)
    assert body.endswith(after)
    tools = body[len(before) : -len(after)]
    if speech is MESSAGES_SPEECH:
        assert tools.endswith(own), "its cache breakpoint covers what it did, and the injected tools before it"
        assert names_in(body) == [HARBOURS, TIDES, OWN]
    else:
        assert tools.startswith(own), "the provider caches prefixes by itself"
        assert names_in(body) == [OWN, HARBOURS, TIDES]
    assert body.count(SCHEMA) == 2, "the schema is the server's, to the byte"


@every_speech
def test_a_request_without_tools_gets_some(speech: Speech) -> None:
    body = merge_of(speech, speech.request(speech.asked(PROMPT), tools=())).body
    assert names_in(body) == [HARBOURS, TIDES]


@every_speech
def test_equal_requests_have_equal_bodies(speech: Speech) -> None:
    request = speech.request(speech.asked(PROMPT))
    assert len({merge_of(speech, request).body for _ in range(10)}) == 1


@every_speech
def test_a_tool_of_the_client_is_never_hidden_by_one_of_the_same_name(speech: Speech) -> None:
    merge = merge_of(speech, speech.request(speech.asked(PROMPT), tools=(TIDES,)))
    assert sorted(names_in(merge.body)) == [HARBOURS, TIDES]
    answer = speech.answer(1, [Call("call_1", TIDES)], stream=True)
    assert read_turn(merge, answer, stream=True) == answer
    assert not merge.waiting


def test_tools_that_codex_declares_in_its_input_are_the_clients_own_too() -> None:
    declared = {"type": "additional_tools", "tools": [{"type": "custom", "name": TIDES}]}
    merge = merge_of(RESPONSES_SPEECH, RESPONSES_SPEECH.request([declared], tools=()))
    assert names_in(merge.body) == [HARBOURS]


def test_tools_in_a_namespace_are_the_clients_own_too() -> None:
    inner = [{"type": "function", "name": TIDES}]
    space = {"type": "namespace", "name": "sea", "tools": inner}
    for request in (
        RESPONSES_SPEECH.request([{"type": "additional_tools", "tools": [space]}], tools=()),
        json.dumps({"model": "m", "tools": [space], "input": PROMPT}).encode(),
    ):
        merge = merge_of(RESPONSES_SPEECH, request)
        assert merge.names == {HARBOURS}


def test_tools_that_are_found_by_searching_stay_as_they_are() -> None:
    """Claude Code defers most of its tools; those of the gateway are there at once, whoever searches."""
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    deferred = {"name": TIDES, "input_schema": {"type": "object"}, "defer_loading": True}
    request = {"model": "m", "tools": [search, deferred], "messages": MESSAGES_SPEECH.asked(PROMPT)}
    merge = merge_of(MESSAGES_SPEECH, json.dumps(request).encode())
    offered, *own = json.loads(merge.body)["tools"]
    assert (offered["name"], own) == (HARBOURS, [search, deferred])
    assert "defer_loading" not in offered


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("messages", {"tool_choice": {"type": "none"}}),
        ("chat_completions", {"tool_choice": "none"}),
        ("chat_completions", {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}}}),
        ("chat_completions", {"n": 2}),
        ("chat_completions", {"prediction": {"type": "content", "content": "a"}}),
        ("chat_completions", {"functions": [{"name": "f"}]}),
        ("responses", {"tool_choice": "none"}),
        ("responses", {"tool_choice": {"type": "allowed_tools", "tools": []}}),
        ("responses", {"background": True}),
    ],
)
def test_what_forbids_tools_is_respected(name: str, members: dict[str, Any]) -> None:
    speech = BY_NAME[name]
    request = speech.dialect.parse(speech.request(speech.asked(PROMPT), **members))
    assert speech.dialect.merge(request, OFFERS) is None


@pytest.mark.parametrize(
    ("name", "choice"),
    [("messages", {"type": "any"}), ("messages", None), ("chat_completions", "required"), ("responses", "auto")],
)
def test_another_choice_stands_as_it_is(name: str, choice: Any) -> None:
    speech = BY_NAME[name]
    merge = merge_of(speech, speech.request(speech.asked(PROMPT), tool_choice=choice))
    assert json.loads(merge.body)["tool_choice"] == choice


@every_speech
def test_in_the_last_turn_no_tool_is_offered(speech: Speech) -> None:
    request = speech.request(speech.asked(PROMPT))
    merge = merge_of(speech, request)
    merge.stop_offering()
    assert merge.body == request


RESULT = ToolResult(
    (
        TextPart("High water at six."),
        ImagePart("aW1hZ2U=", "image/png"),
        ImagePart("aW1hZ2U=", "image/tiff"),
        ResourcePart("file:///tides.csv", "text/csv", text="6;12"),
        ResourcePart("file:///chart.bin", blob="AAAAAAAA"),
    )
)
TABLE = '[resource "file:///tides.csv", type="text/csv"]\n6;12'
CHART = '[resource "file:///chart.bin"] (6 bytes)'
TIFF = "[an image, image/tiff, 6 bytes, that can not be shown here]"


def given_back(speech: Speech, result: ToolResult) -> Any:
    """The result of a call as it stands in the next turn's request."""
    merge = merge_of(speech, speech.request(speech.asked(PROMPT)))
    read_turn(merge, speech.answer(1, [Call("call_1", TIDES)], stream=True), stream=True)
    (call,) = merge.waiting
    merge.add_results([Answered(call, result)])
    return json.loads(merge.body)[speech.history][-1]


def test_a_result_in_messages() -> None:
    (block,) = given_back(MESSAGES_SPEECH, RESULT)["content"]
    source = {"type": "base64", "media_type": "image/png", "data": "aW1hZ2U="}
    assert block["content"] == [
        {"type": "text", "text": "High water at six."},
        {"type": "image", "source": source},
        {"type": "text", "text": TIFF},
        {"type": "text", "text": TABLE},
        {"type": "text", "text": CHART},
    ]
    assert "is_error" not in block
    (block,) = given_back(MESSAGES_SPEECH, ToolResult((TextPart("No such harbour."),), is_error=True))["content"]
    assert block["is_error"] is True


def test_a_result_that_says_nothing_in_messages() -> None:
    """The API refuses a text of nothing but space, and an error without a text."""
    (block,) = given_back(MESSAGES_SPEECH, ToolResult((TextPart(" \n"), TextPart(""))))["content"]
    assert block["content"] == []
    for parts in ((), (TextPart("\n"),)):
        (block,) = given_back(MESSAGES_SPEECH, ToolResult(parts, is_error=True))["content"]
        assert block["content"] == [{"type": "text", "text": "Error"}]


def test_a_result_in_chat() -> None:
    """Its tool messages hold text only."""
    message = given_back(CHAT_SPEECH, RESULT)
    png = TIFF.replace("tiff", "png")
    assert message["content"] == "\n".join(["High water at six.", png, TIFF, TABLE, CHART])
    failed = given_back(CHAT_SPEECH, ToolResult((TextPart("No such harbour."),), is_error=True))
    assert failed["content"] == "Error: No such harbour."


def test_a_result_in_responses() -> None:
    output = given_back(RESPONSES_SPEECH, RESULT)["output"]
    assert [part["type"] for part in output] == ["input_text", "input_image", "input_image", "input_text", "input_text"]
    assert output[1]["image_url"] == "data:image/png;base64,aW1hZ2U="
    assert output[3]["text"] == TABLE
    failed = given_back(RESPONSES_SPEECH, ToolResult((TextPart("No such harbour."),), is_error=True))
    assert failed["output"] == "Error: No such harbour."


def test_responses_that_the_provider_keeps_are_gone_on_from() -> None:
    """What the client refers to stays referred to; a conversation already holds what was said in the first turn."""

    def second_body(**members: Any) -> Any:
        merge = merge_of(RESPONSES_SPEECH, RESPONSES_SPEECH.request(PROMPT, **members))
        read_turn(merge, RESPONSES_SPEECH.answer(1, [Call("call_1", TIDES)], stream=True), stream=True)
        (call,) = merge.waiting
        merge.add_results([Answered(call, ToolResult((TextPart("six"),)))])
        return json.loads(merge.body)

    body = second_body(previous_response_id="resp_0", store=True)
    assert body["previous_response_id"] == "resp_0"
    assert body["input"][0] == {"role": "user", "content": PROMPT}
    assert [item.get("type") for item in body["input"]] == [None, "function_call", "function_call_output"]
    body = second_body(conversation="conv_1")
    assert [item["type"] for item in body["input"]] == ["function_call_output"]


def test_reasoning_that_nobody_keeps_is_not_sent_back() -> None:
    """Without `store`, a reasoning item is known only by its encrypted content; the provider refuses one without."""
    merge = merge_of(RESPONSES_SPEECH, RESPONSES_SPEECH.request(RESPONSES_SPEECH.asked(PROMPT), store=False))
    plain = {"type": "reasoning", "id": "rs_1", "summary": []}
    sealed = plain | {"id": "rs_2", "encrypted_content": "c2VhbGVk"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": TIDES, "arguments": "{}"}
    response = {"id": "resp_1", "object": "response", "status": "completed", "output": [plain, sealed, call]}
    read_turn(merge, json.dumps(response).encode(), stream=False)
    (waiting,) = merge.waiting
    merge.add_results([Answered(waiting, ToolResult(()))])
    assert [item.get("id") for item in json.loads(merge.body)["input"]] == [None, "rs_2", "fc_1", None]


def test_a_request_of_a_stored_prompt_has_no_input_to_go_on_from() -> None:
    request = json.dumps({"model": "m", "prompt": {"id": "pmpt_1"}}).encode()
    merge = merge_of(RESPONSES_SPEECH, request)
    read_turn(merge, RESPONSES_SPEECH.answer(1, [Call("call_1", TIDES)], stream=False), stream=False)
    (call,) = merge.waiting
    merge.add_results([Answered(call, ToolResult((TextPart("six"),)))])
    assert [item["type"] for item in json.loads(merge.body)["input"]] == ["function_call", "function_call_output"]


def test_a_description_and_a_name_are_json() -> None:
    odd = OfferedTool("bmcp_a_b", 'says "a"\n\x00', b"{}")
    for speech in SPEECHES:
        merge = merge_of(speech, speech.request(speech.asked(PROMPT), tools=()), [odd])
        (tool,) = json.loads(merge.body)["tools"]
        assert (tool.get("function") or tool)["description"] == 'says "a"\n\x00'
