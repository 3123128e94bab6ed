"""OpenAI Chat Completions: what a request asks, and what an answer shows while it passes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibridge.wire.dialect import ProviderError, ToolCall, Usage

from .hearing import (
    CHAT,
    STREAM,
    STREAM_WITH_USAGE,
    Heard,
    hear,
    one_by_one,
    stream_reader,
    streamed,
    transcript,
    whole,
)


def asked(*messages: dict[str, Any]) -> tuple[str | None, str | None]:
    """The prompt and the answered call of a request with these messages."""
    request = CHAT.parse(json.dumps({"model": "m", "messages": messages}).encode())
    return request.prompt, request.correlating_tool_call_id


class TestRequest:
    def test_whose_last_message_is_the_users_own(self) -> None:
        assert asked({"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}) == ("Hi", None)
        parts = [{"type": "text", "text": "What is"}, {"type": "image_url"}, {"type": "text", "text": "this?"}]
        assert asked({"role": "user", "content": parts}) == ("this?", None)
        assert asked({"role": "user", "content": "Hi"}, {"role": "developer", "content": "…"}) == ("Hi", None)

    def test_whose_last_message_is_not_the_users_has_no_prompt(self) -> None:
        assert asked() == (None, None)
        assert asked({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}) == (None, None)

    def test_that_answers_calls_is_linked_to_the_last_of_them(self) -> None:
        assert asked(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}, {"id": "call_2"}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "1"},
            {"role": "tool", "tool_call_id": "call_2", "content": "2"},
        ) == (None, "call_2")

    @pytest.mark.parametrize(
        ("members", "sent"),
        [
            ("", '"stream_options":{"include_usage":true},'),
            (', "stream_options": null', ', "stream_options": {"include_usage":true}'),
            (', "stream_options": {}', ', "stream_options": {"include_usage":true}'),
            (
                ', "stream_options" : { "include_obfuscation": false }',
                ', "stream_options" : {"include_usage":true, "include_obfuscation": false }',
            ),
            (
                ', "stream_options": {"include_usage": false, "x": [1.50, "\\u00e9"]}, "n":1',
                ', "stream_options": {"include_usage": true, "x": [1.50, "\\u00e9"]}, "n":1',
            ),
            (
                ', "stream_options": {"include_usage": true}, "stream_options": {"x": 1}',
                ', "stream_options": {"include_usage": true}, "stream_options": {"include_usage":true,"x": 1}',
            ),
        ],
    )
    def test_of_a_stream_is_made_to_ask_for_usage_and_nothing_else_changes(self, members: str, sent: str) -> None:
        head, tail = '{ "stream" :true ,"model": "m\\u00fc", "temperature":1.0', ', "messages" : [ ] }\n'
        request = CHAT.parse(f"{head}{members}{tail}".encode())
        expected = f"{head}{sent}{tail}" if members else f"{{{sent}{head[1:]}{tail}"
        assert request.body == expected.encode()
        assert request.withholds_usage

    @pytest.mark.parametrize(
        "body",
        [
            b'{"model":"m"}',
            b'{"model":"m","stream":false,"stream_options":null}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
            b'{"model":"m","stream":true,"stream":false}',
        ],
    )
    def test_that_needs_no_change_is_sent_as_it_came(self, body: bytes) -> None:
        request = CHAT.parse(body)
        assert request.body is body
        assert not request.withholds_usage

    def test_with_members_of_odd_types_is_the_providers_to_judge(self) -> None:
        body = b'{"model":"m","messages":"Hi","prompt_cache_key":7,"stream":1,"stream_options":[]}'
        request = CHAT.parse(body)
        assert (request.body, request.model, request.prompt, request.streaming) == (body, "m", None, False)
        assert request.hints.prompt_cache_key is None

    def test_with_numbers_of_any_length(self) -> None:
        number = b"7" * 5000
        request = CHAT.parse(b'{"stream":true,"model":"m","\\u0073eed":%s}' % number)
        assert (
            request.body
            == b'{"stream_options":{"include_usage":true},"stream":true,"model":"m","\\u0073eed":%s}' % number
        )


def chunk(choices: str, usage: str = "null") -> bytes:
    return (
        f'data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":{choices},"usage":{usage}}}\n\n'.encode()
    )


def delta(delta: str, finish: str = "null", index: int = 0) -> bytes:
    return chunk(f'[{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]')


HELLO = delta('{"role":"assistant","content":""}') + delta('{"content":"Hello"}')
STOP = delta("{}", '"stop"')
USAGE_CHUNK = chunk(
    "[]",
    '{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":60,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":8,"rejected_prediction_tokens":1}}',
)
DONE = b"data: [DONE]\n\n"
USAGE = Usage(
    input=40,
    output=20,
    cache_read=60,
    extra={
        "total_tokens": 120,
        "prompt_tokens_details.audio_tokens": 0,
        "completion_tokens_details.reasoning_tokens": 8,
        "completion_tokens_details.rejected_prediction_tokens": 1,
    },
)


class TestStream:
    def test_whose_client_asked_for_usage_passes_as_it_is(self) -> None:
        answer = HELLO + STOP + USAGE_CHUNK + DONE
        heard = streamed(CHAT, answer, STREAM_WITH_USAGE)
        assert heard.client == answer
        assert heard.ended
        assert (heard.turn.response_id, heard.turn.stop_reason, heard.turn.complete) == ("chatcmpl-1", "stop", True)
        assert heard.usage == USAGE

    def test_whose_client_did_not_ask_for_usage_passes_without_it(self) -> None:
        heard = streamed(CHAT, HELLO + STOP + USAGE_CHUNK + DONE, STREAM)
        assert heard.client == HELLO + STOP + DONE
        assert heard.usage == USAGE

    def test_withheld_usage_may_be_the_last_that_comes_and_end_nowhere(self) -> None:
        heard = streamed(CHAT, HELLO + STOP + USAGE_CHUNK.rstrip(b"\n"), STREAM)
        assert heard.client == HELLO + STOP
        assert heard.usage == USAGE
        assert heard.turn.complete

    def test_withheld_usage_may_come_with_a_choice_that_says_nothing(self) -> None:
        """As LiteLLM's proxy tells it."""
        usage = USAGE_CHUNK.replace(b'"choices":[]', b'"choices":[{"index":0,"delta":{}}]')
        heard = streamed(CHAT, HELLO + STOP + usage + DONE, STREAM)
        assert heard.client == HELLO + STOP + DONE
        assert heard.usage == USAGE

    def test_what_is_not_usage_alone_is_never_withheld(self) -> None:
        answer = (
            chunk("[]")  # as Azure begins, with the filter's results
            + chunk('[{"index":0,"delta":{"content":"Hi"}}]', '{"prompt_tokens":5,"completion_tokens":1}')
            + b": a comment\n\n"
            + b"\n\n"
            + b'data: {"choices":[],"usage":"none"}\n\n'
            + b"data: [DONE]"
        )
        heard = streamed(CHAT, answer, STREAM)
        assert heard.client == answer
        assert heard.usage == Usage(input=5, output=1)

    def test_with_usage_in_every_chunk_counts_the_last(self) -> None:
        counting = [
            chunk('[{"index":0,"delta":{"content":"Hi"}}]', f'{{"prompt_tokens":9,"completion_tokens":{n}}}')
            for n in (1, 2, 3)
        ]
        assert streamed(CHAT, b"".join(counting) + STOP + DONE).usage == Usage(input=9, output=3)

    def test_with_usage_in_the_chunk_that_finishes(self) -> None:
        last = chunk('[{"index":0,"delta":{},"finish_reason":"stop"}]', '{"prompt_tokens":9,"completion_tokens":3}')
        heard = streamed(CHAT, HELLO + last + DONE, STREAM)
        assert heard.client == HELLO + last + DONE
        assert heard.usage == Usage(input=9, output=3)

    def test_without_usage(self) -> None:
        heard = streamed(CHAT, HELLO + STOP + DONE)
        assert heard.turn.usage is None
        assert heard.turn.complete

    def test_with_more_read_from_the_cache_than_there_was(self) -> None:
        usage = '{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9}}'
        heard = streamed(CHAT, STOP + chunk("[]", usage) + DONE)
        assert heard.usage == Usage(input=0, output=1, cache_read=9, extra={"raw_usage": json.loads(usage)})

    @pytest.mark.parametrize("end", [b"", b"\n\n"])
    def test_without_done_is_whole_once_a_choice_has_finished(self, end: bytes) -> None:
        heard = streamed(CHAT, HELLO + STOP.rstrip(b"\n") + end)
        assert not heard.ended
        assert heard.turn.complete

    @pytest.mark.parametrize("answer", [b"", HELLO, HELLO + DONE, b"data: [DONE", b": keep-alive\n\n"])
    def test_in_which_nothing_finished_is_not_whole(self, answer: bytes) -> None:
        assert not streamed(CHAT, answer).turn.complete

    @pytest.mark.parametrize("request_body", [STREAM, STREAM_WITH_USAGE])
    def test_with_parallel_calls_side_by_side(self, request_body: bytes) -> None:
        answer = transcript(
            r"""
            data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_a","type":"function",\
"function":{"name":"read","arguments":""}}]}}]}

            data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function",\
"function":{"name":"list","arguments":"{\"d\""}}]}}]}

            data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":\
"{\"p\":"}},{"index":1,"function":{"arguments":":1}"}}]}}]}

            data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":" 2}"}}]}}]}

            data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":2,"id":"call_c","type":"custom",\
"custom":{"name":"exec","input":"ls "}}]}}]}

            data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":2,"custom":{"input":"-l"}}]}}]}

            data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

            data: [DONE]

        """.replace("\\\n", "")
        )
        heard = streamed(CHAT, answer, request_body)
        assert heard.client == answer
        assert heard.turn.stop_reason == "tool_calls"
        assert heard.turn.tool_calls == [
            ToolCall("call_a", "read", '{"p": 2}', complete=True),
            ToolCall("call_b", "list", '{"d":1}', complete=True),
            ToolCall("call_c", "exec", "ls -l", complete=True),
        ]

    def test_with_calls_that_nobody_numbered(self) -> None:
        call = '{"tool_calls":[{"id":"%s","type":"function","function":{"name":"f","arguments":"{}"}}]}'
        heard = streamed(CHAT, delta(call % "a") + delta(call % "b") + STOP + DONE)
        assert heard.turn.tool_calls == [
            ToolCall("a", "f", "{}", complete=True),
            ToolCall("b", "f", "{}", complete=True),
        ]

    def test_with_several_choices(self) -> None:
        call = '{"tool_calls":[{"index":0,"id":"%s","function":{"name":"f","arguments":"%s"}}]}'
        heard = streamed(
            CHAT,
            delta(call % ("a", "1"), index=0)
            + delta(call % ("b", "2"), index=1)
            + delta("{}", '"tool_calls"', index=0)
            + delta("{}", '"tool_calls"', index=1)
            + DONE,
        )
        assert heard.turn.tool_calls == [ToolCall("a", "f", "1", complete=True), ToolCall("b", "f", "2", complete=True)]
        assert heard.turn.complete

    def test_with_a_refusal(self) -> None:
        heard = streamed(CHAT, delta('{"refusal":"I can not."}') + STOP + DONE)
        assert (heard.turn.complete, heard.turn.error) == (True, None)

    @pytest.mark.parametrize("after", [b"", DONE])
    @pytest.mark.parametrize("request_body", [STREAM, STREAM_WITH_USAGE])
    def test_that_ends_in_an_error_keeps_what_came_of_a_call(self, after: bytes, request_body: bytes) -> None:
        begun = delta('{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\\"p\\":"}}]}')
        error = b'data: {"error":{"message":"Overloaded","type":"server_error","param":null,"code":null}}\n\n'
        heard = streamed(CHAT, HELLO + begun + error + after, request_body)
        assert heard.client == HELLO + begun + error + after
        assert heard.ended
        assert (heard.turn.error, heard.turn.complete) == (ProviderError("server_error", "Overloaded"), False)
        assert heard.turn.tool_calls == [ToolCall("a", "f", '{"p":', complete=False)]

    def test_that_breaks_off_keeps_half_an_event_from_the_client_so_that_an_error_can_follow(self) -> None:
        assert streamed(CHAT, HELLO + b'data: {"id":"chatc', STREAM).client == HELLO

    def test_withholding_gives_each_event_on_as_soon_as_it_is_whole(self) -> None:
        reader = stream_reader(CHAT, STREAM)
        assert reader.rewrites
        given = [reader.feed(byte) for byte in one_by_one(HELLO)]
        assert b"".join(given) == HELLO
        assert [piece for piece in given if piece] == [event + b"\n\n" for event in HELLO.split(b"\n\n")[:-1]]

    def test_of_lines_that_end_otherwise_hides_usage_all_the_same(self) -> None:
        answer = (HELLO + STOP + USAGE_CHUNK + DONE).replace(b"\n", b"\r\n")
        heard = hear(stream_reader(CHAT, STREAM), one_by_one(answer))
        assert heard.client == (HELLO + STOP + DONE).replace(b"\n", b"\r\n")
        assert heard.usage == USAGE


class TestDocument:
    def read(self, members: str) -> Heard:
        return whole(CHAT, f'{{"id":"chatcmpl-1","object":"chat.completion",{members}}}'.encode())

    def test_with_calls_and_usage(self) -> None:
        heard = self.read(
            '"choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":['
            '{"id":"a","type":"function","function":{"name":"f","arguments":"{\\"p\\": 1}"}},'
            '{"id":"b","type":"custom","custom":{"name":"exec","input":"ls"}}]}}],'
            '"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}'
        )
        assert (heard.turn.response_id, heard.turn.stop_reason, heard.turn.complete) == (
            "chatcmpl-1",
            "tool_calls",
            True,
        )
        assert heard.turn.tool_calls == [
            ToolCall("a", "f", '{"p": 1}', complete=True),
            ToolCall("b", "exec", "ls", complete=True),
        ]
        assert heard.usage == Usage(input=6, output=5, cache_read=4)

    def test_with_several_choices(self) -> None:
        choice = '{"index":%d,"finish_reason":"stop","message":{"tool_calls":[{"id":"%s","function":{"name":"f"}}]}}'
        heard = self.read(f'"choices":[{choice % (0, "a")},{choice % (1, "b")}]')
        assert [call.id for call in heard.turn.tool_calls] == ["a", "b"]
        assert heard.turn.usage is None

    def test_that_is_none(self) -> None:
        assert self.read('"text":"?"').turn.error == ProviderError("unreadable_answer", "it has no choices")
        error = whole(CHAT, b'{"error":{"message":"No.","type":"server_error"}}').turn.error
        assert error == ProviderError("server_error", "No.")
