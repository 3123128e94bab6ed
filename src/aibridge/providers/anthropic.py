"""Anthropic.

Source: https://platform.claude.com/docs/en/api/overview.
"""

from __future__ import annotations

from collections.abc import Mapping

from aibridge.providers.credential import Credential, own_api_key, own_bearer
from aibridge.providers.provider import Provider
from aibridge.wire.messages import Messages


class AnthropicProvider(Provider):
    """Anthropic's API, or another that speaks Messages. The base URL carries no version."""

    type = "anthropic"
    bridged = {"/v1/messages": Messages()}
    passthrough = ("/v1/models", "/v1/models/*", "/v1/messages/count_tokens", "/api/event_logging/*")
    probes = frozenset({"", "/", "/api/hello"})  # Claude Code asks so when it starts

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The client's key, else its token, else the gateway's key: clients send both at once, often the same one."""
        if self.byok and (key := own_api_key(headers)):
            return Credential("byok", key, self.key_header(key))
        if self.byok and (token := own_bearer(headers)):
            return Credential("byok", token, ("Authorization", f"Bearer {token}"))
        return self.key_credential()

    def key_header(self, key: str) -> tuple[str, str]:
        """Anthropic takes keys in a header of their own, and tokens in `Authorization`."""
        return ("X-Api-Key", key)
