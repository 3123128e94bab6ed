"""Which calls are the gateway's to run, and what becomes of those that are not, or that can not be run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibridge.wire import sse
from support.speech import HARBOURS, OWN, PROMPT, SPEECHES, TIDES, Call, Part, Speech, Text, Thinking

from .conversing import converse, heard, history_in, merge_of, read_turn, run_tools
from .test_one_message import both_ways, every_speech
from .test_requests import names_in

MESSAGES, CHAT, RESPONSES = SPEECHES
LOOK: list[Part] = [Text("I look."), Call("call_1", TIDES)]
ANSWER: list[Part] = [Text("At six.")]

BROKEN_OFF = [
    (MESSAGES, [(b'"tool_use", "stop_s', b'"max_tokens", "stop_s')]),
    (MESSAGES, [(b'"tool_use", "stop_s', b'"refusal", "stop_s')]),
    (CHAT, [(b'"tool_calls"}', b'"length"}')]),
    (CHAT, [(b'"tool_calls"}', b'"content_filter"}')]),
    (RESPONSES, [(b"response.completed", b"response.incomplete"), (b'"completed", "m', b'"incomplete", "m')]),
]
"""How a turn with calls ends otherwise, where it ends too early."""

every_break = pytest.mark.parametrize(
    ("speech", "changes"),
    BROKEN_OFF,
    ids=[f"{speech.dialect.name}-{changes[0][1]!r}" for speech, changes in BROKEN_OFF],
)


def changed(answer: bytes, changes: list[tuple[bytes, bytes]]) -> bytes:
    for before, after in changes:
        answer = answer.replace(before, after)
    return answer


def back(changes: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(after, before) for before, after in changes]


@every_break
@both_ways
@pytest.mark.parametrize("beside", [[], [Call("call_2", OWN)]], ids=["alone", "beside the client's"])
def test_a_turn_that_was_broken_off_runs_nothing(
    speech: Speech, changes: list[tuple[bytes, bytes]], stream: bool, beside: list[Part]
) -> None:
    """The model may have been in the middle of a call: the arguments of a document then look whole, and are not."""
    parts = [Thinking("hm"), *LOOK, *beside]
    merge = merge_of(speech, speech.request(speech.asked(PROMPT), stream=stream))
    answer = changed(speech.answer(1, parts, stream=stream), changes)
    assert answer != speech.answer(1, parts, stream=stream)
    told = read_turn(merge, answer, stream=stream)
    assert (merge.waiting, merge.goes_on, merge.remembered()) == ([], False, None)
    assert changes[-1][1] in told, "the client is told why"
    shown = speech.heard(changed(told, back(changes)), stream=stream)
    assert shown.content == speech.shown(parts)


@every_break
@both_ways
def test_a_later_turn_that_was_broken_off_ends_the_message(
    speech: Speech, changes: list[tuple[bytes, bytes]], stream: bool
) -> None:
    """What ran before is remembered; the call that did not run leaves no trace, for nothing answers it."""
    merge = merge_of(speech, speech.request(speech.asked(PROMPT), stream=stream))
    second: list[Part] = [Text("And there."), Call("call_2", HARBOURS)]
    told = read_turn(merge, speech.answer(1, LOOK, stream=stream), stream=stream)
    run_tools(merge)
    told += read_turn(merge, changed(speech.answer(2, second, stream=stream), changes), stream=stream)
    assert not merge.waiting
    message = speech.heard(changed(told, back(changes)), stream=stream)
    assert message.content == speech.shown([*LOOK, *second])
    assert message.output_tokens == 30
    remembered = merge.remembered()
    assert remembered
    memory = dict.fromkeys(remembered.keys, remembered.hidden)
    going_on = [*speech.asked(PROMPT), *speech.returned(message), *speech.asked("Go on.")]
    body = converse(speech, speech.request(going_on), [ANSWER], memory=memory).bodies[0]
    assert body.count(b"call_1") == 3, "the call, its result, and what that says"
    assert b"call_2" not in body


def response(output: list[Any]) -> bytes:
    told = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": output}
    return json.dumps(told).encode()


def test_a_tool_in_a_namespace_of_the_client_is_the_clients() -> None:
    """Codex groups tools so; the name alone does not tell whose tool it is."""
    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": TIDES,
        "namespace": "a",
        "arguments": "",
    }
    merge = merge_of(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)))
    assert read_turn(merge, response([call]), stream=False) == response([call])
    assert not merge.waiting

    merge = merge_of(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)))
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.output_item.added", "output_index": 0, "item": call},
        {"type": "response.output_item.done", "output_index": 0, "item": call},
        {"type": "response.completed", "response": json.loads(response([call]))},
    ]
    told = b"".join(
        sse.write(json.dumps(event | {"sequence_number": number}).encode(), event["type"])
        for number, event in enumerate(events)
    )
    assert read_turn(merge, told, stream=True) == told
    assert not merge.waiting


def test_what_the_provider_runs_itself_is_nothing_to_wait_for() -> None:
    """Calls of hosted tools stand beside injected ones, some with their output: the loop goes on."""
    hosted = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "shell_call", "id": "sh_1", "call_id": "call_0", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "id": "so_1", "call_id": "call_0", "output": []},
    ]
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": TIDES, "arguments": "{}"}
    merge = merge_of(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)))
    assert read_turn(merge, response([*hosted, call]), stream=False) == b""
    assert merge.goes_on
    run_tools(merge)
    told = json.loads(merge.body)["input"]
    assert told[1:5] == [*hosted, call]
    assert (told[5]["type"], told[5]["call_id"]) == ("function_call_output", "call_1")


def test_an_approval_that_is_asked_of_the_client_ends_the_message() -> None:
    approval = {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "name": "delete",
        "arguments": "{}",
        "server_label": "x",
    }
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": TIDES, "arguments": "{}"}
    merge = merge_of(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)))
    read_turn(merge, response([approval, call]), stream=False)
    run_tools(merge)
    assert not merge.goes_on
    assert json.loads(merge.end())["output"] == [approval]


def test_server_tools_of_messages_are_shown_and_go_back_in_their_places() -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "tides"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"encrypted_content": "eA=="}]}
    call = {"type": "tool_use", "id": "call_1", "name": TIDES, "input": {}}
    content = [search, found, call]
    told = {"id": "msg_1", "type": "message", "role": "assistant", "content": content, "stop_reason": "tool_use"}
    merge = merge_of(MESSAGES, MESSAGES.request(MESSAGES.asked(PROMPT), stream=False))
    read_turn(merge, json.dumps(told).encode(), stream=False)
    assert merge.goes_on
    run_tools(merge)
    assert json.loads(merge.body)["messages"][1]["content"] == content
    shown = json.loads(read_turn(merge, MESSAGES.document(2, ANSWER), stream=False))["content"]
    assert shown == [search, found, *MESSAGES.shown(ANSWER)]


def test_a_completion_without_a_finish_reason_is_one_all_the_same() -> None:
    """Some servers leave it out of documents."""
    answer = CHAT.document(1, LOOK).replace(b', "finish_reason": "tool_calls"', b"")
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT), stream=False))
    assert read_turn(merge, answer, stream=False) == b""
    assert [call.id for call in merge.waiting] == ["call_1"]


def chunk(delta: Any, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {"id": "chatcmpl_1", "object": "chat.completion.chunk", "choices": [choice], "usage": None}
    return sse.write(json.dumps(told).encode())


def piece(index: int, call_id: str | None, name: str | None, arguments: str) -> Any:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"index": index, "function": function} | ({"id": call_id, "type": "function"} if call_id else {})


END = chunk({}, "tool_calls") + sse.write(b"[DONE]")


def test_calls_that_a_server_of_chat_all_numbers_0_are_told_apart() -> None:
    """By their ids; the client gets numbers by which it can tell its own apart as well."""
    pieces = [piece(0, "call_1", TIDES, "{"), piece(0, None, None, "}")]
    pieces += [piece(0, "call_2", OWN, "{}"), piece(0, "call_3", HARBOURS, "{}"), piece(0, "call_4", OWN, '{"a":1}')]
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT)))
    told = read_turn(merge, b"".join(chunk({"tool_calls": [each]}) for each in pieces) + END, stream=True)
    assert [(call.id, call.name, call.arguments) for call in merge.waiting] == [
        ("call_1", TIDES, "{}"),
        ("call_3", HARBOURS, "{}"),
    ]
    run_tools(merge)
    seen = [json.loads(sse.data_of(event)) for event in sse.EventSplitter().feed(told)]
    shown = [call for event in seen for call in event["choices"][0]["delta"]["tool_calls"]]
    assert [(call["index"], call["id"]) for call in shown] == [(0, "call_2"), (1, "call_4")]


def test_several_choices_that_nobody_asked_for_do_no_harm() -> None:
    two = [{"index": at, "delta": {"tool_calls": [piece(0, f"call_{at}", OWN, "{}")] * (at + 1)}} for at in (0, 1)]
    told = sse.write(json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": two}).encode())
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT)))
    assert read_turn(merge, told + END, stream=True) == told + END
    assert not merge.waiting


def test_a_call_of_chat_that_is_named_late_is_shown_once_it_is_known_whose_it_is() -> None:
    pieces = [piece(0, "call_1", None, ""), piece(1, "call_2", None, ""), piece(0, None, TIDES, "{}")]
    pieces += [piece(1, None, OWN, '{"a"'), piece(1, None, None, ":1}")]
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT)))
    told = read_turn(merge, b"".join(chunk({"tool_calls": [each]}) for each in pieces) + END, stream=True)
    assert [call.id for call in merge.waiting] == ["call_1"]
    run_tools(merge)
    message = CHAT.heard(chunk({"role": "assistant"}) + told + merge.end(), stream=True)
    assert message.content == CHAT.shown([Call("call_2", OWN, '{"a":1}')])
    remembered = merge.remembered()
    assert remembered
    said = json.loads(remembered.hidden)["messages"][0]["tool_calls"]
    assert [(call["id"], call["function"]["name"]) for call in said] == [("call_1", TIDES), ("call_2", OWN)]


@both_ways
def test_a_text_in_parts_is_a_text(stream: bool) -> None:
    """Some servers of Chat tell thoughts and texts as parts of a message."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "I look."}]
    call = piece(0, "call_1", TIDES, "{}")
    choice = {"index": 0, "message": {"role": "assistant", "content": parts, "tool_calls": [call]}}
    document = json.dumps({"id": "chatcmpl_1", "object": "chat.completion", "choices": [choice]}).encode()
    answer = chunk({"content": parts}) + chunk({"tool_calls": [call]}) + END if stream else document
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT), stream=stream))
    read_turn(merge, answer, stream=stream)
    assert merge.goes_on
    run_tools(merge)
    assert json.loads(merge.body)["messages"][1]["content"] == parts
    told = read_turn(merge, CHAT.answer(2, ANSWER, stream=stream), stream=stream)
    if not stream:
        assert json.loads(told)["choices"][0]["message"]["content"] == "I look.At six."
    assert merge.remembered()


@every_speech
@both_ways
def test_a_text_that_is_not_utf_8_is_no_hindrance(speech: Speech, stream: bool) -> None:
    """Nobody asked the gateway to judge what the provider and the client are content with."""
    history = [*speech.asked("Qa"), *speech.said([Text("Qb")]), *speech.asked(PROMPT)]
    request = speech.request(history, stream=stream).replace(b"Qa", b"a\xff").replace(b"Qb", b"b\xff")
    merge = merge_of(speech, request)
    assert merge.keys()
    read_turn(merge, speech.answer(1, LOOK, stream=stream).replace(b"look", b"l\xffk"), stream=stream)
    run_tools(merge)
    assert b"a\xff" in merge.body
    read_turn(merge, speech.answer(2, ANSWER, stream=stream), stream=stream)
    assert merge.remembered()


@every_speech
@both_ways
def test_an_answer_that_has_to_be_json_is_json_after_calls(speech: Speech, stream: bool) -> None:
    """What demands it stands in the requests of all turns, beside the tools."""
    demands: dict[str, dict[str, Any]] = {
        "messages": {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        "chat_completions": {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        "responses": {"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}},
    }
    demand = demands[speech.dialect.name]
    request = speech.request(speech.asked(PROMPT), stream=stream, **demand)
    told = converse(speech, request, [[Call("call_1", TIDES)], [Text('{"high": 6}')]], stream=stream)
    for body in told.bodies:
        assert demand.items() <= json.loads(body).items()
        assert TIDES in names_in(body)
    assert heard(speech, told, stream=stream).content == speech.shown([Text('{"high": 6}')])


NAMED: list[tuple[Speech, Any]] = [
    (MESSAGES, {"type": "tool", "name": TIDES}),
    (CHAT, {"type": "function", "function": {"name": TIDES}}),
    (RESPONSES, {"type": "function", "name": TIDES}),
]
ANY: list[tuple[Speech, Any]] = [(MESSAGES, {"type": "any"}), (CHAT, "required"), (RESPONSES, "required")]


def choices(speech: Speech, choice: Any, tools: tuple[str, ...]) -> list[Any]:
    """The choice in the requests of two turns."""
    told = converse(
        speech, speech.request(speech.asked(PROMPT), tools=tools, tool_choice=choice), [LOOK, [Call("call_2", OWN)]]
    )
    assert len(told.bodies) == 2
    return [json.loads(body).get("tool_choice") for body in told.bodies]


@pytest.mark.parametrize(("speech", "choice"), NAMED)
def test_an_injected_tool_that_is_demanded_is_demanded_once(speech: Speech, choice: Any) -> None:
    """A client may know its name. To demand it in every turn would call it until the bound, and then be refused."""
    assert choices(speech, choice, (OWN,)) == [choice, None]


@pytest.mark.parametrize(("speech", "choice"), ANY)
def test_a_call_that_is_demanded_is_one_of_the_clients_where_it_has_tools(speech: Speech, choice: Any) -> None:
    assert choices(speech, choice, (OWN,)) == [choice, choice]
    assert choices(speech, choice, ()) == [choice, None]


@pytest.mark.parametrize(
    ("speech", "choice"), [(MESSAGES, {"type": "tool", "name": OWN}), (MESSAGES, {"type": "auto"}), (CHAT, "auto")]
)
def test_other_choices_stand_in_every_turn(speech: Speech, choice: Any) -> None:
    assert choices(speech, choice, (OWN,)) == [choice, choice]
    assert choices(speech, choice, (OWN, HARBOURS)) == [choice, choice]


@pytest.mark.parametrize(("speech", "choice"), [(MESSAGES, {"type": "auto"}), (CHAT, "auto"), (RESPONSES, "auto")])
def test_there_is_no_choice_where_there_are_no_tools(speech: Speech, choice: Any) -> None:
    """Providers refuse a request that has one without the other."""
    merge = merge_of(speech, speech.request(speech.asked(PROMPT), tools=(), tool_choice=choice))
    read_turn(merge, speech.answer(1, LOOK, stream=True), stream=True)
    run_tools(merge)
    assert json.loads(merge.body)["tool_choice"] == choice
    merge.stop_offering()
    assert names_in(merge.body) == []
    assert "tool_choice" not in json.loads(merge.body)


@every_speech
@both_ways
def test_many_calls_of_one_tool_and_none_with_the_same_arguments(speech: Speech, stream: bool) -> None:
    """Empty arguments and broken ones among them; each has its result, in order."""
    calls = [Call(f"call_{n}", TIDES, arguments) for n, arguments in enumerate(["{}", '{"day": 1}', "{}", '{"a":[]}'])]
    told = converse(speech, speech.request(speech.asked(PROMPT), stream=stream), [calls, ANSWER], stream=stream)
    assert heard(speech, told, stream=stream).content == speech.shown(ANSWER)
    results = speech.results((call.id, f"high water, says {call.id}") for call in calls)
    assert history_in(speech, told.bodies[1]) == [*speech.asked(PROMPT), *speech.said(calls), *results]
