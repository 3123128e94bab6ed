"""Several providers under one name: the next is asked where one fails, and a session stays where it was answered."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zstandard
from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, BreakerPolicy, Metrics, ModelRoute, OpenAIProvider, RequestBridge
from aibridge.bridge.choice import STAY, Homes
from aibridge.records import Interception, InterceptionEnded, TokenUsage
from support.client import Answer, ask
from support.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from support.provider import CLOSE, Provider, document, error, events
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.speech import SPEECHES, TIDES, Call, Text
from support.tools import Tools, turn

NOT_FOR_LONG = [("retry-after-ms", "1")]


@pytest.fixture
async def quay() -> AsyncIterator[Provider]:
    """The second provider; the first is `provider`."""
    async with Provider() as listening:
        yield listening


class Port:
    """A bridge with the providers `harbour` and `quay`, and the route `port` to both."""

    def __init__(self, url: str, dialect: Dialect) -> None:
        self.url, self._dialect = url, dialect

    async def ask(
        self, session: str = "a", *, at: str = "port", headers: Mapping[str, str] | None = None, **body: Any
    ) -> Answer:
        """The answer to a request of a session."""
        path = self._dialect.path.replace("/anthropic/", f"/{at}/").replace("/openai/", f"/{at}/")
        of_session = {"User-Agent": "opencode/1.18.33", "x-session-id": session}
        return await ask(self.url + path, self._dialect.request(**body), of_session | dict(headers or {}))


@asynccontextmanager
async def port(
    provider: Provider | str,
    quay: Provider,
    recorder: ListRecorder,
    dialect: Dialect = MESSAGES,
    metrics: Metrics | None = None,
    breaker: BreakerPolicy | None = None,
    max_retries: int = 0,
    toolbox: Tools | None = None,
    **route: Any,
) -> AsyncIterator[Port]:
    urls = [provider if isinstance(provider, str) else provider.url, quay.url]
    of_type, version = (AnthropicProvider, "") if dialect is MESSAGES else (OpenAIProvider, "/v1")
    providers = [
        of_type(url + version, name=name, api_key=f"sk-of-{name}-0123456789", max_retries=max_retries)
        for name, url in zip(("harbour", "quay"), urls, strict=True)
    ]
    routes = [ModelRoute("port", providers, **route)]
    bridge = RequestBridge(providers, recorder, metrics, routes=routes, breaker=breaker, toolbox=toolbox)
    async with bridge, serving(asked_by("ada", bridge)) as url:
        yield Port(url, dialect)


async def test_the_next_provider_is_asked_where_one_fails(
    dialect: Dialect, provider: Provider, quay: Provider, recorder: ListRecorder, registry: CollectorRegistry
) -> None:
    provider.says(error(529, headers=NOT_FOR_LONG))
    quay.says(events(dialect.stream))
    async with port(provider, quay, recorder, dialect, Metrics(registry), max_retries=1) as each:
        answer = await each.ask()
    assert (answer.status, answer.body) == (200, dialect.for_client)
    assert (len(provider.asked), len(quay.asked)) == (2, 1), "after its own retries"
    assert provider.last.body == quay.last.body
    assert "sk-of-harbour" in str(provider.last.headers)
    assert "sk-of-quay" in str(quay.last.headers)
    assert "sk-of-harbour" not in str(quay.last.headers)
    begun, ended = recorder.one(Interception), recorder.one(InterceptionEnded)
    assert (begun.provider_name, begun.metadata["route"]) == ("harbour", "port")
    assert ended.status == "completed"
    assert ended.metadata == {
        "retries": ["529"],
        "tried": [{"provider": "harbour", "why": "529"}],
        "asked_last": "quay",
        "credential_hint": "sk-o...6789",
        "credential_length": 21,
    }
    assert recorder.one(TokenUsage).output_tokens == dialect.tokens[1]
    samples = {
        (sample.name, sample.labels["provider"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if "provider" in sample.labels and not sample.name.endswith("_created")
    }
    assert samples["upstream_left_total", "harbour"] == samples["interceptions_total", "quay"] == 1
    assert samples["upstream_retries_total", "harbour"] == 1
    assert samples["interceptions_inflight", "harbour"] == 0
    assert ("tokens_total", "harbour") not in samples, "tokens are counted where they were used"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529, 429, 401, 403])
async def test_what_the_provider_is_to_blame_for(
    status: int, provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    provider.says(error(status))
    quay.says(events(MESSAGES.stream))
    async with port(provider, quay, recorder) as each:
        assert (await each.ask()).status == 200
    assert recorder.one(InterceptionEnded).metadata["tried"] == [{"provider": "harbour", "why": str(status)}]


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_the_client_is_to_blame_for(
    status: int, provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    provider.says(error(status))
    async with port(provider, quay, recorder) as each:
        assert (await each.ask()).status == status
    assert quay.asked == []


async def test_nobody_at_the_first(quay: Provider, recorder: ListRecorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    quay.says(events(MESSAGES.stream))
    async with port(nobody, quay, recorder) as each:
        assert (await each.ask()).status == 200
    assert recorder.one(InterceptionEnded).metadata["tried"] == [{"provider": "harbour", "why": "connection"}]


async def test_where_all_fail_the_last_is_heard(provider: Provider, quay: Provider, recorder: ListRecorder) -> None:
    provider.says(error(529, "harbour"))
    quay.says(error(503, "quay"))
    async with port(provider, quay, recorder) as each:
        answer = await each.ask()
    assert (answer.status, answer.json()["error"]["message"]) == (503, "quay")


async def test_nothing_moves_once_the_client_has_a_byte(
    provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(MESSAGES.before(), CLOSE))
    async with port(provider, quay, recorder) as each:
        assert not (await each.ask()).complete
    assert quay.asked == []


async def test_a_session_stays_where_it_was_answered(
    provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    """What is cached of it is there. Others begin with the first provider all the same."""
    provider.says(error(529), events(MESSAGES.stream))
    quay.says(events(MESSAGES.stream))
    async with port(provider, quay, recorder) as each:
        for session in ("a", "b", "a", "b"):
            assert (await each.ask(session)).status == 200
        assert [begun.provider_name for begun in recorder.all(Interception)] == [
            "harbour",
            "harbour",
            "quay",
            "harbour",
        ]
        quay.says(error(529))
        assert (await each.ask("a")).status == 200
        assert (await each.ask("a")).status == 200
    assert (len(provider.asked), len(quay.asked)) == (5, 3), "and it comes back when that one fails"


def test_it_does_so_for_an_hour_and_not_all_are_known() -> None:
    now = 0.0
    homes = Homes(clock=lambda: now, most=2)
    for session in ("a", "b", "c"):
        homes.settle("port", session, "quay")
    assert [homes.find("port", session) for session in ("a", "b", "c")] == [None, "quay", "quay"]
    assert homes.find("starboard", "b") is None
    now = STAY - 1
    homes.settle("port", "b", "quay")
    now = STAY
    assert [homes.find("port", session) for session in ("b", "c")] == ["quay", None]
    homes.settle("port", "b", None)
    assert homes.find("port", "b") is None


async def test_all_turns_of_a_message_are_taken_at_one_provider(
    provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    """What the first turn thought can be read by its own provider only; each turn has the name that it knows."""
    speech = next(each for each in SPEECHES if each.dialect.name == "messages")
    provider.says(error(529))
    quay.says(turn(speech, 1, [Call("call_1", TIDES)]), turn(speech, 2, [Text("At six.")]))
    aliases = {"fast": {"quay": "acme/tide-1"}}
    async with port(provider, quay, recorder, toolbox=Tools(), aliases=aliases) as each:
        body = json.loads(speech.request(speech.asked("When is high water?"))) | {"model": "fast"}
        answer = await ask(f"{each.url}/port/v1/messages", json.dumps(body).encode())
    assert (answer.status, answer.complete) == (200, True)
    assert (len(provider.asked), len(quay.asked)) == (1, 2)
    assert [asked.json()["model"] for asked in quay.asked] == ["acme/tide-1"] * 2
    assert recorder.one(InterceptionEnded).metadata["tried"] == [{"provider": "harbour", "why": "529"}]


async def test_an_open_breaker_leads_to_the_next(provider: Provider, quay: Provider, recorder: ListRecorder) -> None:
    provider.says(error(529))
    quay.says(events(MESSAGES.stream))
    async with port(provider, quay, recorder, breaker=BreakerPolicy(failures=2)) as each:
        for session in "abcd":
            assert (await each.ask(session)).status == 200
        assert len(provider.asked) == 2
        quay.says(error(529))
        statuses = [(await each.ask(session)).status for session in "efg"]
    assert statuses == [529, 529, 503]
    why = [ended.metadata["tried"][0]["why"] for ended in recorder.all(InterceptionEnded)]
    assert why == ["529", "529", *["breaker"] * 5]


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_model_may_have_another_name_at_each_provider(
    compressed: bool, dialect: Dialect, provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    """Only these bytes of the body change, and the client does not hear of it."""
    aliases = {"fast": {"harbour": "tide-1", "quay": "acme/tide-1"}, "slow": "tide-9"}
    provider.says(error(529), events(dialect.stream, headers=[("openai-model", "tide-9-2026")]))
    quay.says(events(dialect.stream, headers=[("openai-model", "acme/tide-1")]))
    headers = {"Content-Encoding": "zstd"} if compressed else {}
    sent = b'{ "stream":true , "model" :  "fast","stream_options":{"include_usage":true},' + dialect.request()[1:]
    sent = sent.replace(json.dumps(dialect.asking["model"]).encode(), b'"fast"')
    async with port(provider, quay, recorder, dialect, aliases=aliases) as each:
        path = dialect.path.replace("/anthropic/", "/port/").replace("/openai/", "/port/")
        body = zstandard.compress(sent) if compressed else sent
        answer = await ask(each.url + path, body, headers)
        assert (answer.status, answer.header("openai-model")) == (200, "fast")
        slow = await each.ask(model="slow")
        assert (slow.status, slow.header("openai-model")) == (200, "slow")
        other = await each.ask(model="tide-3")
        assert other.header("openai-model") == "tide-9-2026", "a model that is not renamed is the provider's to name"
    assert [json.loads(asked.body)["model"] for asked in provider.asked] == ["tide-1", "tide-9", "tide-3"]
    last_name = sent.rindex(b'"fast"')
    assert provider.asked[0].body == sent[:last_name] + b'"tide-1"' + sent[last_name + 6 :]
    assert quay.last.body == sent[:last_name] + b'"acme/tide-1"' + sent[last_name + 6 :]
    assert {begun.model for begun in recorder.all(Interception)} == {"fast", "slow", "tide-3"}


async def test_only_listed_models_pass(
    dialect: Dialect, provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(dialect.stream))
    async with port(provider, quay, recorder, dialect, allow=["tide-*", "fast"], aliases={"fast": "storm-1"}) as each:
        assert [(await each.ask(model=model)).status for model in ("tide-1", "fast")] == [200, 200]
        refused = await each.ask(model="storm-1")
        assert refused.status == 403
        kind, code, message = dialect.error_in(refused.body)
        assert (kind, message) == ("permission_error", "the model storm-1 is not allowed on the route port")
        assert code == (None if dialect is MESSAGES else "model_not_allowed")
        assert (await each.ask(model="storm-1", at="harbour")).status == 200, "the provider itself has no list"
    assert len(provider.asked) == 3
    assert len(recorder.all(Interception)) == 3


async def test_a_provider_may_be_for_some_models_only(
    provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    quay.says(events(MESSAGES.stream))
    async with port(provider, quay, recorder, when={"harbour": ["storm-*"], "quay": ["tide-*"]}) as each:
        assert (await each.ask(model="tide-1")).status == 200
        refused = await each.ask(model="ebb-1")
    assert provider.asked == []
    assert "no provider of the route port is asked for the model ebb-1" in refused.json()["error"]["message"]


async def test_what_is_passed_through_goes_to_the_first(
    provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    """Under the name by which it knows the model, and no model that is not on the list."""
    provider.says(document(b'{"input_tokens": 3}'))
    async with port(provider, quay, recorder, allow=["fast"], aliases={"fast": "tide-1"}) as each:
        models = await ask(f"{each.url}/port/v1/models", method="GET")
        count = f"{each.url}/port/v1/messages/count_tokens"
        counted = await ask(count, b'{"model": "fast", "messages": []}')
        refused = await ask(count, b'{"model": "tide-1", "messages": []}')
    assert (models.status, counted.status, refused.status) == (200, 200, 403)
    assert provider.last.body == b'{"model": "tide-1", "messages": []}'
    assert provider.last.header("X-Api-Key") == "sk-of-harbour-0123456789"
    assert len(provider.asked) == 2


async def test_a_clients_own_credential_goes_nowhere(
    dialect: Dialect, provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    """For whom of several providers would it be?"""
    provider.says(error(529))
    quay.says(events(dialect.stream))
    own = {"X-Api-Key": "sk-ada-own-0123456789", "Authorization": "Bearer sk-ada-own-0123456789"}
    async with port(provider, quay, recorder, dialect) as each:
        assert (await each.ask(headers=own)).status == 200
    assert "ada" not in f"{provider.last.headers} {quay.last.headers}"
    assert recorder.one(Interception).credential_kind == "centralized"


def test_a_route_that_leads_nowhere_is_refused() -> None:
    messages, openai = AnthropicProvider("http://h"), OpenAIProvider("http://h/v1")
    wrong: list[tuple[str, list[AnthropicProvider | OpenAIProvider], dict[str, Any], str]] = [
        ("port", [], {}, "has no providers"),
        ("Port", [openai], {}, "does not match"),
        ("port", [messages, openai], {}, "not of one dialect"),
        ("port", [openai, openai], {}, "names a provider twice"),
        ("port", [openai], {"when": {"quay": ["*"]}}, "'quay', which is none of its providers"),
        ("port", [openai], {"aliases": {"a": {"quay": "b"}}}, "'quay', which is none of its providers"),
    ]
    for name, providers, more, told in wrong:
        with pytest.raises(ValueError, match=told):
            ModelRoute(name, providers, **more)
    for routes, told in (
        ([ModelRoute("openai", [openai])], "two providers or routes are named 'openai'"),
        ([ModelRoute("port", [OpenAIProvider("http://h/v1", name="quay")])], "which is not a provider here"),
    ):
        with pytest.raises(ValueError, match=told):
            RequestBridge([messages, openai], ListRecorder(), routes=routes)


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES], ids=lambda dialect: dialect.name)
async def test_probes_and_refusals_are_those_of_the_dialect(
    dialect: Dialect, provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    async with port(provider, quay, recorder) as each:
        assert (await ask(f"{each.url}/port/api/hello", method="HEAD")).status == 200
        assert MESSAGES.error_in((await ask(f"{each.url}/port/v1/files")).body)
    async with port(provider, quay, recorder, dialect) as each:
        assert dialect.error_in((await ask(f"{each.url}/port/v1/files")).body)
