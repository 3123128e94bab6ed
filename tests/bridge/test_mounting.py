"""The bridge within a host application, as docs/library.md describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount

from aibridge import AnthropicProvider, Credential, Metrics, Provider, Recorder, RequestBridge, as_actor
from aibridge.bridge.asgi import Receive, Scope, Send
from aibridge.records import Interception, InterceptionEnded
from aibridge.wire.chat_completions import ChatCompletions
from support.client import ID, ask
from support.dialects import CHAT, MESSAGES, Dialect
from support.provider import Provider as ScriptedProvider
from support.provider import document, events
from support.recorder import ListRecorder
from support.serving import KEY, Application, bridge_to, serving
from support.waiting import until


def authenticated(app: Application) -> Application:
    """A host's own authentication: it believes a header, which is not for the bridge's ears."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            user = dict(scope["headers"]).get(b"x-harbour-user", b"").decode()
            if user:
                scope = as_actor(scope, user, {"team": "pilots"})
        await app(scope, receive, send)

    return application


USER = {"X-Harbour-User": "grace"}


def starlette_host(bridge: RequestBridge) -> Application:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with bridge:
            yield

    return Starlette(routes=[Mount("/ai", app=authenticated(bridge))], lifespan=lifespan)


def fastapi_host(bridge: RequestBridge) -> Application:
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with bridge:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/own")
    def own() -> dict[str, str]:
        return {"of": "the host"}

    app.mount("/ai", authenticated(bridge))
    return app


def django_host(bridge: RequestBridge) -> Application:
    """Django has no mounts: its ASGI application stands beside the bridge, as its own documentation shows it."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="of a test", ALLOWED_HOSTS=["127.0.0.1"])
    django = get_asgi_application()
    below = authenticated(bridge)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await bridge(scope, receive, send)
        elif scope["path"].startswith("/ai/"):
            await below({**scope, "root_path": "/ai"}, receive, send)
        else:
            await django(scope, receive, send)

    return application


async def _own_page(_: Any) -> Any:
    from django.http import JsonResponse

    return JsonResponse({"of": "the host"})


def _urlpatterns() -> list[Any]:
    from django.urls import path

    return [path("own", _own_page)]


urlpatterns = _urlpatterns()

HOSTS = [starlette_host, fastapi_host, django_host]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_mounts_it(
    host: Any, dialect: Dialect, provider: ScriptedProvider, recorder: ListRecorder
) -> None:
    provider.says(events(dialect.stream))
    async with serving(host(bridge_to(provider.url, recorder)), lifespan=True, by_uvicorn=True) as url:
        answer = await ask(f"{url}/ai{dialect.path}", dialect.request(), USER)
        assert (answer.status, answer.complete, answer.body) == (200, True, dialect.for_client)
        assert provider.last.target == dialect.upstream_path
        assert (await ask(f"{url}/ai{dialect.path}x", dialect.request(), USER)).status == 404
        if host is not starlette_host:
            assert (await ask(f"{url}/own", method="GET")).json() == {"of": "the host"}
    interception = recorder.one(Interception)
    assert (interception.initiator_id, interception.metadata["team"]) == ("grace", "pilots")
    assert interception.route == dialect.path[dialect.path.index("/", 1) :]


@pytest.mark.parametrize("host", HOSTS)
async def test_without_an_actor_nothing_goes_upstream(
    host: Any, dialect: Dialect, provider: ScriptedProvider, recorder: ListRecorder
) -> None:
    async with serving(host(bridge_to(provider.url, recorder)), lifespan=True, by_uvicorn=True) as url:
        answer = await ask(f"{url}/ai{dialect.path}", dialect.request())
        models = await ask(f"{url}/ai/{dialect.path.split('/')[1]}/v1/models", method="GET")
    assert (answer.status, models.status) == (401, 401)
    kind, code, message = dialect.error_in(answer.body)
    assert (kind, code) in [("authentication_error", None), ("invalid_request_error", "invalid_api_key")]
    assert "actor" in message
    assert answer.header(ID)
    assert not provider.asked
    assert not recorder.records


@pytest.mark.parametrize("host", HOSTS)
async def test_the_end_of_the_host_waits_for_exchanges(
    host: Any, provider: ScriptedProvider, recorder: ListRecorder
) -> None:
    """The host's lifespan ends the bridge: what runs may finish first."""
    turn = asyncio.Event()
    provider.says(
        document(MESSAGES.document), events(MESSAGES.before(), turn, MESSAGES.stream[len(MESSAGES.before()) :])
    )
    async with serving(host(bridge_to(provider.url, recorder)), lifespan=True, by_uvicorn=True) as url:
        await ask(f"{url}/ai{MESSAGES.path}", MESSAGES.request(stream=False), USER)
        asking = asyncio.create_task(ask(f"{url}/ai{MESSAGES.path}", MESSAGES.request(), USER))
        await until(lambda: len(provider.asked) == 2, "the provider was asked")
        turn.set()
        answer = await asking
    assert answer.complete
    assert [ended.status for ended in recorder.all(InterceptionEnded)] == ["completed", "completed"]


class Lighthouse(Provider):
    """A host's own kind of provider: Chat Completions at another path, with a key in a header of its own."""

    type = "lighthouse"
    bridged = {"/beam": ChatCompletions()}
    passthrough = ("/lamps", "/lamps/*")
    probes = frozenset({"/lit"})

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The keeper's key for everybody."""
        return self.key_credential()

    def key_header(self, key: str) -> tuple[str, str]:
        """Lighthouses take theirs so."""
        return ("X-Keeper", key)

    def upstream_url(self, path: str) -> str:
        """They have one place for every sort of request."""
        return f"{self.base_url}/shine{path}"


async def test_a_host_brings_a_provider_of_its_own(provider: ScriptedProvider, recorder: ListRecorder) -> None:
    lighthouse = Lighthouse(provider.url, name="eddystone", api_key=KEY)
    bridge = RequestBridge([lighthouse, AnthropicProvider(provider.url)], recorder, Metrics(CollectorRegistry()))
    provider.says(events(CHAT.stream), document(b"[]"))
    async with bridge, serving(authenticated(bridge), by_uvicorn=True) as url:
        headers = USER | {"Authorization": "Bearer sk-of-the-client"}
        answer = await ask(f"{url}/eddystone/beam", CHAT.request(), headers)
        assert answer.body == CHAT.for_client
        assert (provider.last.target, provider.last.header("X-Keeper")) == ("/shine/beam", KEY)
        assert provider.last.header("Authorization") is None
        assert (await ask(f"{url}/eddystone/lamps/3", headers=USER, method="GET")).body == b"[]"
        assert provider.last.target == "/shine/lamps/3"
        assert (await ask(f"{url}/eddystone/lit", method="HEAD")).status == 200
        assert (await ask(f"{url}/lighthouse/beam", CHAT.request(), USER)).status == 404
    interception = recorder.one(Interception)
    assert (interception.provider, interception.provider_name) == ("lighthouse", "eddystone")


def test_any_class_with_its_methods_is_a_recorder() -> None:
    assert isinstance(ListRecorder(), Recorder)
    assert not isinstance(object(), Recorder)


def test_two_providers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two providers or routes are named 'anthropic'"):
        RequestBridge([AnthropicProvider("http://a"), AnthropicProvider("http://b")], ListRecorder())


def test_an_actor_needs_an_id() -> None:
    with pytest.raises(ValueError, match="not empty"):
        as_actor({"type": "http"}, "")


async def test_a_websocket_of_the_host_is_denied() -> None:
    """With 426 where the server can say so, for Codex then falls back to HTTP at once; else by closing it."""
    bridge = RequestBridge([AnthropicProvider("http://127.0.0.1:9")], ListRecorder())
    cases: list[tuple[dict[str, Any], object]] = [({"websocket.http.response": {}}, 426), ({}, "websocket.close")]
    for extensions, first in cases:
        sent: list[Mapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any, sent: list[Mapping[str, Any]] = sent) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/anthropic/v1/messages", "headers": [], "extensions": extensions}
        await bridge(scope, receive, send)
        assert sent[0].get("status", sent[0]["type"]) == first
