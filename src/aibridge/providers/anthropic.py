"""Anthropic.

Source: https://platform.claude.com/docs/en/api/overview.
"""

from __future__ import annotations

from collections.abc import Mapping

from aibridge.providers.credential import BEARER, Credential, own_bearer, own_key
from aibridge.providers.provider import Provider
from aibridge.providers.subscriptions import CLAUDE
from aibridge.wire.messages import Messages


class AnthropicProvider(Provider):
    """Anthropic's API, or another that speaks Messages. The base URL carries no version."""

    type = "anthropic"
    bridged = {"/v1/messages": Messages()}
    passthrough = ("/v1/models", "/v1/models/*", "/v1/messages/count_tokens", "/api/event_logging/*")
    probes = frozenset({"", "/", "/api/hello"})  # Claude Code asks so when it starts
    key_header_name = "X-Api-Key"
    subscriptions = frozenset({CLAUDE})

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The client's key, else its token, else the gateway's key: clients send both at once, often the same one."""
        own = None
        if self.byok:
            own = self.own(own_key(headers, "x-api-key"), headers) or self.own(own_bearer(headers), headers, BEARER)
        return own or self.key_credential()
