"""Anthropic Messages: what a request asks, and what an answer shows while it passes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibridge.wire.dialect import ProviderError, Thought, ToolCall, Usage

from .hearing import MESSAGES, streamed, transcript, whole


def asked(*messages: dict[str, Any]) -> tuple[str | None, str | None]:
    """The prompt and the answered call of a request with these messages."""
    request = MESSAGES.parse(json.dumps({"model": "m", "messages": messages}).encode())
    return request.prompt, request.correlating_tool_call_id


class TestRequest:
    def test_of_claude_code(self) -> None:
        body = rb"""{
            "model": "claude-opus-5-5", "stream": true, "max_tokens": 128000,
            "metadata": {"user_id": "{\"session_id\":\"s-1\"}"},
            "system": [{"type": "text", "text": "You are an agent."}],
            "tools": [{"name": "Read", "defer_loading": true, "input_schema": {"type": "object"}}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "<system-reminder>Today is Monday.</system-reminder>"},
                    {"type": "text", "text": "Fix the parser.", "cache_control": {"type": "ephemeral"}},
                    {"type": "text", "text": "<system-reminder>\nBe brief.\n</system-reminder>\n"}]},
                {"role": "system", "content": "The working directory is /home/ada."}]
        }"""
        request = MESSAGES.parse(body)
        assert request.body is body
        assert (request.model, request.streaming) == ("claude-opus-5-5", True)
        assert request.prompt == "Fix the parser."
        assert request.correlating_tool_call_id is None
        assert request.hints.user_id == '{"session_id":"s-1"}'

    def test_whose_last_message_is_the_users_own(self) -> None:
        assert asked({"role": "user", "content": "Hello"}) == ("Hello", None)
        assert asked({"role": "user", "content": "One"}, {"role": "user", "content": "Two"}) == ("Two", None)
        assert asked({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}) == ("a", None)
        assert asked({"role": "user", "content": ""}) == ("", None)

    def test_whose_last_message_is_not_the_users_has_no_prompt(self) -> None:
        assert asked() == (None, None)
        assert asked({"role": "system", "content": "Be brief."}) == (None, None)
        assert asked({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{"}) == (None, None)
        assert asked({"role": "user", "content": [{"type": "image", "source": {}}]}) == (None, None)
        reminder = "<system-reminder>only this</system-reminder>"
        assert asked({"role": "user", "content": [{"type": "text", "text": reminder}]}) == (None, None)

    def test_that_answers_calls_is_linked_to_the_last_of_them(self) -> None:
        results = {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "43"}]},
            ],
        }
        assert asked({"role": "user", "content": "Go"}, {"role": "assistant", "content": []}, results) == (
            None,
            "toolu_2",
        )
        assert asked(results, {"role": "system", "content": "Two files changed."}) == (None, "toolu_2")

    def test_that_answers_a_call_and_says_more(self) -> None:
        content = [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"},
            {"type": "text", "text": "And now stop."},
        ]
        assert asked({"role": "user", "content": content}) == ("And now stop.", "toolu_1")

    @pytest.mark.parametrize(
        "members",
        [
            '"stream": "yes", "messages": {}',
            '"stream": null, "messages": [17], "metadata": "none"',
            '"stream": 1, "messages": [{"role": ["user"], "content": "Hi"}], "metadata": {"user_id": 5}',
            '"stream": [], "messages": null, "metadata": null',
            '"stream": 1e999, "messages": [{"role": "user", "content": {"type": "text"}}]',
        ],
    )
    def test_with_members_of_odd_types_is_the_providers_to_judge(self, members: str) -> None:
        request = MESSAGES.parse(f'{{"model": "m", {members}}}'.encode())
        assert (request.model, request.streaming, request.prompt) == ("m", False, None)
        assert request.hints.user_id is None


FULL_STREAM = transcript("""
    event: message_start
    data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],\
"stop_reason":null,"usage":{"input_tokens":3,"cache_creation_input_tokens":700,"cache_read_input_tokens":9000,\
"cache_creation":{"ephemeral_5m_input_tokens":700,"ephemeral_1h_input_tokens":0},"output_tokens":1}}}

    event: ping
    data: {"type": "ping"}

    event: content_block_start
    data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Both files "}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"are needed."}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":0}

    event: content_block_start
    data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"ZW5jcnlwdGVk"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":1}

    event: content_block_start
    data: {"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"I read them."}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":2}

    event: content_block_start
    data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_a","name":"Read","input":{}}}

    event: content_block_start
    data: {"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_b","name":"Read","input":{}}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\\"path\\": "}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"{\\"path\\":\\"b\\"}"}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"\\"a\\"}"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":4}

    event: content_block_stop
    data: {"type":"content_block_stop","index":3}

    event: content_block_start
    data: {"type":"content_block_start","index":5,"content_block":{"type":"tool_use","id":"toolu_c","name":"List","input":{}}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":5}

    event: message_delta
    data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":90}}

    event: message_stop
    data: {"type":"message_stop"}

""")  # noqa: E501


class TestStream:
    def test_with_thoughts_and_parallel_calls(self) -> None:
        heard = streamed(MESSAGES, FULL_STREAM)
        turn = heard.turn
        assert heard.client == FULL_STREAM
        assert heard.ended
        assert (turn.response_id, turn.stop_reason, turn.complete, turn.error) == ("msg_1", "tool_use", True, None)
        assert turn.thoughts == [Thought("thinking", "Both files are needed.")]
        assert turn.tool_calls == [
            ToolCall("toolu_a", "Read", '{"path": "a"}', complete=True),
            ToolCall("toolu_b", "Read", '{"path":"b"}', complete=True),
            ToolCall("toolu_c", "List", "{}", complete=True),
        ]
        extra = {"cache_creation.ephemeral_5m_input_tokens": 700, "cache_creation.ephemeral_1h_input_tokens": 0}
        assert turn.usage == Usage(input=3, output=90, cache_read=9000, cache_write=700, extra=extra)

    def test_counts_are_running_totals(self) -> None:
        heard = streamed(
            MESSAGES,
            transcript("""
                data: {"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1,"service_tier":"standard"}}}

                data: {"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":10}}

                data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":70,\
"cache_read_input_tokens":40,"cache_creation_input_tokens":null,"output_tokens":15,\
"server_tool_use":{"web_search_requests":2}}}

                data: {"type":"message_stop"}

            """),  # noqa: E501
        )
        extra = {"service_tier": "standard", "server_tool_use.web_search_requests": 2}
        assert heard.usage == Usage(input=70, output=15, cache_read=40, extra=extra)

    def test_that_first_counts_at_its_end(self) -> None:
        heard = streamed(
            MESSAGES,
            transcript("""
                data: {"type":"message_start","message":{"id":"msg_1"}}

                data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":7,"output_tokens":5}}

                data: {"type":"message_stop"}

            """),  # noqa: E501
        )
        assert heard.usage == Usage(input=7, output=5)

    def test_that_names_no_usage(self) -> None:
        assert streamed(MESSAGES, b'data: {"type":"message_stop"}\n\n').turn.usage is None

    def test_with_events_and_fields_that_nobody_knows(self) -> None:
        answer = transcript("""
            : a comment, and an event with JSON in it that is no data
            :    {"type":"message_stop"}

            event: weather
            data: {"type":"weather","sky":{"blue":true}}

            data: not JSON at all

            data: {"type":"content_block_start","index":0,"content_block":{"type":"hologram","id":7}}

            data: {"type":"content_block_delta","index":0,"delta":{"type":"hologram_delta","thinking":"no thought"}}

            data: {"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","id":"s","name":"search"}}

            data: {"type":"message_delta","delta":{"stop_reason":"end_turn","mood":"good"},"usage":{"output_tokens":2},"x":1}

        """)  # noqa: E501
        heard = streamed(MESSAGES, answer)
        assert heard.client == answer
        assert heard.turn.tool_calls == []
        assert heard.turn.thoughts == []
        assert (heard.turn.stop_reason, heard.turn.complete) == ("end_turn", False)

    def test_that_breaks_off_in_a_call(self) -> None:
        answer = FULL_STREAM[
            : FULL_STREAM.index(b'event: content_block_stop\ndata: {"type":"content_block_stop","index":4')
        ]
        heard = streamed(MESSAGES, answer)
        assert not heard.turn.complete
        assert not heard.ended
        assert heard.turn.tool_calls == [
            ToolCall("toolu_a", "Read", '{"path": "a"}', complete=False),
            ToolCall("toolu_b", "Read", '{"path":"b"}', complete=False),
        ]
        assert heard.usage.cache_read == 9000

    def test_that_breaks_off_in_a_thought(self) -> None:
        heard = streamed(MESSAGES, FULL_STREAM[: FULL_STREAM.index(b"event: content_block_stop")])
        assert heard.turn.thoughts == [Thought("thinking", "Both files are needed.")]

    def test_that_ends_in_an_error(self) -> None:
        answer = transcript("""
            event: message_start
            data: {"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":18,"output_tokens":1}}}

            event: error
            data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}

            event: message_stop
            data: {"type":"message_stop"}

        """)
        heard = streamed(MESSAGES, answer)
        assert heard.client == answer
        assert heard.ended
        assert heard.turn.error == ProviderError("overloaded_error", "Overloaded")
        assert not heard.turn.complete
        assert heard.usage == Usage(input=18, output=1)

    def test_that_is_refused(self) -> None:
        heard = streamed(MESSAGES, FULL_STREAM.replace(b'"stop_reason":"tool_use"', b'"stop_reason":"refusal"'))
        assert (heard.turn.stop_reason, heard.turn.complete, heard.turn.error) == ("refusal", True, None)

    def test_what_comes_after_the_end_changes_nothing(self) -> None:
        more = b'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":5000}}\n\n'
        heard = streamed(MESSAGES, FULL_STREAM + more)
        assert heard.client == FULL_STREAM + more
        assert heard.turn == streamed(MESSAGES, FULL_STREAM).turn

    @pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
    def test_with_other_line_ends_shows_the_same(self, line_end: bytes) -> None:
        answer = FULL_STREAM.replace(b"\n", line_end)
        heard = streamed(MESSAGES, answer)
        assert heard.client == answer
        assert heard.turn == streamed(MESSAGES, FULL_STREAM).turn

    def test_in_unusual_dress_shows_the_same(self) -> None:
        answer = b"\xef\xbb\xbf" + FULL_STREAM.replace(b"data: ", b"data:").replace(
            b"\nevent: ", b"\n: hm\nid: 1\nevent:"
        )
        answer = answer.replace(b',"index"', b',\ndata:"index"').rstrip(b"\n")
        heard = streamed(MESSAGES, answer)
        assert heard.client == answer
        assert heard.turn == streamed(MESSAGES, FULL_STREAM).turn

    def test_with_bytes_that_are_not_utf_8_is_relayed_and_read(self) -> None:
        answer = FULL_STREAM.replace(b"are needed.", b"are needed\xff.").replace(
            b'"name":"List"', b'"n\xff":0,"name":"List"'
        )
        answer = answer.replace(b'"input":{}', b'"input":{"\xff":0}')
        heard = streamed(MESSAGES, answer)
        assert heard.client == answer
        assert heard.turn.thoughts == [Thought("thinking", "Both files are needed\ufffd.")]
        assert heard.turn.tool_calls[2] == ToolCall("toolu_c", "List", '{"\ufffd":0}', complete=True)


class TestDocument:
    def test_with_thoughts_and_calls(self) -> None:
        answer = rb"""{"id": "msg_1", "type": "message", "role": "assistant", "stop_reason": "tool_use", "content": [
            {"type": "thinking", "thinking": "Both are needed.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"},
            {"type": "text", "text": "I read them.", "citations": null},
            {"type": "tool_use", "id": "toolu_a", "name": "Read", "input": {"path":  "\u0061", "n": 1.0}},
            {"type": "web_search_tool_result", "tool_use_id": "srv", "content": [{"type": "web_search_result"}]},
            {"type": "tool_use", "id": "toolu_b", "name": "List", "input": {}}],
            "usage": {"input_tokens": 10, "cache_read_input_tokens": 0, "output_tokens": 20, "inference_geo": null}}"""
        heard = whole(MESSAGES, answer)
        assert heard.client == answer
        assert (heard.turn.response_id, heard.turn.stop_reason, heard.turn.complete) == ("msg_1", "tool_use", True)
        assert heard.turn.thoughts == [Thought("thinking", "Both are needed.")]
        assert heard.turn.tool_calls == [
            ToolCall("toolu_a", "Read", r'{"path":  "\u0061", "n": 1.0}', complete=True),
            ToolCall("toolu_b", "List", "{}", complete=True),
        ]
        assert heard.usage == Usage(input=10, output=20)

    def test_of_an_error_with_the_status_of_success(self) -> None:
        heard = whole(MESSAGES, b'{"type":"error","error":{"type":"api_error","message":"No."}}')
        assert (heard.turn.error, heard.turn.complete) == (ProviderError("api_error", "No."), False)

    def test_with_counts_that_are_none(self) -> None:
        usage = (
            b'{"input_tokens":"12","output_tokens":-4,"cache_read_input_tokens":[],"cache_creation_input_tokens":"--1"}'
        )
        heard = whole(MESSAGES, b'{"type":"message","usage":%s}' % usage)
        assert heard.usage == Usage(input=12, output=0, extra={"raw_usage": json.loads(usage)})
