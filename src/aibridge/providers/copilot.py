"""GitHub Copilot."""

from __future__ import annotations

from collections.abc import Mapping

from aibridge.providers.credential import NO_CREDENTIAL, Credential, own_bearer
from aibridge.providers.provider import Provider
from aibridge.providers.subscriptions import COPILOT
from aibridge.wire.chat_completions import ChatCompletions
from aibridge.wire.responses import Responses


class CopilotProvider(Provider):
    """Copilot's API: OpenAI's dialects without a version in the path, and always the user's own token."""

    type = "copilot"
    subscriptions = frozenset({COPILOT})
    bridged = {"/chat/completions": ChatCompletions(), "/responses": Responses()}
    passthrough = ("/models", "/models/*", "/agents/*", "/mcp/*", "/.well-known/*")

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The client's token; the gateway has none of its own."""
        return self.own(own_bearer(headers), headers) or NO_CREDENTIAL
