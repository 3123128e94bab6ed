"""Ending well: new requests are refused, those that run finish, late ones are cut and say so."""

from __future__ import annotations

import asyncio
import time

import pytest

from aibridge import RequestBridge
from aibridge.records import InterceptionEnded, TokenUsage
from support.client import ask, begun
from support.dialects import MESSAGES, Dialect
from support.provider import Provider, Reply, events, raw
from support.recorder import ListRecorder
from support.serving import asked_by, bridge_to, serving
from support.waiting import until


@pytest.fixture
def own_bridge(provider: Provider, recorder: ListRecorder) -> RequestBridge:
    return bridge_to(provider.url, recorder)


async def test_what_runs_finishes_and_what_is_new_is_refused(
    dialect: Dialect, provider: Provider, recorder: ListRecorder, own_bridge: RequestBridge
) -> None:
    turn = asyncio.Event()
    provider.says(events(dialect.before(), turn, b"".join(dialect.events[dialect.spoken + 1 :])))
    async with serving(asked_by("ada", own_bridge)) as url:
        async with begun(url + dialect.path, dialect.request()) as running:
            await running.until(dialect.said)
            stopping = asyncio.create_task(own_bridge.shutdown(grace=10))
            await asyncio.sleep(0)
            refused = await ask(url + dialect.path, dialect.request())
            assert (refused.status, refused.header("Retry-After")) == (503, "1")
            assert "stopping" in dialect.error_in(refused.body)[2]
            assert not stopping.done()
            turn.set()
            assert (await running.rest()).body == dialect.for_client
            assert running.complete
        await stopping
    assert recorder.one(InterceptionEnded).status == "completed"
    assert len(provider.asked) == 1


async def test_what_is_late_is_cut_and_recorded(
    dialect: Dialect, provider: Provider, recorder: ListRecorder, own_bridge: RequestBridge
) -> None:
    provider.says(events(dialect.before(), asyncio.Event()))
    async with serving(asked_by("ada", own_bridge)) as url, begun(url + dialect.path, dialect.request()) as running:
        await running.until(dialect.said)
        began = time.monotonic()
        await own_bridge.shutdown(grace=0.2)
        assert 0.15 < time.monotonic() - began < 3
        await running.rest()
        assert not running.complete
        assert "stopping" in dialect.error_event_in(running.body)
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "shutting_down")
    await until(provider.last.left.is_set, "the upstream request was ended too")


async def test_a_request_without_an_answer_yet_is_told_so(
    dialect: Dialect, provider: Provider, recorder: ListRecorder, own_bridge: RequestBridge
) -> None:
    provider.says(_silence())
    async with serving(asked_by("ada", own_bridge)) as url:
        asking = asyncio.create_task(ask(url + dialect.path, dialect.request()))
        await until(lambda: provider.asked, "the provider was asked")
        await own_bridge.shutdown(grace=0)
        answer = await asking
    assert (answer.status, answer.header("Retry-After")) == (503, "1")
    assert "stopping" in dialect.error_in(answer.body)[2]
    assert recorder.one(InterceptionEnded).http_status == 503


async def test_a_passthrough_request_is_told_so_as_well(provider: Provider, own_bridge: RequestBridge) -> None:
    provider.says(_silence())
    async with serving(asked_by("ada", own_bridge)) as url:
        asking = asyncio.create_task(ask(f"{url}/anthropic/v1/models", method="GET"))
        await until(lambda: provider.asked, "the provider was asked")
        await own_bridge.shutdown(grace=0)
        answer = await asking
    assert answer.status == 503
    assert MESSAGES.error_in(answer.body)[0] == "overloaded_error"


async def test_used_tokens_of_a_cut_exchange_are_marked_as_partial(
    provider: Provider, recorder: ListRecorder, own_bridge: RequestBridge
) -> None:
    provider.says(events(MESSAGES.before(), asyncio.Event()))
    async with serving(asked_by("ada", own_bridge)) as url, begun(url + MESSAGES.path, MESSAGES.request()) as running:
        await running.until(MESSAGES.said)
        await own_bridge.shutdown(grace=0)
    usage = recorder.one(TokenUsage)
    assert (usage.input_tokens, usage.output_tokens) == (23, 2)
    assert usage.metadata["partial"] is True


async def test_it_may_be_shut_down_more_than_once(own_bridge: RequestBridge) -> None:
    async with own_bridge:
        await own_bridge.shutdown(grace=0)


def _silence() -> Reply:
    return raw(asyncio.Event())
