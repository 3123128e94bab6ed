"""The provider's own usage object is kept as it was sent, beside the figures that are made of it."""

from __future__ import annotations

import json

import pytest

from aibridge.wire.dialect import Dialect

from .hearing import CHAT, MESSAGES, RESPONSES, STREAM, streamed, transcript, whole

OPENAI = '{ "prompt_tokens": 9,\n  "completion_tokens": 3, "é": [1.50, 1e3, 123456789012345678901234567890, null] }'
RESPONSE = '{ "input_tokens": 9, "output_tokens": 3, "\\u00e9": [1.50, 1e3], "none": null }'
MESSAGE = '{ "input_tokens": 9,\n "output_tokens": 3, "server_tool_use": {"web_search_requests": 1.0} }'


@pytest.mark.parametrize(
    ("dialect", "answer", "usage"),
    [
        (MESSAGES, b'{"type":"message","id":"m","content":[],"usage":%b}', MESSAGE),
        (CHAT, b'{"id":"c","choices":[],"usage": %b }', OPENAI),
        (RESPONSES, b'{"id":"r","status":"completed","output":[],"usage":%b}', RESPONSE),
    ],
)
def test_of_a_document(dialect: Dialect, answer: bytes, usage: str) -> None:
    heard = whole(dialect, answer % usage.encode())
    assert heard.usage.input == 9
    assert heard.turn.provider_usage == usage


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_of_a_response_in_events(end: str) -> None:
    told = end.encode(), end.encode(), RESPONSE.encode()
    answer = b'data: {"type":"response.%b","response":{"id":"r","status":"%b","usage":%b}}\n\n' % told
    assert streamed(RESPONSES, answer).turn.provider_usage == RESPONSE


def test_of_a_completion_in_chunks_is_the_last_one_also_where_the_client_does_not_get_it() -> None:
    usage = OPENAI.replace("\n", "")
    earlier = b'data: {"id":"c","choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\n'
    none = b'data: {"id":"c","choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
    last = b'data: {"id":"c","choices":[],"usage":%b}\n\n' % usage.encode()
    heard = streamed(CHAT, earlier + none + last + b"data: [DONE]\n\n", STREAM)
    assert b"1.50" not in heard.client
    assert heard.turn.provider_usage == usage


def test_of_a_message_in_events_is_one_object_of_the_last_figures() -> None:
    heard = streamed(
        MESSAGES,
        transcript("""
            data: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":9,"output_tokens":1,"service_tier":"standard"}}}

            data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3,"input_tokens":null}}

            data: {"type":"message_stop"}

        """),  # noqa: E501
    )
    assert json.loads(heard.turn.provider_usage or "") == {
        "input_tokens": 9,
        "output_tokens": 3,
        "service_tier": "standard",
    }


def test_of_a_message_that_was_cut_is_what_was_sent_until_then() -> None:
    answer = b'data: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":9, "output_tokens":1}}}\n\n'
    assert streamed(MESSAGES, answer).turn.provider_usage == '{"input_tokens":9, "output_tokens":1}'


@pytest.mark.parametrize("usage", ["null", "{}", '"none"'])
def test_that_is_none(usage: str) -> None:
    turn = streamed(CHAT, f'data: {{"choices":[],"usage":{usage}}}\n\n'.encode()).turn
    assert turn.provider_usage is None
    assert turn.usage is None
