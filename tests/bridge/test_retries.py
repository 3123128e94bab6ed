"""A request is sent once more where the official SDKs would do so, and never once the client has a byte."""

from __future__ import annotations

import asyncio
import socket

import pytest
from prometheus_client import CollectorRegistry

from aibridge import Metrics
from aibridge.records import InterceptionEnded, PromptUsage
from support.client import ask
from support.dialects import MESSAGES, Dialect
from support.provider import CLOSE, RESET, Provider, Reply, document, error, events, raw
from support.recorder import ListRecorder
from support.serving import bridged
from support.waiting import until

SOON = ("retry-after-ms", "10")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_trouble_that_passes_is_not_seen_by_the_client(
    status: int, dialect: Dialect, provider: Provider, recorder: ListRecorder, registry: CollectorRegistry
) -> None:
    provider.says(error(status, headers=[SOON]), error(status, headers=[SOON]), events(dialect.stream))
    async with bridged(provider.url, recorder, max_retries=2, metrics=Metrics(registry)) as url:
        answer = await ask(url + dialect.path, dialect.request())
    assert (answer.status, answer.body) == (200, dialect.for_client)
    assert len({asked.body for asked in provider.asked}) == 1
    assert len(provider.asked) == 3
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.metadata) == ("completed", {"retries": [str(status)] * 2})
    assert len(recorder.all(PromptUsage)) == 1
    of = {"provider": dialect.path.split("/")[1], "reason": str(status)}
    assert registry.get_sample_value("upstream_retries_total", of) == 2


async def test_trouble_that_stays_passes_as_it_came(
    dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(error(429, "first", [SOON]), error(529, "last", [SOON]))
    async with bridged(provider.url, recorder, max_retries=1) as url:
        answer = await ask(url + dialect.path, dialect.request())
    assert (answer.status, answer.json()["error"]["message"]) == (529, "last")
    assert len(provider.asked) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_will_not_pass_is_told_at_once(status: int, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(error(status))
    async with bridged(provider.url, recorder, max_retries=2) as url:
        assert (await ask(url + MESSAGES.path, MESSAGES.request())).status == status
    assert len(provider.asked) == 1


async def test_the_provider_has_the_last_word(provider: Provider, recorder: ListRecorder) -> None:
    async with bridged(provider.url, recorder, max_retries=2) as url:
        provider.says(error(503, headers=[SOON, ("x-should-retry", "false")]))
        assert (await ask(url + MESSAGES.path, MESSAGES.request())).status == 503
        assert len(provider.asked) == 1
        provider.says(error(400, headers=[SOON, ("x-should-retry", "true")]), events(MESSAGES.stream))
        assert (await ask(url + MESSAGES.path, MESSAGES.request())).status == 200
        assert len(provider.asked) == 3


async def test_it_waits_as_long_as_it_is_asked_to(provider: Provider, recorder: ListRecorder) -> None:
    provider.says(error(429, headers=[("Retry-After", "1")]), events(MESSAGES.stream))
    async with bridged(provider.url, recorder, max_retries=2) as url:
        assert (await ask(url + MESSAGES.path, MESSAGES.request())).status == 200
    first, second = provider.asked
    assert 0.95 <= second.arrived - first.arrived < 3


async def test_a_wait_that_is_too_long_is_the_clients_to_make(provider: Provider, recorder: ListRecorder) -> None:
    provider.says(error(429, headers=[("Retry-After", "3600")]))
    async with bridged(provider.url, recorder, max_retries=2) as url:
        answer = await ask(url + MESSAGES.path, MESSAGES.request())
    assert (answer.status, answer.header("Retry-After"), len(provider.asked)) == (429, "3600", 1)


@pytest.mark.parametrize("how", [CLOSE, RESET])
async def test_a_connection_that_fails_is_tried_again(
    how: object, dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(Reply([how]), events(dialect.stream))  # type: ignore[list-item]
    async with bridged(provider.url, recorder, max_retries=1) as url:
        answer = await ask(url + dialect.path, dialect.request())
    assert answer.body == dialect.for_client
    assert recorder.one(InterceptionEnded).metadata == {"retries": ["connection"]}


async def test_a_connection_that_the_provider_had_closed_meanwhile_is_no_failure(
    provider: Provider, recorder: ListRecorder
) -> None:
    """Idle connections are closed by the other side at any time: the next request takes a new one."""
    provider.says(Reply([*document(MESSAGES.document).pieces], reusable=False))
    async with bridged(provider.url, recorder, max_retries=0) as url:
        for _ in range(5):
            assert (await ask(url + MESSAGES.path, MESSAGES.request(stream=False))).status == 200
            await asyncio.sleep(0.02)


async def test_nothing_is_repeated_once_the_client_has_a_byte(
    dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(dialect.before(), CLOSE), events(dialect.stream))
    async with bridged(provider.url, recorder, max_retries=2) as url:
        answer = await ask(url + dialect.path, dialect.request())
    assert not answer.complete
    assert len(provider.asked) == 1


async def test_a_client_that_leaves_while_it_waits_is_not_served(provider: Provider, recorder: ListRecorder) -> None:
    provider.says(error(429, headers=[("Retry-After", "30")]))
    async with bridged(provider.url, recorder, max_retries=2) as url:
        asking = asyncio.create_task(ask(url + MESSAGES.path, MESSAGES.request()))
        await until(lambda: provider.asked, "the provider was asked")
        asking.cancel()
        await until(lambda: recorder.all(InterceptionEnded), "the end was recorded")
    assert recorder.one(InterceptionEnded).status == "cancelled"
    assert len(provider.asked) == 1


async def test_passthrough_requests_are_not_repeated(bridge: str, provider: Provider) -> None:
    provider.says(error(503, headers=[SOON]))
    assert (await ask(f"{bridge}/openai/v1/models", method="GET")).status == 503
    assert len(provider.asked) == 1


async def test_nobody_there(dialect: Dialect, recorder: ListRecorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with bridged(nobody, recorder) as url:
        answer = await ask(url + dialect.path, dialect.request())
    assert answer.status == 502
    kind, _, message = dialect.error_in(answer.body)
    assert kind in ("api_error", "server_error")
    assert "could not be reached" in message
    assert "127.0.0.1" not in message
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.http_status, ended.error_type) == ("failed", 502, "upstream_fault")


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Ty"])
async def test_no_answer_is_no_success(
    said: bytes, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(raw(said) if said else raw())
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert answer.status == 502
    assert dialect.error_in(answer.body)
    assert recorder.one(InterceptionEnded).error_type == "upstream_fault"
