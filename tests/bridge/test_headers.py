"""Which headers pass, which do not, and with whose credential a request goes upstream."""

from __future__ import annotations

import pytest

from aibridge.records import Interception, InterceptionEnded
from support.client import ask, say
from support.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from support.provider import Provider, document, error
from support.recorder import ListRecorder
from support.serving import KEY, asked_by, bridge_to, bridged, serving

CLIENTS = "sk-of-the-client-9876543210"
TOKEN = f"Bearer {CLIENTS}"
GATEWAY_KEY = "aib_a-key-of-the-gateway-itself"


async def test_end_to_end_headers_of_a_request_pass(dialect: Dialect, bridge: str, provider: Provider) -> None:
    sent = {
        "User-Agent": "tide-table/2.0",
        "Accept": "text/event-stream",
        "Content-Type": "application/json",
        "anthropic-beta": "a,b",
        "OpenAI-Organization": "org-1",
        "X-Stainless-Retry-Count": "0",
        "Cookie": "theirs=1",
        "X-Utf8": "Gezeiten \N{WATER WAVE}".encode().decode("latin-1"),
    }
    provider.says(document(dialect.document))
    lines = [f"POST {dialect.path} HTTP/1.1", "Host: bridge.example", *(f"{k}: {v}" for k, v in sent.items())]
    lines += ["X-Twice: 1", "X-Twice: 2", f"Content-Length: {len(dialect.request(stream=False))}", "", ""]
    answer = await say(bridge, "\r\n".join(lines).encode("latin-1") + dialect.request(stream=False))
    assert answer.status == 200
    assert {name: provider.last.header(name) for name in sent} == sent
    assert provider.last.all("X-Twice") == ["1", "2"]
    assert provider.last.header("Host") == provider.url.removeprefix("http://")


async def test_hop_by_hop_headers_of_a_request_do_not(dialect: Dialect, bridge: str, provider: Provider) -> None:
    """Nor those that are the gateway's own matter."""
    dropped = {
        "Connection": "keep-alive, X-Of-This-Hop",
        "X-Of-This-Hop": "1",
        "Keep-Alive": "timeout=5",
        "Proxy-Authorization": "Basic c2VjcmV0",
        "Proxy-Connection": "keep-alive",
        "TE": "trailers",  # codespell:ignore te
        "Trailer": "X-Sum",
        "X-AI-Bridge-Actor-ID": "mallory",
        "X-AI-Bridge-Actor-Metadata-Team": "admins",
    }
    provider.says(document(dialect.document))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False), dropped | {"Accept-Encoding": "gzip, br"})
    assert answer.status == 200
    assert not {name: found for name in dropped if (found := provider.last.all(name))}
    assert provider.last.header("Accept-Encoding") == "identity"
    assert "mallory" not in str(provider.last.headers)


async def test_no_header_is_made_up(dialect: Dialect, bridge: str, provider: Provider) -> None:
    """An HTTP client's own User-Agent or Accept would tell the provider another client than there is."""
    provider.says(document(dialect.document))
    await ask(bridge + dialect.path, dialect.request(stream=False))
    names = {name.lower() for name, _ in provider.last.headers}
    assert names <= {"host", "content-length", "accept-encoding", "x-api-key", "authorization"}


async def test_hop_by_hop_headers_of_an_answer_do_not_pass(dialect: Dialect, bridge: str, provider: Provider) -> None:
    told = [
        ("Keep-Alive", "timeout=5"),
        ("Connection", "X-Of-Their-Hop"),
        ("X-Of-Their-Hop", "1"),
        ("Proxy-Authenticate", "Basic"),
        ("Request-Id", "req_1"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("anthropic-ratelimit-requests-remaining", "17"),
        ("openai-processing-ms", "9"),
    ]
    provider.says(document(dialect.document, headers=told))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert not [name for name in ("Keep-Alive", "X-Of-Their-Hop", "Proxy-Authenticate") if answer.all(name)]
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]
    for name, value in told[-3:]:
        if name != "Set-Cookie":
            assert answer.header(name) == value


@pytest.mark.parametrize(
    ("sent", "key", "token", "kind"),
    [
        ({}, KEY, None, "centralized"),
        ({"X-Api-Key": CLIENTS}, CLIENTS, None, "byok"),
        ({"Authorization": TOKEN}, None, TOKEN, "byok"),
        ({"X-Api-Key": CLIENTS, "Authorization": "Bearer another"}, CLIENTS, None, "byok"),
        ({"X-Api-Key": GATEWAY_KEY}, KEY, None, "centralized"),
        ({"Authorization": f"Bearer {GATEWAY_KEY}"}, KEY, None, "centralized"),
        ({"X-Api-Key": GATEWAY_KEY, "Authorization": TOKEN}, None, TOKEN, "byok"),
        ({"Authorization": "Basic dTpw"}, KEY, None, "centralized"),
        ({"X-Api-Key": " "}, KEY, None, "centralized"),
    ],
)
async def test_anthropic_gets_the_clients_key_or_the_gateways(
    sent: dict[str, str],
    key: str | None,
    token: str | None,
    kind: str,
    bridge: str,
    provider: Provider,
    recorder: ListRecorder,
) -> None:
    """The client's own wins, and the gateway's never rides along with it."""
    provider.says(document(MESSAGES.document))
    await ask(bridge + MESSAGES.path, MESSAGES.request(stream=False), sent)
    assert (provider.last.header("X-Api-Key"), provider.last.header("Authorization")) == (key, token)
    assert recorder.one(Interception).credential_kind == kind


@pytest.mark.parametrize("spoken", [CHAT, RESPONSES], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("sent", "token", "hint"),
    [
        ({}, f"Bearer {KEY}", "sk-o...6789"),
        ({"Authorization": TOKEN}, TOKEN, "sk-o...3210"),
        ({"Authorization": f"Bearer {GATEWAY_KEY}"}, f"Bearer {KEY}", "sk-o...6789"),
        ({"X-Api-Key": CLIENTS}, f"Bearer {KEY}", "sk-o...6789"),
    ],
)
async def test_openai_gets_the_clients_token_or_the_gateways(
    spoken: Dialect,
    sent: dict[str, str],
    token: str,
    hint: str,
    bridge: str,
    provider: Provider,
    recorder: ListRecorder,
) -> None:
    provider.says(document(spoken.document))
    await ask(bridge + spoken.path, spoken.request(stream=False), sent)
    assert (provider.last.header("X-Api-Key"), provider.last.header("Authorization")) == (None, token)
    assert recorder.one(Interception).credential_hint == hint


async def test_copilot_gets_the_clients_token_or_none(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(document(CHAT.document))
    for sent, token in [({}, None), ({"Authorization": TOKEN}, TOKEN)]:
        await ask(f"{bridge}/copilot/chat/completions", CHAT.request(stream=False), sent)
        assert provider.last.header("Authorization") == token
        assert provider.last.target == "/chat/completions"


async def test_a_clients_credential_is_dropped_where_it_must_not_bring_one(
    dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(dialect.document))
    async with bridged(provider.url, recorder, byok=False) as url:
        sent = {"X-Api-Key": CLIENTS, "Authorization": TOKEN}
        await ask(url + dialect.path, dialect.request(stream=False), sent)
    assert CLIENTS not in str(provider.last.headers)
    assert KEY in str(provider.last.headers)


async def test_a_provider_is_told_of_the_actor_where_that_is_asked_for(
    dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(dialect.document))
    bridge = bridge_to(provider.url, recorder, send_actor_headers=True)
    actor = asked_by("ada\r\nX-Evil: 1", bridge, {"Team": "tides & moons", "a b": "\N{WATER WAVE}"})
    async with bridge, serving(actor) as url:
        sent = {"X-AI-Bridge-Actor-ID": "mallory", "X-AI-Bridge-Actor-Metadata-Role": "admin"}
        await ask(url + dialect.path, dialect.request(stream=False), sent)
    told = {name: value for name, value in provider.last.headers if name.lower().startswith("x-ai-bridge-")}
    assert told == {
        "X-AI-Bridge-Actor-ID": "ada%0D%0AX-Evil: 1",
        "X-AI-Bridge-Actor-Metadata-Team": "tides & moons",
        "X-AI-Bridge-Actor-Metadata-a%20b": "%F0%9F%8C%8A",
    }
    assert provider.last.header("X-Evil") is None


async def test_a_credential_that_a_provider_quotes_is_not_recorded(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(error(401, f"Incorrect API key provided: {CLIENTS}. You can find yours at ..."))
    sent = {"X-Api-Key": CLIENTS, "Authorization": TOKEN}
    answer = await ask(bridge + dialect.path, dialect.request(stream=False), sent)
    assert CLIENTS.encode() in answer.body  # it passes as it came: the client knows its key
    ended = recorder.one(InterceptionEnded)
    assert ended.error_message == "Incorrect API key provided: sk-o...3210. You can find yours at ..."
    assert CLIENTS not in repr(recorder.records)
