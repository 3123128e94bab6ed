"""A provider with several keys: each session keeps to one, and the next is taken where that is limited or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, Metrics, OpenAIProvider, RequestBridge
from aibridge.errors import Kind
from aibridge.records import Interception, InterceptionEnded
from support.client import Answer, ask
from support.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from support.provider import CLOSE, Provider, document, error, events
from support.recorder import ListRecorder
from support.serving import asked_by, serving

KEYS = [f"sk-of-the-team-0123456789-{name}" for name in ("ebb1", "flow", "neap")]
SESSION = "9e0ba4ab-1f4c-4ad4-8c43-6ba9cd2a4a5e"


class Harbour:
    """A bridge before a provider that knows three keys."""

    def __init__(self, bridge: RequestBridge, url: str, provider: Provider) -> None:
        self.bridge, self.url, self.provider = bridge, url, provider

    async def ask(self, session: str = SESSION, headers: Mapping[str, str] | None = None, **body: Any) -> Answer:
        """The answer to a request of a session."""
        of_session = {"User-Agent": "claude-cli/2.1.330 (external, cli)", "X-Claude-Code-Session-Id": session}
        return await ask(self.url + MESSAGES.path, MESSAGES.request(**body), of_session | dict(headers or {}))

    @property
    def keys(self) -> list[str | None]:
        """The keys that the provider was shown, oldest first."""
        return [asked.header("X-Api-Key") for asked in self.provider.asked]


@asynccontextmanager
async def harbour(
    provider: Provider, recorder: ListRecorder, metrics: Metrics | None = None, **settings: Any
) -> AsyncIterator[Harbour]:
    settings = {"api_keys": KEYS, "max_retries": 0, **settings}
    bridge = RequestBridge([AnthropicProvider(provider.url, **settings)], recorder, metrics)
    async with bridge, serving(asked_by("ada", bridge)) as url:
        yield Harbour(bridge, url, provider)


async def test_a_session_keeps_to_one_key(provider: Provider, recorder: ListRecorder) -> None:
    """And many sessions share them; another process comes to the same."""
    provider.says(events(MESSAGES.stream))
    sessions = [f"session-{number}" for number in range(40)]
    async with harbour(provider, recorder) as here, harbour(provider, recorder, api_keys=KEYS[::-1]) as there:
        for each in (here, here, there):
            for session in sessions:
                assert (await each.ask(session)).status == 200
    first, second, elsewhere = (here.keys[at : at + 40] for at in (0, 40, 80))
    assert first == second == elsewhere
    assert {*first} == {*KEYS}
    begun = recorder.all(Interception)[0]
    assert (begun.credential_kind, begun.credential_hint) == ("centralized", f"sk-o...{(first[0] or '')[-4:]}")


@pytest.mark.parametrize("status", [429, 401, 403])
async def test_the_next_key_is_taken_where_one_fails(
    status: int, provider: Provider, recorder: ListRecorder, registry: CollectorRegistry
) -> None:
    metrics = Metrics(registry)
    async with harbour(provider, recorder, metrics) as each:
        provider.says(error(status), events(MESSAGES.stream))
        answer = await each.ask()
        assert (answer.status, answer.body) == (200, MESSAGES.for_client)
        left, taken = each.keys
        assert left != taken
        assert (await each.ask()).status == 200
        assert each.keys[2:] == [taken], "the other is left alone"
        [warning] = each.bridge.warnings()
    number = KEYS.index(left or "") + 1
    assert f"key {number} (sk-o...{(left or '')[-4:]}) of anthropic is " in warning
    ended = recorder.all(InterceptionEnded)[0]
    assert ended.status == "completed"
    assert ended.metadata == {
        "tried": [{"provider": "anthropic", "key": f"sk-o...{(left or '')[-4:]}", "why": str(status)}],
        "asked_last": "anthropic",
        "credential_hint": f"sk-o...{(taken or '')[-4:]}",
        "credential_length": len(taken or ""),
    }
    assert "0123456789" not in repr(recorder.records), "no key is recorded"
    of = {"provider": "anthropic", "key": str(number)}
    assert registry.get_sample_value("provider_key_state", of) == (0.5 if status == 429 else 1)
    assert registry.get_sample_value("upstream_left_total", {"provider": "anthropic", "reason": str(status)}) == 1


async def test_when_all_are_limited_the_client_waits_for_the_first(provider: Provider, recorder: ListRecorder) -> None:
    waits = [[("Retry-After", seconds)] for seconds in ("70", "20", "50")]
    provider.says(*(error(429, headers=wait) for wait in waits))
    async with harbour(provider, recorder, max_retries=2) as each:
        for asked in (3, 3):
            answer = await each.ask()
            assert (answer.status, len(provider.asked)) == (429, asked)
            assert int(answer.header("Retry-After") or 0) in (19, 20)
            kind, _, message = MESSAGES.error_in(answer.body)
            assert (kind, message) == ("rate_limit_error", "anthropic limits every key that there is for it")
    assert {*each.keys} == {*KEYS}
    first, second = recorder.all(InterceptionEnded)
    assert (first.http_status, first.error_type) == (429, Kind.TOO_MANY_REQUESTS.name.lower())
    assert [tried["why"] for tried in first.metadata["tried"]] == ["429", "429", "429"]
    assert second.metadata == {"tried": [{"provider": "anthropic", "why": "limited"}]}


async def test_what_no_key_may_have_is_told_in_the_providers_words(provider: Provider, recorder: ListRecorder) -> None:
    """And it does not shut out those who ask for something else."""
    provider.says(error(403, "no access to this model"))
    async with harbour(provider, recorder) as each:
        answer = await each.ask()
        assert (answer.status, answer.json()["error"]["message"]) == (403, "no access to this model")
        assert {*each.keys} == {*KEYS}
        provider.says(events(MESSAGES.stream))
        assert (await each.ask()).status == 200


async def test_other_errors_are_not_the_keys(provider: Provider, recorder: ListRecorder) -> None:
    async with harbour(provider, recorder) as each:
        for status in (400, 404, 500, 529):
            provider.says(error(status))
            assert (await each.ask()).status == status
    assert len({*each.keys}) == 1
    assert each.bridge.warnings() == []


async def test_nothing_moves_once_the_client_has_a_byte(provider: Provider, recorder: ListRecorder) -> None:
    provider.says(events(MESSAGES.before(), CLOSE))
    async with harbour(provider, recorder) as each:
        assert not (await each.ask()).complete
    assert len(provider.asked) == 1


async def test_a_clients_own_key_is_not_exchanged(provider: Provider, recorder: ListRecorder) -> None:
    provider.says(error(429))
    async with harbour(provider, recorder) as each:
        answer = await each.ask(headers={"X-Api-Key": "sk-of-ada-0123456789-own"})
        assert (answer.status, each.keys) == (429, ["sk-of-ada-0123456789-own"])
        assert each.bridge.warnings() == []
    assert recorder.one(Interception).credential_kind == "byok"


async def test_what_is_passed_through_takes_a_key_that_is_well(provider: Provider, recorder: ListRecorder) -> None:
    async with harbour(provider, recorder) as each:
        provider.says(error(429), error(429), events(MESSAGES.stream))
        await each.ask()
        *limited, well = each.keys
        assert well not in limited
        provider.says(document(b'{"data": []}'))
        for _ in range(2):
            assert (await ask(f"{each.url}/anthropic/v1/models", method="GET")).status == 200
    assert each.keys[3:] == [well, well]


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES], ids=lambda dialect: dialect.name)
async def test_each_dialect_does_so(dialect: Dialect, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(error(429), events(dialect.stream))
    openai = OpenAIProvider(f"{provider.url}/v1", api_keys=KEYS, max_retries=0)
    async with RequestBridge([openai], recorder) as bridge, serving(asked_by("ada", bridge)) as url:
        answer = await ask(url + dialect.path, dialect.request())
    assert (answer.status, answer.body) == (200, dialect.for_client)
    first, second = (asked.header("Authorization") for asked in provider.asked)
    assert first != second
    assert {first, second} < {f"Bearer {key}" for key in KEYS}


async def test_one_key_has_no_state(provider: Provider, recorder: ListRecorder, registry: CollectorRegistry) -> None:
    """It is asked again and again, as `max_retries` says: there is no other."""
    provider.says(error(401))
    async with harbour(provider, recorder, Metrics(registry), api_keys=[KEYS[0], KEYS[0]]) as each:
        for _ in range(2):
            assert (await each.ask()).status == 401
    assert len(provider.asked) == 2
    assert not [sample for metric in registry.collect() for sample in metric.samples if "key_state" in sample.name]
