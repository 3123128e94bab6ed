"""A credential reaches the hosts of its own provider, and no other: whatever is configured, sent and answered."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge import AnthropicProvider, CopilotProvider, ModelRoute, OpenAIProvider, RequestBridge, as_actor
from aibridge.providers import Provider as Configured
from aibridge.records import Interception
from support.provider import CLOSE, Provider, Reply, document, error, events
from support.recorder import ListRecorder

TYPES: dict[str, type[Configured]] = {
    "anthropic": AnthropicProvider,
    "openai": OpenAIProvider,
    "copilot": CopilotProvider,
}
PATHS = {
    "anthropic": ["/v1/messages", "/v1/models", "/v1/messages/count_tokens"],
    "openai": ["/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/responses/r1/cancel"],
    "copilot": ["/chat/completions", "/responses", "/models", "/agents/swe"],
}
SUBSCRIPTIONS = {
    "sk-ant-oat01-of-ada-0123456789abcdef": "anthropic",
    "ghu_of-ada-0123456789abcdef": "copilot",
    "tid=of-ada;exp=0123456789abcdef": "copilot",
}
OWN = ["sk-of-ada-0123456789abcdef", "eyJhbGciOiJub25lIn0.of-ada.0123456789abcdef", *SUBSCRIPTIONS]
GATEWAYS = ["aib_of-the-gateway-0123456789abcdef"]
TOKEN = "token-of-the-gateway-0123456789"
BODY = b'{"model": "tide-1", "messages": [{"role": "user", "content": "When?"}], "input": "When?"}'

configured = st.fixed_dictionaries(
    {
        "type": st.sampled_from([*TYPES]),
        "keys": st.integers(0, 3),
        "byok": st.booleans(),
        "key_header": st.sampled_from([None, "api-key", "X-Api-Key", "Authorization", "X-House-Key"]),
        "max_retries": st.integers(0, 1),
        "send_actor_headers": st.booleans(),
    }
)
credentials = st.sampled_from([*OWN, *GATEWAYS])
sent = st.fixed_dictionaries(
    {},
    optional={
        "authorization": st.builds("{} {}".format, st.sampled_from(["Bearer", "bearer", "Basic"]), credentials),
        "x-api-key": credentials,
        "api-key": credentials,
        "x-house-key": st.sampled_from(OWN),
        "proxy-authorization": st.builds("Basic {}".format, credentials),
        "x-aibridge-token": st.just(TOKEN),
        "chatgpt-account-id": st.just("account-1"),
    },
)


def replies() -> st.SearchStrategy[Reply]:
    """Whatever a provider may answer."""
    soon = [("retry-after-ms", "1")]
    return st.sampled_from(
        [
            document(b"{}"),
            events(b"data: {}\n\n"),
            document(b"", 302, [("Location", "http://127.0.0.1:1/elsewhere")]),
            *(error(status, headers=soon) for status in (400, 401, 403, 429, 500, 529)),
            Reply([CLOSE]),
        ]
    )


@dataclass
class Harbour:
    """Providers at hosts of their own, routes to them, and what is secret of each."""

    listening: list[Provider]
    providers: list[Configured] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    """The configured keys, each with the name of its provider."""

    def add(self, number: int, type: str, keys: int, **settings: Any) -> None:  # noqa: A002  # as settings say it
        name = f"p{number}"
        secrets = [f"sk-of-{name}-key-{key}-0123456789" for key in range(keys)] if type != "copilot" else []
        self.secrets |= dict.fromkeys(secrets, name)
        self.providers.append(TYPES[type](self.listening[number].url, name=name, api_keys=secrets, **settings))

    def routes(self) -> list[ModelRoute]:
        """A route to all providers of each type."""
        of_type = {type_: [each for each in self.providers if each.type == type_] for type_ in TYPES}
        return [ModelRoute(f"all-{type_}", found) for type_, found in of_type.items() if found]


async def ask(bridge: RequestBridge, path: str, headers: dict[str, str]) -> None:
    """Send one request to the bridge; what is answered does not matter here."""
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]

    bodies = iter([BODY])

    async def receive() -> dict[str, Any]:
        if (body := next(bodies, None)) is None:
            await asyncio.Event().wait()  # the client stays
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None: ...

    await bridge(as_actor(scope, "ada"), receive, send)


@settings(max_examples=150)
@given(
    configuration=st.lists(configured, min_size=1, max_size=3),
    requests=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), sent), min_size=1, max_size=3),
    data=st.data(),
)
async def test_credentials_stay(
    configuration: list[dict[str, Any]], requests: list[tuple[int, int, dict[str, str]]], data: st.DataObject
) -> None:
    recorder = ListRecorder()
    async with AsyncExitStack() as stack:
        harbour = Harbour([await stack.enter_async_context(Provider()) for _ in configuration])
        for number, each in enumerate(configuration):
            harbour.add(number, **each)
        routes = harbour.routes()
        bridge = RequestBridge(harbour.providers, recorder, routes=routes, breaker=None)
        await stack.enter_async_context(bridge)
        prefixes: list[Configured | ModelRoute] = [*harbour.providers, *routes]
        for at, path, headers in requests:
            prefix = prefixes[at % len(prefixes)]
            if not any(each.key_header_name == "X-House-Key" for each in harbour.providers):
                headers.pop("x-house-key", None)  # nobody takes it for a credential then
            type_ = prefix.type if isinstance(prefix, Configured) else prefix.first.type
            for provider in harbour.listening:
                provider.asked.clear()
                provider.says(*data.draw(st.lists(replies(), min_size=1, max_size=3)))
            await ask(bridge, f"/{prefix.name}{PATHS[type_][path % len(PATHS[type_])]}", headers)
            for host, provider in zip(harbour.providers, harbour.listening, strict=True):
                for asked in provider.asked:
                    told = f"{asked.target} {asked.headers} {asked.body!r}"
                    assert {name for secret, name in harbour.secrets.items() if secret in told} <= {host.name}
                    assert not any(secret in told for secret in (*GATEWAYS, TOKEN))
                    own = {secret for secret in OWN if secret in told}
                    if own:
                        assert host is prefix, "it goes to whom it was sent for, and on a route to nobody"
                        assert host.byok or host.type == "copilot"
                        (secret,) = own
                        assert SUBSCRIPTIONS.get(secret, host.type) == host.type
                        if "chatgpt-account-id" in headers and not own & SUBSCRIPTIONS.keys():
                            assert host.type == "openai"
                    assert len(asked.all("X-House-Key")) <= 1
                    assert sum(value.startswith("Bearer ") for _, value in asked.headers) <= 1
    kept = repr(recorder.records)
    assert not [secret for secret in (*harbour.secrets, *OWN, *GATEWAYS, TOKEN) if secret in kept]
    for begun in recorder.all(Interception):
        assert ("subscription" in begun.metadata) <= (begun.credential_kind == "byok")
