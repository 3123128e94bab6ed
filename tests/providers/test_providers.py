"""Where each provider is found, which of its paths are served, and with which credential it is asked."""

from __future__ import annotations

import pytest

from aibridge.providers import AnthropicProvider, CopilotProvider, OpenAIProvider, Provider
from aibridge.providers.credential import masked

ANTHROPIC = AnthropicProvider("https://api.anthropic.com", api_key="sk-ant-configured")
OPENAI = OpenAIProvider("https://api.openai.com/v1", api_key="sk-configured")
COPILOT = CopilotProvider("https://api.githubcopilot.com")


@pytest.mark.parametrize(
    ("provider", "path", "url"),
    [
        (ANTHROPIC, "/v1/messages", "https://api.anthropic.com/v1/messages"),
        (AnthropicProvider("http://h:81/sub/"), "/v1/messages", "http://h:81/sub/v1/messages"),
        (AnthropicProvider("https://h/v1"), "/v1/models/m", "https://h/v1/models/m"),
        (AnthropicProvider("https://h/v1/"), "/api/event_logging/batch", "https://h/v1/api/event_logging/batch"),
        (OPENAI, "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        (OpenAIProvider("https://h/openai/v1/"), "/v1/responses", "https://h/openai/v1/responses"),
        (OpenAIProvider("https://h/v4"), "/v1/models", "https://h/v4/models"),
        (OPENAI, "/v1/models/v1/v1", "https://api.openai.com/v1/models/v1/v1"),
        (COPILOT, "/chat/completions", "https://api.githubcopilot.com/chat/completions"),
    ],
)
def test_a_path_is_found_upstream_without_a_version_twice(provider: Provider, path: str, url: str) -> None:
    assert provider.upstream_url(path) == url


@pytest.mark.parametrize(
    ("provider", "path", "pattern"),
    [
        (ANTHROPIC, "/v1/models", "/v1/models"),
        (ANTHROPIC, "/v1/models/claude-x", "/v1/models/*"),
        (ANTHROPIC, "/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        (ANTHROPIC, "/v1/messages/batches", None),
        (ANTHROPIC, "/v1/messages/count_tokens/x", None),
        (ANTHROPIC, "/v1/modelsx", None),
        (ANTHROPIC, "/v1/files", None),
        (OPENAI, "/v1/responses/resp_1/cancel", "/v1/responses/*"),
        (OPENAI, "/v1/conversations", "/v1/conversations"),
        (OPENAI, "/v1/conversations/c_1", "/v1/conversations/*"),
        (OPENAI, "/models", None),
        (OPENAI, "/v1/embeddings", None),
        (COPILOT, "/models", "/models"),
        (COPILOT, "/agents/swe", "/agents/*"),
        (COPILOT, "/mcp/readonly", "/mcp/*"),
        (COPILOT, "/.well-known/oauth", "/.well-known/*"),
        (COPILOT, "/agents", None),
    ],
)
def test_only_listed_paths_pass(provider: Provider, path: str, pattern: str | None) -> None:
    assert provider.passthrough_pattern(path) == pattern


def test_bridged_routes_have_their_dialects() -> None:
    assert {path: dialect.name for path, dialect in ANTHROPIC.bridged.items()} == {"/v1/messages": "messages"}
    assert {path: dialect.name for path, dialect in OPENAI.bridged.items()} == {
        "/v1/chat/completions": "chat_completions",
        "/v1/responses": "responses",
    }
    assert {path: dialect.name for path, dialect in COPILOT.bridged.items()} == {
        "/chat/completions": "chat_completions",
        "/responses": "responses",
    }
    assert (ANTHROPIC.dialect.name, OPENAI.dialect.name) == ("messages", "chat_completions")


@pytest.mark.parametrize(
    ("provider", "headers", "kind", "header"),
    [
        (ANTHROPIC, {}, "centralized", ("X-Api-Key", "sk-ant-configured")),
        (ANTHROPIC, {"x-api-key": "own"}, "byok", ("X-Api-Key", "own")),
        (ANTHROPIC, {"authorization": "Bearer own"}, "byok", ("Authorization", "Bearer own")),
        (ANTHROPIC, {"x-api-key": "key", "authorization": "Bearer token"}, "byok", ("X-Api-Key", "key")),
        (ANTHROPIC, {"x-api-key": "aib_1", "authorization": "Bearer t"}, "byok", ("Authorization", "Bearer t")),
        (ANTHROPIC, {"authorization": "Bearer aib_1"}, "centralized", ("X-Api-Key", "sk-ant-configured")),
        (ANTHROPIC, {"x-api-key": " "}, "centralized", ("X-Api-Key", "sk-ant-configured")),
        (OPENAI, {}, "centralized", ("Authorization", "Bearer sk-configured")),
        (OPENAI, {"authorization": "bearer  own "}, "byok", ("Authorization", "Bearer own")),
        (OPENAI, {"authorization": "Basic b3du"}, "centralized", ("Authorization", "Bearer sk-configured")),
        (OPENAI, {"authorization": "Bearer aib_1"}, "centralized", ("Authorization", "Bearer sk-configured")),
        (OPENAI, {"x-api-key": "own"}, "centralized", ("Authorization", "Bearer sk-configured")),
        (COPILOT, {"authorization": "Bearer own"}, "byok", ("Authorization", "Bearer own")),
        (COPILOT, {"authorization": "Bearer aib_1"}, "centralized", None),
        (COPILOT, {}, "centralized", None),
    ],
)
def test_a_request_goes_upstream_with_one_credential(
    provider: Provider, headers: dict[str, str], kind: str, header: tuple[str, str] | None
) -> None:
    credential = provider.credential(headers)
    assert (credential.kind, credential.header) == (kind, header)


AZURE = OpenAIProvider("https://h/openai/v1", api_key="configured", key_header="api-key")
OAT = "sk-ant-oat01-of-ada"


@pytest.mark.parametrize(
    ("provider", "headers", "header"),
    [
        (AZURE, {}, ("api-key", "configured")),
        (AZURE, {"api-key": "own"}, ("api-key", "own")),
        (AZURE, {"authorization": "Bearer own"}, ("api-key", "own")),
        (AZURE, {"api-key": "aib_1"}, ("api-key", "configured")),
        (OPENAI, {"api-key": "own"}, ("Authorization", "Bearer sk-configured")),
        (AnthropicProvider("https://h", key_header="Authorization"), {"x-api-key": "k"}, ("Authorization", "Bearer k")),
    ],
)
def test_a_key_travels_in_the_header_that_the_provider_takes(
    provider: Provider, headers: dict[str, str], header: tuple[str, str]
) -> None:
    assert provider.credential(headers).header == header


@pytest.mark.parametrize(
    ("provider", "headers", "subscription", "secret"),
    [
        (ANTHROPIC, {"authorization": f"Bearer {OAT}"}, "claude", OAT),
        (OPENAI, {"authorization": f"Bearer {OAT}"}, None, "sk-configured"),
        (COPILOT, {"authorization": f"Bearer {OAT}"}, None, ""),
        (OPENAI, {"authorization": "Bearer ey.own", "chatgpt-account-id": "1"}, "chatgpt", "ey.own"),
        (ANTHROPIC, {"authorization": "Bearer ey.own", "chatgpt-account-id": "1"}, None, "sk-ant-configured"),
        (COPILOT, {"authorization": "Bearer ghu_own"}, "copilot", "ghu_own"),
        (OPENAI, {"authorization": "Bearer gho_own"}, None, "sk-configured"),
        (ANTHROPIC, {"x-api-key": "sk-ant-api03-own"}, None, "sk-ant-api03-own"),
    ],
)
def test_a_subscriptions_credential_is_for_its_own_provider(
    provider: Provider, headers: dict[str, str], subscription: str | None, secret: str
) -> None:
    credential = provider.credential(headers)
    assert (credential.subscription, credential.secret) == (subscription, secret)


def test_several_keys_are_several_credentials() -> None:
    several = AnthropicProvider("https://h", api_keys=["a", "b", "a"])
    assert [credential.header for credential in several.credentials] == [("X-Api-Key", "a"), ("X-Api-Key", "b")]
    assert several.credential({}) is several.credentials[0]
    with pytest.raises(ValueError, match="has both an api_key and api_keys"):
        AnthropicProvider("https://h", api_key="a", api_keys=["b"])


def test_a_credential_is_no_header_among_others() -> None:
    with pytest.raises(ValueError, match="the header 'x-api-key' of provider 'openai' holds a credential"):
        OpenAIProvider("https://h", headers={"X-Api-Key": "secret"})


@pytest.mark.parametrize(
    ("sent", "url"),
    [
        ("", "https://h/x?api-version=2&a=b%26"),
        ("beta=true", "https://h/x?beta=true&api-version=2&a=b%26"),
        ("api-version=1&c=", "https://h/x?c=&api-version=2&a=b%26"),
    ],
)
def test_a_query_of_the_settings_stands_in_place_of_the_clients(sent: str, url: str) -> None:
    provider = OpenAIProvider("https://h/v1", query={"api-version": "2", "a": "b&"})
    assert provider.with_query("https://h/x", sent) == url
    assert OPENAI.with_query("https://h/x", "a=%zz&&") == "https://h/x?a=%zz&&"


@pytest.mark.parametrize("provider_type", [AnthropicProvider, OpenAIProvider])
def test_where_clients_may_not_bring_keys_theirs_are_dropped(provider_type: type[Provider]) -> None:
    headers = {"x-api-key": "own", "authorization": "Bearer own"}
    assert provider_type("https://h", api_key="configured", byok=False).credential(headers).secret == "configured"
    assert provider_type("https://h", byok=False).credential(headers).header is None


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        ("sk-a0123456789abcdefwxyz", "sk-a...wxyz"),
        ("0123456789abcdefghij", "0123...ghij"),
        ("0123456789abcdefghi", "01...hi"),
        ("0123456789", "01...89"),
        ("012345678", "0...8"),
        ("01234", "0...4"),
        ("0123", "..."),
        ("", ""),
    ],
)
def test_of_a_secret_little_is_told(secret: str, hint: str) -> None:
    assert masked(secret) == hint


def test_no_secret_shows_where_an_object_is_printed() -> None:
    credential = OPENAI.credential({})
    assert credential.hint == "sk...ed"
    assert "configured" not in f"{OPENAI!r} {ANTHROPIC!r} {credential!r}"


@pytest.mark.parametrize("name", ["Anthropic", "a_b", "-a", "a--b", "a/b", "a\n", "ä"])
def test_a_name_that_is_no_prefix_of_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not match"):
        AnthropicProvider("https://h", name=name)


@pytest.mark.parametrize(
    "base_url", ["", "h", "api.anthropic.com/v1", "ftp://h", "https://", "https:///v1", "https://h?a=b", "https://h#a"]
)
def test_a_base_url_that_leads_nowhere_is_refused_without_being_quoted(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"the base URL of provider 'openai' is not of the form http\(s\)://host"):
        OpenAIProvider(base_url)


def test_a_provider_is_named_after_its_type_where_nothing_else_is_said() -> None:
    assert COPILOT.name == "copilot"
    assert AnthropicProvider("https://h", name="team-2").name == "team-2"
