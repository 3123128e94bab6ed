"""Listed paths are only proxied; no other path reaches a provider, however it is written."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from aibridge import Metrics
from support.client import ask, begun, say
from support.provider import Provider, chunked, document, error, events, head, raw
from support.recorder import ListRecorder
from support.serving import KEY, bridged


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/anthropic/v1/models", "/v1/models"),
        ("GET", "/anthropic/v1/models/claude-tidal-5?x=1", "/v1/models/claude-tidal-5?x=1"),
        ("POST", "/anthropic/v1/messages/count_tokens?beta=true", "/v1/messages/count_tokens?beta=true"),
        ("POST", "/anthropic/api/event_logging/batch", "/api/event_logging/batch"),
        ("GET", "/openai/v1/models", "/v1/models"),
        ("GET", "/openai/v1/responses/resp_1/input_items?after=a%2Fb", "/v1/responses/resp_1/input_items?after=a%2Fb"),
        ("DELETE", "/openai/v1/responses/resp_1", "/v1/responses/resp_1"),
        ("POST", "/openai/v1/responses/compact", "/v1/responses/compact"),
        ("POST", "/openai/v1/conversations", "/v1/conversations"),
        ("PATCH", "/openai/v1/conversations/c/items", "/v1/conversations/c/items"),
        ("HEAD", "/openai/v1/models", "/v1/models"),
        ("GET", "/copilot/models", "/models"),
        ("GET", "/copilot/.well-known/x", "/.well-known/x"),
        ("POST", "/copilot/mcp/readonly", "/mcp/readonly"),
        ("GET", "/openai/v1/models/ft:gpt%3Atide%20table", "/v1/models/ft:gpt%3Atide%20table"),
    ],
)
async def test_a_listed_path_is_proxied(
    method: str, path: str, target: str, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    body = b'{"any": "thing"}' if method in ("POST", "PATCH") else b""
    told = b"" if method == "HEAD" else b'{"data": []}'
    provider.says(document(told, headers=[("Request-Id", "r")]))
    answer = await ask(bridge + path, body, {"Content-Type": "application/x-any", "X-Any": "1"}, method)
    assert (answer.status, answer.body, answer.header("Request-Id")) == (200, told, "r")
    assert answer.id
    asked = provider.last
    assert (asked.method, asked.target, asked.body) == (method, target, body)
    assert (asked.header("Content-Type"), asked.header("X-Any")) == ("application/x-any", "1")
    assert not recorder.records


async def test_the_gateways_credential_goes_along(bridge: str, provider: Provider) -> None:
    provider.says(document(b"{}"))
    await ask(f"{bridge}/openai/v1/models", method="GET")
    assert provider.last.header("Authorization") == f"Bearer {KEY}"
    await ask(f"{bridge}/anthropic/v1/models", headers={"Authorization": "Bearer aib_key-of-the-gateway"}, method="GET")
    assert (provider.last.header("X-Api-Key"), provider.last.header("Authorization")) == (KEY, None)


@pytest.mark.parametrize(
    "path",
    [
        "/anthropic/v1/models/../../admin",
        "/anthropic/v1/models/..",
        "/anthropic/v1/models/.",
        "/anthropic/v1/models/./x",
        "/anthropic/v1/models/%2e%2e/admin",
        "/anthropic/v1/models/%2E%2e%2fadmin",
        "/anthropic/v1/models/%252e%252e/admin",
        "/anthropic/v1/models/%25252e%25252e%25252fadmin",
        "/anthropic/v1/models/..%2fadmin",
        "/anthropic/v1/models/a%2fb",
        "/anthropic/v1/models/a%5cb",
        "/anthropic/v1/models/..\\admin",
        "/anthropic/v1/models//admin",
        "/anthropic/v1/models/a%0d%0aX-Evil:%201",
        "/anthropic/v1/models/a%00b",
        "/anthropic/v1/models/a%7f",
        "/anthropic//v1/models",
        "//anthropic/v1/models",
        "/anthropic/v1/modelsx",
        "/anthropic/v1/models/",
        "/ANTHROPIC/v1/models",
        "/anthropic/V1/models",
        "/anthropic/%761/models",
        "/openai/v1/responses/..;/admin/../x",
        "/anthropic@evil.example/v1/models",
        "/anthropic:80/v1/models",
    ],
)
async def test_a_disguised_path_reaches_nobody(path: str, bridge: str, provider: Provider) -> None:
    """Sent by a client that does not tidy up its paths."""
    provider.says(document(b"{}"))
    answer = await say(bridge, f"GET {path} HTTP/1.1\r\nHost: bridge\r\n\r\n".encode())
    assert answer.status in (400, 404)
    assert not provider.asked


async def test_a_host_in_the_path_changes_nothing(bridge: str, provider: Provider) -> None:
    """A server has to take a whole URL for a path (RFC 9112, 3.2.2); where it leads is the gateway's to say."""
    provider.says(document(b"{}"))
    request = b"GET http://evil.example/anthropic/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert (await say(bridge, request)).status == 200
    assert provider.last.target == "/v1/models"
    assert provider.last.header("Host") == provider.url.removeprefix("http://")


async def test_a_redirect_is_the_clients_to_follow(bridge: str, provider: Provider) -> None:
    """The gateway would carry the credential wherever it leads."""
    provider.says(document(b"", 307, [("Location", "http://evil.example/")]))
    answer = await ask(f"{bridge}/openai/v1/models", method="GET")
    assert (answer.status, answer.header("Location")) == (307, "http://evil.example/")
    assert len(provider.asked) == 1


async def test_an_answer_is_relayed_at_once(bridge: str, provider: Provider) -> None:
    turn = asyncio.Event()
    provider.says(events(b"data: 1\n\n", turn, b"data: 2\n\n"))
    async with begun(f"{bridge}/copilot/mcp/any", b"{}") as answer:
        await answer.until(b"data: 1\n\n")
        turn.set()
        assert (await answer.rest()).body == b"data: 1\n\ndata: 2\n\n"


async def test_any_answer_is_relayed(bridge: str, provider: Provider) -> None:
    provider.says(
        error(404, "no such model"),
        raw(head(204, [])),
        chunked([b"a", b"b"], [("Content-Encoding", "lz4")], 203),
    )
    assert (await ask(f"{bridge}/openai/v1/models/x", method="GET")).status == 404
    assert (await ask(f"{bridge}/openai/v1/conversations/x", method="DELETE")).status == 204
    answer = await ask(f"{bridge}/openai/v1/models", method="GET")
    assert (answer.status, answer.body, answer.header("Content-Encoding")) == (203, b"ab", "lz4")


async def test_requests_are_counted_by_pattern(provider: Provider, registry: CollectorRegistry) -> None:
    """Paths are the clients' to choose, and without number."""
    provider.says(document(b"{}"))
    async with bridged(provider.url, ListRecorder(), metrics=Metrics(registry)) as url:
        for name in ("a", "b", "c"):
            await ask(f"{url}/openai/v1/models/{name}", method="GET")
    of = {"provider": "openai", "route": "/v1/models/*", "method": "GET"}
    assert registry.get_sample_value("passthrough_total", of) == 3
