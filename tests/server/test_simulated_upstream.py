"""The simulated upstream, seen by the official SDKs: what they accept without complaint is realistic enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import openai
import pytest
import zstandard

from aibridge.server import simulated_upstream
from aibridge.server.simulated.script import Call, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

ADD = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}
CALLS = '[[call add {"a": 1, "b":2}]] [[call sub {"a": 3}]]'


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with simulated_upstream.serve() as url:
        yield url


@pytest.fixture
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="sk-ant-simulated", max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-simulated", max_retries=0) as client:
        yield client


class TestScript:
    def test_plain_text_asks_for_nothing(self) -> None:
        (step,) = steps("What is [[this]] about?")
        assert (step.text, step.calls) == ("What is [[this]] about?", [])

    def test_arguments_stay_as_typed(self) -> None:
        given = """First [[call a {"x": [[1]],  "y":"]]"}]] and
use tool b with {"z" : 1}
then [[call c "text"]][[call d]]"""
        (step,) = steps(given)
        assert step.calls == [
            Call("a", '{"x": [[1]],  "y":"]]"}'),
            Call("b", '{"z" : 1}'),
            Call("c", '"text"'),
            Call("d", "{}"),
        ]
        assert step.calls[2].free_text == "text"

    def test_what_can_not_be_read_is_text(self) -> None:
        prompt = "[[call a {broken]] [[fail soon]]"
        assert steps(prompt)[0].text == prompt

    def test_rounds(self) -> None:
        first, second = steps("[[call a]] [[then]] [[stall 0.5]] [[cut]]")
        assert first.calls == [Call("a")]
        assert (second.stall, second.cut) == (0.5, True)


class TestMessages:
    MODEL = "claude-sonnet-5-5"
    TOOLS: Any = [{"name": name, "input_schema": ADD} for name in ("add", "sub")]

    def ask(self, claude: anthropic.Anthropic, messages: Any, **more: Any) -> Any:
        return claude.messages.create(model=self.MODEL, max_tokens=1000, messages=messages, **more)

    def stream(self, claude: anthropic.Anthropic, messages: Any, **more: Any) -> Any:
        with claude.messages.stream(model=self.MODEL, max_tokens=1000, messages=messages, **more) as stream:
            return stream.get_final_message()

    @pytest.mark.parametrize("how", ["ask", "stream"])
    def test_a_conversation_with_thoughts_and_parallel_calls(self, claude: anthropic.Anthropic, how: str) -> None:
        ask = getattr(self, how)
        messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": f"Compute. {CALLS}"}]}]
        asked = {"tools": self.TOOLS, "thinking": {"type": "enabled", "budget_tokens": 1024}}
        answer = ask(claude, messages, **asked)
        assert [block.type for block in answer.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert [block.input for block in answer.content[2:]] == [{"a": 1, "b": 2}, {"a": 3}]
        assert answer.stop_reason == "tool_use"
        assert answer.id.startswith("msg_")
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": f"{block.name} says 3"}
            for block in answer.content[2:]
        ]
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
        answer = ask(claude, messages, **asked)
        assert answer.content[0].text == "The tool answered: add says 3 | sub says 3"
        assert answer.stop_reason == "end_turn"
        assert answer.usage.input_tokens > 0
        assert answer.usage.output_tokens > 1

    def test_a_system_message_behind_the_prompt(self, claude: anthropic.Anthropic) -> None:
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "<system-reminder>no [[call sub]]</system-reminder>"},
                                         {"type": "text", "text": "[[call add]]"}]},
            {"role": "system", "content": "You are in a folder."},
        ]  # fmt: skip
        answer = self.stream(claude, messages, tools=self.TOOLS)
        assert [block.name for block in answer.content if block.type == "tool_use"] == ["add"]

    def test_calls_one_by_one_where_they_may_not_be_parallel(self, claude: anthropic.Anthropic) -> None:
        messages: list[Any] = [{"role": "user", "content": CALLS}]
        choice = {"type": "auto", "disable_parallel_tool_use": True}
        names = []
        for _ in range(2):
            answer = self.ask(claude, messages, tools=self.TOOLS, tool_choice=choice)
            (call,) = [block for block in answer.content if block.type == "tool_use"]
            names.append(call.name)
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "3"}
            messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
        assert names == ["add", "sub"]
        assert self.ask(claude, messages, tools=self.TOOLS).stop_reason == "end_turn"

    def test_only_tools_that_are_there_are_called(self, claude: anthropic.Anthropic) -> None:
        answer = self.ask(claude, [{"role": "user", "content": "[[call rm {}]]"}], tools=self.TOOLS)
        assert answer.content[0].text == "I have no tool named rm."

    def test_a_cache_is_written_then_read(self, claude: anthropic.Anthropic) -> None:
        system = [{"type": "text", "text": "Be brief. " * 1000, "cache_control": {"type": "ephemeral"}}]
        messages: list[Any] = [{"role": "user", "content": "hi"}]
        first = self.stream(claude, messages, system=system)
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "hi again"}]
        second = self.stream(claude, messages, system=system)
        assert first.usage.cache_creation_input_tokens > 1024
        assert first.usage.cache_read_input_tokens == 0
        assert second.usage.cache_creation_input_tokens == 0
        assert second.usage.cache_read_input_tokens > 1024

    def test_an_answer_longer_than_allowed(self, claude: anthropic.Anthropic) -> None:
        message = claude.messages.create(
            model=self.MODEL, max_tokens=1, messages=[{"role": "user", "content": "quota"}]
        )
        assert message.stop_reason == "max_tokens"

    def test_structured_output(self, claude: anthropic.Anthropic) -> None:
        schema = {"type": "object", "properties": {"title": {"type": "string"}, "kind": {"enum": ["chat", "code"]}}}
        output: Any = {"format": {"type": "json_schema", "schema": schema}}
        answer = self.ask(claude, [{"role": "user", "content": "Name this."}], output_config=output)
        assert answer.content[0].text == '{"title":"Simulated answer","kind":"chat"}'

    def test_thinking_must_come_back_unaltered(self, claude: anthropic.Anthropic) -> None:
        altered = {"type": "thinking", "thinking": "something else", "signature": "c2lnbmVk"}
        messages: list[Any] = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [altered, {"type": "text", "text": "hi"}]},
            {"role": "user", "content": "go on"},
        ]
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
            self.ask(claude, messages)

    def test_calls_and_results_must_match(self, claude: anthropic.Anthropic) -> None:
        call = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
        messages: list[Any] = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": "go on"},
        ]
        with pytest.raises(anthropic.BadRequestError, match="without `tool_result`"):
            self.ask(claude, messages, tools=self.TOOLS)
        messages[-1]["content"] = [{"type": "tool_result", "tool_use_id": "toolu_2", "content": "3"}]
        with pytest.raises(anthropic.BadRequestError):
            self.ask(claude, messages, tools=self.TOOLS)

    def test_faults(self, claude: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            self.ask(claude, [{"role": "user", "content": "[[fail 529]]"}])
        assert (overloaded.value.status_code, overloaded.value.type) == (529, "overloaded_error")
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            self.stream(claude, [{"role": "user", "content": "[[error]]"}])
        with pytest.raises(Exception, match="peer closed connection"):
            self.stream(claude, [{"role": "user", "content": "[[cut]]"}])
        with pytest.raises(anthropic.APIConnectionError):
            self.ask(claude, [{"role": "user", "content": "[[cut]]"}])

    def test_counting_and_models(self, claude: anthropic.Anthropic) -> None:
        counted = claude.messages.count_tokens(model=self.MODEL, messages=[{"role": "user", "content": "hi " * 400}])
        assert counted.input_tokens > 300
        assert self.MODEL in [model.id for model in claude.models.list(limit=1000)]
        assert claude.models.retrieve(self.MODEL).display_name == "Claude Sonnet 5 5"


class TestChatCompletions:
    MODEL = "gpt-5.5"
    TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": ADD}} for name in ("add", "sub")]

    def ask(self, gpt: openai.OpenAI, messages: Any, **more: Any) -> Any:
        return gpt.chat.completions.create(model=self.MODEL, messages=messages, **more)

    def stream(self, gpt: openai.OpenAI, messages: Any, **more: Any) -> Any:
        options: Any = {"include_usage": True}
        with gpt.chat.completions.stream(model=self.MODEL, messages=messages, stream_options=options, **more) as stream:
            return stream.get_final_completion()

    @pytest.mark.parametrize("how", ["ask", "stream"])
    def test_a_conversation_with_parallel_calls(self, gpt: openai.OpenAI, how: str) -> None:
        ask = getattr(self, how)
        messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": CALLS}]
        completion = ask(gpt, messages, tools=self.TOOLS)
        message = completion.choices[0].message
        assert completion.choices[0].finish_reason == "tool_calls"
        assert [call.function.arguments for call in message.tool_calls] == ['{"a": 1, "b":2}', '{"a": 3}']
        calls = [call.to_dict() for call in message.tool_calls]
        messages.append({"role": "assistant", "content": message.content, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "3"} for call in message.tool_calls]
        completion = ask(gpt, messages, tools=self.TOOLS)
        assert completion.choices[0].message.content == "The tool answered: 3 | 3"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage.prompt_tokens > 0
        assert completion.id.startswith("chatcmpl-")

    def test_usage_only_where_it_was_asked_for(self, gpt: openai.OpenAI) -> None:
        chunks = list(self.ask(gpt, [{"role": "user", "content": "hi"}], stream=True))
        assert not any(chunk.usage for chunk in chunks)
        assert all(chunk.choices for chunk in chunks)

    def test_a_custom_tool(self, gpt: openai.OpenAI) -> None:
        tools: Any = [{"type": "custom", "custom": {"name": "exec"}}]
        completion = self.ask(gpt, [{"role": "user", "content": '[[call exec "ls -l"]]'}], tools=tools)
        assert completion.choices[0].message.tool_calls[0].custom.input == "ls -l"

    def test_calls_and_results_must_match(self, gpt: openai.OpenAI) -> None:
        call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
        messages: list[Any] = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]}]
        with pytest.raises(openai.BadRequestError, match="call_1"):
            self.ask(gpt, [*messages, {"role": "user", "content": "go on"}])
        with pytest.raises(openai.BadRequestError, match="must be a response"):
            self.ask(gpt, [*messages, {"role": "tool", "tool_call_id": "call_2", "content": "3"}])

    def test_faults(self, gpt: openai.OpenAI) -> None:
        with pytest.raises(openai.RateLimitError) as limited:
            self.ask(gpt, [{"role": "user", "content": "[[fail 429]]"}])
        assert limited.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.APIError, match="had an error"):
            self.stream(gpt, [{"role": "user", "content": "[[error]]"}])
        with pytest.raises(openai.APIConnectionError):
            self.stream(gpt, [{"role": "user", "content": "[[cut]]"}])

    def test_models(self, gpt: openai.OpenAI) -> None:
        assert self.MODEL in [model.id for model in gpt.models.list()]
        assert gpt.models.retrieve(self.MODEL).owned_by == "openai"


class TestResponses:
    MODEL = "gpt-5.5"
    TOOLS: Any = [{"type": "function", "name": name, "parameters": ADD, "strict": False} for name in ("add", "sub")]

    def ask(self, gpt: openai.OpenAI, items: Any, **more: Any) -> Any:
        return gpt.responses.create(model=self.MODEL, input=items, **more)

    def stream(self, gpt: openai.OpenAI, items: Any, **more: Any) -> Any:
        with gpt.responses.stream(model=self.MODEL, input=items, **more) as stream:
            return stream.get_final_response()

    @pytest.mark.parametrize("how", ["ask", "stream"])
    @pytest.mark.parametrize("kept", [True, False], ids=["kept", "resent"])
    def test_a_conversation_with_thoughts_and_parallel_calls(self, gpt: openai.OpenAI, how: str, kept: bool) -> None:
        ask = getattr(self, how)
        first: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": CALLS}]}]
        asked: Any = {"tools": self.TOOLS, "reasoning": {"effort": "low"}, "store": kept}
        response = ask(gpt, first, **asked)
        assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
        calls = response.output[2:]
        assert [call.arguments for call in calls] == ['{"a": 1, "b":2}', '{"a": 3}']
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": "3"} for call in calls]
        if kept:
            response = ask(gpt, results, previous_response_id=response.id, **asked)
        else:
            response = ask(gpt, [*first, *(item.to_dict() for item in response.output), *results], **asked)
        assert response.output_text == "The tool answered: 3 | 3"
        assert response.status == "completed"
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens

    def test_every_event_has_its_number(self, gpt: openai.OpenAI) -> None:
        events = list(self.ask(gpt, f"[[think Hm.]] {CALLS}", tools=self.TOOLS, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")

    def test_tools_that_come_in_the_input(self, gpt: openai.OpenAI) -> None:
        tools = {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom", "name": "exec"}]}
        items: Any = [tools, {"role": "user", "content": '[[call exec "ls"]]'}]
        (call,) = [item for item in self.stream(gpt, items).output if item.type == "custom_tool_call"]
        assert (call.name, call.input) == ("exec", "ls")

    def test_an_answer_longer_than_allowed(self, gpt: openai.OpenAI) -> None:
        response = self.ask(gpt, "hi", max_output_tokens=1)
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    def test_calls_and_results_must_match(self, gpt: openai.OpenAI) -> None:
        call = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "call_2", "output": "3"}
        with pytest.raises(openai.BadRequestError, match="No tool output found for function call call_1"):
            self.ask(gpt, [call])
        with pytest.raises(openai.BadRequestError, match="call_2"):
            self.ask(gpt, [result])
        with pytest.raises(openai.BadRequestError, match="not found"):
            self.ask(gpt, [result], previous_response_id="resp_of_another")

    def test_faults(self, gpt: openai.OpenAI) -> None:
        with pytest.raises(openai.InternalServerError):
            self.ask(gpt, "[[error]]")
        assert list(self.ask(gpt, "[[error]]", stream=True))[-1].type == "response.failed"
        with pytest.raises(openai.APIConnectionError):
            list(self.ask(gpt, "[[cut]]", stream=True))


def test_a_stall_is_a_silence_in_the_middle_of_an_answer(claude: anthropic.Anthropic) -> None:
    started = time.monotonic()
    message = TestMessages().stream(claude, [{"role": "user", "content": "[[stall 0.3]] hi"}])
    assert time.monotonic() - started > 0.3
    assert message.stop_reason == "end_turn"


async def test_requests_are_kept_for_who_wants_to_see_them() -> None:
    upstream = simulated_upstream.create(pause=0.001)
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "authorization": "Bearer x"}
    compressed = zstandard.compress(b'{"model": "gpt-5.5", "input": "hi"}')
    encoding = {"content-encoding": "zstd", "authorization": "Bearer x"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("HEAD", "/api/hello", {}),
        ("GET", "/v1/models", {}),
        ("GET", "/v1/responses?a=b", {"headers": upgrade}),
        ("POST", "/v1/messages", {"headers": {"x-api-key": "k"}, "data": b"{"}),
        ("POST", "/v1/responses", {"headers": encoding, "data": compressed}),
    ]
    statuses = []
    with simulated_upstream.serve(upstream) as url:
        async with aiohttp.ClientSession(url) as client:
            for method, path, more in requests:
                async with client.request(method, path, **more) as answer:
                    await answer.read()
                    statuses.append(answer.status)
    assert statuses == [200, 401, 426, 400, 200]
    assert [seen.path for seen in upstream.requests] == [path for _, path, _ in requests]
    assert upstream.requests[-1].json()["input"] == "hi"
