"""Providers that fail half of their requests at random: each request ends with the right answer, or the right error."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from aibridge import AnthropicProvider, BreakerPolicy, ModelRoute, RequestBridge, as_actor
from aibridge.records import InterceptionEnded
from support.dialects import MESSAGES
from support.provider import CLOSE, RESET, Provider, Reply, document, error, events, raw
from support.recorder import ListRecorder

SOON = [("retry-after-ms", "1")]
BEGUN = b"the stream has begun"
"""What came of an attempt whose answer broke off."""

WELL: list[tuple[object, Reply]] = [(200, events(MESSAGES.stream)), (200, document(MESSAGES.document))]
TROUBLE: list[tuple[object, Reply]] = [
    *((status, error(status, f"this is {status}", SOON)) for status in (400, 408, 429, 500, 503, 529)),
    (None, Reply([CLOSE])),
    (None, Reply([RESET])),
    (None, raw(b"not HTTP\r\n\r\n")),
    (BEGUN, events(MESSAGES.before(), CLOSE)),
]
"""What a provider may do, and what that is: a status, None for no answer, or an answer that breaks off."""


@dataclass
class Seen:
    """What a client saw."""

    status: int
    body: bytes
    complete: bool


async def ask(bridge: RequestBridge, number: int) -> Seen:
    """Send a request that can be told from others, and read the answer to whatever end it has."""
    body = MESSAGES.request(metadata={"user_id": f"user_x_session_{number}"})
    scope = {"type": "http", "method": "POST", "path": "/port/v1/messages", "headers": []}
    bodies, seen = iter([body]), Seen(0, b"", False)

    async def receive() -> dict[str, Any]:
        if (told := next(bodies, None)) is None:
            await asyncio.Event().wait()  # the client stays
        return {"type": "http.request", "body": told, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.status = message["status"]
        else:
            seen.body += message["body"]
            seen.complete = not message.get("more_body")

    await bridge(as_actor(scope, "ada"), receive, send)
    return seen


@pytest.fixture
async def quay() -> AsyncIterator[Provider]:
    """A second provider."""
    async with Provider() as listening:
        yield listening


def outcomes(providers: list[Provider], done: list[list[tuple[object, Reply]]]) -> dict[int, list[object]]:
    """What came of the attempts of each request, in the order in which they were made."""
    attempts = [
        (asked.arrived, int(asked.json()["metadata"]["user_id"].rpartition("_")[2]), what)
        for provider, each in zip(providers, done, strict=True)
        for asked, (what, _) in zip(provider.asked, each, strict=False)
    ]
    found: dict[int, list[object]] = defaultdict(list)
    for _, number, what in sorted(attempts, key=lambda attempt: attempt[0]):
        found[number].append(what)
    return found


@pytest.mark.parametrize(("count", "alone"), [(10_000, True), (2_000, False)], ids=["one provider", "a route to two"])
async def test_each_ends_as_it_should(
    count: int, alone: bool, provider: Provider, quay: Provider, recorder: ListRecorder
) -> None:
    random = Random(f"the sea is {count}")
    named = {"port": provider} if alone else {"harbour": provider, "quay": quay}
    providers = [*named.values()]
    done = [random.choices([*WELL * 5, *TROUBLE], k=3 * count) for _ in providers]
    for each, replies in zip(providers, done, strict=True):
        each.says(*(reply for _, reply in replies))
    configured = [
        AnthropicProvider(each.url, name=name, api_key="sk-0123456789", max_retries=2) for name, each in named.items()
    ]
    routes = [] if alone else [ModelRoute("port", configured)]
    breaker = BreakerPolicy(failures=5, reset=10, open=0.02, probes=3)
    seen: dict[int, Seen] = {}

    async def client(numbers: range) -> None:
        for number in numbers:
            seen[number] = await ask(bridge, number)

    async with RequestBridge(configured, recorder, routes=routes, breaker=breaker) as bridge:
        await asyncio.gather(*(client(range(start, count, 40)) for start in range(40)))

    came = outcomes(providers, done)
    kinds: Counter[str] = Counter()
    for number in range(count):
        attempts, answer = came[number], seen[number]
        kinds[str(answer.status if answer.complete else "broken")] += 1
        assert len(attempts) <= 3 * len(providers)
        assert 200 not in attempts[:-1], "what went well is not asked again"
        assert BEGUN not in attempts[:-1], "nor what the client has seen the beginning of"
        match attempts[-1] if attempts else "refused":
            case 200:
                assert (answer.status, answer.complete) == (200, True)
                assert answer.body in (MESSAGES.for_client, MESSAGES.document)
            case int() as status:
                assert (answer.status, answer.complete) == (status, True)
                assert json.loads(answer.body)["error"]["message"] == f"this is {status}"
            case None:
                assert (answer.status, answer.complete) == (502, True)
                assert MESSAGES.error_in(answer.body)[0] == "api_error"
            case "refused":
                assert (answer.status, answer.complete) == (503, True)
                assert MESSAGES.error_in(answer.body)[2] == "circuit breaker is open"
            case _ if answer.status == 502:  # it broke off before anything of it could be passed on
                assert (answer.complete, MESSAGES.error_in(answer.body)[0]) == (True, "api_error")
            case _:
                assert (answer.status, answer.complete) == (200, False)
                assert answer.body.startswith(MESSAGES.before())
                assert MESSAGES.error_event_in(answer.body)
    assert kinds["200"] > count / 2
    assert all(kinds[kind] for kind in ("400", "502", "503", "529", "broken")) or not alone, kinds
    ends = [ended.http_status for ended in recorder.all(InterceptionEnded)]
    assert Counter(ends) == Counter(answer.status for answer in seen.values())
