"""OpenAI Responses: what a request asks, and what an answer shows while it passes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibridge.wire.dialect import ProviderError, Thought, ToolCall, Usage

from .hearing import RESPONSES, streamed, transcript, whole


def asked(*items: dict[str, Any]) -> tuple[str | None, str | None]:
    """The prompt and the answered call of a request with these input items."""
    request = RESPONSES.parse(json.dumps({"model": "m", "input": items}).encode())
    return request.prompt, request.correlating_tool_call_id


class TestRequest:
    def test_of_codex(self) -> None:
        body = rb"""{
            "model": "gpt-6", "stream": true, "store": false, "prompt_cache_key": "thread-1",
            "client_metadata": {"session_id": "session-1", "turn": "3"},
            "input": [
                {"type": "additional_tools", "tools": [{"type": "custom", "name": "exec"}]},
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Rules."}]},
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "Look at this:"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                    {"type": "input_text", "text": "What is it? \ud83d"}]}]
        }"""
        request = RESPONSES.parse(body)
        assert request.body is body
        assert (request.model, request.streaming) == ("gpt-6", True)
        assert request.prompt == "Look at this:\nWhat is it? \ufffd"
        assert (request.hints.client_session_id, request.hints.prompt_cache_key) == ("session-1", "thread-1")

    def test_whose_input_is_a_string(self) -> None:
        request = RESPONSES.parse(b'{"model":"m","input":"Hello"}')
        assert (request.prompt, request.correlating_tool_call_id, request.streaming) == ("Hello", None, False)

    def test_whose_last_item_is_the_users_own(self) -> None:
        assert asked({"role": "user", "content": "Hi"}) == ("Hi", None)
        assert asked({"role": "user", "content": "Hi"}, {"role": "developer", "content": "…"}) == ("Hi", None)

    def test_whose_last_item_is_not_the_users_has_no_prompt(self) -> None:
        assert asked() == (None, None)
        assert asked({"role": "user", "content": "Hi"}, {"type": "compaction_trigger"}) == (None, None)
        assert asked({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}) == (None, None)

    @pytest.mark.parametrize("kind", ["function_call_output", "custom_tool_call_output", "local_shell_call_output"])
    def test_that_answers_calls_is_linked_to_the_last_of_them(self, kind: str) -> None:
        outputs = [{"type": kind, "call_id": call_id, "output": "done"} for call_id in ("call_1", "call_2")]
        assert asked({"role": "user", "content": "Go"}, *outputs) == (None, "call_2")

    def test_a_call_is_not_an_answer_to_itself(self) -> None:
        assert asked({"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}) == (None, None)

    @pytest.mark.parametrize(
        ("members", "prompt"),
        [
            ('"input": null', None),
            ('"input": {"role": "user"}', None),
            ('"input": [5]', None),
            ('"input": "Hi", "prompt_cache_key": [], "client_metadata": 3, "stream": "true"', "Hi"),
            ('"input": "Hi \\ud83d", "client_metadata": {"session_id": 3}', "Hi \ufffd"),
        ],
    )
    def test_with_members_of_odd_types_is_the_providers_to_judge(self, members: str, prompt: str | None) -> None:
        request = RESPONSES.parse(f'{{"model": "m", {members}}}'.encode())
        assert (request.model, request.streaming, request.prompt) == ("m", False, prompt)
        assert request.hints.client_session_id is None


BEGIN = transcript("""
    event: response.created
    data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","status":"in_progress","output":[]}}

    event: response.in_progress
    data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1","status":"in_progress"}}

""")
ITEMS = transcript(
    r"""
    event: response.output_item.added
    data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"reasoning"}}

    event: response.output_item.done
    data: {"type":"response.output_item.done","sequence_number":3,"output_index":0,"item":{"type":"reasoning",\
"summary":[{"type":"summary_text","text":"**Reading**"},{"type":"summary_text","text":"**Writing**"}]}}

    event: response.output_item.done
    data: {"type":"response.output_item.done","sequence_number":4,"output_index":1,"item":{"type":"message",\
"phase":"commentary","content":[{"type":"output_text","text":"I look "},{"type":"output_text","text":"around."}]}}

    event: response.function_call_arguments.delta
    data: {"type":"response.function_call_arguments.delta","sequence_number":5,"item_id":"fc_1","delta":"{}"}

    event: response.output_item.done
    data: {"type":"response.output_item.done","sequence_number":6,"output_index":2,"item":{"type":"function_call",\
"id":"fc_1","call_id":"call_1","name":"read","arguments":"{\"p\": 1}"}}

    event: response.output_item.done
    data: {"type":"response.output_item.done","sequence_number":7,"output_index":3,"item":{"type":"custom_tool_call",\
"id":"ct_1","call_id":"call_2","name":"exec","input":"ls -l"}}

    event: response.output_item.done
    data: {"type":"response.output_item.done","sequence_number":8,"output_index":4,"item":{"type":"local_shell_call",\
"id":"ls_1","call_id":"call_3","action":{"type":"exec","command":["ls"]}}}

    event: response.output_item.done
    data: {"type":"response.output_item.done","sequence_number":9,"output_index":5,"item":{"type":"web_search_call",\
"id":"ws_1","status":"completed","action":{"type":"search"}}}

    event: response.output_item.done
    data: {"type":"response.output_item.done","sequence_number":10,"output_index":6,"item":{"type":"message",\
"phase":"final_answer","content":[{"type":"output_text","text":"Done."},{"type":"refusal","refusal":"But not that."}]}}

""".replace("\\\n", "")
)
USED = (
    '{"input_tokens":120,"input_tokens_details":{"cached_tokens":100},"output_tokens":30,'
    '"output_tokens_details":{"reasoning_tokens":20},"total_tokens":150}'
)
USAGE = Usage(
    input=20,
    output=30,
    cache_read=100,
    extra={"output_tokens_details.reasoning_tokens": 20, "total_tokens": 150},
)


def end(kind: str, members: str) -> bytes:
    response = f'{{"id":"resp_1","status":"{kind}",{members}}}'
    event = f'{{"type":"response.{kind}","sequence_number":11,"response":{response}}}'
    return f"event: response.{kind}\ndata: {event}\n\n".encode()


class TestStream:
    def test_with_thoughts_and_calls(self) -> None:
        answer = BEGIN + ITEMS + end("completed", f'"output":[{{"type":"message"}}],"usage":{USED}')
        heard = streamed(RESPONSES, answer)
        turn = heard.turn
        assert heard.client == answer
        assert heard.ended
        assert (turn.response_id, turn.stop_reason, turn.complete, turn.error) == ("resp_1", "completed", True, None)
        assert turn.thoughts == [
            Thought("reasoning_summary", "**Reading**"),
            Thought("reasoning_summary", "**Writing**"),
            Thought("commentary", "I look around."),
        ]
        assert turn.tool_calls == [
            ToolCall("call_1", "read", '{"p": 1}', complete=True),
            ToolCall("call_2", "exec", "ls -l", complete=True),
            ToolCall("call_3", "local_shell", '{"type":"exec","command":["ls"]}', complete=True),
        ]
        assert (turn.usage, turn.counted) == (USAGE, True)

    def test_that_tells_its_items_at_the_end_only(self) -> None:
        output = '[{"type":"function_call","call_id":"call_1","name":"f","arguments":"{}"}]'
        heard = streamed(RESPONSES, BEGIN + end("completed", f'"output":{output}'))
        assert heard.turn.tool_calls == [ToolCall("call_1", "f", "{}", complete=True)]
        assert heard.turn.usage is None

    def test_that_is_incomplete_was_used_all_the_same(self) -> None:
        members = f'"incomplete_details":{{"reason":"max_output_tokens"}},"usage":{USED}'
        turn = streamed(RESPONSES, BEGIN + end("incomplete", members)).turn
        assert (turn.stop_reason, turn.complete, turn.error, turn.usage) == ("incomplete", True, None, USAGE)

    def test_that_fails_was_used_all_the_same(self) -> None:
        error = '"error":{"code":"rate_limit_exceeded","message":"Slow down."}'
        heard = streamed(RESPONSES, BEGIN + end("failed", f'{error},"usage":{USED}'))
        assert heard.ended
        assert heard.turn.error == ProviderError("rate_limit_exceeded", "Slow down.")
        assert (heard.turn.complete, heard.turn.usage, heard.turn.counted) == (False, USAGE, True)

    def test_that_fails_and_says_no_more(self) -> None:
        turn = streamed(RESPONSES, BEGIN + b'data: {"type":"response.failed"}\n\n').turn
        assert (turn.error, turn.complete, turn.usage) == (ProviderError(None, None), False, None)

    @pytest.mark.parametrize(
        "error",
        [
            '"code":"server_error","message":"Broken.","param":null',
            '"error":{"type":"server_error","code":null,"message":"Broken."}',
        ],
    )
    def test_with_an_error_goes_on_to_how_it_failed(self, error: str) -> None:
        told = f'event: error\ndata: {{"type":"error","sequence_number":2,{error}}}\n\n'.encode()
        heard = streamed(RESPONSES, BEGIN + told)
        assert (heard.turn.error, heard.turn.complete) == (ProviderError("server_error", "Broken."), False)
        assert heard.turn.usage is None

        heard = streamed(RESPONSES, BEGIN + told + end("failed", f'"error":null,"usage":{USED}'))
        assert (heard.turn.error, heard.turn.complete) == (ProviderError("server_error", "Broken."), False)
        assert heard.turn.usage == USAGE

    def test_that_breaks_off_shows_the_items_that_were_done(self) -> None:
        heard = streamed(RESPONSES, BEGIN + ITEMS)
        assert [call.id for call in heard.turn.tool_calls] == ["call_1", "call_2", "call_3"]
        assert (heard.turn.response_id, heard.turn.complete, heard.ended) == ("resp_1", False, False)

    def test_with_events_and_items_that_nobody_knows(self) -> None:
        odd = transcript("""
            : a comment

            event: keepalive
            data: {"type":"keepalive"}

            data: {"type":"response.dream.delta","delta":[1]}

            data: {"type":"response.output_item.done","item":{"type":"compaction","encrypted_content":"AA"}}

            data: {"type":"response.output_item.done","item":17}

            data: {"type":"response.output_item.done","item":{"type":"function_call","call_id":5}}

        """)
        heard = streamed(RESPONSES, BEGIN + odd + end("completed", '"output":null'))
        assert heard.client == BEGIN + odd + end("completed", '"output":null')
        assert heard.turn.tool_calls == []
        assert heard.turn.complete

    def test_with_bytes_that_are_not_utf_8_is_relayed_and_read(self) -> None:
        answer = (BEGIN + ITEMS).replace(b"Reading", b"Read\xffing").replace(b'["ls"]', b'["\xff"]')
        heard = streamed(RESPONSES, answer)
        assert heard.client == answer
        assert heard.turn.thoughts[0].content == "**Read\ufffding**"
        assert heard.turn.tool_calls[2].arguments == '{"type":"exec","command":["\ufffd"]}'

    def test_what_comes_after_the_end_changes_nothing(self) -> None:
        answer = BEGIN + ITEMS + end("completed", f'"usage":{USED}')
        more = answer.replace(b"resp_1", b"resp_2").replace(b"120", b"999")
        assert streamed(RESPONSES, answer + more).turn == streamed(RESPONSES, answer).turn


class TestDocument:
    def test_with_thoughts_and_calls(self) -> None:
        answer = rb"""{"id": "resp_1", "object": "response", "status": "completed", "error": null, "output": [
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm."}], "content": null},
            {"type": "reasoning", "id": "rs", "summary": null},
            {"type": "function_call", "id": "fc", "call_id": "call_1", "name": "f", "arguments": "{ }"},
            {"type": "apply_patch_call", "id": "ap", "call_id": "call_2", "operation": {"type":"delete_file"}},
            {"type": "tool_search_call", "id": "ts", "call_id": "call_3", "arguments": {"paths": ["crm"]}},
            {"type": "mcp_call", "id": "mcp_1", "name": "g", "arguments": "{}", "output": "1"},
            {"type": "mystery", "call_id": 5, "content": "text", "summary": "text", "action": 7, "name": {}}],
            "usage": {"input_tokens": 9, "input_tokens_details": null, "output_tokens": 4}}"""
        heard = whole(RESPONSES, answer)
        assert heard.client == answer
        assert (heard.turn.response_id, heard.turn.stop_reason, heard.turn.complete) == ("resp_1", "completed", True)
        assert heard.turn.thoughts == [Thought("reasoning_summary", "Hm.")]
        assert heard.turn.tool_calls == [
            ToolCall("call_1", "f", "{ }", complete=True),
            ToolCall("call_2", "apply_patch", '{"type":"delete_file"}', complete=True),
            ToolCall("call_3", "tool_search", '{"paths": ["crm"]}', complete=True),
        ]
        assert heard.usage == Usage(input=9, output=4)

    def test_that_failed(self) -> None:
        answer = b'{"id":"r","status":"failed","error":{"code":"c","message":"No."},"output":[],"usage":%s}'
        turn = whole(RESPONSES, answer % USED.encode()).turn
        assert (turn.error, turn.complete, turn.usage) == (ProviderError("c", "No."), False, USAGE)

    def test_that_was_cancelled(self) -> None:
        turn = whole(RESPONSES, b'{"id":"r","status":"cancelled","error":null,"output":[]}').turn
        assert (turn.error, turn.complete) == (ProviderError("cancelled", None), False)
