"""Who is upstream: their routes, addresses, credentials and headers."""

from aibridge.providers.anthropic import AnthropicProvider
from aibridge.providers.bedrock import BedrockProvider
from aibridge.providers.copilot import CopilotProvider
from aibridge.providers.credential import Credential
from aibridge.providers.interpreter import Incoming, Interpreter, Outgoing
from aibridge.providers.model_route import ModelRoute
from aibridge.providers.openai import OpenAIProvider
from aibridge.providers.provider import Provider

__all__ = [
    "AnthropicProvider",
    "BedrockProvider",
    "CopilotProvider",
    "Credential",
    "Incoming",
    "Interpreter",
    "ModelRoute",
    "OpenAIProvider",
    "Outgoing",
    "Provider",
]
