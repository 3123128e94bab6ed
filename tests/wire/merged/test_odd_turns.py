"""Turns that are cut, broken or odd: what the client gets is still one message, or plainly none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.errors import Fault, Kind
from aibridge.wire import sse
from aibridge.wire.sse import EventTooLarge
from aibridge.wire.tools import OfferedTool
from support.speech import OWN, PROMPT, SPEECHES, TIDES, Call, Part, Speech, Text

from ..hearing import one_by_one
from ..streams import streams
from .conversing import converse, heard, merge_of, read_turn, run_tools
from .test_one_message import every_speech, thorough

MESSAGES, CHAT, RESPONSES = SPEECHES
LOOK: list[Part] = [Text("I look."), Call("call_1", TIDES)]


def second_turn(speech: Speech, answer: bytes, first: list[Part] = LOOK) -> tuple[bytes, Any]:
    """What the client gets of a second turn's stream, and its reader."""
    merge = merge_of(speech, speech.request(speech.asked(PROMPT)))
    read_turn(merge, speech.answer(1, first, stream=True), stream=True)
    run_tools(merge)
    reader = merge.stream_reader()
    return reader.feed(answer) + reader.close(), reader


@every_speech
def test_an_error_follows_whole_events_only(speech: Speech) -> None:
    """The piece of an event that was cut is kept from the client, so that the error stands for itself."""
    answer = speech.answer(2, [Text("At six in the morning.")], stream=True)
    for end in range(len(answer) - 40):
        told, reader = second_turn(speech, answer[:end])
        error = speech.dialect.error_event(Fault(Kind.UPSTREAM_FAULT, "it broke off"), "1", reader)
        events = sse.EventSplitter().feed(told + error)
        assert b"".join(events) == told + error
        for event in events:
            json.loads(sse.data_of(event))
        assert b"it broke off" in events[-1]


def test_a_failed_response_goes_on_in_numbers_and_id() -> None:
    answer = RESPONSES.answer(2, [Text("At six.")], stream=True)
    merge = merge_of(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)))
    told = read_turn(merge, RESPONSES.answer(1, LOOK, stream=True), stream=True)
    run_tools(merge)
    reader = merge.stream_reader()
    told += merge.keep_alive() + reader.feed(answer[: len(answer) // 2]) + reader.close()
    told += RESPONSES.dialect.error_event(Fault(Kind.UPSTREAM_FAULT, "it broke off"), "1", reader)
    events = [json.loads(sse.data_of(event)) for event in sse.EventSplitter().feed(told)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[-1]["type"], events[-1]["response"]["id"]) == ("response.failed", "resp_1")


@every_speech
@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
def test_a_missing_last_line_end_is_no_harm(speech: Speech, end: bytes) -> None:
    answer = speech.answer(2, [Text("At six.")], stream=True)
    told, reader = second_turn(speech, answer.removesuffix(b"\n\n") + end)
    assert reader.turn.complete
    assert told.endswith(b"\n\n")
    assert told == second_turn(speech, answer)[0]


@every_speech
def test_what_follows_the_end_of_a_turn_is_not_the_clients(speech: Speech) -> None:
    """A turn that is not the last must not end the message, however often its provider says so."""
    first, last = speech.answer(1, LOOK, stream=True), speech.answer(2, [Text("At six.")], stream=True)
    merge = merge_of(speech, speech.request(speech.asked(PROMPT)))
    end = first[first.rindex(b"\n\n", 0, -2) + 2 :]
    told = read_turn(merge, first + end + b": done\n\n", stream=True)
    run_tools(merge)
    told += read_turn(merge, last, stream=True)
    assert speech.heard(told, stream=True).content == speech.shown([*LOOK, Text("At six.")])


@every_speech
@pytest.mark.parametrize("stream", [True, False])
def test_a_loop_that_is_ended_ends_as_a_message_without_calls(speech: Speech, stream: bool) -> None:
    """At the bound the last turn's hidden calls have run, but no turn follows: to the client there were none."""
    merge = merge_of(speech, speech.request(speech.asked(PROMPT), stream=stream))
    told = read_turn(merge, speech.answer(1, LOOK, stream=stream), stream=stream)
    run_tools(merge)
    message = speech.heard(told + merge.end(), stream=stream)
    plain = speech.heard(speech.answer(1, [Text("I look.")], stream=stream), stream=stream)
    assert (message.content, message.stop) == (plain.content, plain.stop)


@every_speech
def test_keep_alives_stand_between_the_events(speech: Speech) -> None:
    merge = merge_of(speech, speech.request(speech.asked(PROMPT)))
    told = read_turn(merge, speech.answer(1, LOOK, stream=True), stream=True) + merge.keep_alive() + merge.keep_alive()
    run_tools(merge)
    told += read_turn(merge, speech.answer(2, [Text("At six.")], stream=True), stream=True)
    message = speech.heard(told, stream=True)
    assert message.content == speech.shown([*LOOK, Text("At six.")])
    assert message.keep_alives >= 2


@every_speech
@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"type":"message"', b'{"choices": 3}'])
def test_a_document_that_is_none_is_relayed_as_it_came(speech: Speech, body: bytes) -> None:
    merge = merge_of(speech, speech.request(speech.asked(PROMPT), stream=False))
    reader = merge.document_reader()
    assert reader.feed(body) + reader.close() == body
    assert reader.turn.error
    assert not merge.waiting


@every_speech
def test_a_document_that_is_too_long_to_be_held_is_no_empty_answer(speech: Speech) -> None:
    reader = merge_of(speech, speech.request(speech.asked(PROMPT), stream=False)).document_reader()
    for _ in range(64):
        assert reader.feed(b" " * (1 << 20)) == b""
    with pytest.raises(EventTooLarge):
        reader.feed(b" ")


@pytest.mark.parametrize("arguments", ['{"harbour": "Ly', "[1]", "no JSON"])
def test_arguments_that_were_cut_go_back_as_what_they_are(arguments: str) -> None:
    """Messages takes objects only, and documents this form for what is none; the call runs, and is told its fault."""
    told = MESSAGES.answer(1, LOOK, stream=True)
    whole = json.dumps(Call("", "").arguments)[1:-1].encode()
    for half, cut in ((whole[: len(whole) // 2], arguments), (whole[len(whole) // 2 :], "")):
        assert told.count(half) == 1
        told = told.replace(half, json.dumps(cut)[1:-1].encode())
    merge = merge_of(MESSAGES, MESSAGES.request(MESSAGES.asked(PROMPT)))
    read_turn(merge, told, stream=True)
    (call,) = merge.waiting
    assert call.arguments == arguments
    run_tools(merge)
    said = json.loads(merge.body)["messages"][1]["content"]
    assert said[1]["input"] == {"INVALID_JSON": arguments}


@pytest.mark.parametrize("stream", [True, False])
def test_blank_texts_are_said_but_not_taken_back(stream: bool) -> None:
    """Claude sometimes begins with an empty text, and the API refuses one in a request."""
    told = converse(
        MESSAGES,
        MESSAGES.request(MESSAGES.asked(PROMPT), stream=stream),
        [[Text(""), Text("\n\n"), *LOOK], [Text("At six.")]],
        stream=stream,
    )
    assert [block["type"] for block in json.loads(told.bodies[1])["messages"][1]["content"]] == ["text", "tool_use"]
    shown = heard(MESSAGES, told, stream=stream).content
    assert [block["text"] for block in shown] == ["", "\n\n", "I look.", "At six."]
    going_on = [*MESSAGES.asked(PROMPT), {"role": "assistant", "content": shown}, *MESSAGES.asked("And at Poole?")]
    second = converse(MESSAGES, MESSAGES.request(going_on), [[Text("At noon.")]], memory=told.memory)
    assert b"tool_use" in second.bodies[0]


def test_every_kind_of_delta_goes_back_in_its_block() -> None:
    """Signatures, citations, and kinds that are not known yet."""
    events = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {}}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "b"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "eA=="}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": "", "citations": []}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "six"}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "citations_delta", "citation": {"page": 1}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "citations_delta", "citation": {"page": 2}}},
        {"type": "content_block_start", "index": 3, "content_block": {"type": "new", "big": 12345678901234567890123}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "new_delta", "content": "x"}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "new_delta", "content": "y"}},
        {
            "type": "content_block_start",
            "index": 4,
            "content_block": {"type": "tool_use", "id": "call_1", "name": TIDES, "input": {}},
        },
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    merge = merge_of(MESSAGES, MESSAGES.request(MESSAGES.asked(PROMPT)))
    read_turn(merge, b"".join(sse.write(json.dumps(event).encode()) for event in events), stream=True)
    run_tools(merge)
    assert json.loads(merge.body)["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "ab", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "six", "citations": [{"page": 1}, {"page": 2}]},
        {"type": "new", "big": 12345678901234567890123, "content": "xy"},
        {"type": "tool_use", "id": "call_1", "name": TIDES, "input": {}},
    ]


def test_several_ends_of_a_message_all_reach_the_client() -> None:
    """`message_delta` may come more than once; usage may come apart from the stop reason."""
    answer = MESSAGES.answer(1, [Text("At six.")], stream=True)
    more = sse.write(b'{"type":"message_delta","delta":{},"usage":{"output_tokens":12}}', "message_delta")
    place = answer.rindex(b"event: message_stop")
    answer = answer[:place] + more + answer[place:]
    merge = merge_of(MESSAGES, MESSAGES.request(MESSAGES.asked(PROMPT)))
    assert read_turn(merge, answer, stream=True) == answer


def chunk(delta: Any, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {"id": "chatcmpl_1", "object": "chat.completion.chunk", "choices": [choice], "usage": None}
    return sse.write(json.dumps(told).encode())


def call_piece(call_id: str, name: str, index: int | None = None) -> dict[str, Any]:
    numbered = {} if index is None else {"index": index}
    return {**numbered, "id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def test_chat_calls_without_numbers() -> None:
    """Some servers send each call whole, and number none."""
    calls = [call_piece("call_1", TIDES), call_piece("call_2", OWN)]
    answer = chunk({"role": "assistant", "tool_calls": calls}) + chunk({}, "tool_calls") + sse.write(b"[DONE]")
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT)))
    told = read_turn(merge, answer, stream=True)
    run_tools(merge)
    (message,) = CHAT.heard(told + merge.end(), stream=True).content
    assert [call["id"] for call in message["tool_calls"]] == ["call_2"]


def test_chat_text_that_comes_with_the_end_is_said_at_once() -> None:
    answer = chunk(
        {"role": "assistant", "content": "I look.", "tool_calls": [call_piece("call_1", TIDES, 0)]}, "tool_calls"
    )
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT)))
    told = read_turn(merge, answer + sse.write(b"[DONE]"), stream=True)
    assert b"I look." in told
    run_tools(merge)
    told += read_turn(merge, CHAT.answer(2, [Text("At six.")], stream=True), stream=True)
    (message,) = CHAT.heard(told, stream=True).content
    assert message == {"role": "assistant", "content": "I look.At six."}


def test_what_only_its_provider_knows_of_goes_back_to_it() -> None:
    """Thoughts in their sealed form, and signatures of calls, without which some servers refuse the next turn."""
    signed = call_piece("call_1", TIDES, 0) | {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    details = [{"type": "reasoning.encrypted", "data": "eA=="}]
    answer = b"".join(
        [
            chunk({"role": "assistant", "content": None, "reasoning_opaque": "ab"}),
            chunk({"reasoning_details": details}),
            chunk({"reasoning_details": details}),
            chunk({"role": "assistant", "tool_calls": [signed]}),
            chunk({}, "tool_calls"),
            sse.write(b"[DONE]"),
        ]
    )
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT)))
    read_turn(merge, answer, stream=True)
    run_tools(merge)
    said = json.loads(merge.body)["messages"][1]
    assert said["role"] == "assistant"
    assert said["reasoning_opaque"] == "ab"
    assert said["reasoning_details"] == details * 2
    assert said["tool_calls"] == [{name: value for name, value in signed.items() if name != "index"}]


def test_custom_calls_of_the_client_go_back_as_such() -> None:
    custom = {"index": 1, "id": "call_2", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    answer = chunk({"role": "assistant", "tool_calls": [call_piece("call_1", TIDES, 0), custom]})
    merge = merge_of(CHAT, CHAT.request(CHAT.asked(PROMPT)))
    read_turn(merge, answer + chunk({}, "tool_calls") + sse.write(b"[DONE]"), stream=True)
    run_tools(merge)
    remembered = merge.remembered()
    assert remembered
    assert remembered.keys == ["call_2"]
    said = json.loads(remembered.hidden)["messages"][0]
    assert said["tool_calls"][1] == {name: value for name, value in custom.items() if name != "index"}


def test_a_usage_chunk_that_the_client_did_not_ask_for_is_withheld_in_every_turn() -> None:
    request = CHAT.request(CHAT.asked(PROMPT), stream_options={"include_usage": False})
    told = converse(CHAT, request, [LOOK, [Text("At six.")]])
    assert b"prompt_tokens" not in told.client
    assert json.loads(told.bodies[1])["stream_options"] == {"include_usage": True}


def test_a_stream_of_chat_without_a_finished_choice_is_not_done() -> None:
    told, reader = second_turn(CHAT, chunk({"content": "At"}) + sse.write(b"[DONE]"))
    assert not reader.turn.complete
    assert b"[DONE]" not in told


@every_speech
@thorough
@given(st.data())
def test_nothing_that_a_provider_says_does_harm(speech: Speech, data: st.DataObject) -> None:
    """Any events in any order, with calls of tools that are injected among them; however they are cut."""
    stream = data.draw(streams(speech.dialect))
    offers = [OfferedTool(name, "", b"{}") for name in ("", "0")]  # as calls in such streams often are named
    told = []
    for pieces in ([stream], one_by_one(stream)):
        merge = merge_of(speech, speech.request(speech.asked(PROMPT)), offers)
        client = read_turn(merge, stream, stream=True, cut=lambda _, pieces=pieces: pieces)  # type: ignore[misc]
        if merge.waiting:
            run_tools(merge)
        told.append((client, merge.body, merge.remembered(), merge.end()))
        json.loads(merge.body)
    assert told[0] == told[1]
