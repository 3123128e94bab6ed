"""GitHub Copilot."""

from __future__ import annotations

from collections.abc import Mapping

from aibridge.providers.credential import NO_CREDENTIAL, Credential, own_bearer
from aibridge.providers.provider import Provider
from aibridge.wire.chat_completions import ChatCompletions
from aibridge.wire.responses import Responses


class CopilotProvider(Provider):
    """Copilot's API: OpenAI's dialects without a version in the path, and always the user's own token."""

    type = "copilot"
    bridged = {"/chat/completions": ChatCompletions(), "/responses": Responses()}
    passthrough = ("/models", "/models/*", "/agents/*", "/mcp/*", "/.well-known/*")

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The client's token; the gateway has none of its own."""
        token = own_bearer(headers)
        return Credential("byok", token, self.key_header(token)) if token else NO_CREDENTIAL
