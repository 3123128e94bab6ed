"""OpenAI, and those who speak like it.

Source: https://platform.openai.com/docs/api-reference/introduction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aibridge.providers.credential import BEARER, Credential, own_bearer, own_key
from aibridge.providers.provider import Provider
from aibridge.providers.subscriptions import CHATGPT
from aibridge.wire.chat_completions import ChatCompletions
from aibridge.wire.responses import Responses


class OpenAIProvider(Provider):
    """OpenAI's API, or a compatible one. The base URL carries the version: `https://api.openai.com/v1`.

    `ask_for_usage=False` is for servers that refuse the option `stream_options`: a stream whose client does not ask for
    usage is then recorded without.
    """

    type = "openai"
    subscriptions = frozenset({CHATGPT})
    bridged = {"/v1/chat/completions": ChatCompletions(), "/v1/responses": Responses()}
    passthrough = (
        "/v1/models",
        "/v1/models/*",
        "/v1/responses/*",
        "/v1/conversations",
        "/v1/conversations/*",
    )

    def __init__(self, base_url: str, *, ask_for_usage: bool = True, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        if not ask_for_usage:
            self.bridged = {**self.bridged, "/v1/chat/completions": ChatCompletions(ask_for_usage=False)}

    def upstream_url(self, path: str) -> str:
        """Where a path below the prefix is found upstream: the version is that of the base URL."""
        return self.base_url + path.removeprefix("/v1")

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The client's token, or its key in the header that this provider takes keys in, else the gateway's key."""
        own = None
        if self.byok:
            own = self.own(own_bearer(headers), headers)
            if own is None and self.key_header_name != BEARER:
                own = self.own(own_key(headers, self.key_header_name.lower()), headers)
        return own or self.key_credential()
