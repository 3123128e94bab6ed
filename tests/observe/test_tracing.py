"""What an exchange looks like in a trace, as a collector gets it by OTLP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from aibridge import AnthropicProvider, BedrockProvider, ModelRoute, RequestBridge
from aibridge.errors import SettingsError
from aibridge.mcp.config import ServerConfig
from aibridge.mcp.servers import ToolServers
from aibridge.observe import gen_ai
from aibridge.recording.contents import Redaction
from aibridge.records import InterceptionEnded
from aibridge.server.loading import load
from aibridge.server.settings import Tracing as TracingSettings
from aibridge.server.tracing import Tracing
from aibridge.server.values import Secret
from aibridge.upstream.upstream import TimeLimits
from aibridge.wire.chat_completions import ChatCompletions
from support.bedrock import KEY_ID, REGION, SECRET, Bedrock, chunks, frames
from support.client import ask, begun
from support.collector import Collector, over_grpc, over_http
from support.dialects import CHAT, MESSAGES, Dialect
from support.process import ACTOR, KEY, running
from support.provider import CLOSE, Provider, document, error, events, raw
from support.recorder import ListRecorder
from support.serving import asked_by, bridged, serving
from support.speech import PROMPT, SPEECHES, TIDES, Call, Speech, Text, Thinking
from support.tools import Tools, bridged_with, turn
from support.waiting import until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "sea=calm", "baggage": "who=ada"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
COMMON = {"request_path", "interception_id", "user_id", "provider", "model", "streaming", "aws_bedrock"}
THOUGHT = "The moon is full."


@dataclass
class Traced:
    """A collector, and the settings that lead spans to it."""

    collector: Collector
    settings: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def tracing(self, **settings: Any) -> AsyncIterator[Tracing]:
        """A tracer; once it is left, all spans have arrived."""
        tracing = Tracing(TracingSettings(endpoint=self.collector.url, **self.settings, **settings))
        try:
            yield tracing
        finally:
            await asyncio.to_thread(tracing.close)


@pytest.fixture
def traced() -> Iterator[Traced]:
    with over_http() as collector:
        yield Traced(collector)


async def test_an_exchange_with_bedrock(traced: Traced, recorder: ListRecorder) -> None:
    keys = {"access_key": KEY_ID, "access_key_secret": SECRET}
    async with Bedrock() as upstream, traced.tracing() as tracing:
        upstream.says(frames(*chunks(MESSAGES.events)))
        provider = BedrockProvider(upstream.url, region=REGION, model="eu.anthropic.claude-opus-4-6-v1", **keys)
        bridge = RequestBridge([provider], recorder, tracer=tracing.tracer)
        async with bridge, serving(asked_by("ada", bridge)) as url:
            await ask(f"{url}/bedrock/v1/messages", MESSAGES.request())
    told = {"provider": "bedrock", "aws_bedrock": True, "model": MESSAGES.asking["model"]}
    for span in traced.collector.spans:
        assert told.items() <= span.attributes.items(), span.name
    asked = traced.collector.one("Intercept.ProcessRequest.Upstream")
    assert asked.attributes["gen_ai.provider.name"] == "aws.bedrock"
    assert asked.attributes["gen_ai.response.id"] == MESSAGES.response_id
    assert SECRET not in str(traced.collector.spans)


Over = Callable[[], AbstractContextManager[Collector]]


@pytest.mark.parametrize(("protocol", "over"), [("http", over_http), ("grpc", over_grpc)])
async def test_the_story_of_an_exchange_with_an_injected_tool(
    protocol: str, over: Over, provider: Provider, recorder: ListRecorder
) -> None:
    speech, tools = SPEECHES[0], Tools()
    provider.says(turn(speech, 1, [Call("call_1", TIDES)]), turn(speech, 2, [Text("At six.")]))
    with over() as collector:
        traced = Traced(collector, {"protocol": protocol, "headers": {"X-Collector-Key": Secret("of-the-collector")}})
        async with (
            traced.tracing() as tracing,
            bridged_with(tools, provider.url, recorder, tracer=tracing.tracer) as url,
        ):
            answer = await ask(url + speech.path, speech.request(speech.asked(PROMPT)), SAMPLED)
    root = collector.one("Intercept")
    assert collector.tree(root) == (
        "Intercept",
        [
            "Intercept.CreateInterceptor",
            "Intercept.RecordInterception",
            "Intercept.RecordPromptUsage",
            (
                "Intercept.ProcessRequest",
                [
                    "Intercept.ProcessRequest.Upstream",
                    "Intercept.ProcessRequest.ToolCall",
                    "Intercept.ProcessRequest.Upstream",
                ],
            ),
            "Intercept.RecordTokenUsage",
            "Intercept.RecordToolUsage",
            "Intercept.RecordTokenUsage",
            "Intercept.RecordInterceptionEnded",
        ],
    )
    assert (root.trace_id, root.parent_id, root.kind) == (TRACE, PARENT, "server")
    for span in collector.spans:
        assert span.trace_id == TRACE
        assert span.attributes.keys() >= COMMON, span.name
        assert not span.failed
        assert root.began <= span.began <= span.ended <= root.ended
    told = {
        "request_path": speech.path,
        "interception_id": answer.id,
        "user_id": "ada",
        "provider": "anthropic",
        "model": "m",
        "streaming": True,
        "aws_bedrock": False,
        "http.response.status_code": 200,
    }
    assert told.items() <= root.attributes.items()
    first, second = collector.named("Intercept.ProcessRequest.Upstream")
    assert first.kind == "client"
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.finish_reasons": ["tool_use"],
        "gen_ai.usage.output_tokens": 10,
        "server.address": "127.0.0.1",
        "server.port": int(provider.url.rpartition(":")[2]),
        "http.response.status_code": 200,
    }.items() <= first.attributes.items()
    assert first.events == [("answered", {})]
    assert second.attributes["gen_ai.usage.output_tokens"] == 20
    call = collector.one("Intercept.ProcessRequest.ToolCall")
    assert {
        "mcp_input": '{"harbour": "Lyme",  "day":1}',
        "mcp_tool_name": "tides",
        "mcp_server_name": "sea",
        "mcp_server_url": "https://sea.example/mcp",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "tides",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.type": "function",
        "mcp.method.name": "tools/call",
    }.items() <= call.attributes.items()
    assert collector.headers["x-collector-key"] == "of-the-collector"
    assert collector.paths == (["/v1/traces"] if protocol == "http" else [])
    assert collector.resource["service.name"] == "aibridge"
    assert collector.resource["service.version"] == version("aibridge")
    for secret in (PROMPT, "At six.", KEY, "of-the-collector"):
        assert secret.encode() not in collector.raw


@pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: speech.dialect.name)
async def test_contents_are_there_only_where_they_are_asked_for(
    speech: Speech, traced: Traced, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(turn(speech, 1, [Thinking(THOUGHT), Call("call_1", TIDES)]), turn(speech, 2, [Text("At six.")]))
    async with (
        traced.tracing() as tracing,
        bridged_with(Tools(), provider.url, recorder, tracer=tracing.tracer, trace_contents=True) as url,
    ):
        await ask(url + speech.path, speech.request(speech.asked(PROMPT)))
    first, _ = traced.collector.named("Intercept.ProcessRequest.Upstream")
    asked, said = (json.loads(first.attributes[f"gen_ai.{way}.messages"]) for way in ("input", "output"))
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": PROMPT}]}]
    (message,) = said
    called = {"type": "tool_call", "id": "call_1", "name": TIDES, "arguments": {"harbour": "Lyme", "day": 1}}
    thought = {"type": "reasoning", "content": THOUGHT}
    assert message["parts"] == ([called] if isinstance(speech.dialect, ChatCompletions) else [thought, called])
    call = traced.collector.one("Intercept.ProcessRequest.ToolCall")
    assert call.attributes["gen_ai.tool.call.arguments"] == '{"harbour": "Lyme",  "day":1}'
    assert call.attributes["gen_ai.tool.call.result"] == "the tides"


async def test_what_is_not_recorded_is_in_no_trace(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    speech = SPEECHES[0]
    provider.says(turn(speech, 1, [Thinking(THOUGHT), Call("call_1", TIDES)]), turn(speech, 2, [Text("At six.")]))
    settings: dict[str, Any] = {"trace_contents": True, "redaction": Redaction(lambda text: text.upper())}
    async with (
        traced.tracing() as tracing,
        bridged_with(Tools(), provider.url, recorder, tracer=tracing.tracer, **settings) as url,
    ):
        await ask(url + speech.path, speech.request(speech.asked(PROMPT)))
    assert "mcp_input" not in traced.collector.one("Intercept.ProcessRequest.ToolCall").attributes
    assert all(text not in traced.collector.raw for text in (PROMPT.encode(), THOUGHT.encode(), b"harbour"))


PARAMETERS = {
    "max_tokens": 500,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "n": 2,
    "seed": 7,
    "reasoning_effort": "high",
    "previous_response_id": "resp_0",
    "prompt_cache_key": "session-of-ada",
}


async def test_a_long_content_is_cut(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    speech = SPEECHES[0]
    provider.says(turn(speech, 1, [Text("At six.")]))
    async with (
        traced.tracing() as tracing,
        bridged_with(Tools(), provider.url, recorder, tracer=tracing.tracer, trace_contents=True) as url,
    ):
        await ask(url + speech.path, speech.request(speech.asked("x" * 100_000)))
    told = traced.collector.one("Intercept.ProcessRequest.Upstream").attributes["gen_ai.input.messages"]
    assert len(told) == 32_768


async def test_an_endpoint_of_traces_alone_is_taken_as_it_is(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """So OpenTelemetry wants it of this variable; what is said for everything gets the path of traces."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traced.collector.url + "/of/my/own")
    tracing = Tracing(load(None, os.environ).tracing)
    tracing.tracer.start("Intercept").end()
    await asyncio.to_thread(tracing.close)
    assert traced.collector.paths == ["/of/my/own"]


async def test_how_a_model_was_asked(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(document(CHAT.document))
    async with traced.tracing() as tracing, bridged(provider.url, recorder, tracer=tracing.tracer) as url:
        await ask(url + CHAT.path, CHAT.request(stream=False, **PARAMETERS))
    attributes = traced.collector.one("Intercept.ProcessRequest.Upstream").attributes
    assert {name: it for name, it in attributes.items() if name.startswith("gen_ai.request.")} == {
        "gen_ai.request.model": CHAT.asking["model"],
        "gen_ai.request.max_tokens": 500,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.seed": 7,
        "gen_ai.request.reasoning.level": "high",
        "gen_ai.request.previous_response.id": "resp_0",
    }
    assert attributes["gen_ai.conversation.id"] == "session-of-ada"


async def test_tokens_add_up_as_the_conventions_want(
    dialect: Dialect, traced: Traced, provider: Provider, recorder: ListRecorder
) -> None:
    """What was read from a cache, or written to it, is part of the input."""
    provider.says(events(dialect.stream))
    async with traced.tracing() as tracing, bridged(provider.url, recorder, tracer=tracing.tracer) as url:
        await ask(url + dialect.path, dialect.request())
    attributes = traced.collector.one("Intercept.ProcessRequest.Upstream").attributes
    uncached, output, read, written = dialect.tokens
    assert attributes["gen_ai.usage.input_tokens"] == uncached + read + written
    assert attributes["gen_ai.usage.output_tokens"] == output
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == read
    assert attributes["gen_ai.usage.cache_creation.input_tokens"] == written
    assert attributes["gen_ai.response.id"] == dialect.response_id


def failed(collector: Collector) -> dict[str, tuple[Any, str]]:
    """The spans that failed: the sort of the failure, and what is told of it."""
    return {span.name: (span.attributes.get("error.type"), span.message) for span in collector.spans if span.failed}


async def test_a_provider_that_answers_with_an_error(
    traced: Traced, provider: Provider, recorder: ListRecorder
) -> None:
    """Its words may quote what it was asked, so they are a content."""
    provider.says(error(529, f"no answer to {PROMPT}"))
    async with (
        traced.tracing() as tracing,
        bridged(provider.url, recorder, tracer=tracing.tracer, max_retries=1) as url,
    ):
        await ask(url + MESSAGES.path, MESSAGES.request())
    names = ("Intercept", "Intercept.ProcessRequest", "Intercept.ProcessRequest.Upstream")
    assert failed(traced.collector) == dict.fromkeys(names, ("scripted_error", ""))
    upstream = traced.collector.one("Intercept.ProcessRequest.Upstream")
    assert upstream.attributes["http.response.status_code"] == 529
    assert upstream.events == [("retry", {"reason": "529"}), ("answered", {})]
    assert PROMPT.encode() not in traced.collector.raw


async def test_a_provider_that_falls_silent(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(events(MESSAGES.before(), asyncio.Event()))
    limits = TimeLimits(idle=0.2, keep_alive=0)
    async with (
        traced.tracing() as tracing,
        bridged(provider.url, recorder, tracer=tracing.tracer, time_limits=limits) as url,
    ):
        await ask(url + MESSAGES.path, MESSAGES.request())
    told = ("upstream_silent", "anthropic was silent for longer than the idle limit of 0.2 s")
    names = ("Intercept", "Intercept.ProcessRequest", "Intercept.ProcessRequest.Upstream")
    assert failed(traced.collector) == dict.fromkeys(names, told)
    upstream = traced.collector.one("Intercept.ProcessRequest.Upstream")
    assert upstream.attributes["gen_ai.response.finish_reasons"] == ["error"]


async def test_a_client_that_leaves(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(events(MESSAGES.before(), asyncio.Event()))
    async with traced.tracing() as tracing, bridged(provider.url, recorder, tracer=tracing.tracer) as url:
        async with begun(url + MESSAGES.path, MESSAGES.request()) as answer:
            await answer.until(MESSAGES.said)
        await until(lambda: recorder.all(InterceptionEnded), "the interception has ended")
    assert traced.collector.one("Intercept").attributes["error.type"] == "cancelled"


async def test_a_request_that_can_not_be_read(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    async with traced.tracing() as tracing, bridged(provider.url, recorder, tracer=tracing.tracer) as url:
        await ask(url + MESSAGES.path, b"{")
    names = ("Intercept", "Intercept.CreateInterceptor")
    assert {name: sort for name, (sort, _) in failed(traced.collector).items()} == dict.fromkeys(
        names, "invalid_request"
    )


async def test_what_is_only_passed_through(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(document(b"{}"), raw(CLOSE))
    async with traced.tracing() as tracing, bridged(provider.url, recorder, tracer=tracing.tracer) as url:
        await ask(url + "/openai/v1/models?key=sk-in-a-query", headers=SAMPLED, method="GET")
        await ask(url + "/openai/v1/models", method="GET")
    well, cut = traced.collector.named("Passthrough")
    assert well.attributes == {
        "request_path": "/openai/v1/models",
        "user_id": "ada",
        "provider": "openai",
        "passthrough_url": "/openai/v1/models",
        "passthrough_upstream_url": f"{provider.url}/v1/models",
        "passthrough_method": "GET",
        "http.response.status_code": 200,
    }
    assert (well.trace_id, well.parent_id, well.failed) == (TRACE, PARENT, False)
    assert (cut.failed, cut.attributes["error.type"]) == (True, "upstream_fault")
    assert b"sk-in-a-query" not in traced.collector.raw


class TestPropagation:
    """Which trace a request belongs to is for who runs the gateway to know, and for nobody else unless they say so."""

    @staticmethod
    def told(provider: Provider) -> dict[str, str | None]:
        return {name: provider.last.header(name) for name in SAMPLED}

    @pytest.mark.parametrize("tracing", [True, False])
    async def test_providers_are_not_told(
        self, tracing: bool, traced: Traced, provider: Provider, recorder: ListRecorder
    ) -> None:
        provider.says(document(MESSAGES.document))
        async with (
            traced.tracing() as made,
            bridged(provider.url, recorder, tracer=made.tracer if tracing else None) as url,
        ):
            await ask(url + MESSAGES.path, MESSAGES.request(stream=False), SAMPLED)
            assert self.told(provider) == dict.fromkeys(SAMPLED)
            await ask(url + "/openai/v1/models", headers=SAMPLED, method="GET")
            assert self.told(provider) == dict.fromkeys(SAMPLED)

    async def test_where_they_are_they_are_told_of_the_gateways_span(
        self, traced: Traced, provider: Provider, recorder: ListRecorder
    ) -> None:
        provider.says(document(MESSAGES.document))
        async with (
            traced.tracing() as tracing,
            bridged(provider.url, recorder, tracer=tracing.tracer, propagate_traces=True) as url,
        ):
            await ask(url + MESSAGES.path, MESSAGES.request(stream=False), SAMPLED)
            bridged_one = self.told(provider)
            await ask(url + "/openai/v1/models", headers=SAMPLED, method="GET")
            passed = self.told(provider)
        for told, name in ((bridged_one, "Intercept.ProcessRequest.Upstream"), (passed, "Passthrough")):
            span = traced.collector.one(name)
            context = f"00-{TRACE}-{span.id}-01"
            assert told == {"traceparent": context, "tracestate": "sea=calm", "baggage": None}

    async def test_without_a_tracer_of_the_clients(self, provider: Provider, recorder: ListRecorder) -> None:
        provider.says(document(MESSAGES.document))
        async with bridged(provider.url, recorder, propagate_traces=True) as url:
            await ask(url + MESSAGES.path, MESSAGES.request(stream=False), SAMPLED)
        assert self.told(provider) == SAMPLED

    @pytest.mark.parametrize("propagate", [True, False])
    async def test_what_the_client_does_not_sample_is_not_seen(
        self, propagate: bool, traced: Traced, provider: Provider, recorder: ListRecorder
    ) -> None:
        provider.says(document(MESSAGES.document))
        async with (
            traced.tracing() as tracing,
            bridged(provider.url, recorder, tracer=tracing.tracer, propagate_traces=propagate) as url,
        ):
            await ask(url + MESSAGES.path, MESSAGES.request(stream=False), UNSAMPLED)
        context = provider.last.header("traceparent")
        assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", context or "") if propagate else context is None
        assert not traced.collector.spans


async def test_a_part_of_all_traces_can_be_kept(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(document(MESSAGES.document))
    async with (
        traced.tracing(sample_ratio=0.0) as tracing,
        bridged(provider.url, recorder, tracer=tracing.tracer) as url,
    ):
        await ask(url + MESSAGES.path, MESSAGES.request(stream=False))
        await ask(url + MESSAGES.path, MESSAGES.request(stream=False), SAMPLED)
    assert traced.collector.one("Intercept").trace_id == TRACE


async def test_mcp_servers_that_are_connected_to(traced: Traced) -> None:
    """One that is there, and one that is not."""
    program = Path(__file__).parents[1] / "mcp_servers" / "sdk_server.py"
    configs = [
        ServerConfig(name="there", command=[sys.executable, str(program), "stdio"]),
        ServerConfig(name="gone", url="http://127.0.0.1:9/mcp?key=secret-of-a-server"),
    ]
    async with traced.tracing() as tracing:
        servers = ToolServers(configs, tracer=tracing.tracer)
        await servers.start()
        await until(lambda: all(state.connected or state.error for state in servers.states), "both were tried")
        await servers.aclose()
    collector = traced.collector
    root = collector.one("ServerProxyManager.Init")
    there, gone = collector.one("StdioServerProxy.Init"), collector.named("StreamableHTTPServerProxy.Init")[0]
    assert there.parent_id == gone.parent_id == root.id
    assert collector.one("StdioServerProxy.Init.fetchTools").parent_id == there.id
    assert collector.one("StdioServerProxy.Init.fetchTools").attributes["mcp_tool_count"] > 5
    assert there.attributes == {"mcp_server_name": "there", "mcp_server_url": f"stdio:{sys.executable}"}
    assert (there.failed, gone.failed) == (False, True)
    assert gone.attributes["mcp_server_url"] == "http://127.0.0.1:9/mcp"
    assert b"secret-of-a-server" not in collector.raw


@pytest.mark.parametrize(("protocol", "over"), [("http", over_http), ("grpc", over_grpc)])
async def test_a_gateway_that_is_told_to_stop_has_sent_all(
    protocol: str, over: Over, provider: Provider, tmp_path: Path
) -> None:
    provider.says(events(MESSAGES.stream))
    with over() as collector:
        settings: dict[str, Any] = {"TRACING_ENDPOINT": collector.url, "TRACING_PROTOCOL": protocol}
        with running(tmp_path, provider.url, **settings) as gateway:
            answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)
            gateway.stop()  # long before a batch is due
    spans = [span for span in collector.spans if span.attributes.get("interception_id") == answer.id]
    assert {span.name for span in spans} >= {"Intercept", "Intercept.ProcessRequest.Upstream"}
    assert KEY.encode() not in collector.raw


async def test_a_collector_that_is_not_there_harms_nobody(provider: Provider, tmp_path: Path) -> None:
    provider.says(events(MESSAGES.stream))
    with running(tmp_path, provider.url, TRACING_ENDPOINT="http://127.0.0.1:9") as gateway:
        assert (await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)).complete


@pytest.mark.parametrize("module", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"])
def test_what_is_not_installed_is_named_with_the_remedy(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(module)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    told = {"AIBRIDGE_TRACING_ENDPOINT": "http://127.0.0.1:4317", "AIBRIDGE_TRACING_PROTOCOL": "grpc"}
    with pytest.raises(SettingsError, match=rf"^tracing\.endpoint: .*{module}.*; .*pip install 'aibridge\[otel\]'"):
        load(None, told)


def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded(tmp_path: Path) -> None:
    looked = (
        "import sys; from aibridge.server.gateway import Gateway; from aibridge.server.settings import Settings;"
        "Gateway(Settings()); print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    said = subprocess.run([sys.executable, "-c", looked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


async def test_an_exchange_that_went_elsewhere(traced: Traced, provider: Provider, recorder: ListRecorder) -> None:
    """Of a route to several providers, the trace tells who was left and why, and who answered; and that one is told."""
    async with Provider() as quay, traced.tracing() as tracing:
        provider.says(error(529))
        quay.says(document(MESSAGES.document))
        providers = [
            AnthropicProvider(each.url, name=name, api_key=KEY, max_retries=0)
            for name, each in (("harbour", provider), ("quay", quay))
        ]
        routes = [ModelRoute("port", providers)]
        bridge = RequestBridge(providers, recorder, routes=routes, tracer=tracing.tracer, propagate_traces=True)
        async with bridge, serving(asked_by("ada", bridge)) as url:
            await ask(url + "/port/v1/messages", MESSAGES.request(stream=False), SAMPLED)
        context = quay.last.header("traceparent")
    upstream = traced.collector.one("Intercept.ProcessRequest.Upstream")
    assert upstream.events == [("left", {"provider": "harbour", "reason": "529"}), ("answered", {})]
    for span in (traced.collector.one("Intercept"), upstream):
        assert (span.attributes["provider"], span.attributes["server.port"]) == ("quay", quay.port)
    assert context == f"00-{TRACE}-{upstream.id}-01"


def test_bedrock_has_the_name_that_the_conventions_give_it() -> None:
    assert gen_ai.asked_of(BedrockProvider(region="eu-west-1", api_key="key")) == {
        "gen_ai.provider.name": "aws.bedrock",
        "server.address": "bedrock-runtime.eu-west-1.amazonaws.com",
        "server.port": 443,
    }
