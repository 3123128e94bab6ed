"""Out of several turns the client gets one coherent message, and the provider gets its conversation whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.speech import OWN, PROMPT, SPEECHES, TIDES, Call, Message, Part, Speech, Text, Thinking, hidden

from ..hearing import cut as cut_at
from ..hearing import one_by_one
from .conversing import converse, heard, history_in, result_of

every_speech = pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: str(speech.dialect.name))
both_ways = pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
thorough = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(str.strip)
_said = st.builds(Text, _texts) | st.builds(Thinking, _texts)


@st.composite
def _turns(draw: st.DrawFn) -> list[list[Part]]:
    """Up to three turns: all but the last call injected tools only, and the last may mix them with the client's."""
    count = draw(st.integers(1, 3))
    turns: list[list[Part]] = []
    for number in range(1, count + 1):
        parts: list[Part] = list(draw(st.lists(_said, max_size=3)))
        names = [TIDES] * draw(st.integers(1, 2)) if number < count else _last_calls(draw)
        for place, name in enumerate(names):
            parts.insert(draw(st.integers(0, len(parts))), Call(f"call_{number}_{place}", name))
        turns.append(parts)
    return turns


def _last_calls(draw: st.DrawFn) -> list[str]:
    own = [OWN] * draw(st.integers(0, 2))
    return draw(st.permutations([*own, *[TIDES] * draw(st.integers(0, 2))])) if own else []


def _ids(parts: list[Part], *, injected: bool) -> list[str]:
    return [part.id for part in parts if isinstance(part, Call) and hidden(part) is injected]


@every_speech
@both_ways
@thorough
@given(turns=_turns())
def test_the_client_sees_all_that_is_for_it_and_nothing_else(
    speech: Speech, stream: bool, turns: list[list[Part]]
) -> None:
    told = converse(speech, speech.request(speech.asked(PROMPT), stream=stream), turns, stream=stream)
    message = heard(speech, told, stream=stream)

    assert message.content == speech.shown([part for parts in turns for part in parts])
    assert message.output_tokens == sum(10 * number for number in range(1, len(turns) + 1))
    last = [part for part in turns[-1] if not hidden(part)]
    assert message.stop == _alone(speech, 1, last, stream).stop
    assert message.id == _alone(speech, len(turns) if speech.history == "input" else 1, [], stream).id
    assert not any(call.encode() in told.client for parts in turns for call in _ids(parts, injected=True))


@every_speech
@both_ways
@thorough
@given(turns=_turns())
def test_each_turn_goes_on_from_what_was_said_before(speech: Speech, stream: bool, turns: list[list[Part]]) -> None:
    asked = speech.asked(PROMPT)
    told = converse(speech, speech.request(asked, stream=stream), turns, stream=stream)

    assert len(told.bodies) == len(turns)
    conversation = asked
    for body, parts in zip(told.bodies, turns, strict=True):
        assert history_in(speech, body) == conversation
        assert _but_history(speech, body) == _but_history(speech, told.bodies[0])
        conversation = conversation + speech.said(parts) + _results(speech, _ids(parts, injected=True))


@every_speech
@both_ways
@thorough
@given(turns=_turns())
def test_the_next_request_is_what_the_provider_saw(speech: Speech, stream: bool, turns: list[list[Part]]) -> None:
    """The client sends its own view back, with the results of its own calls; hidden calls and results are put back."""
    asked = speech.asked(PROMPT)
    first = converse(speech, speech.request(asked, stream=stream), turns, stream=stream)
    own = _ids(turns[-1], injected=False)
    returned = speech.returned(heard(speech, first, stream=stream))
    going_on = [*asked, *returned, *(_results(speech, own) or speech.asked("And at Poole?"))]
    request = speech.request(going_on, stream=stream)
    second = converse(speech, request, [[Text("At noon.")]], stream=stream, memory=first.memory)

    due = list(asked)
    for parts in turns[:-1]:
        due += speech.said(parts) + _results(speech, _ids(parts, injected=True))
    due += speech.said(turns[-1])
    due += _results(speech, [*_ids(turns[-1], injected=True), *own]) if own else speech.asked("And at Poole?")
    if first.remembered:
        assert history_in(speech, second.bodies[0]) == due
    else:
        assert history_in(speech, second.bodies[0]) == going_on


@every_speech
@thorough
@given(turns=_turns(), data=st.data())
def test_how_the_streams_are_cut_changes_nothing(speech: Speech, turns: list[list[Part]], data: st.DataObject) -> None:
    request = speech.request(speech.asked(PROMPT))
    whole = converse(speech, request, turns)

    def anywhere(answer: bytes) -> list[bytes]:
        return cut_at(answer, data.draw(st.lists(st.integers(0, len(answer)), max_size=8)))

    assert converse(speech, request, turns, cut=anywhere) == whole
    assert converse(speech, request, turns, cut=one_by_one) == whole


@every_speech
def test_how_the_events_are_written_changes_nothing(speech: Speech) -> None:
    """Other line ends, no space before the data, data in several lines."""
    turns: list[list[Part]] = [[Text("I look."), Call("call_1", TIDES)], [Text("At six.")]]
    request = speech.request(speech.asked(PROMPT))

    def in_another_hand(answer: bytes) -> list[bytes]:
        told = answer.replace(b"data: ", b"data:").replace(b', "type"', b',\ndata: "type"')
        return [told.replace(b"\n", b"\r\n")]

    told = converse(speech, request, turns, cut=in_another_hand)
    assert told.bodies == converse(speech, request, turns).bodies
    told.client = told.client.replace(b"\r\n", b"\n").replace(b"\ndata:{", b"\ndata: {")
    assert heard(speech, told).content == speech.shown([*turns[0], *turns[1]])


@every_speech
@both_ways
def test_an_answer_without_hidden_calls_is_relayed_as_it_came(speech: Speech, stream: bool) -> None:
    parts: list[Part] = [Thinking("hm"), Text("I read."), Call("call_1", OWN)]
    told = converse(speech, speech.request(speech.asked(PROMPT), stream=stream), [parts], stream=stream)
    assert told.client == speech.answer(1, parts, stream=stream)
    assert told.remembered is None


def _results(speech: Speech, ids: list[str]) -> list[Any]:
    return speech.results((call, result_of(call)) for call in ids)


def _alone(speech: Speech, number: int, parts: list[Part], stream: bool) -> Message:
    """What a client would hear if the provider gave just this answer."""
    return speech.heard(speech.answer(number, parts, stream=stream), stream=stream)


def _but_history(speech: Speech, body: bytes) -> dict[str, Any]:
    return {name: value for name, value in json.loads(body).items() if name != speech.history}
