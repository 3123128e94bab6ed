"""What the client was not shown is put back into its next requests: exactly, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.speech import OWN, PROMPT, SPEECHES, TIDES, Call, Part, Speech, Text, Thinking

from .conversing import converse, heard, history_in, merge_of, read_turn, result_of, run_tools
from .test_one_message import every_speech

MESSAGES, CHAT, RESPONSES = SPEECHES
LOOK: list[Part] = [Text("I look."), Call("call_1", TIDES)]
OTHERS: list[Part] = [Call("call_2", OWN), Call("call_3", OWN)]
MIXED: list[Part] = [Text("I look."), Call("call_1", TIDES), Call("call_2", OWN), Call("call_3", TIDES)]


def results(speech: Speech, *ids: str) -> list[Any]:
    return speech.results((call, result_of(call)) for call in ids)


def body_of(speech: Speech, history: list[Any], memory: dict[str, bytes]) -> bytes:
    """A later request as it goes upstream, but for the tools."""
    merge = merge_of(speech, speech.request(history), ())
    merge.restore({key: memory[key] for key in merge.keys() if key in memory})  # noqa: SIM118  # not a mapping's
    return merge.body


@every_speech
def test_several_rounds_of_mixed_turns(speech: Speech) -> None:
    """A client's tools and the gateway's, round after round: each request holds all that was before."""
    client, provider = speech.asked(PROMPT), speech.asked(PROMPT)
    memory: dict[str, bytes] = {}
    for number in range(3):
        turns: list[list[Part]] = [
            [Thinking(f"{number}"), Call(f"alone_{number}", TIDES)],
            [Call(f"own_{number}", OWN), Text("Both."), Call(f"hidden_{number}", TIDES), Call(f"more_{number}", OWN)],
        ]
        told = converse(speech, speech.request(client), turns, memory=memory)
        assert history_in(speech, told.bodies[0]) == provider
        memory = told.memory
        own = [f"own_{number}", f"more_{number}"]
        client += speech.returned(heard(speech, told)) + results(speech, *own)
        provider += speech.said(turns[0]) + results(speech, f"alone_{number}")
        provider += speech.said(turns[1]) + results(speech, f"hidden_{number}", *own)
    assert history_in(speech, body_of(speech, client, memory)) == provider


@every_speech
def test_the_same_answer_to_the_same_prompt_is_told_apart(speech: Speech) -> None:
    """Calls have ids that a provider takes once; so what is put back must be of that place, and of no other."""
    client, provider = speech.asked(PROMPT), speech.asked(PROMPT)
    memory: dict[str, bytes] = {}
    for number in range(3):
        turns: list[list[Part]] = [[Call(f"call_{number}", TIDES)], [Text("At six.")]]
        told = converse(speech, speech.request(client), turns, memory=memory)
        memory = told.memory
        client += speech.returned(heard(speech, told)) + speech.asked(PROMPT)
        provider += speech.said(turns[0]) + results(speech, f"call_{number}") + speech.said(turns[1])
        provider += speech.asked(PROMPT)
    assert history_in(speech, body_of(speech, client, memory)) == provider


@every_speech
def test_another_conversation_does_not_get_it(speech: Speech) -> None:
    told = converse(speech, speech.request(speech.asked(PROMPT)), [LOOK, [Text("At six.")]])
    answer = speech.returned(heard(speech, told))
    other = [*speech.asked("When do you get up?"), *answer, *speech.asked("Why?")]
    assert history_in(speech, body_of(speech, other, told.memory)) == other


@every_speech
def test_what_was_changed_is_left_as_it_is(speech: Speech) -> None:
    told = converse(speech, speech.request(speech.asked(PROMPT)), [MIXED])
    answer = json.loads(json.dumps(speech.returned(heard(speech, told))).replace("I look.", "I looked."))
    history = [*speech.asked(PROMPT), *answer, *results(speech, "call_2")]
    request = speech.request(history)
    if speech is CHAT:  # its messages are told by their text as well
        assert body_of(speech, history, told.memory) == request
    kept = [element for element in history if "I looked." not in json.dumps(element)]
    assert body_of(speech, kept, told.memory).count(b"call_1") in (0, 3), "a call without its result, or the reverse"


@every_speech
def test_an_element_of_another_kind_is_none_of_those_remembered(speech: Speech) -> None:
    """There are as many as there were, but the client has put another in the place of one."""
    told = converse(speech, speech.request(speech.asked(PROMPT)), [[Text("I look."), Call("call_1", TIDES), *OTHERS]])
    shown = speech.shown([Call("call_3", OWN), Text("I look."), Call("call_2", OWN)])
    answer = [{"role": "assistant", "content": shown}] if speech is MESSAGES else shown
    history = [*speech.asked(PROMPT), *answer, *results(speech, "call_2", "call_3")]
    assert history_in(speech, body_of(speech, history, told.memory)) == history


def test_the_same_id_of_another_call_in_chat_is_no_sign() -> None:
    """Some servers number their calls anew in every answer; a client may write arguments in its own way."""
    told = converse(CHAT, CHAT.request(CHAT.asked(PROMPT)), [[Call("call_1", TIDES), Call("0", OWN)]])
    for arguments, fits in (('{"day":1,"harbour":"Lyme"}', True), ('{"harbour":"Poole","day":1}', False), ("{", False)):
        history = [*CHAT.asked(PROMPT), *CHAT.shown([Call("0", OWN, arguments)]), *results(CHAT, "0")]
        assert (b"call_1" in body_of(CHAT, history, told.memory)) is fits


@every_speech
@pytest.mark.parametrize("hidden", [b"", b"null", b"[[]]", b'{"content":', b'{"items":3}', b"[" * 9999])
def test_what_can_not_be_read_any_more_is_forgotten(speech: Speech, hidden: bytes) -> None:
    """Another version of the gateway may have written it in its own way."""
    history = [*speech.asked(PROMPT), *speech.said([Call("call_2", OWN)]), *results(speech, "call_2")]
    assert body_of(speech, history, {"call_2": hidden}) == speech.request(history)


@every_speech
def test_no_other_byte_of_the_request_changes(speech: Speech) -> None:
    told = converse(speech, speech.request(speech.asked(PROMPT)), [MIXED])
    history = [*speech.asked(PROMPT), *speech.returned(heard(speech, told)), *results(speech, "call_2")]
    spaced = json.dumps({"model": "m", "n": 1, speech.history: [*history, *speech.asked("x")]}, indent=2).encode()
    merge = merge_of(speech, spaced.replace(b'"n": 1', b'"x":  1e0'), ())
    merge.restore(told.memory)
    body = merge.body
    assert b'"x":  1e0' in body
    before = spaced.index(b"[")
    assert body[: before - 20].count(b"\n") == spaced[: before - 20].count(b"\n")
    asked = json.dumps(speech.asked("x"), indent=2).removeprefix("[\n").removesuffix("\n]").replace("\n", "\n  ")
    assert asked.encode() in body
    assert (
        json.loads(body)[speech.history]
        == json.loads(body_of(speech, [*history, *speech.asked("x")], told.memory))[speech.history]
    )


@every_speech
def test_a_loop_that_was_ended_is_remembered_with_its_last_results(speech: Speech) -> None:
    """At the bound no turn follows the calls: what they gave stands before the client's next words."""
    merge = merge_of(speech, speech.request(speech.asked(PROMPT)))
    told = read_turn(merge, speech.answer(1, LOOK, stream=True), stream=True)
    run_tools(merge)
    remembered = merge.remembered()
    assert remembered
    answer = speech.returned(speech.heard(told + merge.end(), stream=True))
    history = [*speech.asked(PROMPT), *answer, *speech.asked("And now?")]
    restored = history_in(speech, body_of(speech, history, dict.fromkeys(remembered.keys, remembered.hidden)))
    due = [*speech.asked(PROMPT), *speech.said(LOOK), *results(speech, "call_1"), *speech.asked("And now?")]
    if speech is MESSAGES:  # where results, and what the user says after them, are one message
        said = due.pop()["content"]
        due[-1]["content"].append({"type": "text", "text": said})
    assert restored == due


@pytest.mark.parametrize("speech", [MESSAGES, RESPONSES], ids=["messages", "responses"])
def test_a_compacted_conversation_goes_on_without_what_it_left_out(speech: Speech) -> None:
    """The provider sums up what was said; a client may drop all before that, and hidden calls with it."""
    told = converse(speech, speech.request(speech.asked(PROMPT)), [LOOK, [Text("At six.")]])
    compaction = {"type": "compaction", "content": "c", "encrypted_content": "eA=="}
    answer = speech.returned(heard(speech, told))
    if speech is MESSAGES:
        answer[0]["content"] = [compaction, *answer[0]["content"]]
    else:
        answer = [compaction, *answer]
    for kept in ([*speech.asked(PROMPT), *answer], answer):
        history = [*kept, *speech.asked("And now?")]
        body = body_of(speech, history, told.memory)
        assert body.count(b"call_1") in (0, 3), "a call without its result, or the reverse"
        assert body.count(b"compaction") == 1


@pytest.mark.parametrize(
    "following",
    [
        [],
        [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
    ],
)
def test_results_go_to_the_users_message_or_nowhere(following: list[Any]) -> None:
    told = converse(MESSAGES, MESSAGES.request(MESSAGES.asked(PROMPT)), [MIXED])
    history = [*MESSAGES.asked(PROMPT), *MESSAGES.returned(heard(MESSAGES, told)), *following]
    assert history_in(MESSAGES, body_of(MESSAGES, history, told.memory)) == history


@pytest.mark.parametrize("speech", [MESSAGES, CHAT], ids=["messages", "chat"])
def test_a_result_alone_gets_nothing_beside_it(speech: Speech) -> None:
    """A client that shortens its history may drop a call but keep its result."""
    told = converse(speech, speech.request(speech.asked(PROMPT)), [MIXED])
    orphan = [*speech.asked(PROMPT), *results(speech, "call_2")]
    assert body_of(speech, orphan, told.memory) == speech.request(orphan)


def test_responses_that_go_on_from_the_last_get_the_results() -> None:
    """With `previous_response_id` the calls are with the provider; the results of the hidden ones still are not."""
    told = converse(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)), [MIXED])
    own = results(RESPONSES, "call_2")
    body = body_of(RESPONSES, own, told.memory)
    assert history_in(RESPONSES, body) == results(RESPONSES, "call_1", "call_3", "call_2")


def test_responses_that_hold_the_call_do_not_get_results_alone() -> None:
    """Where the items were changed so that the hidden calls do not fit, their results have no place either."""
    told = converse(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)), [MIXED])
    call = RESPONSES.said([Call("call_2", OWN)])
    history = [*RESPONSES.asked(PROMPT), *call, *results(RESPONSES, "call_2")]
    assert history_in(RESPONSES, body_of(RESPONSES, history, told.memory)) == history


def test_reasoning_that_the_client_leaves_out_is_no_hindrance() -> None:
    turns: list[list[Part]] = [[Thinking("hm"), *MIXED]]
    told = converse(RESPONSES, RESPONSES.request(RESPONSES.asked(PROMPT)), turns)
    returned = [item for item in RESPONSES.returned(heard(RESPONSES, told)) if item["type"] != "reasoning"]
    history = [*RESPONSES.asked(PROMPT), *returned, *results(RESPONSES, "call_2")]
    due = [*RESPONSES.asked(PROMPT), *RESPONSES.said(MIXED), *results(RESPONSES, "call_1", "call_3", "call_2")]
    assert history_in(RESPONSES, body_of(RESPONSES, history, told.memory)) == due


def test_reminders_and_cache_breakpoints_of_claude_code_are_no_hindrance() -> None:
    """It adds and drops reminders as it likes, and moves its breakpoints with each request."""
    reminder = {"type": "text", "text": "<system-reminder>the date</system-reminder>"}
    asked = {"type": "text", "text": PROMPT, "cache_control": {"type": "ephemeral"}}
    told = converse(
        MESSAGES, MESSAGES.request([{"role": "user", "content": [reminder, asked]}]), [LOOK, [Text("At six.")]]
    )
    (answer,) = MESSAGES.returned(heard(MESSAGES, told))
    answer["content"][-1]["cache_control"] = {"type": "ephemeral"}
    system = {"role": "system", "content": "the date"}
    history = [*MESSAGES.asked(PROMPT), system, answer, *MESSAGES.asked("And at Poole?")]
    restored = history_in(MESSAGES, body_of(MESSAGES, history, told.memory))
    assert [message["role"] for message in restored] == ["user", "system", "assistant", "user", "assistant", "user"]
    assert restored[4]["content"] == [{"type": "text", "text": "At six.", "cache_control": {"type": "ephemeral"}}]


@every_speech
@pytest.mark.parametrize("stranger", [3, "text", None, {"role": 3}, {"type": "x", "content": 3}, {"role": "assistant"}])
def test_strange_histories_do_no_harm(speech: Speech, stranger: Any) -> None:
    told = converse(speech, speech.request(speech.asked(PROMPT)), [MIXED])
    history = [stranger, *speech.returned(heard(speech, told)), *results(speech, "call_2")]
    try:
        merge = merge_of(speech, speech.request(history), ())
    except AssertionError:
        return  # not even a request to offer tools with
    merge.restore({key: told.memory[key] for key in merge.keys() if key in told.memory})  # noqa: SIM118
    json.loads(merge.body)
